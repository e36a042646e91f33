"""A balancer as a process (on an engine that forwards nothing): admin API, `ctl`, signals, reloads, its socket."""

from __future__ import annotations

import json
import os
import signal
import socket
import socketserver
import stat
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kit.labs import ENVIRONMENT, wait_until
from kit.ports import free_port
from kit.run_timewait import timewait
from timewait.balancer import service
from timewait.balancer.control.beacon import Running, running
from timewait.balancer.control.client import Client, ControlError, target_path
from timewait.balancer.control.door import MOST_BYTES
from timewait.balancer.engine import BalancerError

A, B, C = "127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"
FILE = """
stop_timeout = "{stop}"
admin = {{ socket = "{socket}"{metrics} }}
[[listener]]
name = "web"
bind = ["127.0.0.1:{port}"]
rule = [{{ pool = "app" }}]
[[pool]]
name = "app"
health.enabled = false
drain.timeout = "0s"
target = [{targets}]
"""


class Balancer:
    """`python -m kit.fake_plane` in a folder of its own."""

    def __init__(self, folder: Path, clients: int = 0, **values: Any) -> None:
        self.file, self.socket, self.port = folder / "clb.toml", folder / "admin.sock", free_port()
        self.metrics = free_port()
        self._values = {"stop": "30s", "metrics": "", **values}
        self.write(A, B)
        self._log = folder / "log"
        with self._log.open("w") as log:
            self.process = self._started(clients, folder, log)
        assert self.process.stdout is not None
        self.ready = self.process.stdout.readline().rstrip("\n")
        self.client = Client(self.socket)

    def _started(self, clients: int, folder: Path, log: IO[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "kit.fake_plane", str(self.file), str(clients)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**ENVIRONMENT, "XDG_RUNTIME_DIR": str(folder)},
        )

    def write(self, *targets: str, text: str | None = None) -> None:
        listed = ", ".join(f'{{ addr = "{one}" }}' for one in targets)
        values = {"socket": str(self.socket), "port": self.port, "targets": listed, **self._values}
        self.file.write_text(FILE.format(**values) if text is None else text)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def ctl(self, *words: str) -> Any:
        return timewait("balance", "ctl", words[0], "--socket", str(self.socket), *words[1:])

    def weights(self) -> dict[str, int]:
        health = json.loads(self.client.get("/v1/health"))["targets"]
        return {one["address"]: one["effective"] for one in health}

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        return self.process.wait(60)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def balancer(tmp_path: Path) -> Iterator[Balancer]:
    made = Balancer(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balancer]:
    """For questions, and for changes that a test takes back."""
    port = free_port()
    made = Balancer(tmp_path_factory.mktemp("shared"), metrics=f', metrics = "127.0.0.1:{port}"')
    made.metrics = port
    yield made
    made.close()


def test_ready_is_said_once_everything_answers(shared: Balancer) -> None:
    assert shared.ready == f"timewait balance: ready (pid {shared.process.pid}, admin socket {shared.socket})"
    assert stat.S_IMODE(shared.socket.stat().st_mode) == 0o600
    socket.create_connection(("127.0.0.1", shared.port), 5).close()


def test_config(shared: Balancer) -> None:
    told = json.loads(shared.client.get("/v1/config"))
    assert told["file"] == str(shared.file)
    assert told["by_hand"] == []
    assert told["configuration"]["listener"][0]["client"]["keepalive"] == 75.0
    assert 'keepalive = "75s"' in shared.ctl("config").stdout


def test_stats_and_health(shared: Balancer) -> None:
    stats = json.loads(shared.client.get("/v1/stats"))
    assert stats["listeners"]["web"]["made_by_target"] == {"200": 8}
    assert [(one["address"], one["state"]) for one in stats["health"]] == [(A, "unchecked"), (B, "unchecked")]
    shown = shared.ctl("stats").stdout
    assert "listener web: 2 open (0 idle), 7 accepted, 9 requests" in shown
    assert "made by the balancer: 404 1; made by targets: 200 8" in shown
    assert "not counted by this engine: tls_handshakes" in shown
    assert shared.ctl("health").stdout.split("\n")[1].split() == ["app", A, "unchecked", "-", "10", "-"]
    assert json.loads(shared.ctl("stats", "--json").stdout)["listeners"] == stats["listeners"]


@pytest.mark.parametrize("over_tcp", [False, True])
def test_prometheus_reads_the_metrics(shared: Balancer, over_tcp: bool) -> None:
    url = f"http://127.0.0.1:{shared.metrics}/metrics"
    text = urllib.request.urlopen(url, timeout=5).read() if over_tcp else shared.client.get("/metrics")
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }
    name = "timewait_balancer_listener_responses_total"
    assert found[name, ("code", "404"), ("listener", "web"), ("made_by", "balancer")] == 1
    assert found[name, ("code", "200"), ("listener", "web"), ("made_by", "target")] == 8
    assert found["timewait_balancer_target_connects_total", ("pool", "app"), ("target", A)] == 3
    assert found["timewait_balancer_target_effective_weight", ("pool", "app"), ("target", B)] == 10
    assert found["timewait_balancer_listener_closes_total", ("by", "peer_fin"), ("listener", "web")] == 0


def test_over_tcp_there_are_metrics_and_nothing_else(shared: Balancer) -> None:
    with pytest.raises(urllib.request.HTTPError) as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{shared.metrics}/v1/config", timeout=5)
    assert refused.value.code == 404
    refused.value.close()


def test_who_has_the_port_of_the_metrics_is_said() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(
            BalancerError, match=rf"^\[admin\] metrics {address}: port .* in use by .* \(pid {os.getpid()}\)"
        ):
            service._metrics_socket(address)


def test_a_weight_by_hand_and_back(shared: Balancer) -> None:
    assert shared.ctl("weight", "app", A, "0").stdout == f"app {A}: weight 10 -> 0, drains\n"
    assert shared.weights() == {A: 0, B: 10}
    assert f"# changed at runtime: app {A}: weight 0" in shared.ctl("config").stdout
    assert shared.ctl("check").stdout == f"listeners kept: web\nkept from changes at runtime: app {A}: weight 0\n"
    assert shared.ctl("reload", "--reset").stdout == f"listeners kept: web\nweights changed: app {A}: 0 -> 10\n"
    assert shared.weights() == {A: 10, B: 10}


def test_a_target_by_hand_and_away(shared: Balancer) -> None:
    assert shared.ctl("add", "app", C, "--weight", "3").stdout == f"app {C}: added with weight 3\n"
    assert shared.weights() == {A: 10, B: 10, C: 3}
    assert shared.ctl("drain", "app", C, "--timeout", "1s").stdout.startswith(f"app {C}: nothing is open any more (")
    assert shared.weights() == {A: 10, B: 10, C: 0}
    assert shared.ctl("remove", "app", C).stdout == f"app {C}: removed; what is open may end within 0 s\n"
    wait_until(lambda: shared.weights() == {A: 10, B: 10}, "the target is forgotten")


@pytest.mark.parametrize(
    ("method", "where", "body", "status", "sentence"),
    [
        ("PUT", target_path("app", A), {"weight": 101}, 400, "Expected `int` <= 100 - at `$.weight`"),
        ("PUT", target_path("app", A), {"wieght": 1}, 400, "unknown field `wieght`"),
        ("PUT", target_path("app", A), None, 400, "missing required field `weight`"),
        ("PUT", target_path("app", C), {"weight": 1}, 404, f"pool app has no target '{C}'; it has {A}, {B}"),
        ("POST", target_path("nope"), {"addr": C}, 404, "no pool is named 'nope'; there are app"),
        ("POST", target_path("app"), {"addr": "localhost:80"}, 400, "names a host"),
        ("POST", target_path("app"), {"addr": A}, 409, "is in pool app already"),
        ("POST", f"{target_path('app', A)}/drain", {"timeout": "30"}, 400, 'has no unit; write "30s"'),
        ("POST", f"{target_path('app', A)}/drain", {"then": "kill"}, 400, "write one of rst, fin, leave"),
        ("POST", "/v1/check", {"text": "engine = 3", "name": "x.toml"}, 422, "x.toml, line 1"),
        ("GET", "/v1/nothing", None, 404, "GET /v1/nothing is not known here"),
        ("DELETE", "/v1/stats", None, 405, "DELETE /v1/stats is not known here"),
    ],
)
def test_what_is_refused(shared: Balancer, method: str, where: str, body: Any, status: int, sentence: str) -> None:
    with pytest.raises(ControlError) as refused:
        shared.client.ask(method, where, body)
    assert refused.value.status == status
    assert sentence in str(refused.value)
    assert shared.weights() == {A: 10, B: 10}


def test_ctl_refuses_with_a_sentence_and_exit_code_2(shared: Balancer, tmp_path: Path) -> None:
    done = shared.ctl("weight", "app", C, "1")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"timewait: pool app has no target '{C}'; it has {A}, {B}\n"
    done = timewait("balance", "ctl", "stats", "--socket", tmp_path / "none.sock")
    assert (done.exit_code, done.stderr) == (
        2,
        f"timewait: {tmp_path}/none.sock: no balancer has its admin socket there\n",
    )
    done = shared.ctl("drain", "app", A, "--then", "cut")
    assert done.stderr == "timewait: then = 'cut' is none of its values; write one of rst, fin, leave\n"


def test_ctl_tells_another_server_from_a_balancer(tmp_path: Path) -> None:
    class Other(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.connection.recv(4096)
            self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n<html>")

    path = str(tmp_path / "web.sock")
    with socketserver.UnixStreamServer(path, Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for words in (["ctl", "health"], ["top", "--once"]):
            done = timewait("balance", *words, "--socket", path)
            assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
            assert "what answers there is no balancer" in done.stderr
        server.shutdown()


def test_top_in_a_pipe(shared: Balancer) -> None:
    done = timewait("balance", "top", "--once", "--socket", str(shared.socket))
    assert "  listener web  open 2  idle 0  " in done.stdout
    assert f"  target app {A}  unchecked  weight 10  in use 0" in done.stdout
    line = json.loads(timewait("balance", "top", "--once", "--json", "--socket", str(shared.socket)).stdout)
    assert line["rates"]["listener web"]["statuses"].keys() == {"2xx", "4xx"}


def test_reload_by_signal_and_by_api(balancer: Balancer) -> None:
    balancer.write(A, C)
    balancer.signal(signal.SIGHUP)
    wait_until(lambda: balancer.weights() == {A: 10, C: 10}, "the reload")
    said = f"reload: listeners kept: web; targets added: app {C}; targets removed: app {B}"
    wait_until(lambda: said in balancer.log, "the reload is told")
    balancer.write(B)
    told = json.loads(balancer.client.ask("POST", "/v1/reload"))["changes"]
    assert (told["targets_added"], told["targets_removed"]) == ([f"app {B}"], [f"app {A}", f"app {C}"])


def test_a_bad_file_is_refused_and_the_old_one_goes_on(balancer: Balancer) -> None:
    balancer.write(text=balancer.file.read_text().replace("name", "nmae", 1))
    done = balancer.ctl("reload")
    assert done.exit_code == 2
    assert "clb.toml, line 5:" in done.stderr and "nmae" in done.stderr
    balancer.signal(signal.SIGHUP)
    wait_until(lambda: balancer.log.count("the old configuration goes on") == 2, "the second refusal")
    assert balancer.weights() == {A: 10, B: 10}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_ends(balancer: Balancer, number: signal.Signals) -> None:
    balancer.signal(number)
    assert balancer.ended() == 0
    assert f"{number.name}: accepts nothing more; 0 connections open" in balancer.log
    assert not balancer.socket.exists()


def test_a_drain_is_bounded(tmp_path: Path) -> None:
    balancer = Balancer(tmp_path, clients=3, stop="100ms")
    try:
        balancer.signal(signal.SIGTERM)
        assert balancer.ended() == 0
        assert "3 connections cut" in balancer.log
    finally:
        balancer.close()


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    balancer = Balancer(tmp_path, clients=3, stop="1h")
    try:
        balancer.signal(signal.SIGTERM)
        wait_until(lambda: "at most 1h more" in balancer.log, "the drain began")
        assert json.loads(balancer.client.get("/v1/stats"))["stopping"] is True
        balancer.signal(signal.SIGHUP)  # still no end
        balancer.signal(signal.SIGINT)
        assert balancer.ended() == 130
        assert "SIGINT again: ends at once, 3 connections cut" in balancer.log
        assert not balancer.socket.exists()
    finally:
        balancer.close()


def again(folder: Path, file: Path) -> tuple[int, str]:
    """A second balancer; its exit code and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "kit.fake_plane", str(file)],
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, "XDG_RUNTIME_DIR": str(folder)},
        timeout=60,
    )
    return done.returncode, done.stderr


def test_a_living_admin_socket_is_left_alone(balancer: Balancer, tmp_path: Path) -> None:
    code, said = again(tmp_path, balancer.file)
    assert code == 2
    assert f"admin socket {balancer.socket}: process {balancer.process.pid} (" in said
    assert balancer.weights() == {A: 10, B: 10}


def test_the_socket_of_a_dead_process_is_replaced(balancer: Balancer, tmp_path: Path) -> None:
    balancer.signal(signal.SIGKILL)
    balancer.ended()
    assert balancer.socket.exists()
    balancer.close()
    other = Balancer(tmp_path)
    try:
        assert other.weights() == {A: 10, B: 10}
    finally:
        other.close()


def test_a_port_in_use_leaves_nothing_behind(balancer: Balancer, tmp_path: Path) -> None:
    file = tmp_path / "other.toml"
    file.write_text(balancer.file.read_text().replace("admin.sock", "other.sock"))
    code, said = again(tmp_path, file)
    assert (code, (tmp_path / "other.sock").exists()) == (2, False)
    assert "listener web" in said


def test_a_path_that_is_too_long_is_said(tmp_path: Path) -> None:
    file, path = tmp_path / "clb.toml", "/tmp/" + "x" * MOST_BYTES
    file.write_text(FILE.format(stop="1s", socket=path, metrics="", port=free_port(), targets=f'{{ addr = "{A}" }}'))
    code, said = again(tmp_path, file)
    assert code == 2
    assert "107" in said


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "clb.toml"
    file.write_text(
        FILE.format(stop="1s", socket=str(file), metrics="", port=free_port(), targets=f'{{ addr = "{A}" }}')
    )
    code, said = again(tmp_path, file)
    assert code == 2
    assert "no socket" in said
    assert file.exists()


def test_a_balancer_is_found_without_its_socket(balancer: Balancer, shared: Balancer) -> None:
    found = {one.pid: one for one in running()}
    assert found[balancer.process.pid] == Running(balancer.process.pid, str(balancer.file), str(balancer.socket))
    done = timewait("balance", "ctl", "health")
    assert done.exit_code == 2
    assert "several balancers run" in done.stderr
    assert str(balancer.socket) in done.stderr
