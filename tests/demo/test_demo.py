"""The demonstration on a real kernel: the wall is where arithmetic says, and gone when somebody else closes."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from kit.namespace import needs_namespaces
from timewait import demo
from timewait.cli import demo_view as view
from timewait.demo import Round
from timewait.diagnose import diagnose
from timewait.plan import Closing, Ports
from timewait.run import Host, Run, Tick

SCRIPT = Path(sys.executable).with_name("timewait")

# A shorter demo: two seconds of 200 connections against 240 ports. The heavy rooms are imported after enter(), which
# must come before NumPy's threads, or are told to start none.
SHORT = """
import os
os.environ["OPENBLAS_NUM_THREADS"] = "1"
from timewait.lab import enter
{enter}
from timewait import demo
demo.SECONDS, demo.PER_SECOND, demo.PORTS, demo.LOOPBACK_PORTS = 2.0, 200, 240, 240
"""
PLAY = """
import msgspec, sys
audience = demo.Audience()
demo.play(demo.{stage}, audience)
told = [
    dict(
        closing=one.closing, forecast=one.forecast, findings=[finding.id for finding in one.findings],
        client=one.client_time_wait, balancer=one.balancer_time_wait, succeeded=one.run.total.succeeded,
        failed=one.run.total.failed, left=one.run.total.unsent + one.run.total.unfinished,
        us=one.run.total.closed_us, peer=one.run.total.closed_peer,
        reset=one.run.total.closed_reset, errors=one.run.total.errors,
    )
    for one in audience.rounds
]
sys.stdout.buffer.write(msgspec.json.encode(told))
"""
# For root: an ordinary user from here on. First all is imported, because the interpreter may lie where only root can
# read. A process that has changed its user owns its /proc files again when it is dumpable (proc(5)).
BECOME_NOBODY = """
import ctypes, encodings.idna, msgspec, timewait.cli.demo_view
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
assert ctypes.CDLL(None).prctl(4, 1, 0, 0, 0) == 0  # PR_SET_DUMPABLE
"""
USERS = {"as we are": "", "ordinary user": BECOME_NOBODY} if os.geteuid() == 0 else {"as we are": ""}


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _rounds(code: str) -> dict[str, Any]:
    return {one["closing"]: one for one in msgspec.json.decode(_python(code))}


@pytest.mark.parametrize("user", USERS)
def test_in_namespaces_every_number_is_the_expected_one(user: str) -> None:
    """240 ports carry 240 connections closed by the client within 60 s, and any number closed otherwise."""
    needs_namespaces()
    rounds = _rounds(SHORT.format(enter=USERS[user] + "enter()") + PLAY.format(stage="namespaces"))
    client, server, reset = (rounds[closing] for closing in ("client", "server", "reset"))
    for one in rounds.values():  # on a busy machine the very last may be left when the time is over
        assert one["succeeded"] + one["failed"] + one["left"] == 400
        assert one["left"] < 150
    assert client["succeeded"] == client["client"] == client["us"] == 240
    assert client["errors"] == {"connect EADDRNOTAVAIL no-port": client["failed"]}
    assert (client["balancer"], client["peer"], client["reset"]) == (0, 0, 0)
    assert "ports-exhausted" in client["findings"]
    assert "240" in client["forecast"]
    for other in (server, reset):
        assert (other["failed"], other["client"], other["us"], other["findings"]) == (0, 0, 0, [])
    assert (server["peer"], server["reset"]) == (server["succeeded"], 0)
    assert 0 < server["balancer"] <= 240  # tuples that came back have taken over their own
    assert (reset["peer"], reset["reset"], reset["balancer"]) == (0, reset["succeeded"], 0)


def test_over_loopback_every_closing_is_played() -> None:
    rounds = _rounds(SHORT.format(enter="") + PLAY.format(stage="loopback"))
    assert list(rounds) == ["client", "server", "reset"]
    for one in rounds.values():
        assert one["succeeded"] + one["failed"] + one["left"] == 400
    assert rounds["client"]["us"] == rounds["client"]["succeeded"] >= 230  # other programs may have some of the ports
    for closing, end in (("server", "peer"), ("reset", "reset")):
        assert rounds[closing]["failed"] == rounds[closing]["client"] == 0
        assert rounds[closing][end] == rounds[closing]["succeeded"] > 240
    assert rounds["server"]["balancer"] > 0


def test_where_namespaces_are_forbidden_it_says_so_and_goes_over_loopback() -> None:
    """A real refusal: the limits of a user namespace we own are 0. What is played then is tested above."""
    needs_namespaces()
    told = _python(
        """
import ctypes, os, sys
from pathlib import Path
uid, gid = os.geteuid(), os.getegid()
assert ctypes.CDLL(None).unshare(0x10000000) == 0
Path("/proc/self/setgroups").write_text("deny")
Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
for name in ("max_user_namespaces", "max_net_namespaces"):
    Path("/proc/sys/user", name).write_text("0")
import timewait.cli.demo as command
command._play = lambda console, reason, *, loopback: print(loopback, reason) or 0
from typer.testing import CliRunner
result = CliRunner().invoke(command.app, ["demo"])
assert result.exit_code == 0, result
print(result.output)
"""
    )
    assert told.startswith("True ")
    assert "_namespaces=0" in told


def test_the_command_over_loopback_tells_what_that_hides() -> None:
    told = _python(
        SHORT.format(enter="")
        + """
from rich.console import Console
from timewait.cli.demo import _play
sys_exit = _play(Console(width=80, force_terminal=False), "user namespaces are not to be had", loopback=True)
print("exit", sys_exit)
"""
    )
    assert "over loopback" in told and "because user namespaces are not to be had." in told
    assert "share one kernel" in told
    assert list(_rows(told.splitlines())) == ["client", "balancer", "reset"]
    assert told.endswith("exit 0\n")


@pytest.mark.slow
def test_the_whole_command_in_plain_text() -> None:
    needs_namespaces()
    done = subprocess.run([SCRIPT, "demo"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 27
    assert "\x1b" not in done.stdout
    rows = _rows(lines)
    succeeded, failed, client_holds, balancer_holds = (
        {who: int(row[n].replace(",", "")) for who, row in rows.items()} for n in (1, 2, 3, 4)
    )
    assert succeeded["client"] == client_holds["client"] == 1_000
    assert failed["client"] > 0
    assert min(succeeded["balancer"], succeeded["reset"]) > 1_000  # of 1,500; a busy machine leaves some unsent
    assert failed["balancer"] == failed["reset"] == client_holds["balancer"] == client_holds["reset"] == 0
    assert balancer_holds["balancer"] > 0 == balancer_holds["client"] == balancer_holds["reset"]
    assert any(line.startswith("Forecast") for line in lines)
    assert any(line.startswith("Why  ports-exhausted") for line in lines)


def _rows(lines: list[str]) -> dict[str, list[str]]:
    """The table's, by who closed first."""
    ends = ("client ", "balancer ", "reset ")
    return {line.split()[0]: line.split()[1:] for line in lines if line.startswith(ends)}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_shows_what_it_has_and_leaves_nothing_behind(number: signal.Signals) -> None:
    needs_namespaces()
    words = [str(SCRIPT), "demo"]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        while not process.stdout.readline().startswith("Forecast"):
            assert process.poll() is None, process.stderr.read()
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        told, complaints = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"ended early by {number.name}" in told or not told.strip(), told
    assert complaints == ""
    deadline = time.monotonic() + 10
    while _alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.01)  # the kernel kills what is left behind its parent's back
    assert not _alive(process.pid)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _round(**counts: Any) -> Round:
    run = Run(plan=demo.plan("http://10.0.0.2/", Closing.CLIENT, Ports()), host=Host(), total=Tick(**counts))
    run.ticks = [run.total]
    return Round(Closing.CLIENT, run, diagnose(run), 0, 0)


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"closed_us": 5}, "client"),
        ({"closed_peer": 5}, "balancer"),
        ({"closed_us": 1200, "closed_reset": 3}, "client 1,200, reset 3"),
        ({}, "nobody"),
    ],
)
def test_who_closed_first_is_told_as_counted(counts: dict[str, int], told: str) -> None:
    assert view.closed_first(_round(**counts).run) == told


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"succeeded": 9}, "no wall"),
        ({"succeeded": 9, "unsent": 2, "unfinished": 1}, "no wall, 2 not sent, 1 unfinished"),
        ({}, "no result"),
        ({"failed": 9, "errors": {"connect ECONNREFUSED refused": 9}}, "failures"),
        (
            {"at": 4.0, "seconds": 1.0, "succeeded": 3, "failed": 1, "errors": {"connect EADDRNOTAVAIL no-port": 1}},
            "no port after 3.8 s",
        ),
    ],
)
def test_the_verdict_follows_from_the_counts(counts: dict[str, Any], told: str) -> None:
    assert view.verdict(_round(**counts).run).plain == told


@pytest.mark.parametrize("width", [40, 80, 120])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(view.opening("a reason", ["This is hidden."], loopback=True))
    console.print(view.closing([_round(succeeded=1000, failed=3, errors={"connect ECONNREFUSED refused": 3})]))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "because a reason." in text and "3" in text
