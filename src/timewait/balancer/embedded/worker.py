"""One worker process: `python -m timewait.balancer.embedded.worker DESCRIPTOR PARENT`, started by `crew.py` only.

A fresh interpreter, not a fork: the supervisor has an event loop, threads and libraries that must not live on in
here, and a worker without them is half the size. Listening sockets come as inherited descriptors, everything else as
messages over a socket pair. When that ends, so does the worker.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import traceback
from contextlib import suppress
from socket import SocketType
from typing import Any

import msgspec

from timewait.balancer.config.model import Protocol, Then
from timewait.balancer.embedded import messages, privileges, relay, tls
from timewait.balancer.embedded.accepting import Acceptor, Serve
from timewait.balancer.embedded.access_log import FLUSH, AccessLog
from timewait.balancer.embedded.loop import IN, Loop
from timewait.balancer.embedded.shared import Limits, Shared
from timewait.balancer.embedded.state import ListenerState, PoolState, Worker
from timewait.balancer.engine import BalancerError, Rotation
from timewait.balancer.statistics import ListenerStatistics

TOLD_EVERY = 1.0  # seconds: what is lost at most of the counters when a worker is killed
LOOK_AGAIN = 0.05  # seconds between two looks at whether the last connection has ended
HTTP = (Protocol.HTTP, Protocol.HTTPS)
BUGS_TOLD = 20  # with their traceback; then they are only counted


def main(descriptor: int, parent: int) -> None:
    """Runs a worker to its end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # what they mean the supervisor decides
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    channel = SocketType(fileno=descriptor)
    channel.setblocking(True)
    frames = messages.Frames()
    begin, rest = _first(channel, frames)
    try:
        process = Process(channel, frames, begin)
        if begin.identity is not None:
            privileges.become(begin.identity)
    except (BalancerError, OSError) as error:
        channel.sendall(messages.framed(messages.Broken(reason=str(error))))
        return
    privileges.confine(parent, f"timewait-{begin.number}")
    gc.freeze()  # what is here now stays; a collection need not look at it
    gc.set_threshold(50_000, 20, 50)
    process.run(rest)


def _first(channel: SocketType, frames: messages.Frames) -> tuple[messages.Begin, list[bytes]]:
    while True:
        data = channel.recv(1 << 20)
        if not data:
            os._exit(0)  # the supervisor is gone
        found = frames.feed(data)
        if found:
            return msgspec.msgpack.decode(found[0], type=messages.Begin), found[1:]


class Process:
    """The worker, its listeners, and its end of the messages."""

    def __init__(self, channel: SocketType, frames: messages.Frames, begin: messages.Begin) -> None:
        """Does everything that may need root: keys of certificates, the log. Raises BalancerError, OSError."""
        privileges.raise_descriptors()
        self._channel, self._frames, self._begin = channel, frames, begin
        self._decoder = msgspec.msgpack.Decoder(messages.ToWorker)
        self._loop = Loop(self._bug)
        self._bugs = 0
        self._log = AccessLog(begin.log, self._say) if begin.log >= 0 else None
        self._worker = Worker(self._loop, begin.number, Shared(begin.shared), begin.configuration, self._log)
        self._worker.key, self._worker.say = begin.key, self._say
        for rotation in begin.rotations:
            self._worker.rotate(rotation)
        self._http: Any = None
        self._acceptors: list[tuple[str, Acceptor]] = []  # with the text of their bind
        self._listen()

    def _listen(self) -> None:
        begin, listeners = self._begin, self._worker.listeners
        for config in begin.configuration.listener:
            if all(sock.listener != config.name for sock in begin.sockets):
                continue  # another engine's
            statistics = self._worker.statistics.listeners[config.name] = ListenerStatistics(name=config.name)
            row = begin.rows.get(config.name)
            limits = None
            if row is not None:
                limits = Limits(self._worker.shared, row, begin.slot, config.max_conn, config.max_cps)
            state = listeners[config.name] = ListenerState(self._worker, config, statistics, limits)
            if config.tls.certificate:
                state.tls = tls.context(config.tls, begin.names[config.name], config.protocol)
        for sock in begin.sockets:
            state = listeners[sock.listener]
            listening = SocketType(fileno=sock.descriptor)
            listening.setblocking(False)
            self._acceptors.append((sock.bind, Acceptor(state, listening, self._server(state))))

    def _server(self, listener: ListenerState) -> Serve:
        if listener.config.protocol not in HTTP:
            return relay.serve
        if self._http is None:
            from timewait.balancer.embedded.http.proxy import HttpProxy  # not loaded for layer 4

            self._http = HttpProxy(self._worker)
        serve: Serve = self._http.accept
        return serve

    def run(self, waiting: list[bytes]) -> None:
        """Serves until told to stop, or until the last connection ended after being told to retire."""
        self._channel.setblocking(False)
        self._loop.watch(self._channel.fileno(), IN, self._readable)
        for _, acceptor in self._acceptors:
            acceptor.start()
        self._send(messages.Ready())
        for data in waiting:
            self._obey(self._decoder.decode(data))
        self._loop.after(TOLD_EVERY, self._tell_regularly)
        if self._log is not None:
            self._loop.after(FLUSH, self._flush_regularly)
        self._loop.run()
        if self._log is not None:
            self._log.flush()
        with suppress(OSError):
            self._send(self._told())

    # messages ---------------------------------------------------------------------------------------------------

    def _readable(self, events: int) -> None:
        try:
            data = self._channel.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._stop()  # the supervisor is gone
            return
        for frame in self._frames.feed(data):
            self._obey(self._decoder.decode(frame))

    def _obey(self, message: messages.ToWorker) -> None:
        match message:
            case messages.Rotate(rotations=rotations):
                self._rotate(rotations)
            case messages.Adopt():
                self._adopt(message)
            case messages.Cut():
                self._answer(message.id, self._cut(message))
            case messages.CountActive():
                self._answer(message.id, self._active(message))
            case messages.Report():
                self._send(self._told(message.id))
            case messages.Retire():
                self._retire(message.closing)
                self._answer(message.id, 0)
            case messages.Stop():
                self._stop()

    def _rotate(self, rotations: tuple[Rotation, ...]) -> None:
        for rotation in rotations:
            pool = self._worker.rotate(rotation)
            if pool is not None and self._http is not None:
                self._http.rotated(pool)

    def _adopt(self, message: messages.Adopt) -> None:
        for config in message.pools:
            known = self._worker.pools.get(config.name)
            if known is not None:
                known.adopt(config.target)
        self._rotate(message.rotations)

    def _cut(self, message: messages.Cut) -> int:
        pool = self._worker.pools.get(message.pool)
        open_now = list(pool.connections(message.target)) if pool is not None else []
        if message.then is Then.LEAVE:
            return 0
        for connection in open_now:
            connection.cut(message.then)
        return len(open_now)

    def _active(self, message: messages.CountActive) -> int:
        pool: PoolState | None = self._worker.pools.get(message.pool)
        return len(pool.connections(message.target)) if pool is not None else 0

    def _retire(self, closing: tuple[str, ...]) -> None:
        if self._worker.draining:
            return
        self._worker.draining = True
        for bind, acceptor in self._acceptors:
            acceptor.stop(last=bind in closing)
        self._acceptors = []
        if self._http is not None:
            self._http.drain()
        self._end_when_empty()

    def _end_when_empty(self) -> None:
        if not self._worker.remaining:
            self._loop.stop()
        else:
            self._loop.after(LOOK_AGAIN, self._end_when_empty)

    def _stop(self) -> None:
        """Ends everything, each connection to a target with a reset: a FIN would keep its port for a minute."""
        if self._http is not None:
            self._http.stop()
        for pool in self._worker.pools.values():
            for connection in pool.connections():
                connection.cut(Then.RST)
        self._loop.stop()

    def _answer(self, number: int, value: int) -> None:
        self._send(messages.Answer(id=number, number=value))

    def _say(self, text: str) -> None:
        self._send(messages.Say(text=text))

    def _told(self, number: int = -1) -> messages.Told:
        if self._http is not None:
            self._http.count()
        if self._log is not None:
            self._worker.statistics.log_lost = self._log.lost
        return messages.Told(statistics=self._worker.statistics, id=number)

    def _send(self, message: messages.FromWorker) -> None:
        """The supervisor reads all the time; one that does not for a while stops us, and then it must not."""
        self._channel.setblocking(True)
        try:
            self._channel.sendall(messages.framed(message))
        except OSError:
            self._loop.stop()
        finally:
            self._channel.setblocking(False)

    # regularly --------------------------------------------------------------------------------------------------

    def _tell_regularly(self) -> None:
        self._loop.after(TOLD_EVERY, self._tell_regularly)
        self._send(self._told())

    def _flush_regularly(self) -> None:
        assert self._log is not None
        self._loop.after(FLUSH, self._flush_regularly)
        self._log.flush()

    def _bug(self, fd: int, error: Exception) -> None:
        """A handler or callback failed: the loop has its connection end (crashed()), all others go on."""
        self._bugs += 1
        if self._bugs <= BUGS_TOLD:
            told = "".join(traceback.format_exception(error)).rstrip()
            self._say(f"a worker met a bug of timewait at one connection, which it ends; the others go on:\n{told}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
