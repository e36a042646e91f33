"""`timewait watch` as people run it."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from observe.traffic import Traffic
from timewait.cli import watch_view
from timewait.observe.overview import End, Overview
from timewait.run import PortUse

MakeTraffic = Callable[..., Traffic]
TIMEWAIT = str(Path(sys.executable).with_name("timewait"))


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([TIMEWAIT, "watch", *words], capture_output=True, text=True, timeout=100)


def the_end(view: dict[str, Any], label: str, direction: str = "out") -> dict[str, Any]:
    found = [one for one in view["ends"] if one["end"] == label and one["direction"] == direction]
    assert len(found) <= 1
    return dict(found[0]) if found else {}


def test_once_as_json_is_one_object(traffic: MakeTraffic, loopback: Callable[[], str]) -> None:
    target = traffic(loopback())
    target.hold(3)
    target.close_by_client(2)
    done = run("--json", "-1")
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    found = the_end(json.loads(line), f"{target.host}:{target.port}")
    assert found["states"] == {"ESTABLISHED": 3, "TIME_WAIT": 2}
    assert found["ports"]["in_use"] == 3 and found["ports"]["time_wait"] == 2


ALONE = """
import socket, subprocess, sys
listener = socket.create_server(("127.0.0.1", 80), backlog=64)
pairs = [(socket.create_connection(("127.0.0.1", 80)), listener.accept()[0]) for _ in range(7)]
for client, server in pairs[:5]:
    client.close()
    server.recv(1)
    server.close()
waiting = socket.create_connection(("127.0.0.1", 80))
sys.exit(subprocess.run(sys.argv[1:]).returncode)
"""


def test_once_as_text_in_a_namespace_of_its_own() -> None:
    inside = f'ip link set lo up && exec {sys.executable} -c "$0" "$@"'
    command = ["unshare", "-Urn", "sh", "-c", inside, ALONE, TIMEWAIT, "watch", "-1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    first, *lines = done.stdout.splitlines()
    at, _, counted = first.partition("  ")
    assert re.fullmatch(r"\d+\.\ds", at) and counted == "11 sockets: ESTABLISHED 6, TIME_WAIT 5"
    assert lines[:2] == [
        "  to 127.0.0.1:80  ESTABLISHED 3, TIME_WAIT 5  8 of 28,232 ports",
        "  at 127.0.0.1:80  ESTABLISHED 3  queue 1 of 64",
    ]
    assert all(line.startswith("  conntrack ") for line in lines[2:])


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_line_per_interval_until_interrupted(
    traffic: MakeTraffic, loopback: Callable[[], str], sent: signal.Signals
) -> None:
    target = traffic(loopback())
    command = [TIMEWAIT, "watch", "--json", "--interval", "50ms"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        first = json.loads(process.stdout.readline())
        assert first["counters"] == {}
        target.hold(4)
        moved = 0
        while moved < 4:  # the connections may fall between two looks; they are in one of them
            moved += json.loads(process.stdout.readline())["counters"].get("Tcp.ActiveOpens", 0)
        found: dict[str, Any] = {}
        while found.get("states") != {"ESTABLISHED": 4}:  # somebody else's connections may have moved the counter
            view = json.loads(process.stdout.readline())
            found = the_end(view, f"{target.host}:{target.port}")
        assert view["at"] > first["at"]
        process.send_signal(sent)
        process.stdout.read()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{TIMEWAIT} watch --interval 20ms | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("word", ["0", "soon", "-1s"])
def test_a_bad_interval_is_bad_usage(word: str) -> None:
    done = run("-1", f"--interval={word}")
    assert done.returncode == 2 and done.stdout == ""
    assert "--interval" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("colour", [True, False], ids=["colour", "NO_COLOR"])
def test_on_a_terminal_it_fills_the_screen_and_leaves_the_last_look(colour: bool) -> None:
    main, side = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    environment |= {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "30"} | ({} if colour else {"NO_COLOR": "1"})
    command = [TIMEWAIT, "watch", "--interval", "50ms"]
    with subprocess.Popen(command, stdin=side, stdout=side, stderr=side, env=environment) as process:
        os.close(side)
        shown = b""
        while shown.count(b"ports in use") < 3:
            shown += os.read(main, 65536)
        process.send_signal(signal.SIGINT)
        try:
            while more := os.read(main, 65536):
                shown += more
        except OSError:  # EIO: the other side of the terminal is closed
            pass
    os.close(main)
    assert process.returncode == 0
    assert b"Traceback" not in shown
    assert b"\x1b[?1049h" in shown and b"\x1b[?1049l" in shown
    assert b"ports in use" in shown.rpartition(b"\x1b[?1049l")[2]
    assert (re.search(rb"\x1b\[[0-9;]*3[0-7][;m]", shown) is None) or colour


def view(**changes: Any) -> Overview:
    use = PortUse(destination="10.0.0.1:80", capacity=28232, in_use=20, time_wait=1200, free=27012)
    out = End(
        direction="out", end="10.0.0.1:80", states={"ESTABLISHED": 20, "TIME_WAIT": 1200}, total=1220, ports=use
    )
    return Overview(**{"at": 1.0, "seconds": 1.0, "states": dict(out.states), "ends": [out], **changes})


def test_text_of_an_overview() -> None:
    shown = watch_view.text(view(counters={"Tcp.InSegs": 9, "TcpExt.ListenOverflows": 3}))
    assert shown.splitlines() == [
        "1.0s  1,220 sockets: ESTABLISHED 20, TIME_WAIT 1,200",
        "  to 10.0.0.1:80  ESTABLISHED 20, TIME_WAIT 1,200  1,220 of 28,232 ports",
        "  moved  TcpExt.ListenOverflows +3, Tcp.InSegs +9",
    ]


def test_what_is_not_shown_is_counted() -> None:
    ends = [End(direction="in", end=f"10.0.0.1:{n}", states={"TIME_WAIT": 2}, total=2) for n in range(1, 26)]
    shown = watch_view.text(view(ends=ends, states={"TIME_WAIT": 57}, left_out=7))
    assert len(shown.splitlines()) == 1 + 20 + 1
    assert "and 17 sockets elsewhere" in shown


def test_what_cannot_be_read_is_shown() -> None:
    assert "  no such table" in watch_view.text(view(unreadable=["no such table"])).splitlines()


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_screen_keeps_ends_and_numbers_whole(width: int) -> None:
    states = dict.fromkeys(watch_view._STATES, 1000)
    use = PortUse(destination="", capacity=28232, in_use=20, time_wait=24000, free=4212)
    ends = [
        End(direction="out", end="203.0.113.255:8080", states=states, total=9000, ports=use, sources=2),
        End(direction="in", end="203.0.113.255:443", states={"ESTABLISHED": 9}, total=9, queue=400, queue_max=511),
    ]
    console = Console(width=width, file=io.StringIO())
    console.print(watch_view.screen(view(ends=ends, states={**states, "TIME_WAIT": 30000}), 1, width))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    (row,) = [line.split() for line in shown.splitlines() if "203.0.113.255:8080" in line]
    others = ["1,000"] * 7 if width == 200 else ["7,000"]
    assert row == ["to", "203.0.113.255:8080", "1,000", "1,000", *others, "24,020/28,232"]
    assert "and 29,000 sockets elsewhere" in shown and "that uses most" in shown
    assert max(len(line) for line in shown.splitlines()) <= width
