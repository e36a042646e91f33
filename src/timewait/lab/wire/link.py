"""A wire between two hosts: its process, as whoever started it sees it."""

from __future__ import annotations

import os
import signal

import msgspec

from timewait.lab import children, links
from timewait.lab.namespaces import Namespace
from timewait.lab.wire import loop, offloads, pcap, told
from timewait.lab.wire.board import Board
from timewait.lab.wire.spec import WireSpec
from timewait.lab.wire.tap import Tap
from timewait.lab.wire.told import Counts, Event

_PATIENCE = 20.0  # seconds for what was recorded to be written, on a disk or a machine that is busy

End = tuple[Namespace, str]  # a host and the name its interface gets


class Wire:
    """Makes an interface in either namespace, up and without addresses, and carries frames between them.

    Both are gone with `stop`, with the process of the wire, and with this one. Raises OSError when the capture file
    cannot be made, NetlinkError when an interface cannot (EEXIST: the name is taken).
    """

    def __init__(self, spec: WireSpec, a: End, b: End, name: str = "") -> None:
        self.spec = spec
        self.name = name or f"the wire between {a[0].name} and {b[0].name}"
        self._board = Board()
        self._board.show(msgspec.msgpack.encode(told.nothing(spec)))
        file = pcap.create(spec.pcap) if spec.pcap else -1
        try:
            self._child = self._start((a, b), file)
        finally:
            if file >= 0:
                os.close(file)
        self._stopped = False

    def _start(self, ends: tuple[End, End], file: int) -> children.Child:
        # Only the wire's process holds its namespace in the end: with it the interfaces go, also the hosts' ones.
        with Namespace(self.name) as room:
            with room.entered():
                _keep_silent()
            for (host, interface), own in zip(ends, "ab", strict=True):
                links.join(host, interface, room, own)
                with host.entered():
                    offloads.switch_off(interface)
            with room.entered():
                taps = Tap("a"), Tap("b")
                keep = [tap.fileno() for tap in taps] + ([file] if file >= 0 else [])
                child = children.start(lambda: os._exit(loop.Loop(self.spec, taps, self._board, file).run()), keep)
            for tap in taps:
                tap.close()
        return child

    def __repr__(self) -> str:
        return f"<Wire {self.name} {'alive' if self.alive else 'ended'}>"

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def alive(self) -> bool:
        return self._child.wait(0) is None

    def counts(self) -> Counts:
        """As of a millisecond ago; still there when the wire has ended."""
        return msgspec.msgpack.decode(self._board.state(), type=Counts)

    def events(self) -> list[Event]:
        """The SYNs that did not arrive, in their order: the first ones, see `events_lost`."""
        return [msgspec.msgpack.decode(record, type=Event) for record in self._board.records()]

    @property
    def events_lost(self) -> int:
        """How many more there were, for which `events` had no room."""
        return self._board.lost

    def died(self) -> str | None:
        """`the wire between a and b was ended by SIGKILL`; None while it runs, and after `stop`."""
        status = self._child.wait(0)
        if status is None or self._stopped:
            return None
        if status < 0:
            return f"{self.name} was ended by {signal.Signals(-status).name}"
        return f"{self.name} ended: " + ("an interface is gone" if status == loop.GONE else f"exit status {status}")

    def stop(self) -> None:
        """Ends it. Its interfaces are gone, its counts remain."""
        self._stopped = True
        self._child.stop(_PATIENCE)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _keep_silent() -> None:
    """Interfaces of this namespace take part in nothing: IPv6 would look for neighbours and routers by itself."""
    try:
        links.set_sysctl("net.ipv6.conf.default.disable_ipv6", "1")
    except FileNotFoundError:  # a kernel without IPv6
        pass
