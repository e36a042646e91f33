"""What a kernel does with a segment."""

from __future__ import annotations

from enum import IntEnum


class Action(IntEnum):
    ACCEPT = 0  # a SYN-ACK leaves, the connection is remembered
    DROP = 1  # a SYN is dropped without a word
    ACK = 2  # a bare ACK leaves
    RESET = 3  # a RST leaves, TIME_WAIT ends
    KILL = 4  # nothing leaves, TIME_WAIT ends
    IGNORE = 5  # nothing leaves, TIME_WAIT stays
    COOKIE = 6  # a SYN-ACK leaves, nothing is remembered
