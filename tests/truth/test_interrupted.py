"""A run that is ended early still reports all of what it saw; one that is killed leaves a readable file."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from kit import behaviours
from kit.labs import wait_until
from kit.namespace import Namespace
from kit.run_timewait import INTERRUPTED, interrupted, timewait
from kit.servers import Server


@pytest.mark.parametrize("send", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_the_whole_report(
    send: signal.Signals, namespace: Namespace, tmp_path: Path
) -> None:
    path = tmp_path / "run.jsonl"
    with Server(behaviours.well, listener=namespace.listen()) as server:
        words = ["stress", server.url, "-d", "60s", "-c", "2", "--close", "server", "--json", "--save", str(path)]
        result = interrupted(*words, send=send, when=lambda: server.requests > 20, namespace=namespace)
        assert result.exit_code == INTERRUPTED
        assert result.json["exit_code"] == INTERRUPTED
        assert result.findings == []
        assert 20 < result.totals["succeeded"] <= server.requests
        connected = result.totals["connected"]
        wait_until(lambda: server.accepted >= connected, "the server has accepted what the kernel has for it")
        assert server.accepted == connected
    again = timewait("report", path, "--json")
    assert again.totals == result.totals


def test_a_killed_run_leaves_a_readable_file(namespace: Namespace, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"

    def two_ticks() -> bool:
        return path.exists() and path.read_bytes().count(b"\n") >= 3

    with Server(behaviours.well, listener=namespace.listen()) as server:
        words = ["stress", server.url, "-d", "60s", "-c", "2", "--close", "server", "--json", "--save", str(path)]
        result = interrupted(*words, send=signal.SIGKILL, when=two_ticks, namespace=namespace)
        assert (result.exit_code, result.stdout) == (-signal.SIGKILL, "")
        seen = server.requests
    again = timewait("report", path, "--json")
    assert again.exit_code == 0, again.stderr
    assert 0 < again.totals["succeeded"] <= seen
    assert "killed" in timewait("report", path).stdout


def test_workers_do_not_outlive_a_killed_parent(namespace: Namespace) -> None:
    with Server(behaviours.well, listener=namespace.listen()) as server:
        words = ["stress", server.url, "-d", "60s", "-c", "2", "--workers", "2", "--json"]
        interrupted(*words, send=signal.SIGKILL, when=lambda: server.requests > 20, namespace=namespace)
        stopped = server.quiet(within=10)
    assert stopped


def test_a_full_disk_does_not_end_the_run(namespace: Namespace) -> None:
    with Server(behaviours.well, listener=namespace.listen()) as server:
        words = ["stress", server.url, "-n", "50", "-c", "2", "--json", "--save", "/dev/full"]
        result = timewait(*words, namespace=namespace)
        assert server.requests == 50
    assert (result.exit_code, result.totals["succeeded"]) == (0, 50)
    assert "No space left" in result.stderr
