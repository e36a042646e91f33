"""A client, a balancer and servers that say their names, in namespaces; for code in a process of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from timewait.balancer.config.read import configuration
from timewait.balancer.engine import Rotation
from timewait.balancer.nftables.ruleset import weights_of
from timewait.lab.network import LabHost, Network

VIP, VIP6 = "10.0.0.1", "fd00:0:0::1"


def names(network: Network) -> dict[str, str]:
    """`10.2.1.2` -> `server-1`, of hosts that are servers."""
    return {host.address: host.name for host in network.hosts.values() if host.name.startswith("server")}


def serve(host: LabHost, port: int, said: bytes | None = None) -> None:
    """TCP and UDP, both families: says the host's name when somebody comes, then repeats what it is told."""
    name = said or host.name.encode()
    with host.entered():
        tcp = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096)
        udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        udp.bind(("::", port))

    def repeat(connection: socket.socket) -> None:
        with connection:
            try:
                connection.sendall(name)
                while data := connection.recv(65536):
                    connection.sendall(data)
            except OSError:
                pass

    def accept() -> None:
        while True:
            threading.Thread(target=repeat, args=(tcp.accept()[0],), daemon=True).start()

    def answer() -> None:
        while True:
            _, client = udp.recvfrom(2048)
            udp.sendto(name + b" " + client[0].encode(), client)

    for loop in (accept, answer):
        threading.Thread(target=loop, daemon=True).start()


def connect(
    host: LabHost, port: int = 80, address: str = VIP, *, source: str = "", timeout: float = 5
) -> socket.socket:
    """A connection from a host, made inside of it."""
    with host.entered():
        connection = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        connection.settimeout(timeout)
        if source:
            connection.bind((source, 0))
        connection.connect((address, port))
    return connection


def asked(host: LabHost, count: int, port: int = 80, address: str = VIP, **how: Any) -> Counter[str]:
    """Who answered that many connections, and the names of the errors of those that were not answered."""
    found: Counter[str] = Counter()
    for _ in range(count):
        try:
            with connect(host, port, address, **how) as connection:
                found[connection.recv(100).decode() or "nothing"] += 1
        except OSError as error:
            found[type(error).__name__] += 1
    return found


def told(host: LabHost, count: int, port: int = 53, address: str = VIP) -> Counter[str]:
    """The same by UDP: `server-1 10.2.1.1`, the server and the address it saw."""
    found: Counter[str] = Counter()
    for _ in range(count):
        with host.entered():
            asking = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        with asking:
            asking.settimeout(2)
            asking.connect((address, port))
            try:
                asking.send(b"?")
                found[asking.recv(100).decode()] += 1
            except OSError as error:
                found[type(error).__name__] += 1
    return found


def rotations(text: str, **weights: dict[str, int]) -> dict[str, Rotation]:
    """The weights of a file, with those of some targets changed: `app={"10.2.1.2:8080": 0}`."""
    read = configuration(text, "test.toml")
    return {
        pool.name: Rotation(
            pool.name, tuple((a, weights.get(pool.name, {}).get(a, w)) for a, w in weights_of(pool, None))
        )
        for pool in read.pool
    }


def play(host: LabHost, engine: Any, text: str, story: Callable[[Any], Awaitable[None]]) -> None:
    """Starts the engine in a host with a configuration, plays the story, stops it."""

    async def whole() -> None:
        await engine.start(configuration(text, "test.toml"), rotations(text))
        try:
            await story(engine)
        finally:
            await engine.stop()

    with host.entered():
        asyncio.run(whole())


async def aside(function: Callable[..., Any], *words: Any, **named: Any) -> Any:
    """In another thread, so that the engine's tasks go on meanwhile."""
    return await asyncio.to_thread(function, *words, **named)
