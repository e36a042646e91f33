"""Worker processes: started, replaced, reloaded, retired; what clients notice of it, which is nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from kit.certificates import Certificates
from kit.labs import wait_until
from kit.one_worker import pool, relayed
from kit.servers import Peer, Server, listen
from timewait.balancer.config.model import Certificate, Configuration, Protocol, Session, SessionType, Then, Tls
from timewait.balancer.embedded import crew, privileges
from timewait.balancer.embedded.engine import EmbeddedEngine
from timewait.balancer.engine import BalancerError, Rotation

Found = TypeVar("Found")
PATIENCE = 60.0


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that does not answer in time counts as 0: here none may, however busy the machine is."""
    monkeypatch.setattr(crew, "ANSWER", 10 * PATIENCE)


class Running:
    """An engine whose event loop has a thread of its own, so that a test can be a client meanwhile."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.engine = EmbeddedEngine(say=self.said.append)
        self._loop = asyncio.new_event_loop()
        # The kernel kills workers with the thread that started them, so this one lives as long as the engine.
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def do(self, work: Coroutine[Any, Any, Found]) -> Found:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def start(self, configuration: Configuration) -> None:
        self.do(self.engine.start(configuration, rotations(configuration)))

    def reload(self, configuration: Configuration) -> None:
        self.do(self.engine.reload(configuration, rotations(configuration)))

    @property
    def pids(self) -> list[int]:
        return [member.pid for member in self.engine._members]

    def close(self) -> None:
        self.do(self.engine.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


@contextlib.contextmanager
def running(configuration: Configuration | None = None) -> Iterator[Running]:
    found = Running()
    try:
        if configuration is not None:
            found.start(configuration)
        yield found
    finally:
        pids = found.pids
        found.close()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()], "a worker is left behind"


def rotations(configuration: Configuration) -> dict[str, Rotation]:
    return {
        one.name: Rotation(one.name, tuple((target.addr, target.weight) for target in one.target))
        for one in configuration.pool
    }


def configured(
    port: int, *targets: str, workers: int = 2, more: tuple[Any, ...] = (), **settings: Any
) -> Configuration:
    listener = relayed(bind=(f"127.0.0.1:{port}",))
    return Configuration(listener=(listener, *more), pool=(pool(*targets),), workers=workers, **settings)


def upper(peer: Peer) -> None:
    """Answers what it reads up to the client's FIN, in capitals."""
    found = b""
    while data := peer.sock.recv(1 << 16):
        found += data
    peer.send(found.upper())


def ask(address: tuple[str, int] | str, words: bytes = b"hello") -> bytes:
    with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as near:
        near.settimeout(PATIENCE)
        near.connect(address)
        near.sendall(words)
        near.shutdown(socket.SHUT_WR)
        return read_to_end(near)


def read_to_end(sock: socket.socket) -> bytes:
    found = b""
    while data := sock.recv(1 << 16):
        found += data
    return found


class Asking:
    """Clients that ask without a pause, each connection a new one, until told to stop; what went wrong."""

    def __init__(self, address: tuple[str, int], clients: int = 3) -> None:
        self.asked, self.problems = 0, list[str]()
        self._address, self._stop = address, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                if ask(self._address) != b"HELLO":
                    self.problems.append("another answer")
            except OSError as error:
                self.problems.append(repr(error))
            self.asked += 1

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)


def test_reloads_under_load_lose_nothing(free_port: Callable[[], int]) -> None:
    port = free_port()
    with Server(upper) as one, Server(upper) as two, running(configured(port, one.authority)) as here:
        asking = Asking(("127.0.0.1", port))
        first = set(here.pids)
        for turn in range(6):  # with new workers, and in every other turn by a message
            targets = (one.authority, two.authority) if turn % 2 else (one.authority,)
            here.reload(configured(port, *targets, stop_timeout=60.0 + turn // 2))
            time.sleep(0.1)
        wait_until(lambda: asking.asked > 50, "enough was asked")
        asking.stop()
        wait_until(lambda: len(here.pids) == 2, "workers of earlier generations have ended")
        assert not first & set(here.pids)
        wait_until(lambda: here.do(here.engine.remaining()) == 0, "the last connections are over")
        counted = here.do(here.engine.statistics()).listeners["tcp"]
    assert asking.problems == []
    assert (counted.accepted, counted.active) == (asking.asked, 0)  # of all generations together


def test_a_killed_worker_is_replaced_and_said(free_port: Callable[[], int]) -> None:
    address = ("127.0.0.1", free_port())
    with Server(upper) as server, running(configured(address[1], server.authority, workers=1)) as here:
        assert ask(address) == b"HELLO"
        here.do(here.engine.statistics())
        (pid,) = here.pids
        os.kill(pid, signal.SIGKILL)
        assert ask(address) == b"HELLO"  # it waits in the accept queue, which is not the worker's
        assert here.said == [f"worker 1 (pid {pid}) was killed by SIGKILL; its connections are lost, another worker "
                             "takes its place"]  # fmt: skip
        assert here.do(here.engine.statistics()).listeners["tcp"].accepted == 2


def test_a_worker_that_is_being_reaped_is_not_waited_for(
    free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, reap = threading.Event(), crew.Member._reap

    async def slowly(self: crew.Member) -> None:
        while not gone.is_set():
            await asyncio.sleep(0.01)
        await reap(self)

    monkeypatch.setattr(crew.Member, "_reap", slowly)
    with Server(upper) as server, running(configured(free_port(), server.authority, workers=1)) as here:
        (member,) = here.engine._members
        os.kill(member.pid, signal.SIGKILL)
        wait_until(lambda: member._writer is not None and member._writer.is_closing(), "its end is noticed")
        assert here.do(here.engine.remaining()) == 0
        gone.set()


def test_workers_that_cannot_live_end_the_engine(free_port: Callable[[], int]) -> None:
    with Server(upper) as server, running(configured(free_port(), server.authority, workers=1)) as here:
        failed = asyncio.run_coroutine_threadsafe(here.engine.failed(), here._loop)
        here.engine._accidents.in_a_row = 4
        os.kill(here.pids[0], signal.SIGSEGV)
        assert "was killed by SIGSEGV, as 4 before it within seconds of their start" in failed.result(PATIENCE)


def test_listeners_come_and_go(free_port: Callable[[], int], tmp_path: Path) -> None:
    first, second, path = free_port(), free_port(), str(tmp_path / "front.sock")
    more = (relayed(name="more", bind=(f"unix:{path}", f"127.0.0.1:{second}")),)
    with Server(upper) as server, running(configured(first, server.authority)) as here:
        before = here.pids
        with listen("127.0.0.1", second), pytest.raises(BalancerError) as refused:
            here.reload(configured(first, server.authority, more=more))
        assert f"port {second} is in use by " in str(refused.value)
        assert f"(pid {os.getpid()})" in str(refused.value)
        assert (here.pids, ask(("127.0.0.1", first)), Path(path).exists()) == (before, b"HELLO", False)

        here.reload(configured(first, server.authority, more=more))
        assert ask(path) == ask(("127.0.0.1", second)) == ask(("127.0.0.1", first)) == b"HELLO"

        with socket.create_connection(("127.0.0.1", second)) as early:
            wait_until(lambda: server.accepted == 5, "the connection is there")
            here.reload(configured(first, server.authority))
            early.sendall(b"still here")
            early.shutdown(socket.SHUT_WR)
            assert read_to_end(early) == b"STILL HERE"
        assert not Path(path).exists()
        with pytest.raises(ConnectionRefusedError):
            ask(("127.0.0.1", second))


def test_draining_lets_connections_end_and_stopping_does_not(free_port: Callable[[], int]) -> None:
    address = ("127.0.0.1", free_port())
    with Server(upper) as server, running(configured(address[1], server.authority)) as here:
        with socket.create_connection(address) as near:
            wait_until(lambda: server.accepted == 1, "the connection is there")
            assert here.do(here.engine.remaining()) == 1
            here.do(here.engine.drain())
            wait_until(lambda: refused(address), "nothing new is accepted")
            near.sendall(b"hello")
            near.shutdown(socket.SHUT_WR)
            assert read_to_end(near) == b"HELLO"
        wait_until(lambda: here.pids == [], "workers ended with their last connection")
        assert here.do(here.engine.remaining()) == 0
        assert here.do(here.engine.statistics()).listeners["tcp"].closes.peer_fin >= 1  # and the last ones to ask


def refused(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address).close()
    except ConnectionResetError:
        return False  # it lay in the accept queue of a socket that was just being closed
    except ConnectionRefusedError:
        return True
    return False


def test_weights_active_connections_and_cuts_reach_every_worker(free_port: Callable[[], int]) -> None:
    address = ("127.0.0.1", free_port())
    with Server(upper) as one, Server(upper) as two:
        configuration = configured(address[1], one.authority, two.authority)
        with running(configuration) as here, contextlib.ExitStack() as stack:
            open_now = [stack.enter_context(socket.create_connection(address)) for _ in range(8)]
            wait_until(lambda: one.accepted + two.accepted == 8, "all of them are there")
            active = [here.do(here.engine.active("app", server.authority)) for server in (one, two)]
            assert active == [one.accepted, two.accepted]
            assert min(active) > 0

            before = two.accepted
            here.do(here.engine.rotate({"app": Rotation("app", ((one.authority, 10), (two.authority, 0)))}))
            here.do(here.engine.statistics())  # who answers has read what came before
            assert [ask(address) for _ in range(6)] == [b"HELLO"] * 6
            assert two.accepted == before

            assert here.do(here.engine.cut("app", two.authority, Then.RST)) == before
            wait_until(lambda: sum(map(was_reset, open_now)) == before, "those of the second target are reset")
            wait_until(lambda: here.do(here.engine.active("app", two.authority)) == 0, "nothing is open there")


def was_reset(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 7  # TCP_CLOSE: told once already


def test_limits_and_sessions_hold_over_all_workers(free_port: Callable[[], int]) -> None:
    address = ("127.0.0.1", free_port())
    with Server(hello_and_wait) as one, Server(hello_and_wait) as two:
        configuration = configured(address[1], workers=3)
        limited = msgspec.structs.replace(configuration.listener[0], max_conn=6)
        sticky = pool(one.authority, two.authority, session=Session(type=SessionType.SOURCE_IP))
        configuration = msgspec.structs.replace(configuration, listener=(limited,), pool=(sticky,))
        with running(configuration) as here, contextlib.ExitStack() as stack:
            answers = [first_word(stack, address) for _ in range(9)]
            assert sorted(answers) == [b""] * 3 + [b"hello"] * 6
            assert sorted((one.accepted, two.accepted)) == [0, 6]  # one source address, one target
            here.reload(msgspec.structs.replace(configuration, stop_timeout=7.0))
            assert first_word(stack, address) == b""  # still six of them
            assert here.do(here.engine.statistics()).listeners["tcp"].over_max_conn == 4


def hello_and_wait(peer: Peer) -> None:
    peer.send(b"hello")
    peer.read_to_end()


def first_word(stack: contextlib.ExitStack, address: tuple[str, int]) -> bytes:
    """What a new connection hears, empty for one that is reset, perhaps before connect() has returned."""
    try:
        return stack.enter_context(socket.create_connection(address, PATIENCE)).recv(16)
    except ConnectionResetError:
        return b""


def test_the_log_is_opened_anew_by_a_reload_and_survives_a_full_disk(
    free_port: Callable[[], int], tmp_path: Path
) -> None:
    address, log = ("127.0.0.1", free_port()), tmp_path / "access.log"
    with Server(upper) as server:
        configuration = configured(address[1], server.authority, access_log=str(log))
        with running(configuration) as here:
            assert ask(address) == b"HELLO"
            wait_until(lambda: log.read_text() != "", "the line is written")
            (line,) = map(json.loads, log.read_text().splitlines())
            assert (line["listener"], line["target"], line["made_by"]) == ("tcp", server.authority, "target")
            assert (line["bytes_in"], line["bytes_out"], line["closed_by"]) == (5, 5, "peer_fin")

            log.rename(tmp_path / "yesterday.log")
            here.reload(configuration)
            assert ask(address) == b"HELLO"
            wait_until(lambda: log.exists() and log.read_text() != "", "the line is in the new file")

            here.reload(msgspec.structs.replace(configuration, access_log="/dev/full"))
            assert ask(address) == b"HELLO"
            assert here.do(here.engine.statistics()).listeners["tcp"].accepted == 3


def test_workers_become_nobody_and_keep_what_root_read(free_port: Callable[[], int], tmp_path: Path) -> None:
    """As root with a key that only root may read; as an ordinary user they stay who they are."""
    certificate = Certificates(tmp_path).good
    certificate.key.chmod(0o600)
    tls = Tls(certificate=(Certificate(certificate=str(certificate.certificate), key=str(certificate.key)),))
    port = free_port()
    secure = relayed(name="tls", bind=(f"127.0.0.1:{port}",), protocol=Protocol.TCP_SSL, tls=tls)
    with Server(upper) as server, running(configured(free_port(), server.authority, more=(secure,))) as here:
        who = privileges.identity("")
        become = who is not None and privileges.reachable(who)
        expected = pwd.getpwnam("nobody").pw_uid if become else os.geteuid()
        for pid in here.pids:
            status = Path(f"/proc/{pid}/status").read_text()
            assert f"Uid:\t{expected}\t{expected}\t{expected}\t{expected}" in status
            assert not become or "CapPrm:\t0000000000000000" in status
            assert "NoNewPrivs:\t1" in status
        context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        raw = socket.create_connection(("127.0.0.1", port))
        with context.wrap_socket(raw, server_hostname="localhost") as near:
            near.sendall(b"hello")
            near.shutdown(socket.SHUT_WR)  # without a close_notify, which the relay need not wait for
            # A client that left now, with session tickets unread, would reset a handshake that is not over there
            wait_until(lambda: server.accepted == 1, "the target was reached")


def test_a_start_that_fails_leaves_nothing(free_port: Callable[[], int], tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "x.sock"
    more = (relayed(name="more", bind=(f"unix:{path}", f"127.0.0.1:{port}")),)
    with Server(upper) as server, listen("127.0.0.1", port), running() as here:
        with pytest.raises(BalancerError, match=f"port {port} is in use by "):
            here.start(configured(free_port(), server.authority, more=more))
        assert not path.exists()
        assert here.pids == []


def test_a_user_that_does_not_exist_is_refused() -> None:
    with pytest.raises(BalancerError, match="no-such-user"):
        privileges.identity("no-such-user")


def test_what_changes_while_workers_start_reaches_them(free_port: Callable[[], int]) -> None:
    """A weight that is told in the middle of a reload is known to the new workers, too."""
    address = ("127.0.0.1", free_port())
    with Server(upper) as one, Server(upper) as two:
        configuration = configured(address[1], one.authority, two.authority)
        with running(configuration) as here:
            renewed = msgspec.structs.replace(configuration, stop_timeout=9.0)

            async def both() -> None:
                reload = asyncio.create_task(here.engine.reload(renewed, rotations(renewed)))
                await asyncio.sleep(0)
                while len(here.engine._members) < 4:
                    await asyncio.sleep(0.001)
                await here.engine.rotate({"app": Rotation("app", ((one.authority, 0), (two.authority, 10)))})
                await reload

            here.do(both())
            assert [ask(address) for _ in range(6)] == [b"HELLO"] * 6
            assert (one.accepted, two.accepted) == (0, 6)
