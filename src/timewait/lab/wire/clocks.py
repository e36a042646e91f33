"""Timestamps rewritten: a host with another clock than the kernel it shares with all the others; SYNs without."""

from __future__ import annotations

from timewait.lab import frames
from timewait.lab.frames import Packet
from timewait.tcp.segment import u32


def departed(frame: bytearray | memoryview, packet: Packet, shift: int) -> Packet:
    """A segment of the shifted host on its way out: its TSval as the others are to see it."""
    tsval = u32(packet.tsval + shift)
    frames.set_timestamps(frame, packet, tsval, packet.tsecr)
    return packet._replace(tsval=tsval)


def arriving(frame: bytearray | memoryview, packet: Packet, shift: int) -> None:
    """A segment for the shifted host: the echo of its TSval as it wrote it. 0 is no echo (tcp_parse_options())."""
    if packet.tsecr:
        frames.set_timestamps(frame, packet, packet.tsval, u32(packet.tsecr - shift))


def stripped(frame: bytearray | memoryview, packet: Packet) -> Packet:
    """A SYN that offers no timestamps."""
    found: Packet | None = packet
    while found is not None and found.has_ts:
        frames.erase_timestamps(frame, found)
        packet = found
        found = frames.parse(frame)
    return packet._replace(has_ts=False, tsval=0, tsecr=0, ts=0)
