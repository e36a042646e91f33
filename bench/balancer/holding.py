"""What holding costs: many idle clients, and one body that fits nowhere."""

from __future__ import annotations

import json
import os
import re
import resource
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench.balancer import contenders
from bench.balancer.contenders import Contender, Wish, named
from bench.balancer.place import BalancerPlace, place, until
from bench.figures import Figure, Result, Values, ratio
from bench.settings import Settings
from timewait.lab import children

IDLE = 10_000
BODY = 1_000_000_000
FILES_PORT, SINK_PORT = 82, 83


def idle(settings: Settings) -> Result:
    """Kept connections that do nothing, after one request each."""
    count = 200 if settings.quick else IDLE
    rounds = 1 if settings.quick else 3
    memory: list[float] = []
    before: list[float] = []
    cpu: list[float] = []
    for _ in range(rounds):
        with place(settings, contenders.EMBEDDED) as where:
            before.append(where.memory())
            child, told = hold(where, count)
            try:
                until(told.exists, f"{count} connections")
                time.sleep(0.5)
                began, spent = time.monotonic(), where.cpu()[0]
                time.sleep(settings.window)
                cpu.append((where.cpu()[0] - spent) / (time.monotonic() - began))
                memory.append(where.memory())
            finally:
                child.stop()
    return Result(
        name="balancer-idle",
        title="Balancer: idle kept connections",
        how=f"{count:,} clients' connections to the embedded engine, one request each, then silence. Sum of PSS "
        "(/proc/PID/smaps_rollup) of all its processes: supervisor and one worker.",
        figures=[
            Figure(
                what=f"{count:,} idle kept connections, embedded: all processes",
                unit="MB",
                values=memory,
                asked="<= 120",
                counts="max",
            )
        ],
        details=[
            Values(name="before the first", unit="MB", values=before),
            Values(name=f"with {count:,}", unit="MB", values=memory),
            Values(name="CPU meanwhile", unit="share", values=[max(one, 1e-6) for one in cpu]),
        ],
    )


def hold(where: BalancerPlace, count: int) -> tuple[children.Child, Path]:
    """A process at the client that opens so many connections, asks once on each, and stays."""
    told = where.folder / "held"

    def run() -> None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        held = []
        for _ in range(count):
            near = socket.create_connection((contenders.FRONT, 80), 10)
            near.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            if not near.recv(4096).startswith(b"HTTP/1.1 200"):
                raise RuntimeError("no answer")
            held.append(near)
        told.write_text(json.dumps(len(held)))
        threading.Event().wait()

    with where.client.entered():
        return children.start(run), told


def body(settings: Settings) -> Result:
    """One body of a gigabyte, down and up."""
    size = 20_000_000 if settings.quick else BODY
    who = named((contenders.EMBEDDED, contenders.HAPROXY, contenders.NGINX))
    down: dict[str, list[float]] = {name: [] for name in who}
    up: dict[str, list[float]] = {name: [] for name in who}
    cpu: dict[str, list[float]] = {name: [] for name in who}
    grown: dict[str, list[float]] = {name: [] for name in who}
    names = list(who)
    for turn in range(settings.rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            told = _bodies(settings, who[name], size)
            for table, value in zip((down, up, cpu, grown), told, strict=True):
                table[name].append(value)
    ours, theirs = contenders.EMBEDDED.name, contenders.HAPROXY.name
    return Result(
        name="balancer-body",
        title="Balancer: a large body",
        how=f"{size / 1e9:g} GB from nginx (sendfile) through the balancer to one client, which reads 256 KB at a "
        "time and throws them away; then as much from the client to a server that does the same. Memory is the "
        "highest sum of PSS of all of the balancer's processes meanwhile, less what it was before.",
        figures=[
            ratio(
                "a body of 1 GB from the server, throughput, embedded against HAProxy",
                down[ours],
                down[theirs],
                ">= 0.5",
            ),
            ratio("... toward the server", up[ours], up[theirs], ">= 0.5"),
            Figure(what="... memory it grew by", unit="MB", values=grown[ours], asked="<= 10", counts="max"),
        ],
        details=[
            *(Values(name=f"{name}, from the server", unit="MB/s", values=values) for name, values in down.items()),
            *(Values(name=f"{name}, toward the server", unit="MB/s", values=values) for name, values in up.items()),
            *(Values(name=f"{name}, CPU for both", unit="s/GB", values=values) for name, values in cpu.items()),
            *(Values(name=f"{name}, memory", unit="MB", values=values) for name, values in grown.items()),
        ],
    )


def _bodies(settings: Settings, who: Contender, size: int) -> tuple[float, float, float, float]:
    """MB/s down and up, CPU seconds per GB, MB of memory more than before."""
    down, its_cpu, its_memory = _body(settings, who, size, FILES_PORT, _down)
    up, cpu, memory = _body(settings, who, size, SINK_PORT, _up)
    return down, up, (its_cpu + cpu) / 2, max(its_memory, memory)


def _body(
    settings: Settings, who: Contender, size: int, port: int, move: Callable[[BalancerPlace, int], None]
) -> tuple[float, float, float]:
    """MB/s, CPU seconds per GB, MB more than before."""
    with place(
        settings, who, Wish(port=port, body_size="2048m"), before=lambda where: _furnish(where, size)
    ) as where:
        os.sched_setaffinity(0, {settings.cores.target})
        watch = _Memory(where)
        try:
            spent, began = where.cpu()[0], time.perf_counter()
            move(where, size)
            seconds = time.perf_counter() - began
            cpu = where.cpu()[0] - spent
        finally:
            grown = watch.end()
            os.sched_setaffinity(0, {settings.cores.driver})
        return size / seconds / 1e6, cpu / (size / 1e9), max(grown, 0.001)


def _furnish(where: BalancerPlace, size: int) -> None:
    """A file at the server, and somebody there who reads whatever comes."""
    with (where.folder / "server-0" / "files" / "large").open("wb") as file:
        file.truncate(size)
    with where.servers[0].entered():
        listener = socket.create_server(("0.0.0.0", SINK_PORT))
        sink = children.start(lambda: _sink(listener, where.settings.cores.target), keep=[listener.fileno()])
    listener.close()
    where.at_end(lambda: sink.stop())


def _sink(listener: socket.socket, core: int) -> None:
    """Reads each request's body to its Content-Length, answers, and waits for the next on the same connection."""
    os.sched_setaffinity(0, {core})
    while True:
        near, _ = listener.accept()
        threading.Thread(target=_drink, args=(near,), daemon=True).start()


def _drink(near: socket.socket) -> None:
    room, pending = bytearray(1 << 18), b""
    while True:
        while b"\r\n\r\n" not in pending:
            data = near.recv(65536)
            if not data:
                near.close()
                return
            pending += data
        head, _, rest = pending.partition(b"\r\n\r\n")
        match = re.search(rb"content-length: (\d+)", head.lower())
        left = (int(match[1]) if match else 0) - len(rest)
        while left > 0:
            count = near.recv_into(room, min(left, len(room)))
            left -= count or left
        near.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        pending = b""


class _Memory:
    """The highest memory of a balancer, looked at ten times a second."""

    def __init__(self, where: BalancerPlace) -> None:
        self._where = where
        self._first = self._most = where.memory()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.1):
            self._most = max(self._most, self._where.memory())

    def end(self) -> float:
        """MB more than at the beginning."""
        self._done.set()
        self._thread.join()
        return self._most - self._first


def _connected(where: BalancerPlace) -> socket.socket:
    with where.client.entered():
        return socket.create_connection((contenders.FRONT, 80), 60)


def _down(where: BalancerPlace, size: int) -> None:
    with _connected(where) as near:
        near.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        got, room = 0, bytearray(1 << 18)
        while count := near.recv_into(room):
            got += count
    if got < size:
        raise RuntimeError(f"{got:,} bytes of {size:,} came")


def _up(where: BalancerPlace, size: int) -> None:
    with _connected(where) as near:
        head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
        near.sendall(head.encode())
        piece, sent = bytes(1 << 18), 0
        while sent < size:
            sent += near.send(piece[: min(len(piece), size - sent)])
        answer = b"".join(iter(lambda: near.recv(65536), b""))
    if not answer.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"an upload was answered with {answer[:60]!r}")
