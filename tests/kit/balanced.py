"""A balancer in a network of its own, driven by its file, whichever engine: what the conformance scenes stand on.

For a process of its own (`labs.python`), since it enters namespaces. The client is 10.0.0.2, the balancer 10.0.0.1,
server N is 10.2.N.2 and answers at port 80 with its name. The balancer is `timewait balance`, nothing less: its file
lies in memory, so that it can be rewritten and reloaded, and its admin socket in a folder that is gone at the end.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from kit.labs import wait_until
from kit.servers import RST
from timewait.lab import enter
from timewait.lab.network import LabHost, Network, build
from timewait.lab.processes import Process
from timewait.lab.server import Server
from timewait.lab.topologies import proxy
from timewait.lab.topology import Topology

FRONT = "10.0.0.1"
TIMEWAIT = [sys.executable, "-m", "timewait"]
_TCP_INFO_STATE_CLOSE = 7  # TCP_CLOSE, the first byte of struct tcp_info (linux/tcp.h)

Table = Mapping[str, Any]


def server(number: int, port: int = 80) -> str:
    """The address of a target."""
    return f"10.2.{number}.2:{port}"


def toml(value: Any) -> str:
    """A value as TOML: JSON has its strings, numbers and arrays, but another sign in tables."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {toml(one)}" for name, one in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def file_of(engine: str, listeners: Sequence[Table], pools: Sequence[Table], **more: Any) -> str:
    """The balancer's file. `workers` are left out where the kernel forwards."""
    if engine == "nftables":
        more.pop("workers", None)
    whole = {"engine": engine, "listener": listeners, "pool": pools, **more}
    return "".join(f"{name} = {toml(value)}\n" for name, value in whole.items())


def pool(name: str, *targets: str | Table, **more: Any) -> Table:
    """Without health checks, unless `health` is given, so that no connection is of the balancer's own making."""
    written = [{"addr": one} if isinstance(one, str) else one for one in targets]
    return {"name": name, "health": {"enabled": False}, "target": written, **more}


def http_listener(port: int, target: str, **more: Any) -> Table:
    return {
        "name": f"http-{port}",
        "bind": [f"{FRONT}:{port}"],
        "protocol": "http",
        "rule": [{"pool": target}],
        **more,
    }


def tcp_listener(port: int, target: str, **more: Any) -> Table:
    return {"name": f"tcp-{port}", "bind": [f"{FRONT}:{port}"], "protocol": "tcp", "pool": target, **more}


class Answer:
    """A whole answer, read to its end."""

    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split(" ")[1]) if first else 0
        self.headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]

    @property
    def text(self) -> str:
        return self.body.decode().strip()

    def header(self, name: str) -> str:
        """Its values, joined; empty without it."""
        return ", ".join(value for found, value in self.headers if found == name)


class Conversation:
    """A client's connection that may carry several requests."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._pending = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def request(self, target: str = "/", host: str = "x", version: str = "1.1", headers: str = "") -> Answer:
        """Asks, and reads the one answer, which has a Content-Length."""
        self.send(f"GET {target} HTTP/{version}\r\nHost: {host}\r\n{headers}\r\n".encode())
        return self.answer()

    def answer(self) -> Answer:
        while b"\r\n\r\n" not in self._pending:
            self._receive()
        end = self._pending.index(b"\r\n\r\n") + 4
        end += int(Answer(self._pending[:end]).header("content-length") or 0)
        while len(self._pending) < end:
            self._receive()
        answer, self._pending = Answer(self._pending[:end]), self._pending[end:]
        return answer

    def ended(self) -> str:
        """Waits for the other end's last word: fin or rst."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            return "rst"
        return "fin"

    def reset_after_fin(self) -> None:
        """Waits until a reset has come after the FIN that was read."""
        wait_until(
            lambda: self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_INFO_STATE_CLOSE,
            "a reset after the FIN",
        )

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Ends it with RST: nothing is left of it anywhere."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
        self.socket.close()

    def _receive(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError(f"the connection ended; until then {self._pending!r}")
        self._pending += data


class Balanced:
    """What `balanced` gives."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network = network
        self.client, self.balancer = network["client"], network["balancer"]
        self.servers = [host for name, host in network.hosts.items() if name.startswith("server")]
        self.socket = str(folder / "admin.sock")
        self._file = os.memfd_create("balancer.toml", os.MFD_CLOEXEC)
        self.process: Process

    def __getitem__(self, number: int) -> LabHost:
        """Server `number`, from 1 on."""
        return self.servers[number - 1]

    # --- the balancer ---------------------------------------------------------------------------------------------

    def write(self, text: str) -> None:
        """What its file says from now on; a reload reads it."""
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"admin = {toml({'socket': self.socket})}\n{text}".encode(), 0)

    def start(self, text: str) -> None:
        """Starts it and waits until it says that it is ready."""
        self.write(text)
        words = [*TIMEWAIT, "balance", f"/proc/self/fd/{self._file}"]
        self.process = self.balancer.start(words, name="timewait", keep=[self._file])
        wait_until(self._is_ready, "the balancer is ready")

    def _is_ready(self) -> bool:
        if not self.process.running:
            raise RuntimeError(f"the balancer ended: {self.process.log()}")
        return "balance: ready" in self.process.log()

    def close(self) -> None:
        os.close(self._file)

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """The admin API: what it answers, as data. Raises RuntimeError for a refusal."""
        connection = _UnixConnection(self.socket)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read().decode()
        finally:
            connection.close()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {said}")
        return json.loads(said) if said else None

    def health(self, address: str) -> Any:
        """What the health check knows of a target: "state" and more."""
        rows = self.api("GET", "/v1/health")["targets"]
        return next(row for row in rows if row["address"] == address)

    def chosen(self, address: str) -> bool:
        """Whether it is healthy and the engine knows: what a check finds is told a moment before it takes effect."""
        row = self.health(address)
        return bool(row["state"] == "healthy" and row["effective"] > 0)

    def avoided(self, address: str) -> bool:
        """Whether it is not healthy and the engine knows; see `used_in_need`."""
        row = self.health(address)
        return bool(row["state"] == "unhealthy" and row["effective"] == 0)

    def used_in_need(self, address: str) -> bool:
        """Whether it is not healthy and the engine was told to use it all the same, as all of its pool are down."""
        row = self.health(address)
        return bool(row["state"] == "unhealthy" and row["effective"] > 0)

    # --- clients --------------------------------------------------------------------------------------------------

    def connect(self, port: int = 80, *, source: str = "", timeout: float = 20) -> Conversation:
        with self.client.entered():
            near = socket.socket()
        near.settimeout(timeout)
        if source:
            near.bind((source, 0))
        near.connect((FRONT, port))
        return Conversation(near)

    def ask(
        self, port: int = 80, target: str = "/", host: str = "x", headers: str = "", source: str = "", **more: Any
    ) -> Answer:  # fmt: skip
        """One request on a connection of its own, which is reset once it is answered."""
        talk = self.connect(port, source=source)
        try:
            return talk.request(target, host, headers=headers, **more)
        finally:
            talk.reset()

    def asked(self, count: int, port: int = 80, **more: Any) -> dict[str, int]:
        """How many of these requests each server answered, by its name."""
        found: dict[str, int] = {}
        for _ in range(count):
            name = self.ask(port, **more).text
            found[name] = found.get(name, 0) + 1
        return dict(sorted(found.items()))

    def load(self, *words: str, port: int = 80) -> Load:
        """`timewait stress` from the client, which runs on meanwhile."""
        with self.client.entered():
            return Load(words, f"http://{FRONT}:{port}/")

    # --- sockets --------------------------------------------------------------------------------------------------

    def settled(self, host: LabHost, *, to: str = "", at: str = "") -> int:
        """TIME_WAIT a host holds toward an address, or at one of its own, or all; once the last FINs have come."""
        from timewait.observe.sock_diag import SockDiag, held_at, toward

        where = ()
        if to or at:
            address, _, port = (to or at).rpartition(":")
            where = (toward if to else held_at)(ipaddress.ip_address(address), int(port))  # type: ignore[assignment]
        with host.entered(), SockDiag() as table:
            return table.time_wait_left(where, 20)


class Load:
    """A load that runs; `result` waits for its end."""

    def __init__(self, words: Sequence[str], url: str) -> None:
        command = [*TIMEWAIT, "stress", url, "--workers", "1", "--json", *words]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def stopped(self) -> Any:
        """Ends it now; what it says then counts what was under way as unfinished, not as failed."""
        self._process.send_signal(signal.SIGINT)
        return self.result()

    def result(self, patience: float = 60) -> Any:
        try:
            said, complaints = self._process.communicate(timeout=patience)
        except BaseException:
            self._process.kill()
            raise
        if not said.strip():
            raise RuntimeError(f"the load left no result: {complaints}")
        return json.loads(said)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@contextmanager
def balanced(
    text: str = "", *, servers: int = 2, serve: Sequence[int] = (80,), topology: Topology | None = None
) -> Iterator[Balanced]:
    """The network with its servers answering at the ports `serve`, and, unless `text` is empty, the balancer."""
    enter()
    wished = topology or proxy(servers)
    wished = wished.changed("balancer", sysctls={"net.ipv4.ip_forward": "1"})
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="timewait-balanced-")))
        network = stack.enter_context(build(wished))
        found = Balanced(network, folder)
        stack.callback(found.close)
        for host in found.servers:
            for port in serve:
                answering(host, port)
        if text:
            found.start(text)
        yield found
        if told := found.process.died():
            raise RuntimeError(told)


def answering(host: LabHost, port: int = 80, *, sized: bool = True) -> Server:
    """A server that answers with the name of its host."""
    return host.serve(port, f"{host.name}\n".encode(), address="0.0.0.0", sized=sized)[0]


def listening(host: LabHost, port: int) -> socket.socket:
    """A socket that listens on a host, for `kit.servers.Server`."""
    with host.entered():
        return socket.create_server(("0.0.0.0", port), backlog=1024)


def tell(**found: object) -> None:
    print(json.dumps(found))
