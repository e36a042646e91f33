"""What the supervisor's process and a worker say to each other: MessagePack behind a length of four bytes."""

from __future__ import annotations

import struct

import msgspec

from timewait.balancer.config.model import Configuration, Pool, Then
from timewait.balancer.engine import Rotation
from timewait.balancer.statistics import Statistics

LENGTH = struct.Struct("!I")


class Identity(msgspec.Struct, frozen=True):
    """Who a worker becomes once it has what only root may have."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


class Socket(msgspec.Struct, frozen=True):
    """An inherited descriptor that listens, and for which listener."""

    descriptor: int
    listener: str
    bind: str


class _ToWorker(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    pass


class Begin(_ToWorker, frozen=True, tag=True, kw_only=True):
    """The first message: everything a worker works with. It answers Ready or Broken."""

    number: int  # unique among the workers of this engine, ever
    slot: int  # in the shared memory
    configuration: Configuration
    rotations: tuple[Rotation, ...]
    sockets: tuple[Socket, ...]
    names: dict[str, tuple[tuple[str, ...], ...]]  # listener -> the names of each of its certificates
    rows: dict[str, int]  # listener -> its row in the shared memory, where it has limits
    shared: int
    log: int  # a descriptor; -1 for none
    key: bytes
    identity: Identity | None


class Rotate(_ToWorker, frozen=True, tag=True, kw_only=True):
    """Other weights."""

    rotations: tuple[Rotation, ...]


class Adopt(_ToWorker, frozen=True, tag=True, kw_only=True):
    """Pools with other targets, otherwise as before; and the weights that count."""

    pools: tuple[Pool, ...]
    rotations: tuple[Rotation, ...]


class Cut(_ToWorker, frozen=True, tag=True, kw_only=True):
    """Ends connections to a target; answered by their number."""

    id: int
    pool: str
    target: str
    then: Then


class CountActive(_ToWorker, frozen=True, tag=True, kw_only=True):
    """Answered by the number of connections to a target that are in use."""

    id: int
    pool: str
    target: str


class Report(_ToWorker, frozen=True, tag=True, kw_only=True):
    """Answered by a Told."""

    id: int


class Retire(_ToWorker, frozen=True, tag=True, kw_only=True):
    """Accept nothing more, let connections end, then end. Whoever waits in the queue of one of the sockets named in
    `closing` is still accepted, because nobody else will do it. Answered once nothing more is accepted."""

    id: int
    closing: tuple[str, ...]


class Stop(_ToWorker, frozen=True, tag=True, kw_only=True):
    """End now."""


class _FromWorker(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    pass


class Ready(_FromWorker, frozen=True, tag=True, kw_only=True):
    """Accepting."""


class Broken(_FromWorker, frozen=True, tag=True, kw_only=True):
    """Could not start, for a reason that the user can mend."""

    reason: str


class Answer(_FromWorker, frozen=True, tag=True, kw_only=True):
    """A number that was asked for."""

    id: int
    number: int


class Told(_FromWorker, frozen=True, tag=True, kw_only=True):
    """Everything counted so far: when asked (`id`), once a second, and at the end."""

    statistics: Statistics
    id: int = -1


class Say(_FromWorker, frozen=True, tag=True, kw_only=True):
    """A line for the log."""

    text: str


ToWorker = Begin | Rotate | Adopt | Cut | CountActive | Report | Retire | Stop
FromWorker = Ready | Broken | Answer | Told | Say


def framed(message: ToWorker | FromWorker) -> bytes:
    """As it goes over the socket."""
    data = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(data)) + data


class Frames:
    """Puts messages together again from whatever pieces they come in."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are complete now."""
        buffer, found = self._buffer, []
        buffer += data
        while len(buffer) >= LENGTH.size:
            end = LENGTH.size + LENGTH.unpack_from(buffer)[0]
            if len(buffer) < end:
                break
            found.append(bytes(buffer[LENGTH.size : end]))
            del buffer[:end]
        return found
