"""The kernel's TCP sockets through NETLINK_SOCK_DIAG, fast enough for a million of them.

Ours on purpose: a general netlink library makes objects of every message, ten microseconds and a kilobyte each.
Here the kernel filters (`bytecode`), the answers land in one buffer (`netlink`), and NumPy looks at that buffer as
rows. Only sums are kept, so a count of a million sockets needs a megabyte or two.

A message is a netlink header and `struct inet_diag_msg` (linux/inet_diag.h, 72 bytes), then attributes. All
TIME_WAIT messages of a dump are equally long, so a batch of them is an array as it stands; a batch of mixed lengths
is gathered into one first. A TIME_WAIT's own FIN_WAIT2 substate is shown, and counted, as FIN_WAIT2.

A dump walks the established hash of the whole machine, bucket by bucket, for any namespace. Sockets that move
meanwhile may be missed or seen twice: a count under load is close, not exact. IPv4 destinations are asked for twice,
as AF_INET and as IPv4-mapped AF_INET6, since either kind uses up the same ports.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from timewait.observe import netlink
from timewait.observe.bytecode import Filter, Match, Side, compile_filter
from timewait.observe.netlink import Netlink
from timewait.tcp.states import State

_SOCK_DIAG_BY_FAMILY = 20
_INET_DIAG_REQ_BYTECODE = 1
_INET_DIAG_SKV6ONLY = 11
_REQUEST = struct.Struct("=BBBxI")  # family, protocol, attributes wanted, states; inet_diag_sockid follows
_ANY_COOKIE = b"\xff" * 8
_MOST_PORTS = 32  # filtered by the kernel; past that every socket costs it more than sending does
_ATTEMPTS = 3  # of a dump the kernel calls interrupted; the last one is taken as it is, see SockDiag.fold

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Rows = np.ndarray[Any, np.dtype[np.void]]
Columns = np.ndarray[Any, np.dtype[np.uint64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


CONNECTED = frozenset(State) - {State.LISTEN, State.CLOSE}  # sockets with two ends; NEW_SYN_RECV shows as SYN_RECV
ENDING = frozenset({State.FIN_WAIT1, State.FIN_WAIT2, State.CLOSE_WAIT, State.LAST_ACK, State.CLOSING})
EVERY_FAMILY = (socket.AF_INET, socket.AF_INET6)

_FIELDS: dict[str, tuple[str, int]] = {
    "length": ("=u4", 0),
    "type": ("=u2", 4),
    "flags": ("=u2", 6),
    "family": ("u1", 16),
    "state": ("u1", 17),
    "local_port": (">u2", 20),
    "remote_port": (">u2", 22),
    "local": (">u8", 24),  # two halves each; an IPv4 address stands in the first 32 bits
    "local_low": (">u8", 32),
    "remote": (">u8", 40),
    "remote_low": (">u8", 48),
    "rqueue": ("=u4", 72),
    "wqueue": ("=u4", 76),
}
_SHORTEST = 88
_NAMES, _FORMATS, _OFFSETS = list(_FIELDS), [f for f, _ in _FIELDS.values()], [o for _, o in _FIELDS.values()]


def _layout(stride: int) -> np.dtype[np.void]:
    return np.dtype({"names": _NAMES, "formats": _FORMATS, "offsets": _OFFSETS, "itemsize": stride})


def parse(batch: memoryview) -> Rows:
    """Whole netlink messages as rows. Views `batch` where all are equally long, else copies their fixed part.

    Raises NetlinkError (garbled) for a message that is no inet_diag_msg.
    """
    stride = int.from_bytes(batch[:2], "little") if _LITTLE else int.from_bytes(batch[2:4], "big")
    if stride >= _SHORTEST and stride % 4 == 0 and len(batch) % stride == 0:
        rows = np.frombuffer(batch, dtype=_layout(stride))
        if (rows["length"] == stride).all() and (rows["type"] == _SOCK_DIAG_BY_FAMILY).all():
            return rows
    words = np.frombuffer(batch, dtype=np.uint32)
    at = _starts(batch)
    table = words[np.array(at)[:, None] + np.arange(_SHORTEST // 4)]
    rows = table.view(_layout(_SHORTEST)).reshape(-1)
    if not (rows["type"] == _SOCK_DIAG_BY_FAMILY).all():
        raise netlink.NetlinkError("garbled", 0, "the kernel answered with something that is no socket")
    return rows


_LITTLE = struct.pack("=H", 1) == b"\x01\x00"


def _starts(batch: memoryview) -> list[int]:
    """Where messages begin, in 32-bit words."""
    lengths = batch.cast("I")
    at, end, starts = 0, len(batch) // 4, []
    while at < end:
        starts.append(at)
        step = (lengths[at] + 3) >> 2
        if lengths[at] < _SHORTEST or at + step > end:
            raise netlink.NetlinkError("garbled", 0, f"the kernel answered with a message of {lengths[at]} bytes")
        at += step
    return starts


def ends(rows: Rows, side: Side) -> tuple[Columns, Columns]:
    """Addresses of one side as upper and lower 64 bits of IPv6; IPv4 in its mapped form, ::ffff:a.b.c.d."""
    high, low = rows[side.value].astype(np.uint64), rows[f"{side.value}_low"].astype(np.uint64)
    four = rows["family"] == socket.AF_INET
    if four.all():
        return np.zeros_like(high), (high >> np.uint64(32)) | _MAPPED
    if four.any():
        low = np.where(four, (high >> np.uint64(32)) | _MAPPED, low)
        high = np.where(four, np.uint64(0), high)
    return high, low


_MAPPED = np.uint64(0xFFFF << 32)


def halves(address: Address) -> tuple[int, int]:
    """What `ends` makes of this address."""
    number = int(address) if address.version == 6 else (0xFFFF << 32) | int(address)
    return number >> 64, number & (1 << 64) - 1


def whole(high: int, low: int) -> Address:
    """The address of which these are the halves; a mapped one comes back as IPv4."""
    six = ipaddress.IPv6Address(high << 64 | low)
    return six.ipv4_mapped or six


class Listener(NamedTuple):
    """A listening socket. Queue and limit as of inet_diag: connections to accept(), and sk_max_ack_backlog."""

    address: Address
    port: int
    queue: int
    limit: int
    takes_ipv4: bool  # bound to an IPv4 address, or to :: without IPV6_V6ONLY

    def accepts(self, address: Address) -> bool:
        """Whether a SYN to this address of this machine may end here (compute_score(), inet_hashtables.c)."""
        if self.address.is_unspecified:
            return self.takes_ipv4 if address.version == 4 else self.address.version == 6
        return self.address == address


class Folder(Protocol):
    """Something that adds up rows; they are valid during the call only."""

    def add(self, rows: Rows, /) -> None: ...


_F = TypeVar("_F", bound=Folder)


class SockDiag:
    """Questions to the kernel's socket table, in the network namespace of the thread that makes this object.

    Every method raises NetlinkError. After one, the next question opens a fresh socket.
    """

    def __init__(self, wire: netlink.Wire | None = None) -> None:
        self._link = Netlink(wire or netlink.connect())

    def __enter__(self) -> SockDiag:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._link.close()

    def fold(self, states: frozenset[State], where: Filter, fresh: Callable[[], _F]) -> _F:
        """Adds every socket in these states that passes the filter to a fresh folder, and returns it.

        A dump marked NLM_F_DUMP_INTR is begun again, three times at most; then the last is taken, since a table
        that keeps moving has no exact count anyway.
        """
        program = compile_filter(where)
        for _ in range(_ATTEMPTS):
            folder, interrupted = fresh(), False
            for family in _families(where):
                with closing(self._dump(family, states, program, where)) as batches:
                    for batch in batches:
                        rows = parse(batch)
                        folder.add(rows)
                        interrupted |= bool(np.bitwise_or.reduce(rows["flags"]) & netlink.NLM_F_DUMP_INTR)
                interrupted |= self._link.interrupted
            if not interrupted:
                break
        return folder

    def count(self, where: Filter = (), states: frozenset[State] = CONNECTED) -> dict[State, int]:
        """Sockets by state; states with none are left out."""
        return self.fold(states, where, _ByState).counts()

    def time_wait_left(self, where: Filter = (), patience: float = 5.0) -> int:
        """TIME_WAIT once nothing there is about to end, or after `patience` seconds: whoever has closed first may
        wait for the FIN of an end whose program is slow."""
        limit = time.monotonic() + patience
        while self.count(where, ENDING) and time.monotonic() < limit:
            time.sleep(0.01)
        return self.count(where, frozenset({State.TIME_WAIT})).get(State.TIME_WAIT, 0)

    def local_ports(self, where: Filter = (), states: frozenset[State] = CONNECTED) -> int:
        """How many distinct local ports these sockets have."""
        return self.fold(states, where, _LocalPorts).count()

    def by_local_port(self, ports: Sequence[int], states: frozenset[State] = CONNECTED) -> dict[int, int]:
        """Sockets whose local port is one of these, whatever their address."""
        if not ports:
            return {}
        where = tuple((Match(Side.LOCAL, low=port, high=port),) for port in ports)
        return self.fold(states, where if len(where) <= _MOST_PORTS else (), lambda: _ByLocalPort(ports)).counts()

    def listeners(self, port: int | None = None) -> list[Listener]:
        """Listening sockets, of one port or all."""
        where = () if port is None else ((Match(Side.LOCAL, low=port, high=port),),)
        found: list[Listener] = []
        program = compile_filter(where)
        for family in EVERY_FAMILY:
            for batch in self._dump(family, frozenset({State.LISTEN}), program, where):
                found += _listeners(batch)
        return found

    def _dump(self, family: int, states: frozenset[State], program: bytes, where: Filter) -> Generator[memoryview]:
        mask = sum(1 << state for state in states)
        local, remote = _port_of_all(where, Side.LOCAL), _port_of_all(where, Side.REMOTE)
        body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, mask)
        body += struct.pack(">HH", local, remote) + bytes(36) + _ANY_COOKIE  # no addresses, any interface
        if program:
            body += struct.pack("=HH", 4 + len(program), _INET_DIAG_REQ_BYTECODE) + program
        return self._open().dump(_SOCK_DIAG_BY_FAMILY, body)

    def _open(self) -> Netlink:
        if self._link.closed:
            self._link = Netlink(netlink.connect())
        return self._link


def _families(where: Filter) -> tuple[int, ...]:
    """Which dumps a filter needs: real IPv6 addresses are in AF_INET6 only."""
    if where and all(any(m.address is not None and m.address.version == 6 for m in clause) for clause in where):
        return (socket.AF_INET6,)
    return EVERY_FAMILY


def _port_of_all(where: Filter, side: Side) -> int:
    """The port every alternative asks for on this side, or 0.

    inet_diag compares idiag_sport and idiag_dport before it runs the filter, which is a little cheaper.
    """
    ports = [{m.low for m in clause if m.side is side and m.one_port} for clause in where]
    common = set.intersection(*ports) if ports else set()
    return next(iter(common)) if len(common) == 1 else 0


def toward(address: Address, port: int) -> Filter:
    """Sockets of this machine connected to a destination."""
    return ((Match(Side.REMOTE, address, port, port),),)


def held_at(address: Address, port: int) -> Filter:
    """Sockets whose local end this is: the other side of `toward`, where it lives in this namespace."""
    return ((Match(Side.LOCAL, address, port, port),),)


class _ByState:
    def __init__(self) -> None:
        self._table = np.zeros(256, dtype=np.int64)

    def add(self, rows: Rows, /) -> None:
        self._table += np.bincount(rows["state"], minlength=256)

    def counts(self) -> dict[State, int]:
        return {state: int(self._table[state]) for state in State if self._table[state]}


class _ByLocalPort:
    def __init__(self, ports: Sequence[int]) -> None:
        self._ports, self._table = ports, np.zeros(65536, dtype=np.int64)

    def add(self, rows: Rows, /) -> None:
        self._table += np.bincount(rows["local_port"], minlength=65536)

    def counts(self) -> dict[int, int]:
        return {port: int(self._table[port]) for port in self._ports}


class _LocalPorts:
    def __init__(self) -> None:
        self._seen = np.zeros(65536, dtype=np.bool_)

    def add(self, rows: Rows, /) -> None:
        self._seen[rows["local_port"]] = True

    def count(self) -> int:
        return int(np.count_nonzero(self._seen))


def _listeners(batch: memoryview) -> Sequence[Listener]:
    found = []
    for word in _starts(batch):
        at = word * 4
        (length,) = struct.unpack_from("=I", batch, at)
        family = batch[at + 16]
        (port,) = struct.unpack_from(">H", batch, at + 20)
        queue, limit = struct.unpack_from("=II", batch, at + 72)
        packed = bytes(batch[at + 24 : at + (28 if family == socket.AF_INET else 40)])
        address = ipaddress.ip_address(packed)
        only_six = _attribute(batch[at + _SHORTEST : at + length], _INET_DIAG_SKV6ONLY) == b"\x01"
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        takes_ipv4 = address.version == 4 or (address.is_unspecified and not only_six)
        found.append(Listener(address, port, queue, limit, takes_ipv4))
    return found


def _attribute(attributes: memoryview, wanted: int) -> bytes | None:
    at = 0
    while at + 4 <= len(attributes):
        length, kind = struct.unpack_from("=HH", attributes, at)
        if length < 4:
            break
        if kind == wanted:
            return bytes(attributes[at + 4 : at + length])
        at += (length + 3) & ~3
    return None
