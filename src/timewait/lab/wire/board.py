"""Memory that a wire's process writes and the process that started it reads; neither waits for the other.

Two things stand in it: a state, which is replaced as a whole, and a list of records, which only grows and has an end.
A reader that finds the state half written reads again: its version is odd meanwhile (a sequence lock).
"""

from __future__ import annotations

import mmap

_VERSION, _SIZE, _USED, _LOST = range(4)  # numbers at the start
_STATE_PLACE = 64
_LENGTH = 2  # bytes in front of each record


class Board:
    """Made before the process is forked, so that both have it. Sizes in bytes."""

    def __init__(self, state: int = 16_384, records: int = 2 << 20) -> None:
        memory = memoryview(mmap.mmap(-1, _STATE_PLACE + state + records))  # zeros; pages exist once they are written
        self._numbers = memory[:_STATE_PLACE].cast("Q")
        self._state = memory[_STATE_PLACE : _STATE_PLACE + state]
        self._records = memory[_STATE_PLACE + state :]

    def show(self, text: bytes) -> None:
        """Replaces the state. Raises ValueError when it is too long."""
        numbers = self._numbers
        numbers[_VERSION] += 1
        self._state[: len(text)] = text
        numbers[_SIZE] = len(text)
        numbers[_VERSION] += 1

    def add(self, record: bytes) -> None:
        """One more record of less than 64 KiB; without room for it, it is counted only."""
        used = self._numbers[_USED]
        end = used + _LENGTH + len(record)
        if end > len(self._records) or self._numbers[_LOST]:  # what there is, is the first ones without a gap
            self._numbers[_LOST] += 1
            return
        self._records[used : used + _LENGTH] = len(record).to_bytes(_LENGTH, "little")
        self._records[used + _LENGTH : end] = record
        self._numbers[_USED] = end

    def state(self) -> bytes:
        """The state as it was last shown whole; empty before that."""
        for _ in range(10_000):  # a writer killed in the midst of it leaves an odd version
            version = self._numbers[_VERSION]
            text = bytes(self._state[: self._numbers[_SIZE]])
            if version == self._numbers[_VERSION] and version % 2 == 0:
                break
        return text

    def records(self) -> list[bytes]:
        """All records, in their order."""
        used, place, found = self._numbers[_USED], 0, []
        while place < used:
            start = place + _LENGTH
            place = start + int.from_bytes(self._records[place:start], "little")
            found.append(bytes(self._records[start:place]))
        return found

    @property
    def lost(self) -> int:
        """Records there was no room for."""
        return self._numbers[_LOST]
