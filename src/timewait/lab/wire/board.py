"""Memory that a wire's process writes and the process that started it reads; neither waits for the other.

Two things stand in it: a state, which is replaced as a whole, and a list of records, which only grows and has an end.
A state is written beside the one before, and counts from when it is whole: whoever writes may be stopped or killed
in the midst of it, and a reader has the one before. It reads again where it was overtaken so often that the place it
read from was written to meanwhile.
"""

from __future__ import annotations

import mmap

_SHOWN, _USED, _LOST = range(3)  # numbers at the start: states shown so far, bytes of records, records without room
_SIZES, _COPIES = 3, 4  # then the size of the state in each of its places, which are used in turn
_STATE_PLACE = 64
_LENGTH = 2  # bytes in front of each record


class Board:
    """Made before the process is forked, so that both have it. Sizes in bytes."""

    def __init__(self, state: int = 16_384, records: int = 2 << 20) -> None:
        end = _STATE_PLACE + _COPIES * state
        memory = memoryview(mmap.mmap(-1, end + records))  # zeros; pages exist once they are written
        self._numbers = memory[:_STATE_PLACE].cast("Q")
        self._states = [memory[place : place + state] for place in range(_STATE_PLACE, end, state)]
        self._records = memory[end:]

    def show(self, text: bytes) -> None:
        """Replaces the state. Raises ValueError when it is too long."""
        numbers = self._numbers
        shown = numbers[_SHOWN] + 1
        place = shown % _COPIES
        self._states[place][: len(text)] = text
        numbers[_SIZES + place] = len(text)
        numbers[_SHOWN] = shown

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
        while True:
            shown = self._numbers[_SHOWN]
            place = shown % _COPIES
            text = bytes(self._states[place][: self._numbers[_SIZES + place]])
            if self._numbers[_SHOWN] - shown < _COPIES - 1:  # one more, and its place might be in work already
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
