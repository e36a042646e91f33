"""Scenes about who closes first, and whose TIME_WAIT that makes: counted by sock_diag in every namespace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from kit.balanced import (
    FRONT,
    Balanced,
    Conversation,
    balanced,
    file_of,
    http_listener,
    pool,
    server,
    tcp_listener,
    tell,
)
from kit.labs import wait_until
from timewait.lab.topologies import proxy

MANY = 8
CLOSE = "Connection: close\r\n"


class Ending(NamedTuple):
    """How a connection is used and ended: by the client, or by the balancer as its policy says."""

    asks: Callable[[Conversation], object]
    by_client: bool = False
    told: bool = True  # the client knows from the answer that the connection is to be ended


ENDINGS = {
    "close": Ending(lambda talk: talk.request(headers=CLOSE)),
    "http/1.0": Ending(lambda talk: talk.request(version="1.0")),
    "client first": Ending(lambda talk: talk.request(), by_client=True),
    "idle": Ending(lambda talk: talk.request(), told=False),
}


def _ended(talk: Conversation, ending: Ending, policy: str) -> None:
    if not ending.by_client and (policy != "peer" or not ending.told):
        assert talk.ended() == "fin"
    if not ending.by_client and policy == "fin-rst":
        talk.reset_after_fin()
    talk.close()


_PATIENT = {"peer": {"close_wait": "2s"}}


def toward_clients(engine: str, policies: Sequence[str]) -> None:
    """TIME_WAIT [at the client, at the balancer] of MANY connections, by policy and ending."""
    ports = {policy: 81 + n for n, policy in enumerate(policies)}
    listeners = [
        http_listener(port, "app", client={"close": policy, "keepalive": "300ms", **_PATIENT.get(policy, {})})
        for policy, port in ports.items()
    ]
    found: dict[str, dict[str, tuple[int, int]]] = {}
    with balanced(file_of(engine, listeners, [pool("app", server(1))], workers=1)) as here:
        for policy, port in ports.items():
            found[policy] = {}
            for name, ending in ENDINGS.items():
                before = _front(here, port)
                talks = [here.connect(port) for _ in range(MANY)]
                for talk in talks:
                    ending.asks(talk)
                for talk in talks:
                    _ended(talk, ending, policy)
                after = _front(here, port)
                found[policy][name] = (after[0] - before[0], after[1] - before[1])
    tell(**found)


def _front(here: Balanced, port: int) -> tuple[int, int]:
    address = f"{FRONT}:{port}"
    return here.settled(here.client, to=address), here.settled(here.balancer, at=address)


def _back(here: Balanced, port: int) -> tuple[int, int]:
    address = server(1, port)
    return here.settled(here.balancer, to=address), here.settled(here[1], at=address)


def toward_targets(engine: str, policies: Sequence[str], *, sized: bool) -> None:
    """TIME_WAIT [at the balancer, at the target] of MANY requests, by policy: `each` with a connection for every
    request, `kept` of one connection that idled out."""
    ports = {policy: (81 + 2 * n, 82 + 2 * n) for n, policy in enumerate(policies)}
    listeners, pools = [], []
    for policy, (each, kept) in ports.items():
        for port, keepalive in ((each, False), (kept, True))[: _kinds(policy)]:
            upstream = {"close": policy, "keepalive": keepalive, "reuse": "always", "idle": "300ms"}
            listeners.append(http_listener(port, f"app-{port}", upstream=upstream))
            pools.append(pool(f"app-{port}", server(1, port)))
    every = [port for policy, pair in ports.items() for port in pair[: _kinds(policy)]]
    found: dict[str, dict[str, tuple[int, int]]] = {}
    with balanced(servers=1, serve=()) as here:
        for port in every:
            here[1].serve(port, b"server\n", address="0.0.0.0", sized=sized)
        here.start(file_of(engine, listeners, pools, workers=1))
        for policy, (each, kept) in ports.items():
            found[policy] = {}
            for name, port in (("each", each), ("kept", kept))[: _kinds(policy)]:
                for _ in range(MANY):
                    talk = here.connect(port)
                    talk.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    assert talk.ended() == "fin"
                    talk.reset()
                if name == "kept":
                    wait_until(lambda port=port: not _established(here, port), "the pool is empty")  # type: ignore[misc]
                found[policy][name] = _back(here, port)
    tell(**found)


def _kinds(policy: str) -> int:
    """`peer` asks the target to close after each answer, so nothing is kept."""
    return 1 if policy == "peer" else 2


def _established(here: Balanced, port: int) -> bool:
    return bool(here.balancer.run(["ss", "-Htn", "state", "established", "dport", "=", f":{port}"]).strip())


def _client_closes(talk: Conversation) -> None:
    talk.request()
    talk.close()


def _server_closes(talk: Conversation) -> None:
    talk.request(headers=CLOSE)
    assert talk.ended() == "fin"
    talk.close()


def _client_resets(talk: Conversation) -> None:
    talk.request()
    talk.reset()


_AT_LAYER_4 = {"client": _client_closes, "server": _server_closes, "reset": _client_resets}


def at_layer_4(engine: str, upstream: str) -> None:
    """TIME_WAIT [client, balancer's front, balancer's back, server] where each end closes first; and a reset."""
    listener = tcp_listener(80, "app", **({"upstream": {"close": upstream}} if upstream else {}))
    found: dict[str, tuple[int, ...]] = {}
    with balanced(file_of(engine, [listener], [pool("app", server(1))], workers=1), servers=1) as here:

        def counted(name: str, end: Callable[[Conversation], None]) -> None:
            before = (*_front(here, 80), *_back(here, 80))
            for talk in [here.connect() for _ in range(MANY)]:
                end(talk)
            after = (*_front(here, 80), *_back(here, 80))
            found[name] = tuple(b - a for a, b in zip(before, after, strict=True))

        for name, end in _AT_LAYER_4.items():
            counted(name, end)
        wait_until(lambda: not _established(here, 80), "nothing is left open toward the server")
    tell(**found)


PORTS = 150  # of the client; 450 connections need three times as many
NARROW = {"net.ipv4.tcp_tw_reuse": "0"}


def keeps_nothing(engine: str, protocol: str) -> None:
    """CLB's first promise: with `Connection: close` the client holds no TIME_WAIT, and its ports never run out."""
    listener = http_listener(80, "app") if protocol == "http" else tcp_listener(80, "app")
    topology = proxy(1).changed("client", sysctls=NARROW, ports=(20_000, 20_000 + PORTS - 1))
    text = file_of(engine, [listener], [pool("app", server(1))])
    with balanced(text, topology=topology) as here:
        result = here.load("--close", "server", "-n", "450", "-c", "16").result()
        tell(
            failed=result["totals"]["failed"],
            succeeded=result["totals"]["succeeded"],
            closed_first=result["closed_first"],
            client=here.settled(here.client),
            balancer=here.settled(here.balancer, at=f"{FRONT}:80"),
            toward_target=here.settled(here.balancer, to=server(1)),
        )


def strips(engine: str, protocol: str) -> None:
    """CLB's second: without timestamps a client's tcp_tw_reuse is void, so that one closing first hits the wall."""
    listener = http_listener if protocol == "http" else tcp_listener
    ports = {"keep": 80, "strip": 81}
    listeners = [listener(port, "app", timestamps=choice) for choice, port in ports.items()]
    # A port comes back after 1.5 s; tcp_tw_reuse demands one.
    sysctls = {"net.ipv4.tcp_tw_reuse": "1"}
    topology = proxy(1).changed("client", sysctls=sysctls, ports=(20_000, 20_000 + PORTS - 1))
    found = {}
    with balanced(file_of(engine, listeners, [pool("app", server(1))]), topology=topology) as here:
        loads = {
            choice: here.load("--close", "client", "--rate", "100cps", "-d", "2.7", port=port)
            for choice, port in ports.items()
        }
        for choice, load in loads.items():
            result = load.result()
            found[choice] = {name: result["totals"][name] for name in ("succeeded", "failed")}
            found[choice]["errors"] = result["errors"]
    tell(**found)
