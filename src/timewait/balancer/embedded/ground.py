"""What a generation of workers stands on: listening sockets, the log, names of certificates, rows of shared memory.

The next generation's ground takes over what stays the same, so that a socket lives as long as its address is wanted.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from timewait.balancer.config.model import Configuration, Listener
from timewait.balancer.embedded import access_log, certificates, shared
from timewait.balancer.embedded.messages import Socket
from timewait.balancer.engine import BalancerError
from timewait.balancer.listening import listen, release

Signature = tuple[int, int, int, int]


@dataclass
class Ground:
    """Made by `prepare`, given back by `release`."""

    listening: dict[str, socket.socket] = field(default_factory=dict)  # by the text of the bind
    sockets: tuple[Socket, ...] = ()
    names: dict[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    log: int = -1
    files: dict[str, Signature] = field(default_factory=dict)  # certificates and keys, as they were read

    @staticmethod
    def prepare(configuration: Configuration, listeners: Iterable[Listener], before: Ground) -> Ground:
        """For a new generation; what it shares with `before` is taken over. Raises BalancerError, and then nothing
        has changed."""
        listeners = list(listeners)
        ground = Ground()
        try:
            ground._read_certificates(listeners)
            ground._take_rows(listeners, before)
            if configuration.access_log:
                ground.log = access_log.open_log(configuration.access_log)
            ground._bind(listeners, before)
        except BaseException:
            ground.release(keep=before)
            raise
        return ground

    @property
    def binds(self) -> set[str]:
        """Where it listens."""
        return set(self.listening)

    @property
    def inherited(self) -> set[int]:
        """Descriptors that workers must have."""
        found = {sock.fileno() for sock in self.listening.values()}
        return found | {self.log} if self.log >= 0 else found

    def is_fresh(self, configuration: Configuration) -> bool:
        """Whether certificates and the log are still the files they were."""
        if any(_signature(path) != known for path, known in self.files.items()):
            return False
        path = configuration.access_log
        return self.log < 0 or not path or access_log.is_open_at(self.log, path)

    def release(self, keep: Ground | None = None) -> None:
        """Gives back what `keep` does not have."""
        for bind, sock in self.listening.items():
            if keep is None or keep.listening.get(bind) is not sock:
                release(bind, sock)
        self.listening = {}
        if self.log >= 0:
            os.close(self.log)
            self.log = -1

    def _bind(self, listeners: list[Listener], before: Ground) -> None:
        sockets = []
        for listener in listeners:
            for bind in listener.bind:
                known = before.listening.get(bind)
                if known is not None:
                    known.listen(listener.backlog)  # a new backlog holds for a socket that listens already, listen(2)
                self.listening[bind] = known or _listening(bind, listener.backlog)
                sockets.append(Socket(self.listening[bind].fileno(), listener.name, bind))
        self.sockets = tuple(sockets)

    def _read_certificates(self, listeners: list[Listener]) -> None:
        for listener in listeners:
            pairs = listener.tls.certificate
            if pairs:
                self.names[listener.name] = tuple(certificates.names(pair.certificate) for pair in pairs)
            for pair in pairs:
                for path in (pair.certificate, pair.key):
                    self.files[path] = _signature(path)

    def _take_rows(self, listeners: list[Listener], before: Ground) -> None:
        """A listener with limits keeps its row, and with it what old workers still hold open."""
        limited = [listener.name for listener in listeners if listener.max_conn >= 0 or listener.max_cps >= 0]
        self.rows = {name: before.rows[name] for name in limited if name in before.rows}
        taken = set(before.rows.values())
        if len(limited) + len(taken) > shared.LISTENERS:
            raise BalancerError(f"more than {shared.LISTENERS // 2} listeners have max_conn or max_cps")
        # In turn, not the lowest: workers that only drain may still count in the row of a listener that is gone.
        turn = max(taken, default=-1) + 1
        free = (row % shared.LISTENERS for row in itertools.count(turn) if row % shared.LISTENERS not in taken)
        for name in limited:
            if name not in self.rows:
                self.rows[name] = next(free)


def _listening(bind: str, backlog: int) -> socket.socket:
    sock = listen(bind, backlog)
    sock.setblocking(False)
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # whom it accepts inherits it
    return sock


def _signature(path: str) -> Signature:
    """Changes when the file does."""
    try:
        found = Path(path).stat()
    except OSError:
        return (0, 0, 0, 0)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
