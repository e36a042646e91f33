"""Sends all cases to all three balancers, and puts what came of them beside each other."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from balancer.differential.fronts import FRONTS, fronts
from balancer.differential.recording import Recorder, Seen

PATIENCE = 20.0  # seconds for one case
QUIET = 1.0  # seconds without an answer, then the client closes its half: who waits for more learns that none comes
AT_ONCE = 600

_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")


@dataclass
class Outcome:
    """What one balancer made of one case."""

    statuses: list[int]  # that the client got
    seen: list[Seen]  # that the target got

    def __str__(self) -> str:
        got = " ".join(map(str, self.statuses)) or "closed"
        return got + "".join(f"; {each}" for each in self.seen)


def source(front: int, case: int) -> str:
    """An address of loopback for each, by which the target knows whose request it is."""
    return f"127.{10 + front}.{case >> 8}.{case & 255}"


async def sent(port: int, address: str, data: bytes) -> list[int]:
    """The statuses that come back until the balancer closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    received, timeout = b"", QUIET
    try:
        writer.write(data)
        while True:
            try:
                piece = await asyncio.wait_for(reader.read(65536), timeout)
            except TimeoutError:
                assert timeout == QUIET, "the balancer neither answers nor closes"
                writer.write_eof()
                timeout = PATIENCE
                continue
            if not piece:
                break
            received += piece
    except ConnectionError:
        pass
    finally:
        writer.close()
    return [int(status) for status in _STATUS.findall(received)]


class Result:
    """Case -> balancer -> outcome, and what targets got that was nobody's: balancer -> requests."""

    def __init__(self, cases: Mapping[str, bytes]) -> None:
        self.outcomes: dict[str, dict[str, Outcome]] = {name: {} for name in cases}
        self.strays: dict[str, list[Seen]] = {}

    def said(self, case: str) -> tuple[str, ...]:
        """One cell for each balancer."""
        return tuple(str(self.outcomes[case][front]) for front in FRONTS)

    def differ(self, case: str) -> bool:
        """Whether not all did the same."""
        return len(set(self.said(case))) > 1


async def _all(cases: Mapping[str, bytes], folder: Path) -> Result:
    result, gate = Result(cases), asyncio.Semaphore(AT_ONCE)
    recorders = [Recorder() for _ in FRONTS]
    targets = [await asyncio.start_server(each.accept, "127.0.0.1", 0, backlog=1024) for each in recorders]
    sent_as: dict[tuple[str, int], list[int]] = {}

    async def one(front: int, port: int, case: int, name: str, data: bytes) -> None:
        async with gate:
            sent_as[name, front] = await sent(port, source(front, case), data)

    loop = asyncio.get_running_loop()
    starting = fronts([target.sockets[0].getsockname()[1] for target in targets], folder)
    ports = await loop.run_in_executor(None, starting.__enter__)
    try:
        async with asyncio.TaskGroup() as group:
            for case, (name, data) in enumerate(cases.items()):
                for front, port in enumerate(ports.values()):
                    group.create_task(one(front, port, case, name, data))
    finally:
        await loop.run_in_executor(None, starting.__exit__, None, None, None)
        for target in targets:
            target.close()
    for front, recorder in enumerate(recorders):
        await asyncio.wait_for(recorder.ended(), PATIENCE)
        for case, name in enumerate(cases):
            seen = recorder.seen.pop(source(front, case), [])
            result.outcomes[name][FRONTS[front]] = Outcome(sent_as[name, front], seen)
        result.strays[FRONTS[front]] = [each for rest in recorder.seen.values() for each in rest]
    return result


def compared(cases: Mapping[str, bytes]) -> Result:
    """All three, all cases."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_all(cases, Path(folder)))
