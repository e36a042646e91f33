"""Reloads, targets that come and go, targets that die, slow clients: what a load loses meanwhile."""

from __future__ import annotations

import http.client
import json
import os
import resource
import signal
import socket
import threading
import time
from typing import Any

from bench.balancer import contenders
from bench.balancer.contenders import EMBEDDED, HAPROXY, HAPROXY_ENGINE, NFTABLES_ENGINE, Contender, Wish
from bench.balancer.load import while_running
from bench.balancer.place import BalancerPlace, place, until
from bench.figures import Figure, Result, Values
from bench.settings import Settings

TIMES = 50
CONNECTIONS = 32
SLOW = 2_000
THREE = ("10.2.1.2", "10.2.2.2", "10.2.3.2")
ENGINES = {"embedded": EMBEDDED, "haproxy": HAPROXY_ENGINE, "nftables": NFTABLES_ENGINE}


def ask(where: BalancerPlace, method: str, path: str, body: Any = None) -> Any:
    """The admin API. Raises RuntimeError for a refusal."""
    connection = _Unix(str(where.folder / "admin.sock"))
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        said = answer.read().decode()
    finally:
        connection.close()
    if answer.status >= 300:
        raise RuntimeError(f"{method} {path}: {answer.status} {said}")
    return json.loads(said) if said else None


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self._path)


def wish_of(engine: str, **more: Any) -> Wish:
    return Wish(protocol="tcp" if engine == "nftables" else "http", **more)


def changes(settings: Settings) -> Result:
    """Every engine, with connections kept and with a new one for each request."""
    times = 3 if settings.quick else TIMES
    failed: dict[str, list[float]] = {}
    details: list[Values] = []
    notes: list[str] = []
    for engine, who in ENGINES.items():
        for load, words in list(LOADS.items())[: 1 if settings.quick else 2]:
            result, took = _changed(settings, engine, who, times, words)
            failed.setdefault(engine, []).append(float(result["totals"]["failed"]))
            notes += [f"{engine}, {load}: {_told(row)}" for row in result["errors"]]
            details.append(_succeeded(f"{engine}, {load} connections: answered", result))
            details.append(Values(name=f"{engine}, {load}: a reload, until it is answered", unit="ms", values=took))
    return Result(
        name="balancer-changes",
        title="Balancer: reloads and changes of targets under load",
        how=f"{times} reloads of a file with another weight and another timeout, so that workers or HAProxy are "
        f"replaced, and {times} times a target added and removed, under {CONNECTIONS} kept connections at full pace, "
        "then under 1,000 new connections a second. Two other targets stay.",
        figures=[
            Figure(
                what=f"{times} reloads and {times} changes of targets under load, {engine}: failed requests",
                unit="requests",
                values=values,
                asked="<= 0",
                counts="max",
            )
            for engine, values in failed.items()
        ],
        details=details,
        notes=notes,
    )


LOADS = {
    "kept": ("-c", str(CONNECTIONS)),
    "new": ("--rate", "1kcps", "--close", "server"),
}


def _told(row: Any) -> str:
    return f"{row['count']} failed: {row['phase']} {row['errno'] or row['cause']}"


def _succeeded(name: str, result: Any) -> Values:
    return Values(name=name, unit="requests", values=[float(result["totals"]["succeeded"])])


def _changed(
    settings: Settings, engine: str, who: Contender, times: int, words: tuple[str, ...]
) -> tuple[Any, list[float]]:
    took: list[float] = []
    wish = wish_of(engine, servers=THREE[:2])
    with place(settings, who, wish, more_servers=1) as where:

        def act() -> None:
            for turn in range(times):
                (where.folder / "clb.toml").write_text(contenders.toml(engine, wish, where.folder, 11 + turn))
                began = time.perf_counter()
                ask(where, "POST", "/v1/reload", {})
                took.append((time.perf_counter() - began) * 1e3)
                target = f"{THREE[2]}:{wish.port}"
                ask(where, "POST", "/v1/pools/app/targets", {"addr": target, "weight": 10})
                time.sleep(0.05)
                ask(where, "DELETE", f"/v1/pools/app/targets/{target}")

        return while_running(where, act, *words), took


def failing(settings: Settings) -> Result:
    """A target dies, in two ways; HAProxy configured by hand beside the engines."""
    rounds = 1 if settings.quick else 3
    figures: list[Figure] = []
    details: list[Values] = []
    everybody = {**ENGINES, "HAProxy by hand": HAPROXY}
    if settings.quick:
        everybody = {"embedded": EMBEDDED}
    for how in ("killed", "blackholed"):
        for engine, who in everybody.items():
            found = [_fails(settings, engine, who, how) for _ in range(rounds)]
            figures += _lost(engine, how, found)
            details.append(_succeeded(f"{how}, {engine}: answered", found[-1][0]))
    return Result(
        name="balancer-failing",
        title="Balancer: targets that fail",
        how="One of two targets is killed (kill -9), or its host drops every packet, under "
        f"{CONNECTIONS} connections. Checks every second with a timeout of 0.5 s, out after two failures in a row; "
        "connect() waits 0.5 s, an answer 5 s; a GET is sent once more where nothing was answered. The kernel's "
        "forwarding cannot do that: new connections are lost until the target is out.",
        figures=figures,
        details=details,
    )


def _lost(engine: str, how: str, found: list[tuple[Any, float]]) -> list[Figure]:
    lost = [float(result["totals"]["failed"]) for result, _ in found]
    asked = f"<= {CONNECTIONS}" if engine in ("embedded", "haproxy") else ""
    what = f"a target {how} under load, {engine}: requests lost, {CONNECTIONS} in flight"
    figures = [Figure(what=what, unit="requests", values=lost, asked=asked, counts="max")]
    if engine in ENGINES:
        out = [seconds for _, seconds in found]
        figures.append(Figure(what="... out of rotation after", unit="s", values=out, asked="<= 3", counts="max"))
    return figures


def slow(settings: Settings) -> Result:
    """Clients that never finish their heads."""
    rounds = 1 if settings.quick else 3
    found = {"embedded": [_slow(settings, EMBEDDED) for _ in range(rounds)]}
    found["HAProxy"] = [_slow(settings, HAPROXY) for _ in range(rounds)]
    share = [
        one["totals"]["succeeded"] / max(1, one["totals"]["succeeded"] + one["totals"]["failed"])
        for one in found["embedded"]
    ]
    return Result(
        name="balancer-slow",
        title="Balancer: clients that dawdle",
        how=f"{SLOW:,} connections that send a byte of their head now and then, and a load of {CONNECTIONS} kept "
        "connections beside them.",
        figures=[
            Figure(what=f"{SLOW:,} slow heads: success of a normal load", unit="share", values=share, asked=">= 1")
        ],
        details=[
            Values(
                name=f"{name}: answered",
                unit="requests/s",
                values=[one["totals"]["succeeded_per_second"] for one in results],
            )
            for name, results in found.items()
        ],
    )


def _fails(settings: Settings, engine: str, who: Contender, how: str) -> tuple[Any, float]:
    """The load's result, and the seconds until the target was out of rotation."""
    base = engine if engine in ENGINES else "embedded"
    wish = wish_of(base, servers=THREE[:2], health=True)
    out: list[float] = []
    with place(settings, who, wish) as where:

        def act() -> None:
            began = time.monotonic()
            if how == "killed":
                where.expected_deaths += 1
                os.kill(where.nginx[0].pid, signal.SIGKILL)
            else:
                where.servers[0].run(["nft", "-f", "-"], input=_BLACKHOLE)
            if engine in ENGINES:
                address = f"{THREE[0]}:{wish.port}"
                until(lambda: _state(where, address) == "unhealthy", "the target is out of rotation")
            else:
                time.sleep(2.5)  # it has no API here that could be asked
            out.append(time.monotonic() - began)
            time.sleep(1.0 if how == "killed" else 6.0)  # what was in flight has its time to fail

        words = ("--close", "server") if base == "nftables" else ()
        result = while_running(where, act, "-c", str(CONNECTIONS), "--timeout", "7", *words)
    return result, out[0]


_BLACKHOLE = """table inet blackhole {
  chain input { type filter hook input priority 0; iifname "eth0" drop; }
}"""


def _state(where: BalancerPlace, address: str) -> str:
    rows = ask(where, "GET", "/v1/health")["targets"]
    return next(str(row["state"]) for row in rows if row["address"] == address)


def _slow(settings: Settings, who: Contender) -> Any:
    with place(settings, who) as where:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        held: list[socket.socket] = []
        for _ in range(100 if settings.quick else SLOW):
            with where.client.entered():
                near = socket.create_connection((contenders.FRONT, 80), 10)
            near.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-")
            held.append(near)
        done = threading.Event()

        def dawdle() -> None:
            while not done.wait(0.1):
                for near in held[::20]:
                    near.send(b"a")

        thread = threading.Thread(target=dawdle)
        thread.start()
        try:
            return while_running(where, lambda: time.sleep(2 * settings.window), "-c", str(CONNECTIONS))
        finally:
            done.set()
            thread.join()
            for near in held:
                near.close()
