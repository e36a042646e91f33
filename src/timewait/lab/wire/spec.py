"""What a wire does to the frames that cross it: plain data, valid from the moment it is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from timewait.tcp import kernels
from timewait.tcp.segment import ACK, FIN, PSH, RST, SYN

Toward = Literal["a", "b", ""]
"""The end a frame goes to: `a` is the first end of the link, `b` the second; empty: either."""

FLAGS = {"FIN": FIN, "SYN": SYN, "RST": RST, "PSH": PSH, "ACK": ACK}
LONGEST_DELAY = 60.0  # seconds; frames wait in memory
LOST, CROWDED, OLD = "loss", "too many on the way", "old kernel"
"""What frames are counted under that did not arrive, beside the names of drops."""


def _share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value}: a share is between 0 and 1")


class OldKernel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rules an end seems to live by: SYNs that this kernel would drop for its peer record never reach it.

    `name` and `knobs` as `tcp.kernels` takes them. Raises UnknownKernelError, UnknownKnobError (ValueErrors).
    """

    name: str
    knobs: dict[str, int | str] = {}

    def __post_init__(self) -> None:
        kernels.knobs(kernels.kernel(self.name), self.knobs)


class End(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One end of the wire, as the rest of the network sees the host there."""

    clock_shift: int = 0  # ticks added to the TSval of what it sends, taken off the TSecr of what it gets
    kernel: OldKernel | None = None

    def __post_init__(self) -> None:
        if not -(2**31) <= self.clock_shift < 2**32:
            raise ValueError(f"clock_shift={self.clock_shift}: a timestamp has 32 bits")


class Drop(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """TCP segments that vanish. All conditions must hold; without any condition every segment does."""

    name: str  # they are counted under it
    toward: Toward = ""
    flags: tuple[str, ...] = ()  # all of these are set
    without: tuple[str, ...] = ()  # none of these is
    empty: bool = False  # no payload
    answers_syn: bool = False  # a segment other than SYN-ACK that comes while a SYN of the other end is unanswered
    port: int = 0  # its source or its target; 0: any
    first: int = 0  # so many, later ones pass; 0: all
    share: float = 1.0  # of those that meet the conditions, at random

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a drop needs a name, under which it is counted")
        if self.name in (LOST, CROWDED, OLD):
            raise ValueError(f"drop {self.name!r}: other frames are counted under this name; choose another")
        for flag in (*self.flags, *self.without):
            if flag not in FLAGS:
                raise ValueError(f"drop {self.name!r}: no flag {flag!r}; there are {', '.join(FLAGS)}")
        if both := set(self.flags) & set(self.without):
            raise ValueError(f"drop {self.name!r}: {' '.join(sorted(both))} both set and not set drops nothing")
        if not 0 <= self.port <= 65535 or self.first < 0:
            raise ValueError(f"drop {self.name!r}: port={self.port} first={self.first}: out of range")
        _share(f"drop {self.name!r}: share", self.share)


ACKS_TO_SYNS = Drop(name="ACKs to SYNs", flags=("ACK",), without=("SYN", "RST"), empty=True, answers_syn=True)
"""What a TIME_WAIT answers to a SYN it does not accept. Stateful firewalls take it for invalid."""

RESETS = Drop(name="resets", flags=("RST",))


class WireSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One link. Times in seconds, each way; shares between 0 and 1. The same seed makes the same choices.

    Raises ValueError with what is wrong, where, and what would be right.
    """

    a: End = End()
    b: End = End()
    delay: float = 0.0
    jitter: float = 0.0  # up to so much more, evenly distributed; frames keep their order
    loss: float = 0.0
    reorder: float = 0.0  # share of frames held back by `reorder_by`, so that later ones overtake
    reorder_by: float = 0.002
    drop: tuple[Drop, ...] = ()
    strip_timestamps: bool = False  # SYNs lose the option on their way, so that neither end uses it
    pcap: str = ""  # file to record to; empty: none
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("delay", "jitter", "reorder_by"):
            value = getattr(self, name)
            if not 0 <= value <= LONGEST_DELAY:
                raise ValueError(f"{name}={value}: 0 to {LONGEST_DELAY:.0f} seconds")
        for name in ("loss", "reorder"):
            _share(name, getattr(self, name))
        names = [drop.name for drop in self.drop]
        if len(set(names)) < len(names):
            raise ValueError(f"two drops have one name: {', '.join(names)}")


def spec(settings: Mapping[str, object]) -> WireSpec:
    """From plain data, as JSON gives it. Raises ValueError (msgspec.ValidationError for types and unknown names)."""
    return msgspec.convert(settings, WireSpec)
