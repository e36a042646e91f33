"""Where a dialogue is played: what the model and a real kernel both do, and what they are asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from timewait.lab.dialogue.script import Call
from timewait.tcp.segment import Segment


class Sent(NamedTuple):
    """A segment the host sent, on the connection with this client port."""

    segment: Segment
    port: int


class Shown(NamedTuple):
    """A connection as the kernel shows it."""

    state: str
    left: float | None  # seconds until its timer of TIME_WAIT or FIN_WAIT2 ends, None where none runs


class Stage(Protocol):
    """A host under test and the way to it. `port` is always the client's, whichever end that is."""

    def now(self) -> float:
        """Seconds, on whatever clock passes here."""

    def send(self, segment: Segment, port: int) -> None:
        """The peer sends."""

    def call(self, call: Call) -> str:
        """The host's program makes a socket call: "" when it did what was asked, else the name of the error.

        `recv` of another number of bytes than asked gives that, as "3 bytes".
        """

    def set_knob(self, name: str, value: str) -> None:
        """A sysctl of the host changes."""

    def wait(self, seconds: float) -> None:
        """Time passes."""

    def sent(self) -> Sequence[Sent]:
        """What the host has sent since this was last asked, everything and in order."""

    def counters(self) -> dict[str, int]:
        """The counters the rules know; one that stands at 0 may be left out."""

    def state(self, port: int) -> Shown | None:
        """The connection, None where there is none, not even in TIME_WAIT."""
