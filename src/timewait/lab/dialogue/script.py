"""What a dialogue consists of: the steps of a script, as frozen values. `language.parse` makes them."""

from __future__ import annotations

import msgspec

STATES = (
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "CLOSING",
)
GONE = "gone"  # no socket of that connection, of any kind
CLIENT_PORT, SERVER_PORT = 40_000, 80  # of every dialogue, unless a line names another client port
LISTENER, CONNECTION = "listener", "connection"  # what sockets are called unless a line names them


class Script(msgspec.Struct, frozen=True):
    """A dialogue. `kernels` are names of profiles, oldest first; `model` says why it is not for a real kernel."""

    name: str
    why: str
    source: str  # the kernel's function
    kernels: tuple[str, ...]
    ipv6: bool
    model: str
    steps: tuple[Step, ...]

    @property
    def connects(self) -> bool:
        """Whether the host is the client; otherwise it is the server."""
        return any(isinstance(step, Call) and step.verb == "connect" for step in self.steps)

    def steps_for(self, kernel: str) -> tuple[Step, ...]:
        """The steps that hold for this profile, in order."""
        return tuple(step for step in self.steps if not step.only or kernel in step.only)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One line. `only` are the profiles it holds for, () for all; `text` is the line as it was written.

    A `given` line becomes several steps under its number; all but the last are `implied` by it.
    """

    line: int
    text: str
    only: tuple[str, ...] = ()
    implied: bool = False


class Send(Step, frozen=True, kw_only=True):
    """The peer sends. Its own numbers are absolute; `ack` counts from the host's first SYN; `tsecr` None echoes."""

    flags: int
    seq: int
    ack: int
    length: int
    tsval: int | None  # None: the segment has no timestamps
    tsecr: int | None
    port: int | None


class Expect(Step, frozen=True, kw_only=True):
    """The host sends this next. Flags (but PSH) and length are always compared, of the rest what is not None."""

    flags: int
    seq: int | None
    ack: int | None
    length: int
    timestamps: bool | None  # whether there are any
    tsecr: int | None
    port: int | None
    fresh: bool  # `seq=new`: an initial sequence number of its own, from which numbers count from now on


class Nothing(Step, frozen=True, kw_only=True):
    """The host sends nothing: what every step checks, made visible."""


class Call(Step, frozen=True, kw_only=True):
    """A socket call of the host. `number`: bytes, backlog or seconds; `errno`: what it must fail with, or ""."""

    verb: str
    number: int
    socket: str
    port: int  # bound to before connect(); 0: the kernel chooses
    reuse: bool  # SO_REUSEADDR
    errno: str


class Wait(Step, frozen=True, kw_only=True):
    """Time passes."""

    seconds: float


class SetKnobs(Step, frozen=True, kw_only=True):
    """Sysctls of the host under net.ipv4 change."""

    values: tuple[tuple[str, str], ...]


class Count(Step, frozen=True, kw_only=True):
    """By how much counters moved since the last Count, or since `given`; all others the rules know did not."""

    moved: tuple[tuple[str, int], ...]


class State(Step, frozen=True, kw_only=True):
    """The state of a connection; `timer` is what its timer was set to, `age` seconds ago."""

    name: str
    timer: float | None
    age: float
    port: int | None


class Given(Step, frozen=True, kw_only=True):
    """What came before is settled: counters start at nothing."""
