"""The embedded engine where a whole network is its own: rules, IPv6, and nothing left when it is killed."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

import peers
from kit.labs import ENVIRONMENT, wait_until
from kit.namespace import Namespace, needs_namespaces

START = """
import asyncio, os, signal, socket, sys, time
from timewait.balancer.config.read import configuration
from timewait.balancer.embedded.engine import EmbeddedEngine
from timewait.balancer.engine import Rotation

server = socket.create_server(("127.0.0.1", 8100))
TARGET = 'pool = [{ name = "app", target = [{ addr = "127.0.0.1:8100" }] }]\\n'

def started(loop, listeners):
    engine = EmbeddedEngine(say=print)
    rotations = {"app": Rotation("app", (("127.0.0.1:8100", 10),))}
    read = configuration(TARGET + "workers = 1\\n" + listeners, "test.toml")
    loop.run_until_complete(engine.start(read, rotations))
    return engine
"""

STRIPS = """
def timestamps(port):
    with socket.create_connection(("127.0.0.1", port)) as near:
        return near.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[5] & 1  # TCPI_OPT_TIMESTAMPS

loop = asyncio.new_event_loop()
common = 'protocol = "tcp", pool = "app"'
engine = started(loop, f'''listener = [
    {{ name = "with", bind = ["127.0.0.1:8001"], {common} }},
    {{ name = "without", bind = ["127.0.0.1:8002"], timestamps = "strip", {common} }}]''')
print("timestamps", timestamps(8001), timestamps(8002))
loop.run_until_complete(engine.stop())
print("left", os.popen("nft list ruleset").read().strip() or "nothing")
"""

FAMILIES = """
loop = asyncio.new_event_loop()
engine = started(loop, '''listener = [
    { name = "any", bind = ["[::]:8001"], protocol = "tcp", pool = "app", real_ip = { mode = "proxy_v1" } }]''')
for host in ("127.0.0.1", "::1"):
    with socket.create_connection((host, 8001)) as near:
        got, _ = server.accept()
        print(got.recv(200).decode().split()[1:4])
        got.close()
loop.run_until_complete(engine.stop())
"""

KILLED = """
loop = asyncio.new_event_loop()
engine = started(loop, 'listener = [{ name = "a", bind = ["127.0.0.1:8001"], protocol = "tcp", pool = "app" }]')
near = socket.create_connection(("127.0.0.1", 8001))
got, _ = server.accept()
print("worker", *[member.pid for member in engine._members], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def namespace() -> Iterator[Namespace]:
    needs_namespaces()
    with Namespace() as made:
        yield made


def inside(namespace: Namespace, code: str) -> str:
    return namespace.run("env", f"PYTHONPATH={ENVIRONMENT['PYTHONPATH']}", sys.executable, "-c", START + code)


def test_timestamps_are_stripped_and_nothing_is_left(namespace: Namespace) -> None:
    peers.needs("nft")
    said = inside(namespace, STRIPS).splitlines()
    assert "timestamps 1 0" in said
    assert "left nothing" in said
    if said[0].startswith("workers stay root"):  # as an ordinary user in a user namespace of their own
        assert "nobody" in said[0]


def test_one_socket_takes_both_families(namespace: Namespace) -> None:
    said = [line for line in inside(namespace, FAMILIES).splitlines() if line.startswith("[")]
    assert said == ["['TCP4', '127.0.0.1', '127.0.0.1']", "['TCP6', '::1', '::1']"]


def test_workers_do_not_outlive_a_killed_supervisor(namespace: Namespace) -> None:
    with pytest.raises(RuntimeError):
        inside(namespace, KILLED)
    wait_until(lambda: namespace.run("ss", "-Hltn", "sport = :8001") == "", "nobody listens any more")
