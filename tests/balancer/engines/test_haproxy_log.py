"""HAProxy's access log: from its lines to the file, and what a real one writes."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import peers
from balancer.engines.test_haproxy_engine import play
from balancer.engines.test_haproxy_log_lines import REQUEST
from balancer.engines.texts import haproxy
from balancer.engines.web import Asking, Web
from timewait.balancer.config.read import configuration
from timewait.balancer.embedded.engine import EmbeddedEngine
from timewait.balancer.engine import BalancerError, DataPlane, Rotation
from timewait.balancer.haproxy.engine import HaproxyEngine
from timewait.balancer.haproxy.log import Log


def logged(path: Path, story: Callable[[Log], Awaitable[None]]) -> Log:
    """A log without a HAProxy."""

    async def whole() -> Log:
        file = haproxy(top=f'access_log = "{path}"')
        log = Log(configuration(file, "a.toml"), 1, lambda line: None)
        try:
            await story(log)
        finally:
            log.finish()
        return log

    return asyncio.run(whole())


def test_lines_that_do_not_come_whole_are_counted(tmp_path: Path) -> None:
    async def story(log: Log) -> None:
        end = os.dup(log.theirs)
        log.begin()
        data = (
            f"{REQUEST}\n{REQUEST[:50]}{REQUEST}/torn\nProxy web stopped.\n{REQUEST[:30]}\n{REQUEST}/last\n".encode()
        )
        for place in range(0, len(data), 100):
            os.write(end, data[place : place + 100])
            await asyncio.sleep(0)
        os.close(end)

    log = logged(tmp_path / "log", story)
    paths = [json.loads(line)["path"] for line in (tmp_path / "log").read_text().splitlines()]
    assert paths == ["/two?q=1", "/two?q=1/torn", "/two?q=1/last"]
    assert log.lost == 2


def test_a_full_disk_loses_lines_and_counts_them() -> None:
    async def story(log: Log) -> None:
        os.write(log.theirs, f"{REQUEST}\n".encode() * 3)
        log.begin()

    assert logged(Path("/dev/full"), story).lost == 3


FILE = """
engine = 'haproxy'
workers = 2
access_log = 'LOG'
[[listener]]
name = 'web'
bind = ['127.0.0.1:WEB']
rule = [{ pool = 'app', domain = 'a.test' }, { pool = 'dead' }]
limits = { request_line = '32k' }
real_ip = { trusted = ['127.0.0.0/8'] }
[[listener]]
name = 'only'
bind = ['127.0.0.1:ONLY']
rule = [{ pool = 'app', path = '/x', domain = 'b.test' }, { pool = 'app' }]
[[listener]]
name = 'tcp'
bind = ['127.0.0.1:TCP']
protocol = 'tcp'
pool = 'app'
[[pool]]
name = 'app'
target = [{ addr = 'TARGET', weight = 10 }]
[[pool]]
name = 'dead'
target = [{ addr = '127.0.0.1:1', weight = 0 }]
"""
ODD = '/"\\{|}<%00>`^' + '"' * 100
LONG = "/" + '"' * 30000  # three bytes each in HAProxy's line
HOST = 'x"\\{|}\xff\x80 y'


def write(log: Path, ports: dict[str, int], server: Web) -> str:
    content = FILE
    for word, value in {"LOG": log, "TARGET": server.address, **ports}.items():
        content = content.replace(word, str(value))
    return content


def come(ports: dict[str, int]) -> None:
    """Four requests on one connection, one that is none, a stream, and somebody who says nothing."""
    with Asking(ports["WEB"]) as kept:
        assert [kept.ask(path, host="a.test")[0] for path in ("/one", ODD)] == [200, 200]
        assert kept.ask(LONG, "X-Forwarded-For: 9.9.9.9, 127.0.0.3", host="a.test")[0] == 200
        assert kept.ask("/none", host=HOST)[0] == 503
    with Asking(ports["ONLY"]) as asking:
        assert asking.ask("/x\ty")[0] == 400
    with Asking(ports["TCP"]) as asking:
        assert asking.ask("/stream")[0] == 200
    with socket.create_connection(("127.0.0.1", ports["WEB"])):
        pass


def ask(port: int) -> str:
    with Asking(port) as asking:
        return asking.ask(host="a.test")[2]


async def lines(log: Path, count: int) -> list[dict[str, Any]]:
    """All there are, once so many have come."""
    async with asyncio.timeout(60):
        while not log.exists() or log.read_bytes().count(b"\n") < count:
            await asyncio.sleep(0.02)
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_a_real_one_logs_and_goes_on_after_a_reload(free_port: Callable[..., int], tmp_path: Path) -> None:
    peers.needs("haproxy")
    log, old = tmp_path / "log", tmp_path / "yesterday"
    ports = {name: free_port() for name in ("WEB", "ONLY", "TCP")}

    async def story(engine: HaproxyEngine) -> None:
        with Asking(ports["WEB"]) as held:
            await asyncio.to_thread(held.ask, host="a.test")
            await lines(log, 1)
            await asyncio.to_thread(come, ports)
            first = await lines(log, 7)
            check(first, server.address)
            log.rename(old)
            await engine.reload(configuration(write(log, ports, server).replace("10 }", "7 }"), "a.toml"), {})
            await asyncio.to_thread(come, ports)
            second = await lines(log, 6)
            check([first[0], *second], server.address)
            await asyncio.to_thread(held.ask, host="a.test")  # the HAProxy of before writes to the file of before
            last = (await lines(old, 8))[7]
        assert (last["connection"], last["request"]) == (first[0]["connection"], 2)
        assert not {one["connection"] for one in first} & {one["connection"] for one in second}
        # Other targets are told to the one that runs, and it logs them.
        changed = write(log, ports, other).replace("10 }", "7 }")
        await engine.reload(configuration(changed, "a.toml"), {"app": Rotation("app", ((other.address, 10),))})
        assert (await asyncio.to_thread(ask, ports["WEB"]))[0] == "b"
        third = await lines(log, 7)
        assert [one["target"] for one in third if "target" in one][-1] == other.address
        assert (await engine.statistics()).log_lost == 0 and len(third) == 7

    with Web("a") as server, Web("b") as other:
        play(write(log, ports, server), story)
        with pytest.raises(BalancerError, match=r"^access_log '/proc/none' cannot be written: "):
            play(write(Path("/proc/none"), ports, server), story)


def test_what_finds_no_room_is_counted(
    free_port: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody reads until all requests are answered: each line is in the file, or counted as lost."""
    peers.needs("haproxy")
    monkeypatch.setattr("timewait.balancer.haproxy.log._PIPE", 4096)
    monkeypatch.setattr(Log, "_watch", lambda log: None)
    log, ports = tmp_path / "log", {name: free_port() for name in ("WEB", "ONLY", "TCP")}

    def many() -> None:
        with Asking(ports["WEB"]) as kept:
            for number in range(60):
                assert kept.ask("/" + "x" * (number % 3 * 1000), host="a.test")[0] == 200

    async def story(engine: HaproxyEngine) -> None:
        await asyncio.to_thread(many)
        here = engine._all()[0].log
        assert here is not None
        async with asyncio.timeout(60):  # the last line is written after its answer
            while (lost := (await engine.statistics()).log_lost) + log.read_bytes().count(b"\n") < 60:
                here._take(here._read())
                here._flush()
        written = [json.loads(line)["request"] for line in log.read_text().splitlines()]
        assert written == sorted(set(written)) and len(written) + lost == 60 and lost > 30

    with Web("a") as server:
        play(write(log, ports, server), story)


def test_the_embedded_engine_says_the_same(free_port: Callable[..., int], tmp_path: Path) -> None:
    peers.needs("haproxy")
    ports = {name: free_port() for name in ("WEB", "ONLY", "TCP")}
    same = ("listener", "request", "method", "host", "path", "status", "made_by", "reason", "target", "retries")

    def ask() -> None:
        with Asking(ports["WEB"]) as kept:
            assert [kept.ask(path, host="a.test")[0] for path in ("/one", "/two?q=%22x")] == [200, 200]
            assert kept.ask("/none", host="c.test")[0] == 503
        with Asking(ports["ONLY"]) as asking:
            assert asking.ask("/y", host="b.test")[0] == 404
        with Asking(ports["TCP"]) as asking:
            assert asking.ask("/stream")[0] == 200

    async def said(engine: DataPlane, name: str) -> list[list[Any]]:
        file = write(tmp_path / name, ports, server).replace("'haproxy'", f"'{name}'")
        weights = {"app": Rotation("app", ((server.address, 10),)), "dead": Rotation("dead", (("127.0.0.1:1", 0),))}
        await engine.start(configuration(file, "a.toml"), weights)
        try:
            await asyncio.to_thread(ask)
            found = await lines(tmp_path / name, 5)
        finally:
            await engine.stop()
        found.sort(key=lambda one: (one["listener"], one.get("request", 0)))
        return [[one.get(field) for field in same] for one in found]

    with Web("a") as server:
        assert asyncio.run(said(HaproxyEngine(), "haproxy")) == asyncio.run(said(EmbeddedEngine(), "embedded"))


def check(found: list[dict[str, Any]], target: str) -> None:
    """What came of `come`, after one request of a client that stays."""
    kept = [one for one in found[1:] if one["listener"] == "web"]
    assert [one["path"] for one in kept if one["path"] != kept[2]["path"]] == ["/one", ODD, "/none"]
    assert len(kept[2]["path"]) > 10000 and LONG.startswith(kept[2]["path"])
    assert len({one["connection"] for one in kept}) == 1 and kept[0]["connection"] != found[0]["connection"]
    assert [one["request"] for one in kept] == [1, 2, 3, 4]
    assert [one.get("target") for one in kept] == [target, target, target, None]
    assert [one["client"].partition(":")[0] for one in kept] == ["127.0.0.1", "127.0.0.1", "9.9.9.9", "127.0.0.1"]
    assert (kept[3]["host"], kept[3]["status"], kept[3]["made_by"], kept[3]["reason"]) == (
        HOST,
        503,
        "balancer",
        "no-target",
    )
    (only,) = [one for one in found if one["listener"] == "only"]
    assert (only["status"], only["made_by"], only["reason"]) == (400, "balancer", "malformed")
    (stream,) = [one for one in found if one["listener"] == "tcp"]
    assert (stream["target"], stream["made_by"]) == (target, "target") and "request" not in stream
    assert stream["bytes_in"] == len("GET /stream HTTP/1.1\r\nHost: test\r\n\r\n")
    assert stream["bytes_out"] > 0 and stream["client"].startswith("127.0.0.1:")
