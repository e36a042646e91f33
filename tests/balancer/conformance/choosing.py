"""Scenes about which target a client gets, and what the target is told of the client."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kit.balanced import (
    FRONT,
    Balanced,
    Table,
    balanced,
    file_of,
    http_listener,
    listening,
    pool,
    server,
    tcp_listener,
    tell,
)
from kit.labs import wait_until
from kit.servers import EndedError, Peer, Server
from timewait.lab import add_address

SOURCES = [f"10.0.0.{n}" for n in range(11, 31)]


def routes(engine: str, rules: Sequence[tuple[str, str, str]], queries: Sequence[tuple[str, str]]) -> None:
    """`rules` of (domain, path, pool); for each query (host, path) the pool that answered, or status and Location."""
    names = sorted({name for _, _, name in rules})
    ports = {name: 8001 + n for n, name in enumerate(names)}
    written = [{"domain": domain, "path": path, "pool": name} for domain, path, name in rules]
    listener = {"name": "web", "bind": [f"{FRONT}:80"], "protocol": "http", "rule": written}
    pools = [pool(name, server(1, port)) for name, port in ports.items()]
    found = []
    with balanced(servers=1, serve=()) as here:
        for name, port in ports.items():
            here[1].serve(port, name.encode(), address="0.0.0.0")
        here.start(file_of(engine, [listener], pools))
        for host, path in queries:
            answer = here.ask(target=path, host=host)
            status = f"{answer.status} {answer.header('location')}".strip()
            found.append(answer.text if answer.status == 200 else status)
    tell(found=found)


def shares(engine: str, protocol: str, weights: Sequence[int], count: int, scheduler: str = "wrr") -> None:
    """How many of `count` requests, each on a connection of its own, each server answered; sources differ."""
    targets = [{"addr": server(n), "weight": weight} for n, weight in enumerate(weights, 1)]
    pools = [pool("app", *targets, scheduler=scheduler)]
    with balanced(file_of(engine, [_listener(protocol)], pools), servers=len(weights)) as here:
        found: dict[str, list[int]] = {}
        for host in here.servers:
            found[host.name] = [0] * len(SOURCES)
        _add_sources(here)
        for number in range(count):
            place = number % len(SOURCES)
            found[here.ask(source=SOURCES[place]).text][place] += 1
    tell(**found)


def _listener(protocol: str, port: int = 80) -> Table:
    return http_listener(port, "app") if protocol == "http" else tcp_listener(port, "app")


def _add_sources(here: Balanced) -> None:
    with here.client.entered():
        for source in SOURCES:
            add_address("eth0", f"{source}/24")


def least_connections(engine: str, protocol: str, weights: Sequence[int], count: int) -> None:
    """How many of `count` requests that are never answered each server holds at last."""
    targets = [{"addr": server(n), "weight": weight} for n, weight in enumerate(weights, 1)]
    text = file_of(engine, [_listener(protocol)], [pool("app", *targets, scheduler="least_conn")], workers=1)
    with balanced(servers=len(weights), serve=()) as here:
        servers = [Server(_stalls, listener=listening(host, 80)).__enter__() for host in here.servers]
        here.start(text)
        talks = []
        before = sum(one.accepted for one in servers)
        for number in range(1, count + 1):
            talks.append(here.connect())
            talks[-1].send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_until(
                lambda number=number: sum(one.accepted for one in servers) == before + number,  # type: ignore[misc]
                "the request has reached its target",
            )
        held = [sum(1 for _ in one._open) for one in servers]
        for talk in talks:
            talk.reset()
        for one in servers:
            one.__exit__(None, None, None)
    tell(held=held)


def _stalls(peer: Peer) -> None:
    while True:
        peer.receive()


def persists(engine: str, protocol: str) -> None:
    """Session by source address: how many servers each source met in four connections, and how many in all."""
    pools = [pool("app", server(1), server(2), session={"type": "source_ip", "ttl": "30s"})]
    with balanced(file_of(engine, [_listener(protocol)], pools)) as here:
        _add_sources(here)
        met: dict[str, set[str]] = {source: set() for source in SOURCES}
        for _ in range(4):
            for source in SOURCES:
                met[source].add(here.ask(source=source).text)
    tell(each=[len(names) for names in met.values()], all=sorted(set().union(*met.values())))


def cookie(engine: str) -> None:
    """Session by inserted cookie: where its bearers go, and what a client without or with a made-up one gets."""
    session = {"type": "cookie_insert", "cookie": "STICKY"}
    pools = [pool("app", server(1), server(2), session=session)]
    with balanced(file_of(engine, [http_listener(80, "app")], pools)) as here:
        first = [here.ask() for _ in range(8)]
        given = [answer.header("set-cookie") for answer in first]
        values = [re.match(r"STICKY=([^;]+)", one) for one in given]
        again = []
        for answer, value in zip(first, values, strict=True):
            assert value, given
            back = here.ask(headers=f"Cookie: a=b; STICKY={value[1]}; c=d\r\n")
            again.append((back.text == answer.text, back.header("set-cookie")))
        wrong = here.ask(headers="Cookie: STICKY=nonsense\r\n")
        leaks = any(address in one for one in given for address in ("10.2.1.2", "10.2.2.2", "server"))
        tell(
            servers=sorted({answer.text for answer in first}),
            same=all(same for same, _ in again),
            set_again=any(cookie for _, cookie in again),
            wrong=wrong.status,
            wrong_gets_one=bool(wrong.header("set-cookie")),
            leaks=leaks,
        )


def _echo(peer: Peer) -> None:
    """Answers every request with all that came before the end of its head, a PROXY header included, as hex."""
    pending = b""
    while True:
        while b"\r\n\r\n" not in pending.replace(b"\r\n\r\n\x00\r\nQUIT\n", b""):  # the signature of version 2
            pending += peer.receive()
        body = pending.hex().encode()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        pending = b""
        peer.server.count_request()


def told_to_target(engine: str, listener: dict[str, object], before: str = "", headers: str = "") -> None:
    """What arrives at the target of one request, as hex, and from which address; `before` (hex) is sent first."""
    seen: list[str] = []

    def behaviour(peer: Peer) -> None:
        seen.append(peer.sock.getpeername()[0])
        _echo(peer)

    whole = {"bind": [f"{FRONT}:80"], "name": "web", **listener}
    key, value = ("pool", "app") if whole["protocol"] == "tcp" else ("rule", [{"pool": "app"}])
    nat = {"nat": "dnat" if engine == "nftables" and "real_ip" in listener else "full"}
    text = file_of(engine, [{**whole, key: value}], [pool("app", server(1), **nat)])
    with balanced(servers=1, serve=()) as here, Server(behaviour, listener=listening(here[1], 80)):
        here.start(text)
        talk = here.connect()
        port = talk.socket.getsockname()[1]
        if before:
            talk.send(bytes.fromhex(before))
        try:
            answer = talk.request(headers=headers)
            raw = bytes.fromhex(answer.text)
        except (EOFError, OSError, EndedError) as error:
            tell(error=type(error).__name__)
            return
        finally:
            talk.reset()
        tell(raw=raw.hex(), source=seen[-1], port=port, **nat)
