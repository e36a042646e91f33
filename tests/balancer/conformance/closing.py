"""Scenes about who closes first, and whose TIME_WAIT that makes: counted by sock_diag in every namespace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

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


# Only where the balancer is to lose patience may it do so: a client on a busy machine is slow.
_HURRIED = {"keepalive": "300ms"}
_PATIENT: dict[str, dict[str, str]] = {"peer": {"close_wait": "30s"}}


def toward_clients(engine: str, policies: Sequence[str]) -> None:
    """TIME_WAIT [at the client, at the balancer] of MANY connections, by policy and ending."""
    hurried = {policy: 81 + n for n, policy in enumerate(policies)}
    patient = {policy: 91 + n for n, policy in enumerate(policies)}
    listeners = [
        *(http_listener(port, "app", client={"close": how, **_HURRIED}) for how, port in hurried.items()),
        *(
            http_listener(port, "app", client={"close": how, **_PATIENT.get(how, {})})
            for how, port in patient.items()
        ),
    ]
    found: dict[str, dict[str, tuple[int, int]]] = {}
    with balanced(file_of(engine, listeners, [pool("app", server(1))], workers=1)) as here:
        for policy in policies:
            found[policy] = {}
            for name, ending in ENDINGS.items():
                port = (hurried if name == "idle" else patient)[policy]
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


def toward_targets(engine: str, sized: Sequence[str], unsized: Sequence[str]) -> None:
    """TIME_WAIT [at the balancer, at the target] of MANY requests: `each` with a connection for every request, `kept`
    of one connection that idled out. By policy, of targets whose answers have a length, and of those that end them by
    closing."""
    wished = {f"{policy} {kind}": port for port, (policy, kind) in enumerate(_kinds(sized), 81)}
    plain = {f"{policy} {kind}, no length": port for port, (policy, kind) in enumerate(_kinds(unsized), 101)}
    listeners, pools = [], []
    for name, port in {**wished, **plain}.items():
        policy, kind = name.split(",")[0].split()
        upstream = {"close": policy, "keepalive": kind == "kept", "reuse": "always", "idle": "2s"}
        listeners.append(http_listener(port, f"app-{port}", upstream=upstream))
        pools.append(pool(f"app-{port}", server(1, port)))
    with balanced(servers=1, serve=()) as here:
        for port in (*wished.values(), *plain.values()):
            here[1].serve(port, b"server\n", address="0.0.0.0", sized=port in wished.values())
        here.start(file_of(engine, listeners, pools, workers=1))
        tell(**{name: _asked_of(here, port) for name, port in {**wished, **plain}.items()})


def _kinds(policies: Sequence[str]) -> list[tuple[str, str]]:
    """`peer` asks the target to close after each answer, so nothing is kept."""
    return [(policy, kind) for policy in policies for kind in ("each", "kept") if (policy, kind) != ("peer", "kept")]


def _asked_of(here: Balanced, port: int) -> tuple[int, int]:
    for _ in range(MANY):
        talk = here.connect(port)
        talk.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert talk.ended() == "fin"
        talk.reset()
    wait_until(lambda: not _established(here, port), "no connection to the target is left")
    return _back(here, port)


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
            wait_until(lambda: not _established(here, 80), "nothing is left open toward the server")
            after = (*_front(here, 80), *_back(here, 80))
            found[name] = tuple(b - a for a, b in zip(before, after, strict=True))

        for name, end in _AT_LAYER_4.items():
            counted(name, end)
    tell(**found)


PORTS = 150  # of the client; 450 connections need three times as many
REUSE = {"net.ipv4.tcp_tw_reuse": "1"}
_WAITS = ("--close-timeout", "20s")  # for the balancer's FIN


def promises(engine: str, protocol: str) -> None:
    """Both of CLB's. With `Connection: close` the client holds no TIME_WAIT, and its ports never run out; without
    timestamps its tcp_tw_reuse is void, so that a client that closes first hits the wall."""
    listener = http_listener if protocol == "http" else tcp_listener
    ports = {"keep": 80, "strip": 81}
    listeners = [listener(port, "app", timestamps=choice) for choice, port in ports.items()]
    topology = proxy(1).changed("client", sysctls=REUSE, ports=(20_000, 20_000 + PORTS - 1))
    with balanced(file_of(engine, listeners, [pool("app", server(1))]), topology=topology) as here:
        closes = here.load("--close", "server", "-n", str(3 * PORTS), "-c", "16", *_WAITS).result()
        kept_nothing = {
            "client": here.settled(here.client),
            "balancer": here.settled(here.balancer, at=f"{FRONT}:80"),
            "toward_target": here.settled(here.balancer, to=server(1)),
        }
        # A port comes back after 3 s; tcp_tw_reuse demands one, and a busy machine starts connections late.
        words = ("--close", "client", "--rate", "50cps", "-d", "5")
        loads = {choice: here.load(*words, port=port) for choice, port in ports.items()}
        results = {choice: load.result() for choice, load in loads.items()}
        tell(closes=_of(closes), time_wait=kept_nothing, **{name: _of(result) for name, result in results.items()})


def _of(result: Any) -> Any:
    totals = result["totals"]
    causes = [row["cause"] for row in result["errors"]]
    return {
        **{name: totals[name] for name in ("succeeded", "failed")},
        "causes": causes,
        "ends": result["closed_first"],
    }
