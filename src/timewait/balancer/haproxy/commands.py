"""HAProxy's command line (management.txt, 9.3) over a socket pair: no file, and nobody else can connect to it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

_PROMPT = b"\n> "
_LONGEST = 1 << 26  # bytes of one answer: `show table` of many clients


class GoneError(Exception):
    """HAProxy closed its end."""


class Commands:
    """One session. HAProxy takes new connections out of `door`, the other end of its `stats socket sockpair@N`.

    A session that is open keeps a HAProxy alive that is to stop, so that its last figures can be read: then close it.
    """

    def __init__(self, door: socket.socket) -> None:
        self._door = door
        self._turn = asyncio.Lock()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        """Waits until HAProxy answers. Raises GoneError."""
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._door, [b"x"], [theirs.fileno()])
        self._reader, self._writer = await asyncio.open_connection(sock=ours, limit=_LONGEST)
        await self.ask("prompt")

    async def ask(self, command: str) -> str:
        """What it answers. Raises GoneError."""
        return (await self.ask_all([command]))[0]

    async def ask_all(self, commands: Sequence[str]) -> list[str]:
        """The answers to commands that are sent at once. Raises GoneError."""
        async with self._turn:
            if self._reader is None or self._writer is None:
                raise GoneError
            try:
                self._writer.write("".join(f"{command}\n" for command in commands).encode())
                answers = [await self._reader.readuntil(_PROMPT) for _ in commands]
            except (asyncio.IncompleteReadError, OSError):
                raise GoneError from None
            return [answer.removesuffix(_PROMPT).decode(errors="replace").strip("\n") for answer in answers]

    def close(self) -> None:
        """Ends the session; HAProxy may end then, if it was told to."""
        if self._writer is not None:
            self._writer.close()
            self._reader = self._writer = None
        self._door.close()
