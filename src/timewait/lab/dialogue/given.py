"""How a connection comes into a state, told in the language itself: what a `given` line stands for.

`given` names the state, the sequence number the host expects next, and the peer's timestamp. Everything on the way
is checked like any other line.
"""

from __future__ import annotations

from collections.abc import Iterator

_ACCEPTED = (
    "host listen",
    "> SYN seq={isn} {ts}",
    "< SYN ACK seq=0 ack={isn1} {echo}",
    "> ACK seq={isn1} ack=1 {ts}",
    "host accept",
)
_CONNECTED = (
    "host connect {bound}",
    "< SYN seq=new ts=any",
    "> SYN ACK seq={isn} ack=1 {ts}",
    "< ACK seq=1 ack={isn1} {echo}",
)
_CLOSED = ("host close", "< FIN ACK seq=1 ack={isn1} {echo}")
_PEER_CLOSED = "> FIN ACK seq={isn1} ack=1 {ts}"
_LATER = ("wait 100ms", "< ACK seq=1 ack={isn2} {echo}")  # the ACK waits 40 ms for a FIN of ours to travel with

WAYS: dict[str, tuple[str, ...]] = {
    "ESTABLISHED": (),
    "FIN_WAIT1": _CLOSED,
    "FIN_WAIT2": (*_CLOSED, "> ACK seq={isn1} ack=2 {ts}"),
    "TIME_WAIT": (*_CLOSED, "> FIN ACK seq={isn1} ack=2 {ts}", "< ACK seq=2 ack={isn2} {echo}"),
    "CLOSING": (*_CLOSED, "> FIN ACK seq={isn1} ack=1 {ts}", "< ACK seq=2 ack={isn2} {echo}"),
    "CLOSE_WAIT": (_PEER_CLOSED, *_LATER),
    "LAST_ACK": (_PEER_CLOSED, "host close", "< FIN ACK seq=1 ack={isn2} {echo}"),
}
"""After the handshake. The host closes first but in the last two; FIN_WAIT2 is that of an orphan."""

_FIN_RECEIVED = ("TIME_WAIT", "CLOSING", "CLOSE_WAIT", "LAST_ACK")


def lines(state: str, seq: int, ts: int | None, *, connected: bool, bound: bool) -> Iterator[str]:
    """Its lines. `connected`: the host opened the connection, from a port of its own choice if `bound`."""
    isn = seq - (2 if state in _FIN_RECEIVED else 1)
    words = {
        "isn": isn % 2**32,
        "isn1": (isn + 1) % 2**32,
        "isn2": (isn + 2) % 2**32,
        "ts": "" if ts is None else f"ts={ts}",
        "echo": "" if ts is None else f"ecr={ts}",
        "bound": "port=40000 reuse" if bound else "",
    }
    for line in (*(_CONNECTED if connected else _ACCEPTED), *WAYS[state]):
        yield line.format(**words).rstrip()
