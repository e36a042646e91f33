"""A real HAProxy, started, told and replaced by us."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme

import peers
from balancer.engines.web import Asking, Web
from kit.labs import wait_until
from timewait.balancer.config.model import Engine, Then
from timewait.balancer.config.read import configuration
from timewait.balancer.embedded.engine import EmbeddedEngine
from timewait.balancer.engine import BalancerError, DataPlane, Rotation
from timewait.balancer.haproxy import process
from timewait.balancer.haproxy.engine import HaproxyEngine
from timewait.balancer.planes import Planes, refuse_moves

Story = Callable[[HaproxyEngine], Awaitable[Any]]


@pytest.fixture
def servers() -> Iterator[list[Web]]:
    peers.needs("haproxy")
    with ExitStack() as ended:
        yield [ended.enter_context(Web(name)) for name in "abc"]


class File:
    """A balancer's file; `pool` and `listener` are lines in those tables."""

    def __init__(self, port: int, servers: list[Web], weights: tuple[int, ...] = (30, 10)) -> None:
        self.port, self.servers, self.weights = port, servers, weights
        self.top, self.listener, self.pool, self.protocol, self.bind = "", "", "", "http", f"127.0.0.1:{port}"

    def text(self, **changed: Any) -> str:
        one = File(self.port, self.servers, self.weights)
        one.__dict__.update({**self.__dict__, **changed})
        rule = "pool = 'app'" if one.protocol not in ("http", "https") else "rule = [{ pool = 'app' }]"
        lines = [
            f"engine = 'haproxy'\nworkers = 1\n{one.top}",
            f"[[listener]]\nname = 'web'\nbind = ['{one.bind}']\nprotocol = '{one.protocol}'\n{rule}\n{one.listener}",
            f"[[pool]]\nname = 'app'\n{one.pool}",
        ]
        for server, weight in zip(one.servers, one.weights, strict=False):
            lines.append(f"[[pool.target]]\naddr = '{server.address}'\nweight = {weight}")
        return "\n".join(lines)


@pytest.fixture
def file(free_port: Callable[..., int], servers: list[Web]) -> File:
    return File(free_port(), servers)


def play(text: str, story: Story, say: Callable[[str], None] = lambda line: None) -> Any:
    """Starts the engine, plays the story, stops it; what the story gives."""

    async def whole() -> Any:
        engine = HaproxyEngine(say=say)
        await engine.start(configuration(text, "a.toml"), {})
        try:
            return await story(engine)
        finally:
            await engine.stop()

    return asyncio.run(whole())


def weights(file: File, *found: int) -> dict[str, Rotation]:
    """Those of the servers now, in order."""
    return {"app": Rotation("app", tuple((s.address, w) for s, w in zip(file.servers, found, strict=False)))}


def asked(port: int, count: int, *lines: str, path: str = "/") -> Counter[str]:
    """Who answered, each time on a new connection; or the status, where the balancer did; or the error."""
    found: Counter[str] = Counter()
    for _ in range(count):
        try:
            with Asking(port) as asking:
                status, _, body = asking.ask(path, *lines)
                found[body.partition("\n")[0] if status == 200 else str(status)] += 1
        except (OSError, EOFError) as error:
            found[type(error).__name__] += 1
    return found


async def ask(file: File, count: int = 1, *lines: str, **how: Any) -> Counter[str]:
    return await asyncio.to_thread(asked, file.port, count, *lines, **how)


def test_weights_targets_and_who_is_counted_for_what(file: File) -> None:
    async def story(engine: HaproxyEngine) -> None:
        assert await ask(file, 8) == {"a": 6, "b": 2}
        await engine.rotate(weights(file, 0, 10))
        assert await ask(file, 4) == {"b": 4}
        three = configuration(file.text(weights=(30, 10, 20)), "a.toml")
        pids = [one.process.pid for one in engine._all()]
        await engine.reload(three, weights(file, 0, 10, 10))
        assert await ask(file, 4) == {"b": 2, "c": 2}
        await engine.reload(configuration(file.text(), "a.toml"), weights(file, 0, 10))
        assert await ask(file, 3) == {"b": 3}
        await engine.reload(three, weights(file, 0, 0, 10))  # and it comes back
        assert await ask(file, 3) == {"c": 3}
        assert [one.process.pid for one in engine._all()] == pids  # all of it by its command line
        await engine.rotate(weights(file, 0, 0, 0))
        assert await ask(file, 2) == {"503": 2}
        found = await engine.statistics()
        assert found.listeners["web"].made_by_target == {200: 22}
        assert found.listeners["web"].made_by_balancer == {500: 2}
        assert {key[-1:]: 0 for key in found.targets}.keys() <= set("0123456789")
        assert found.targets[f"app/{file.servers[0].address}"].requests == 6
        assert found.listeners["web"].accepted == 24

    play(file.text(), story)


def test_what_it_refuses_and_adds(file: File) -> None:
    file.listener = "limits = { request_line = 300, body_size = 10, header_count = 12 }\nupgrade = 'refuse'"
    file.listener += "\nreal_ip = { trusted = ['10.0.0.0/8'] }"

    def look() -> None:
        port = file.port
        assert asked(port, 1, path="/" + "x" * 300) == {"414": 1}
        assert asked(port, 1, "Content-Length: 11") == {"413": 1}
        assert asked(port, 1, "Upgrade: other/1", "Connection: upgrade") == {"403": 1}
        assert asked(port, 1, *(f"x{number}: y" for number in range(20))) == {"400": 1}
        with Asking(port) as asking:
            assert asking.ask("test:80", method="CONNECT")[0] == 405
        with Asking(port) as asking:
            _, _, body = asking.ask("/x?y", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https")
        low = body.lower()
        assert "x-forwarded-for: 127.0.0.1" in low and "1.2.3.4" not in low and "x-forwarded-proto: http" in low
        assert "get /x?y http/1.1" in low and "connection" not in low

    async def story(engine: HaproxyEngine) -> None:
        await asyncio.to_thread(look)
        trusting = file.text(listener="real_ip = { trusted = ['127.0.0.0/8'] }")
        await engine.reload(configuration(trusting, "a.toml"), {})
        with Asking(file.port) as asking:
            _, _, body = await asyncio.to_thread(
                asking.ask, "/", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https"
            )
        fields = [line.lower() for line in body.split("\r\n") if line.lower().startswith("x-forwarded")]
        assert [line.partition(": ")[2] for line in sorted(fields)] == ["1.2.3.4", "127.0.0.1", "https"]

    play(file.text(), story)


def test_how_long_a_client_is_kept(file: File) -> None:
    def kept(count: int) -> list[bool]:
        """Whether each answer said that the connection ends, until it did."""
        with Asking(file.port) as asking:
            return ["connection: close" in asking.ask()[1].lower() for _ in range(count)]

    async def story(engine: HaproxyEngine) -> None:
        assert await asyncio.to_thread(kept, 4) == [False] * 4
        closing = file.text(listener="client = { keepalive = '0s' }")
        await engine.reload(configuration(closing, "a.toml"), {})
        assert await asyncio.to_thread(kept, 1) == [True]
        counting = file.text(listener="client = { max_requests = 3 }")
        await engine.reload(configuration(counting, "a.toml"), {})
        assert await asyncio.to_thread(kept, 3) == [False, False, True]

    play(file.text(), story)


def test_more_than_the_limits_are_turned_away(file: File) -> None:
    def hold() -> Counter[str]:
        with ExitStack() as held:
            for _ in range(3):
                held.enter_context(Asking(file.port)).ask()
            return asked(file.port, 4)

    async def story(engine: HaproxyEngine) -> None:
        turned_away = await asyncio.to_thread(hold)
        assert sum(turned_away[name] for name in ("EOFError", "ConnectionResetError")) == 4
        assert (await engine.statistics()).listeners["web"].over_max_conn == 4
        fast = file.text(listener="max_cps = 5")
        await engine.reload(configuration(fast, "a.toml"), {})
        begun = time.monotonic()
        came = await ask(file, 20)
        assert 5 <= came["a"] + came["b"] <= 5 * (2 + time.monotonic() - begun)  # in any second, and one begun before
        found = (await engine.statistics()).listeners["web"]
        assert found.over_max_cps == 20 - came["a"] - came["b"]
        assert found.accepted == 3 + came["a"] + came["b"]

    play(file.text(listener="max_conn = 3"), story)


@pytest.mark.parametrize("kind", ["cookie_insert", "source_ip"])
def test_a_session_lasts_beyond_a_reload_and_ends_with_its_target(file: File, kind: str) -> None:
    file.pool, file.weights = f"session = {{ type = '{kind}', ttl = '60s' }}", (10, 10)

    def come(jar: list[str], count: int = 4) -> set[str]:
        found = set()
        for _ in range(count):
            with Asking(file.port) as asking:
                _, head, body = asking.ask("/", *jar)
            found.add(body.partition("\n")[0])
            for line in head.split("\r\n"):
                if line.lower().startswith("set-cookie: "):
                    jar[:] = ["Cookie: " + line[12:].partition(";")[0]]
                    assert not any(server.address.partition(":")[2] in line for server in file.servers)
        return found

    async def story(engine: HaproxyEngine) -> None:
        jar: list[str] = []
        first = await asyncio.to_thread(come, jar)
        assert len(first) == 1
        # Another server stands before them now, so that their numbers in HAProxy are others.
        servers = [file.servers[2], *file.servers[:2]]
        await engine.reload(
            configuration(file.text(servers=servers, weights=(10, 10, 10), top="stop_timeout = '9s'"), "a"), {}
        )
        assert await asyncio.to_thread(come, jar) == first
        gone = next(server for server in file.servers if {server.name} == first)
        left = {s.address: 0 if s is gone else 10 for s in servers}
        await engine.rotate({"app": Rotation("app", tuple(left.items()))})
        second = await asyncio.to_thread(come, jar)
        assert len(second) == 1 and second != first
        assert bool(jar) == (kind == "cookie_insert")

    play(file.text(), story)


def test_drained_and_cut_and_counted(file: File) -> None:
    file.protocol = "tcp"

    async def story(engine: HaproxyEngine) -> None:
        first = file.servers[0].address
        with ExitStack() as held:
            kept = [held.enter_context(Asking(file.port)) for _ in range(4)]
            names = [(await asyncio.to_thread(one.ask))[2][0] for one in kept]
            assert sorted(names) == ["a", "a", "a", "b"]
            assert await engine.active("app", first) == 3
            await engine.rotate(weights(file, 0, 10))
            assert await ask(file, 2) == {"b": 2}
            assert [(await asyncio.to_thread(one.ask))[2][0] for one in kept] == names  # what is open goes on
            assert await engine.cut("app", first, Then.LEAVE) == 0
            assert await engine.cut("app", first, Then.RST) == 3
            ended = [one for one, name in zip(kept, names, strict=True) if name == "a"]
            assert all([await asyncio.to_thread(one.closed) for one in ended])
            await engine.drain()
            assert await ask(file) == {"ConnectionRefusedError": 1}
            assert await engine.remaining() == 1
            left = kept[names.index("b")]
            assert (await asyncio.to_thread(left.ask))[2][0] == "b"
            left.socket.close()
            for _ in range(200):
                if not await engine.remaining() and not engine._all():
                    break
                await asyncio.sleep(0.05)
        assert engine._all() == []  # it ended by itself, and was counted to the end
        assert (await engine.statistics()).targets[f"app/{first}"].requests == 3

    play(file.text(), story)


def test_a_reload_tells_kept_connections_and_closes_none(file: File) -> None:
    """Every request on a kept connection is answered, the first after the reload with `Connection: close`."""

    async def story(engine: HaproxyEngine) -> None:
        with ExitStack() as held:
            kept = [held.enter_context(Asking(file.port)) for _ in range(20)]
            for one in kept:
                await asyncio.to_thread(one.ask)
            await engine.reload(configuration(file.text(), "a.toml"), {})  # the same again is a wish for a new one
            await asyncio.sleep(0.3)
            answers = [await asyncio.to_thread(one.ask) for one in kept]
        assert {status for status, _, _ in answers} == {200}
        assert all("connection: close" in head.lower() for _, head, _ in answers)
        assert await ask(file, 2) == {"a": 2}
        assert (await engine.statistics()).listeners["web"].requests == 42

    play(file.text(), story)


def test_what_a_reload_leaves_behind_ends_after_stop_timeout(file: File) -> None:
    file.protocol, file.top = "tcp", "stop_timeout = '0.3s'"

    async def story(engine: HaproxyEngine) -> None:
        with Asking(file.port) as kept:
            assert (await asyncio.to_thread(kept.ask))[0] == 200
            await engine.reload(configuration(file.text(), "a.toml"), {})
            assert len(engine._all()) == 2
            assert await asyncio.to_thread(kept.closed)
        for _ in range(200):
            if len(engine._all()) == 1:
                break
            await asyncio.sleep(0.05)
        assert await ask(file) == {"a": 1}
        assert (await engine.statistics()).listeners["web"].accepted == 2  # nothing it counted is lost

    play(file.text(), story)


def test_a_bind_moves_between_engines_and_nobody_notices(file: File) -> None:
    """embedded -> haproxy -> embedded, while somebody comes all the time, each time on a new connection."""
    texts = [file.text().replace("engine = 'haproxy'", f"engine = '{name}'") for name in ("embedded", "haproxy")]
    files = [configuration(text, "a.toml") for text in texts]
    said: list[str] = []

    async def story() -> Counter[str]:
        def make(engine: Engine) -> DataPlane:
            return (HaproxyEngine if engine is Engine.HAPROXY else EmbeddedEngine)(say=said.append)

        planes = Planes(make, said.append)
        now, found = weights(file, 30, 10), Counter[str]()
        await planes.start(files[0], now)
        try:
            for before, after in [(0, 1), (1, 0), (0, 1)]:
                moving = asyncio.create_task(planes.reload(files[before], files[after], now, now))
                while not moving.done():
                    found += await ask(file)
                await moving
                found += await ask(file, 20)
        finally:
            await planes.stop()
        return found

    assert asyncio.run(story()).keys() == {"a", "b"}
    assert said == []


def test_a_bind_does_not_move_to_the_kernels_rules(file: File) -> None:
    text = file.text(protocol="tcp").replace("workers = 1", "")
    before, after = configuration(text, "a.toml"), configuration(text.replace("'haproxy'", "'nftables'"), "a.toml")
    for pair in ((before, after), (after, before)):
        with pytest.raises(BalancerError, match=rf"listener web: a reload cannot move {file.bind} from engine"):
            refuse_moves(*pair)
    refuse_moves(after, after)


def test_proxy_protocol_in_and_out(file: File) -> None:
    """In at a listener that trusts loopback, out to a server that shows what came."""
    file.listener = "real_ip = { accept_proxy = true, trusted = ['127.0.0.0/8'], mode = 'proxy_v1' }"
    file.protocol = "tcp"

    def look() -> None:
        with Asking(file.port) as asking:
            asking.socket.sendall(b"PROXY TCP4 9.9.9.9 8.8.8.8 1000 80\r\n")
            assert "PROXY TCP4 9.9.9.9 8.8.8.8 1000 80\r\n" in asking.ask()[2]
        with Asking(file.port) as asking, pytest.raises((EOFError, ConnectionResetError)):
            asking.ask()

    async def story(engine: HaproxyEngine) -> None:
        await asyncio.to_thread(look)

    play(file.text(), story)


def test_certificates_by_name_and_renewed(file: File, tmp_path: Path) -> None:
    authority = trustme.CA()
    for name in ("one.test", "two.test"):
        issued = authority.issue_cert(name)
        issued.cert_chain_pems[0].write_to_path(str(tmp_path / f"{name}.pem"))
        issued.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
    pairs = [
        f"{{ certificate = '{tmp_path}/{n}.pem', key = '{tmp_path}/{n}.key' }}" for n in ("one.test", "two.test")
    ]
    file.protocol, file.listener = "https", f"tls = {{ certificate = [{', '.join(pairs)}] }}"

    def shown(name: str) -> tuple[str, str, str | None]:
        """The name and the number of its certificate, and the protocol agreed on."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.set_alpn_protocols(["h2", "http/1.1"])
        authority.configure_trust(context)
        plain = socket.create_connection(("127.0.0.1", file.port), timeout=5)
        with context.wrap_socket(plain, server_hostname=name) as tls:
            certificate: Any = tls.getpeercert()
            tls.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b"x-forwarded-proto: https" in b"".join(iter(lambda: tls.recv(4096), b"")).lower()
            return certificate["subjectAltName"][0][1], certificate["serialNumber"], tls.selected_alpn_protocol()

    async def story(engine: HaproxyEngine) -> None:
        one, two, none = [await asyncio.to_thread(shown, name) for name in ("one.test", "two.test", "none.test")]
        assert (one[0], two[0], none[0], one[2]) == ("one.test", "two.test", "one.test", "http/1.1")
        issued = authority.issue_cert("two.test")
        issued.cert_chain_pems[0].write_to_path(str(tmp_path / "two.test.pem"))
        issued.private_key_pem.write_to_path(str(tmp_path / "two.test.key"))
        await engine.reload(configuration(file.text(weights=(10, 10)), "a.toml"), {})
        assert (await asyncio.to_thread(shown, "two.test"))[1] != two[1]

    play(file.text(), story)


def test_a_unix_socket_and_nothing_left_behind(file: File, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    before = len(list(Path("/proc/self/fd").iterdir()))

    async def story(engine: HaproxyEngine) -> int:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert b" 200 " in await asyncio.to_thread(client.recv, 4096)
        return engine._all()[0].process.pid

    pid = play(file.text(bind=f"unix:{path}"), story)
    assert not path.exists() and not Path(f"/proc/{pid}").exists()
    # The server at the other end closes in a thread of its own.
    wait_until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before, "nothing is left open")


def test_one_that_dies_is_replaced_and_that_is_said(file: File) -> None:
    said: list[str] = []

    async def story(engine: HaproxyEngine) -> None:
        await engine.rotate(weights(file, 0, 10))
        assert await ask(file, 2) == {"b": 2}
        await engine.statistics()
        os.kill(engine._all()[0].process.pid, signal.SIGKILL)
        assert await ask(file, 3) == {"b": 3}  # clients wait in the accept queue, which is not HAProxy's
        assert said == ["HAProxy was ended by SIGKILL; its connections are lost, another one takes its place"]
        async with asyncio.timeout(20):
            while (found := (await engine.statistics()).listeners["web"]).active:
                await asyncio.sleep(0.01)
        assert found.made_by_target == {200: 5}

    play(file.text(), story, said.append)


def test_a_reload_finds_one_that_has_just_died(file: File) -> None:
    async def story(engine: HaproxyEngine) -> None:
        os.kill(engine._all()[0].process.pid, signal.SIGKILL)
        await engine.reload(configuration(file.text(weights=(10, 10, 10)), "a.toml"), weights(file, 0, 0, 10))
        assert await ask(file, 3) == {"c": 3}
        os.kill(engine._all()[0].process.pid, signal.SIGKILL)
        await engine.reload(configuration(file.text(pool="scheduler = 'least_conn'"), "a.toml"), weights(file, 10, 0))
        assert await ask(file, 3) == {"a": 3}

    play(file.text(), story)


def test_where_all_of_them_die_the_engine_ends(file: File) -> None:
    async def story(engine: HaproxyEngine) -> None:
        engine._accidents.in_a_row = 4
        os.kill(engine._all()[0].process.pid, signal.SIGKILL)
        async with asyncio.timeout(30):
            assert (await engine.failed()) == (
                "HAProxy was ended by SIGKILL, as 4 before it within seconds of their start"
            )

    play(file.text(), story)


def test_what_cannot_be_started_is_said_and_undone(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(engine: HaproxyEngine) -> None:
        raise AssertionError

    with (
        socket.create_server(("127.0.0.1", file.port)),
        pytest.raises(BalancerError, match=f"port {file.port} is in use"),
    ):
        play(file.text(), never)

    async def bad_reload(engine: HaproxyEngine) -> None:
        bad = file.text(pool="session = { type = 'cookie_insert' }")
        monkeypatch.setattr("timewait.balancer.haproxy.backends.cookie", lambda pool, address: "a b c")
        with pytest.raises(BalancerError, match=r"HAProxy does not start: .*unknown keyword"):
            await engine.reload(configuration(bad, "a.toml"), {})
        assert await ask(file, 2) == {"a": 2}  # the old one goes on

    play(file.text(), bad_reload)
    monkeypatch.setattr(process, "_PATH", "/nonexistent")
    with pytest.raises(BalancerError, match="haproxy is not installed: `sudo apt-get install haproxy`"):
        play(file.text(), never)
