"""One worker of the embedded engine, in a thread of this process: for tests that talk to it over loopback.

with OneWorker(listener(), pool(server.authority)) as worker:
    ask(worker.address)
assert worker.site.refused == {}
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from kit.conversation import Conversation
from kit.ports import bind_fresh
from kit.servers import Behaviour, Server
from timewait.balancer.config.model import Configuration, Listener, Pool, Protocol, Rule, Target, Then
from timewait.balancer.embedded import relay, shared
from timewait.balancer.embedded.accepting import Acceptor
from timewait.balancer.embedded.access_log import AccessLog
from timewait.balancer.embedded.http.proxy import HttpProxy
from timewait.balancer.embedded.loop import Loop
from timewait.balancer.embedded.state import ListenerState, Worker
from timewait.balancer.engine import Rotation
from timewait.balancer.statistics import ListenerStatistics, TargetStatistics


def listener(**settings: object) -> Listener:
    """One of HTTP whose requests all go to pool "app", with the settings given."""
    return Listener(**{"name": "web", "bind": ("127.0.0.1:1",), "rule": (Rule(pool="app"),), **settings})  # type: ignore[arg-type]


def relayed(**settings: object) -> Listener:
    """One of layer 4, for pool "app"."""
    return Listener(
        **{"name": "tcp", "bind": ("127.0.0.1:1",), "protocol": Protocol.TCP, "pool": "app", **settings}  # type: ignore[arg-type]
    )


def pool(*addresses: str, **settings: object) -> Pool:
    """Pool "app" with these targets."""
    targets = tuple(Target(addr=address) for address in addresses)
    return Pool(**{"name": "app", "target": targets, **settings})  # type: ignore[arg-type]


class Clock:
    """The machine's, which a test may set ahead or stop: then no timeout depends on how soon a thread is run."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.stopped_at: float | None = None

    def __call__(self) -> float:
        return (time.monotonic() if self.stopped_at is None else self.stopped_at) + self.ahead


class OneWorker:
    """Accepts on a free port of 127.0.0.1 as long as the context lasts."""

    def __init__(
        self,
        listener: Listener,
        *pools: Pool,
        log: AccessLog | None = None,
        tls: ssl.SSLContext | None = None,
        backlog: int = 1024,
        limited: bool = False,
        host: str = "127.0.0.1",
    ) -> None:
        """`limited`: max_conn and max_cps of the listener hold; layer 4 is relayed."""
        self.errors: list[BaseException] = []
        self.clock = Clock()
        self.loop = Loop(on_error=lambda fd, error: self.errors.append(error), clock=self.clock)
        self._descriptor = shared.create()
        configuration = Configuration(listener=(listener,), pool=pools)
        self.worker = Worker(self.loop, 0, shared.Shared(self._descriptor), configuration, log)
        self.worker.key = b"a key of the tests"
        for each in pools:
            self.worker.rotate(Rotation(each.name, tuple((target.addr, target.weight) for target in each.target)))
        self.statistics = ListenerStatistics(name=listener.name)
        limits = shared.Limits(self.worker.shared, 0, 0, listener.max_conn, listener.max_cps) if limited else None
        self.worker.shared.take_slot(0, 0)
        self.state = ListenerState(self.worker, listener, self.statistics, limits)
        self.state.tls = tls
        self.worker.listeners[listener.name] = self.state
        self.proxy = HttpProxy(self.worker)
        self._sock = socket.SocketType(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bind_fresh(self._sock, host)
        self._sock.listen(backlog)
        self.address: tuple[str, int] = self._sock.getsockname()
        relayed = listener.protocol in (Protocol.TCP, Protocol.TCP_SSL)
        self._acceptor = Acceptor(self.state, self._sock, relay.serve if relayed else self.proxy.accept)
        self._wake = os.pipe2(os.O_NONBLOCK)
        self._calls: list[tuple[Callable[[], object], threading.Event]] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def target(self, number: int = 0) -> TargetStatistics:
        """Statistics of the n-th target of all."""
        return list(self.worker.statistics.targets.values())[number]

    def do(self, action: Callable[[], object]) -> None:
        """Calls `action()` in the worker's thread, between two events, and waits until it is done."""
        done = threading.Event()
        self._calls.append((action, done))
        os.write(self._wake[1], b"x")
        assert done.wait(30)

    def cut(self, address: str, then: Then) -> None:
        """Ends what is open toward a target of pool "app"."""

        def cut() -> None:
            for connection in list(self.worker.pools["app"].targets[address].connections):
                connection.cut(then)

        self.do(cut)

    def skip(self, seconds: float) -> None:
        """Sets the worker's clock ahead, behind what has reached it by now; what is due by then has happened."""

        def ahead() -> None:
            self.clock.ahead += seconds

        self.do(ahead)
        for _ in range(2):  # in the turn of the first the deadlines are looked at, and the second comes after it
            self.do(lambda: None)

    def stop_clock(self) -> None:
        """From here on only `skip` moves the worker's clock."""
        self.clock.stopped_at = time.monotonic()

    def until(self, condition: Callable[[], object]) -> None:
        """Waits for what must come true soon; the event that made it true is over then, with all it counts."""
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, (self.statistics, self.worker.statistics.targets)
            time.sleep(0.005)
        self.do(lambda: None)

    def until_left(self) -> None:
        """Waits until no client is here any more."""
        self.until(lambda: not self.statistics.active)

    def _run(self) -> None:
        try:
            self.loop.watch(self._wake[0], 1, self._called)
            self._acceptor.start()
            self.loop.run()
        except BaseException as error:
            self.errors.append(error)

    def _called(self, events: int) -> None:
        os.read(self._wake[0], 1)
        action, done = self._calls.pop(0)
        try:
            action()
        finally:
            done.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread.is_alive():
            self.do(self._stop)
            self._thread.join(30)
        self._sock.close()
        self.loop.close()
        for fd in self._wake:
            os.close(fd)
        self.worker.shared.close()
        if self.errors:
            raise AssertionError(f"the worker failed: {self.errors!r}") from self.errors[0]

    def _stop(self) -> None:
        self.proxy.stop()
        for each in self.worker.pools.values():
            for connection in each.connections():
                connection.cut(Then.RST)
        self.loop.stop()


@contextmanager
def meeting(
    behaviour: Behaviour | None, settings: Listener | None = None
) -> Iterator[tuple[Conversation, OneWorker]]:
    """A client that is connected to a worker, whose only target behaves so; at the end the client has left."""
    with (
        Server(behaviour) as server,
        OneWorker(settings or listener(), pool(server.authority)) as worker,
    ):
        with Conversation(worker.address) as client:
            yield client, worker
        worker.until_left()
