"""Where one measurement of a balancer happens: a client, a balancer and servers in namespaces of their own.

The balancer has one core for itself, the client and the servers (nginx, one worker) share the other. Requests are
what the servers' nginx counted, CPU is what the kernel booked on all processes of the balancer, between the same
moments.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec

from bench.balancer.contenders import FRONT, Contender, Wish
from bench.machine import path
from bench.place import PATIENCE, cpu_seconds, pinned, tree
from bench.settings import Settings
from timewait.lab.network import Network, build
from timewait.lab.processes import Process
from timewait.lab.topologies import proxy
from timewait.lab.topology import Route

FIRST_ANSWERS = 100
TICK = os.sysconf("SC_CLK_TCK")
_SYSCTLS = {
    "net.ipv4.ip_local_port_range": "1024 65535",
    "net.ipv4.tcp_tw_reuse": "1",
    "net.ipv4.tcp_max_tw_buckets": "1000000",
    "net.core.somaxconn": "4096",
    "net.ipv4.ip_forward": "1",
}
# 46 bytes of body; at port 81 the head of every answer is another one, at port 82 there is one large file.
_NGINX = """daemon off; master_process off; {user} worker_processes 1; worker_rlimit_nofile {files};
pid {folder}/pid; error_log {folder}/error.log crit;
events {{ worker_connections {files}; multi_accept on; accept_mutex off; }}
http {{
  access_log off; server_tokens off; default_type text/plain; sendfile on; sendfile_max_chunk 1m;
  keepalive_requests 1000000000; keepalive_timeout 1h; client_max_body_size 0;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 80 backlog=4096; location / {{ return 200 "a body of forty-six bytes, as in the comparison."; }} }}
  server {{
    listen 81 backlog=4096; add_header X-Request-Id $request_id;
    location / {{ return 200 "a body of forty-six bytes, as in the comparison."; }}
  }}
  server {{ listen 82 backlog=4096; root {folder}/files; }}
  server {{ listen unix:{folder}/status; location / {{ stub_status; }} }}
}}
"""
_STATUS = re.compile(r"Active connections: (\d+)[^0-9]+(\d+) (\d+) (\d+)")


class Sample(msgspec.Struct, frozen=True):
    """What happened in one window."""

    requests: float  # a second
    cpu: float  # share of its core the balancer used
    user: float  # of that in user mode

    @property
    def cpu_each(self) -> float:
        """Microseconds of CPU for a request."""
        return self.cpu / self.requests * 1e6 if self.requests else float("nan")

    @property
    def user_each(self) -> float:
        return self.user / self.requests * 1e6 if self.requests else float("nan")


class BalancerPlace:
    """What `place` gives: a network with servers that answer and a balancer in front of them."""

    def __init__(self, network: Network, folder: Path, settings: Settings) -> None:
        self.network = network
        self.folder = folder
        self.settings = settings
        self.client, self.balancer = network["client"], network["balancer"]
        self.servers = [host for name, host in network.hosts.items() if name.startswith("server")]
        self.url = f"http://{FRONT}/"
        self.process: Process | None = None  # the balancer; None where the kernel is it
        self.nginx: list[Process] = []  # one on each server
        self.expected_deaths = 0
        self._ended = contextlib.ExitStack()
        self._asked = [0] * len(self.servers)

    def at_end(self, act: Callable[[], object]) -> None:
        self._ended.callback(act)

    def close(self) -> None:
        self._ended.close()

    # --- setting up -----------------------------------------------------------------------------------------------

    def serve(self) -> None:
        for number, host in enumerate(self.servers):
            folder = self.folder / f"server-{number}"
            (folder / "files").mkdir(parents=True)
            user = "user root;" if os.geteuid() == 0 else ""
            config = folder / "nginx.conf"
            config.write_text(_NGINX.format(folder=folder, user=user, files=min(30_000, self.settings.open_files)))
            words = [path("nginx"), "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")]
            self.nginx.append(host.start(pinned(words, self.settings.cores.target), name="nginx"))
            until(partial(self._answered, number), "nginx")

    def balance(self, contender: Contender, wish: Wish) -> None:
        """Starts the balancer, and waits until a request through it is answered."""
        if contender.once:
            self.balancer.run(contender.once(self.folder, wish))
        if contender.command:
            words = pinned(contender.command(self.folder, wish), self.settings.cores.client)
            self.process = self.balancer.start(words, name=contender.name)
            process = self.process
            until(lambda: _alive(process) and contender.ready in process.log(), f"{contender.name} is ready")
            until(lambda: _alive(process) and self.answers(), f"an answer of {contender.name}")
            return
        if not (contender.once or contender.command):
            self.url = f"http://{wish.servers[0]}:{wish.port}/"
        until(self.answers, "an answer")

    def answers(self) -> bool:
        host, _, port = self.url.removeprefix("http://").strip("/").partition(":")
        try:
            with self.client.entered():
                near = socket.create_connection((host, int(port or 80)), 1)
            with near:
                near.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return b"".join(iter(lambda: near.recv(65536), b"")).startswith(b"HTTP/1.1 ")
        except OSError:
            return False

    # --- running --------------------------------------------------------------------------------------------------

    def start(self, words: Sequence[str], *, core: int | None = None) -> subprocess.Popen[bytes]:
        """A client's program, its output in a file."""
        core = self.settings.cores.target if core is None else core
        with self.client.entered(), self._log().open("wb") as log:
            return subprocess.Popen(pinned(words, core), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def words_of_client(self) -> str:
        return self._log().read_text(errors="replace")[-2000:]

    def whole_log(self) -> str:
        return self._log().read_text(errors="replace")

    def wrk(self, *more: str, connections: int = 32) -> list[str]:
        return [path("wrk"), "-t1", f"-c{connections}", "-d600s", *more, self.url]

    def look(self, words: Sequence[str]) -> Sample:
        """Runs a load until the window has passed, then kills it."""
        process = self.start(words)
        try:
            before = self.requests()
            until(lambda: self.requests() > before + FIRST_ANSWERS or _ended(process, self), "answers")
            time.sleep(self.settings.warm)
            first = self._reading()
            time.sleep(self.settings.window)
            second = self._reading()
            if process.poll() is not None:
                raise RuntimeError(f"{words[0]} ended too early: {self.words_of_client()}")
        finally:
            end(process)
        seconds = second[0] - first[0]
        requests, cpu, user = (b - a for a, b in zip(first[1:], second[1:], strict=True))
        return Sample(requests / seconds, cpu / seconds, user / seconds)

    def requests(self) -> int:
        """All servers have answered so far, our own questions left out."""
        return sum(self._counted(number) or 0 for number in range(len(self.servers)))

    def cpu(self) -> tuple[float, float]:
        """CPU seconds of the balancer so far, and those in user mode."""
        pids = tree(self.process.pid) if self.process else []
        return cpu_seconds(pids), sum(map(_user_seconds, pids))

    def memory(self) -> float:
        """MB (10^6 bytes) of all processes of the balancer together, shared pages counted once."""
        pids = tree(self.process.pid) if self.process else []
        return sum(map(_pss, pids)) / 1e6

    def _reading(self) -> tuple[float, int, float, float]:
        requests = self.requests()
        return time.monotonic(), requests, *self.cpu()

    def _answered(self, number: int) -> bool:
        return self._counted(number) is not None

    def _counted(self, number: int) -> int | None:
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(PATIENCE)
                sock.connect(str(self.folder / f"server-{number}" / "status"))
                sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = b"".join(iter(lambda: sock.recv(65536), b"")).decode()
        except OSError:
            return None
        match = _STATUS.search(answer)
        self._asked[number] += 1
        return int(match[4]) - self._asked[number] if match else None

    def _log(self) -> Path:
        return self.folder / "client.log"


@contextlib.contextmanager
def place(
    settings: Settings, contender: Contender, wish: Wish | None = None,
    before: Callable[[BalancerPlace], None] = lambda where: None, more_servers: int = 0,
) -> Iterator[BalancerPlace]:  # fmt: skip
    """A new network with a balancer in it, nothing left of the run before. `before` the balancer starts, more may be
    put into it; `more_servers` stand by."""
    wish = wish or Wish()
    topology = proxy(len(wish.servers) + more_servers)
    for host in topology.hosts:
        topology = topology.changed(host.name, sysctls=_SYSCTLS)
    # Where no balancer stands in between, the client still reaches the servers.
    topology = topology.changed("client", routes=(Route("10.2.0.0/16", FRONT),))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="timewait-bench-")))
        folder.chmod(0o755)
        found = BalancerPlace(stack.enter_context(build(topology)), folder, settings)
        stack.callback(found.close)
        found.serve()
        before(found)
        found.balance(contender, wish)
        yield found
        told = found.network.died()
        if len(told) > found.expected_deaths:
            raise RuntimeError("; ".join(told))


def _ended(process: subprocess.Popen[bytes], where: BalancerPlace) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"the load ended: {where.words_of_client()}")
    return False


def _alive(process: Process) -> bool:
    if not process.running:
        raise RuntimeError(f"{process.name} ended: {process.log()}")
    return True


def end(process: subprocess.Popen[bytes]) -> None:
    for pid in reversed(tree(process.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(PATIENCE)


def until(condition: Callable[[], bool], what: str) -> None:
    """Raises RuntimeError when it does not come."""
    limit = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > limit:
            raise RuntimeError(f"not after {PATIENCE:.0f} s: {what}")
        time.sleep(0.02)


def _user_seconds(pid: int) -> float:
    """In user mode, of /proc/PID/stat: sampled in ticks, so good for a window of a second, not for less."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11]) / TICK
    return 0.0


def _pss(pid: int) -> float:
    with contextlib.suppress(OSError):
        match = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        return int(match[1]) * 1024 if match else 0.0
    return 0.0
