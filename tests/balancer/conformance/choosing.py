"""Which target a client gets, and what that is told of the client: one balancer with a listener for each question.

Servers answer at port 80 with their name, from NAMED on with that of a pool, at STALLS never, at ECHOES with all they
got.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from kit.balanced import FRONT, Balanced, Table, balanced, file_of, listening, pool, server, tell
from kit.labs import wait_until
from kit.servers import Peer, Server
from timewait.lab import add_address

SOURCES = [f"10.0.0.{n}" for n in range(11, 31)]
STALLS, ECHOES, NAMED = 90, 91, 8001
NEAR = ["10.0.0.0/24"]
CLAIM = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n"
FROM_OUTSIDE = b"PROXY TCP4 192.0.2.9 192.0.2.1 4711 80\r\n"


class Part(NamedTuple):
    """A question: what its listener and pool say beside their names, and what is asked at the listener's port."""

    protocol: str
    pool: Table
    ask: Callable[[Stage, int], Any]
    listener: Table = {}
    rules: Sequence[tuple[str, str, str]] = ()  # domain, path, name of the server that answers


class Stage(NamedTuple):
    here: Balanced
    stalling: Sequence[Server]
    peers: Sequence[str]  # addresses the echoing server saw, in order


def weighted(*weights: int, port: int = 80, **more: Any) -> Table:
    targets = [{"addr": server(n, port), "weight": weight} for n, weight in enumerate(weights, 1)]
    return pool("", *targets, **more)


# --- questions ----------------------------------------------------------------------------------------------------


def shares(stage: Stage, port: int, count: int) -> dict[str, list[int]]:
    """How many of `count` requests each server answered, by the client's source address, which changes each time."""
    found = {host.name: [0] * len(SOURCES) for host in stage.here.servers}
    for number in range(count):
        place = number % len(SOURCES)
        found[stage.here.ask(port, source=SOURCES[place]).text][place] += 1
    return found


def held(stage: Stage, port: int) -> list[int]:
    """Eight requests that are never answered, one after the other: how many each server holds at last."""
    before = [one.accepted for one in stage.stalling]
    talks = []
    for number in range(1, 9):
        talks.append(stage.here.connect(port))
        talks[-1].send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(
            lambda number=number: sum(one.accepted for one in stage.stalling) == sum(before) + number,  # type: ignore[misc]
            "the request has reached its target",
        )
    for talk in talks:
        talk.reset()
    return [one.accepted - first for one, first in zip(stage.stalling, before, strict=True)]


def answers(stage: Stage, port: int, queries: Sequence[tuple[str, str]]) -> list[str]:
    """For each (host, path) who answered, or status and Location."""
    found = []
    for host, path in queries:
        answer = stage.here.ask(port, target=path, host=host)
        found.append(answer.text if answer.status == 200 else f"{answer.status} {answer.header('location')}".strip())
    return found


def cookies(stage: Stage, port: int) -> Any:
    """Where bearers of an inserted cookie go, and what a client without or with a made-up one gets."""
    first = [stage.here.ask(port) for _ in range(8)]
    given = [answer.header("set-cookie") for answer in first]
    again = []
    for answer, told in zip(first, given, strict=True):
        value = re.match(r"STICKY=([^;]+)", told)
        assert value, given
        back = stage.here.ask(port, headers=f"Cookie: a=b; STICKY={value[1]}; c=d\r\n")
        again.append((back.text == answer.text, back.header("set-cookie")))
    wrong = stage.here.ask(port, headers="Cookie: STICKY=nonsense\r\n")
    return {
        "servers": sorted({answer.text for answer in first}),
        "same": all(same for same, _ in again),
        "set_again": any(cookie for _, cookie in again),
        "wrong": wrong.status,
        "wrong_gets_one": bool(wrong.header("set-cookie")),
        "leaks": any(address in one for one in given for address in ("10.2.", "server")),
    }


def told(stage: Stage, port: int, before: bytes = b"", headers: str = "") -> Any:
    """What arrived at the target of one request, as hex, from which address; and the client's port."""
    talk = stage.here.connect(port)
    own = talk.socket.getsockname()[1]
    if before:
        talk.send(before)
    answer = talk.request(headers=headers)
    talk.reset()
    return {"raw": answer.text, "source": stage.peers[-1], "port": own}


# --- what is asked of each engine ---------------------------------------------------------------------------------


def parts(engine: str, rules: Sequence[tuple[str, str, str]], queries: Sequence[tuple[str, str]]) -> dict[str, Part]:
    protocols = ("tcp",) if engine == "nftables" else ("http", "tcp")
    found = {
        f"weights {protocol}": Part(protocol, weighted(30, 10, 0), lambda stage, port: shares(stage, port, 160))
        for protocol in protocols
    }
    usual = protocols[0]
    by_hash = weighted(10, 10, scheduler="ip_hash")
    by_source = weighted(10, 10, session={"type": "source_ip", "ttl": "30s"})
    found["hash"] = Part(usual, by_hash, lambda stage, port: shares(stage, port, 60))
    found["source"] = Part(usual, by_source, lambda stage, port: shares(stage, port, 80))
    if engine == "nftables":
        found["full"] = Part("tcp", weighted(10, port=ECHOES), told)
        transparent = {"real_ip": {"mode": "transparent"}}
        found["transparent"] = Part("tcp", weighted(10, port=ECHOES, nat="dnat"), told, transparent)
        return found
    found["routes"] = Part("http", {}, lambda stage, port: answers(stage, port, queries), rules=rules)
    by_cookie = weighted(10, 10, session={"type": "cookie_insert", "cookie": "STICKY"})
    found["cookie"] = Part("http", by_cookie, cookies)
    for protocol in protocols if engine == "embedded" else ("http",):
        least = weighted(30, 10, port=STALLS, scheduler="least_conn")
        found[f"least {protocol}"] = Part(protocol, least, held)
    return found | _real_ip(protocols)


def _real_ip(protocols: Sequence[str]) -> dict[str, Part]:
    def claims(stage: Stage, port: int) -> Any:
        return told(stage, port, headers=CLAIM)

    def from_outside(stage: Stage, port: int) -> Any:
        return told(stage, port, before=FROM_OUTSIDE)

    echoing = weighted(10, port=ECHOES)
    found = {
        "stranger": Part("http", echoing, claims),
        "friend": Part("http", echoing, claims, {"real_ip": {"trusted": NEAR}}),
        "accept": Part("http", echoing, from_outside, {"real_ip": {"accept_proxy": True, "trusted": NEAR}}),
    }
    for protocol in protocols:
        for version in ("v1", "v2"):
            listener = {"real_ip": {"mode": f"proxy_{version}"}}
            found[f"proxy {version} {protocol}"] = Part(protocol, echoing, told, listener)
    return found


# --- the scene ----------------------------------------------------------------------------------------------------


def everything(engine: str, rules: Sequence[tuple[str, str, str]], queries: Sequence[tuple[str, str]]) -> None:
    """Asks all of it of one balancer, which has one worker: so that what it does in turn is seen as one turn."""
    wished = parts(engine, rules, queries)
    names = sorted({name for _, _, name in rules})
    ports = {name: 100 + n for n, name in enumerate(wished)}
    listeners, pools = [], [pool(name, server(1, NAMED + n)) for n, name in enumerate(names)]
    for name, part in wished.items():
        listeners.append(_listener(f"p{ports[name]}", ports[name], part))
        if not part.rules:
            pools.append({**part.pool, "name": f"p{ports[name]}"})
    with balanced(servers=3) as here, ExitStack() as stack:
        peers: list[str] = []
        stage = Stage(here, _stalling(here, stack), peers)
        stack.enter_context(Server(_echo(peers), listener=listening(here[1], ECHOES)))
        for n, name in enumerate(names):
            here[1].serve(NAMED + n, name.encode(), address="0.0.0.0")
        with here.client.entered():
            for source in SOURCES:
                add_address("eth0", f"{source}/24")
        here.start(file_of(engine, listeners, pools, workers=1))
        tell(**{name: part.ask(stage, ports[name]) for name, part in wished.items()})


def _listener(name: str, port: int, part: Part) -> Mapping[str, Any]:
    written: dict[str, Any] = {"name": name, "bind": [f"{FRONT}:{port}"], "protocol": part.protocol, **part.listener}
    if part.rules:
        written["rule"] = [{"domain": domain, "path": path, "pool": name} for domain, path, name in part.rules]
    elif part.protocol == "http":
        written["rule"] = [{"pool": name}]
    else:
        written["pool"] = name
    return written


def _stalling(here: Balanced, stack: ExitStack) -> list[Server]:
    return [
        stack.enter_context(Server(_stalls, listener=listening(here[number], STALLS))) for number in (1, 2)
    ]  # fmt: skip


def _stalls(peer: Peer) -> None:
    while True:
        peer.receive()


def _echo(peers: list[str]) -> Callable[[Peer], None]:
    """Answers every request with all that came before the end of its head, a PROXY header included, as hex."""

    def behaviour(peer: Peer) -> None:
        peers.append(peer.sock.getpeername()[0])
        pending = b""
        while True:
            while b"\r\n\r\n" not in pending.replace(b"\r\n\r\n\x00\r\nQUIT\n", b""):  # the signature of version 2
                pending += peer.receive()
            body = pending.hex().encode()
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            pending = b""

    return behaviour
