"""What a target says, byte by byte, and what all three make of it for their client."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path

import h11

from balancer.differential.compare import PATIENCE
from balancer.differential.fronts import FRONTS, fronts

OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = OK + b"Content-Length: 5\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
HELLO = b"5\r\nhello\r\n0\r\n\r\n"

ANSWERS: dict[str, bytes] = {
    "Content-Length": LENGTH + b"\r\nhello",
    "chunked": CHUNKED + HELLO,
    "until the end": OK + b"\r\nhello",
    "HTTP/1.0, until the end": b"HTTP/1.0 200 OK\r\n\r\nhello",
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello",
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "204 with a length": b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
    "204 chunked": b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n" + HELLO,
    "304 with a length": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    "100, then 200": b"HTTP/1.1 100 Continue\r\n\r\n" + LENGTH + b"\r\nhello",
    "103, then 200": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + LENGTH + b"\r\nhello",
    "101 unasked": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello",
    "a body shorter than its length": OK + b"Content-Length: 9\r\n\r\nhello",
    "a body that ends within a chunk": CHUNKED + b"9\r\nhello",
    "a body without its last chunk": CHUNKED + b"5\r\nhello\r\n",
    "more than its length": LENGTH + b"\r\nhello, world",
    "two answers": (LENGTH + b"\r\nhello") + (LENGTH + b"\r\nother"),
    "nothing": b"",
    "half a head": LENGTH,
    "garbage": b"\x16\x03\x01\r\n\r\n",
    "both lengths": LENGTH + b"Transfer-Encoding: chunked\r\n\r\n" + HELLO,
    "two equal lengths": LENGTH + b"Content-Length: 5\r\n\r\nhello",
    "two lengths": LENGTH + b"Content-Length: 3\r\n\r\nhello",
    "a list of equal lengths": OK + b"Content-Length: 5, 5\r\n\r\nhello",
    "an empty length": OK + b"Content-Length:\r\n\r\nhello",
    "-5": OK + b"Content-Length: -5\r\n\r\nhello",
    "chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + HELLO,
    "gzip, chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + HELLO,
    "bare LF everywhere": b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
    "bare CR in a value": LENGTH + b"X: y\rZ: z\r\n\r\nhello",
    "NUL in a value": LENGTH + b"X: y\0\r\n\r\nhello",
    "obs-fold": LENGTH + b"X: y\r\n z\r\n\r\nhello",
    "a blank before a colon": OK + b"Content-Length : 5\r\n\r\nhello",
    "no colon": LENGTH + b"X\r\n\r\nhello",
    "brackets in a name": LENGTH + b"X[]: y\r\n\r\nhello",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "status 99": b"HTTP/1.1 99 x\r\nContent-Length: 5\r\n\r\nhello",
    "status 999": b"HTTP/1.1 999 x\r\nContent-Length: 5\r\n\r\nhello",
    "chunk size 0x5": CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "a blank after a chunk size": CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n",
    "bare LF after a chunk size": CHUNKED + b"5\nhello\r\n0\r\n\r\n",
    "a chunk longer than its size": CHUNKED + b"4\r\nhello\r\n0\r\n\r\n",
}
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"


class Saying:
    """A target: GET /N gets the n-th of ANSWERS, and then the end; GET /good a good answer."""

    def __init__(self, answers: Mapping[str, bytes]) -> None:
        self._answers = list(answers.values())
        self._serving: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                name = head.split(b" ")[1][1:]
                if name == b"good":
                    writer.write(GOOD)
                    continue
                writer.write(self._answers[int(name)])
                writer.write_eof()
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    async def ended(self) -> None:
        """Returns once every connection's end was seen."""
        await asyncio.gather(*self._serving)


async def asked(port: int, number: int) -> str:
    """What a client gets for that answer, and for a good one asked next on the same connection while that stays."""
    said = []
    connection = h11.Connection(h11.CLIENT)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for target in (f"/{number}", "/good"):
            request = h11.Request(method="GET", target=target, headers=[("Host", "a")])
            writer.write((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
            said.append(await asyncio.wait_for(_answer(connection, reader), PATIENCE))
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                break
            connection.start_next_cycle()
    finally:
        writer.close()
    return ", then ".join(said)


async def _answer(connection: h11.Connection, reader: asyncio.StreamReader) -> str:
    """Statuses and body of one answer, "cut" where it breaks off, "bad" where the client cannot read it."""
    statuses, body = [], b""
    try:
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Response | h11.InformationalResponse):
                statuses.append(str(event.status_code))
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            else:
                break
    except ConnectionError:
        return " ".join([*statuses, "cut"])
    except h11.RemoteProtocolError:
        return " ".join([*statuses, "cut" if reader.at_eof() else "bad"])
    # A balancer's own page is not what the target said.
    shown = body.decode("latin-1") if statuses[-1:] == ["200"] else ""
    return " ".join([*statuses, shown]).strip()


async def _all(answers: Mapping[str, bytes], folder: Path) -> dict[str, tuple[str, ...]]:
    target = Saying(answers)
    listening = await asyncio.start_server(target.accept, "127.0.0.1", 0, backlog=1024)
    port = listening.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    starting = fronts([port] * len(FRONTS), folder)
    ports = await loop.run_in_executor(None, starting.__enter__)
    try:
        said = await asyncio.gather(*(asked(port, n) for n in range(len(answers)) for port in ports.values()))
    finally:
        await loop.run_in_executor(None, starting.__exit__, None, None, None)
        listening.close()
    await asyncio.wait_for(target.ended(), PATIENCE)
    width = len(FRONTS)
    return {name: tuple(said[n * width : (n + 1) * width]) for n, name in enumerate(answers)}


def answered(answers: Mapping[str, bytes] = ANSWERS) -> dict[str, tuple[str, ...]]:
    """Answer -> what the client of each balancer got."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_all(answers, Path(folder)))
