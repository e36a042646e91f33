"""A target that records what it is sent: h11 reads it, and whoever it was for is known by X-Forwarded-For."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field

import h11


@dataclass
class Seen:
    """One request as the target read it; `method` is empty where it could not."""

    method: str
    target: str = ""
    body: str = ""
    fields: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        body = f" with {len(self.body)} bytes" if self.body else ""
        return f"{self.method} {self.target}{body}" if self.method else "unreadable"


_TAG = re.compile(rb"(?i)\r\nX-Forwarded-For: ([0-9.]+)\r\n")


class Recorder:
    """Answers everything by 200, and keeps it in `seen` under the client's address; "" where nobody said whose."""

    def __init__(self) -> None:
        self.seen: dict[str, list[Seen]] = {}
        self._serving: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection from a balancer."""
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def ended(self) -> None:
        """Returns once every connection's end was seen; the balancer is gone."""
        await asyncio.gather(*self._serving)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection, raw, tag = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20), bytearray(), ""
        try:
            while True:
                seen = await self._request(connection, reader, writer, raw)
                if seen is None:
                    break
                tag = seen.fields.get("x-forwarded-for", tag)
                self.seen.setdefault(tag, []).append(seen)
                await self._answer(connection, writer)
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    break
                connection.start_next_cycle()
        except h11.RemoteProtocolError:
            if not reader.at_eof():  # else the client went away within a request, and that was passed on
                found = _TAG.findall(bytes(raw))
                self.seen.setdefault(found[-1].decode() if found else tag, []).append(Seen(""))
                writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        except ConnectionError:
            pass
        writer.close()

    @staticmethod
    async def _request(
        connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, raw: bytearray
    ) -> Seen | None:
        """The next request with all of its body; None at the end."""
        seen = None
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if connection.they_are_waiting_for_100_continue:
                    interim = connection.send(h11.InformationalResponse(status_code=100, headers=[]))
                    writer.write(interim or b"")
                data = await reader.read(65536)
                raw += data
                connection.receive_data(data)
            elif isinstance(event, h11.Request):
                fields = {bytes(name).decode(): bytes(value).decode("latin-1") for name, value in event.headers}
                seen = Seen(bytes(event.method).decode(), bytes(event.target).decode("latin-1"), "", fields)
            elif isinstance(event, h11.Data) and seen is not None:
                seen.body += bytes(event.data).decode("latin-1")
            elif isinstance(event, h11.EndOfMessage):
                return seen
            else:
                return None

    @staticmethod
    async def _answer(connection: h11.Connection, writer: asyncio.StreamWriter) -> None:
        headers = [("Content-Length", "0")]
        writer.write(connection.send(h11.Response(status_code=200, headers=headers)) or b"")
        if connection.our_state is h11.SEND_BODY:  # not so after CONNECT, where 200 ends HTTP
            writer.write(connection.send(h11.EndOfMessage()) or b"")
        await writer.drain()
