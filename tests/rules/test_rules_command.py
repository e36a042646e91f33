"""`timewait rules`: questions to a kernel on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from timewait.cli import app, commands

assert commands

RECORD = ["--record", "ts=100000,stamp=1000"]
HALF = ["--time-wait", "rcv_nxt=5000,snd_nxt=9000,ts=100000,stamp=1000,substate=FIN_WAIT2"]
WAITING = ["--time-wait", "rcv_nxt=5000,snd_nxt=9000,ts=100000,stamp=1000"]
RECYCLE = ["--kernel", "2.6.32", "--set", "tcp_tw_recycle=1"]


class Answer:
    """What came out."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> dict[str, Any]:
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: str) -> Answer:
        import typer

        command = typer.main.get_command(app)
        try:
            code = command.main(["rules", *words], prog_name="timewait", standalone_mode=False) or 0
        except SystemExit as done:
            code = int(done.code or 0)
        captured = capsys.readouterr()
        return Answer(int(code), captured.out, captured.err)

    return run


def test_a_syn_that_recycle_drops(ask: Any) -> None:
    found = ask("syn", *RECYCLE, *RECORD, "--now", "1059", "--tsval", "99998")
    assert found.code == 0
    assert "drops this SYN without a word, because tcp_tw_recycle:" in found.out
    assert "PAWSPassive rises by one." in found.out
    assert "tcp_v4_conn_request(), net/ipv4/tcp_ipv4.c, Linux 2.6.32.67" in found.out
    found = ask("syn", *RECYCLE, *RECORD, "--now", "1059", "--tsval", "99998", "--json").json
    assert (found["action"], found["counters"], found["rearm_seconds"]) == ("drop", {"PAWSPassive": 1}, 0)
    assert found["source"].startswith("tcp_v4_conn_request()")
    assert found["rule"]


@pytest.mark.parametrize(
    ("words", "action"),
    [
        ((*RECORD, "--now", "1059", "--tsval", "99999"), "accept"),
        ((*RECORD, "--now", "1060", "--tsval", "99998"), "accept"),
        ((*RECORD, "--now", "1059", "--no-timestamps"), "accept"),
        ((*RECORD, "--now", "1059", "--tsval", "99998", "--ipv6"), "accept"),
        ((*RECORD, "--now", "1059", "--tsval", "99998", "--no-route"), "accept"),
        ((*RECORD, "--now", "1059", "--tsval", "99998", "--syn-queue-full"), "cookie"),
        ((*RECORD, "--now", "1059", "--tsval", "1", "--syn-queue-full", "--set", "tcp_syncookies=0"), "drop"),
        ((*RECORD, "--now", "1059", "--tsval", "100001", "--accept-queue-full"), "drop"),
        ((*RECORD, "--now", "1059", "--tsval", "100001", "--accept-queue-full", "--young", "1"), "accept"),
        (("--tsval", "1", "--no-listener"), "reset"),
        (("--tsval", "1", "--last-quarter", "--set", "tcp_syncookies=0"), "drop"),
        (("--tsval", "1", "--last-quarter", "--proven", "--set", "tcp_syncookies=0"), "accept"),
        ((*WAITING, "--now", "1010", "--seq", "6000", "--tsval", "99990"), "ack"),
        ((*WAITING, "--now", "1010", "--seq", "6000", "--tsval", "100500"), "accept"),
        ((*WAITING, "--now", "1010", "--seq", "6000", "--no-timestamps"), "accept"),
        ((*WAITING, "--now", "1010", "--seq", "6000", "--tsval", "100500", "--no-listener"), "ack"),
        ((*WAITING, "--now", "1010", "--seq", "6000", "--tsval", "100500", "--accept-queue-full"), "drop"),
        ((*WAITING, "--now", "1010", "--seq", "5000", "--flags", "RST"), "kill"),
        ((*WAITING, "--now", "1010", "--seq", "5000", "--flags", "RST", "--set", "tcp_rfc1337=1"), "ignore"),
        ((*WAITING, "--now", "1010", "--seq", "4999", "--flags", "fin,ack", "--tsval", "100000"), "ack"),
        (("--time-wait", WAITING[1] + ",substate=FIN_WAIT2", "--now", "1010", "--seq", "5000"), "reset"),
        (
            (
                "--time-wait",
                WAITING[1] + ",substate=FIN_WAIT2",
                "--now",
                "1010",
                "--seq",
                "5000",
                "--flags",
                "FIN+ACK",
            ),
            "ack",
        ),
    ],
)
def test_what_becomes_of_a_segment(ask: Any, words: tuple[str, ...], action: str) -> None:
    found = ask("syn", *RECYCLE, *words, "--json")
    assert (found.code, found.json["action"]) == (0, action)
    told = ask("syn", *RECYCLE, *words)
    assert told.code == 0
    assert told.out.startswith("Linux 2.6.32.67 ")
    assert ", because " in told.out


def test_a_rejected_syn_starts_the_time_again(ask: Any) -> None:
    words = ("syn", "--kernel", "6.18", *WAITING, "--now", "1010", "--seq", "6000", "--tsval", "99999")
    found = ask(*words, "--json").json
    assert (found["action"], found["rearm_seconds"]) == ("ack", 60)
    assert found["counters"] == {"PAWSTimewait": 1}
    assert "TIME_WAIT starts again and lasts 60 s." in ask(*words).out


@pytest.mark.parametrize(
    ("kernel", "words", "action", "isn"),
    [
        ("2.6.32", ["--now", "1001"], "skip", None),
        ("2.6.32", ["--now", "1002"], "reuse", 74_537),
        ("4.19", ["--now", "1000.999"], "skip", None),
        ("4.19", ["--now", "1001"], "reuse", 74_537),
        ("6.18", ["--now", "1001"], "skip", None),
        ("6.18", ["--now", "1001.001"], "reuse", 74_537),
        ("6.18", ["--now", "1001001ms"], "reuse", 74_537),
        ("6.18", ["--now", "1000", "--bound"], "reuse", 74_537),
        ("6.18", ["--now", "1059", "--set", "tcp_tw_reuse=2"], "skip", None),
        ("6.18", ["--now", "1059", "--set", "tcp_tw_reuse=2", "--loopback"], "reuse", 74_537),
        ("6.18", ["--now", "1059", "--no-timestamps"], "skip", None),
    ],
)
def test_reuse(ask: Any, kernel: str, words: list[str], action: str, isn: int | None) -> None:
    settings = [] if "tcp_tw_reuse=2" in words else ["--set", "tcp_tw_reuse=1"]
    found = ask("reuse", "--kernel", kernel, *settings, *WAITING, *words, "--json").json
    assert (found["action"], found["isn"]) == (action, isn)
    assert found["source"].startswith("tcp_twsk_unique()")
    assert "because" in ask("reuse", "--kernel", kernel, *settings, *WAITING, *words).out


def test_reuse_counts_from_the_beginning_since_6_14(ask: Any) -> None:
    late = "snd_nxt=9000,ts=1,stamp=4000,entered_ms=5000000"
    words = ("reuse", "--kernel", "6.14", "--set", "tcp_tw_reuse=1", "--time-wait", late, "--json", "--now")
    assert ask(*words, "5001").json["action"] == "skip"
    assert ask(*words, "5001.001").json["action"] == "reuse"
    older = ("reuse", "--kernel", "6.13", "--set", "tcp_tw_reuse=1", "--time-wait", late, "--json", "--now")
    assert ask(*older, "5000").json["action"] == "reuse"


@pytest.mark.parametrize(
    ("words", "seconds", "counter"),
    [
        ([*RECYCLE, "--rto", "0.2"], [0.768, 0.768], "TWKilled"),
        ([*RECYCLE, "--rto", "200ms", "--hz", "100"], [0.8, 0.8], "TWKilled"),
        ([*RECYCLE, "--rto", "1.5"], [7.5, 15.0], "TW"),
        ([*RECYCLE, "--rto", "1.5", "--no-timestamps"], [52.5, 60.0], "TW"),
        ([*RECYCLE, "--rto", "1.5", "--ipv6"], [52.5, 60.0], "TW"),
        (["--kernel", "4.1", "--set", "tcp_tw_recycle=1", "--rto", "1"], [3.5, 3.5], "TWKilled"),
        (["--kernel", "6.18"], [60.0, 64.096], "TW"),
        (["--kernel", "4.1", "--set", "tcp_fin_timeout=5", "--fin-wait2"], [5.0, 5.0], "TW"),
        (["--kernel", "4.1", "--fin-wait2", "--linger2", "3"], [3.0, 3.0], "TWKilled"),
    ],
)
def test_length(ask: Any, words: list[str], seconds: list[float], counter: str) -> None:
    found = ask("length", *words, "--json").json
    assert (found["seconds"], found["counter"]) == (seconds, counter)
    assert f"{counter} rises by one" in ask("length", *words).out


def test_kernels_side_by_side(ask: Any) -> None:
    everything = ask("kernels").out.splitlines()
    assert everything[0].startswith("kernel")
    assert len(everything) == 21
    two = ask("kernels", "6.13", "6.14").out
    assert "tcp_tw_reuse_delay" in two
    assert "port_search" not in two
    assert ask("kernels", "6.18", "6.18").out == ask("kernels", "6.18").out
    found = json.loads(ask("kernels", "2.6.32", "--json").out)
    assert found[0]["version"] == "2.6.32.67"
    assert found[0]["sysctls"]["tcp_tw_recycle"] == 0
    assert found[0]["rules"]["port_search"] == "one by one"


def test_this_hosts_kernel_is_the_default(ask: Any) -> None:
    found = ask("syn", "--tsval", "1")
    assert found.code == 0
    assert found.out.startswith("Linux ")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["syn", "--kernel", "5.8"], "kernel '5.8': no rules were read for it; nearest: 5.4, 5.10"),
        (["kernels", "5.8"], "nearest: 5.4, 5.10"),
        (["syn", "--kernel", "2.6.32", "--set", "tcp_tw_recyle=1"], "nearest: tcp_tw_recycle"),
        (["syn", "--kernel", "6.18", "--set", "tcp_tw_recycle=1"], "was removed in 4.12"),
        (["syn", "--kernel", "6.18", "--set", "tcp_tw_reuse"], "write NAME=VALUE"),
        (["syn", *RECORD], "--now is missing"),
        (["syn", *RECORD, *WAITING, "--now", "1"], "give one"),
        (["syn", "--record", "ts=1", "--now", "1"], "stamp is missing"),
        (["syn", "--record", "ts=1,stmp=1", "--now", "1"], "nearest: stamp"),
        (["syn", "--record", "ts=1,stamp=0", "--now", "1"], "leave --record out"),
        (["syn", "--record", "ts=1,ts=2,stamp=3", "--now", "1"], "stands there twice"),
        (["syn", "--time-wait", "rcv_nxt", "--now", "1"], "write NAME=NUMBER"),
        (["syn", "--time-wait", "rcv_nxt=1,substate=X", "--now", "1"], "write TIME_WAIT or FIN_WAIT2"),
        (["syn", "--time-wait", "rcv_nxt=1,snd_nxt=1,ts=5", "--now", "1"], "ts without stamp"),
        (["syn", "--time-wait", "rcv_nxt=1,ts=5,stamp=1", "--now", "1"], "snd_nxt is missing"),
        (["syn", "--time-wait", "", "--now", "1"], "rcv_nxt is missing"),
        (["syn", "--record", "", "--now", "1"], "ts is missing"),
        (["syn", "--record", "", "--time-wait", "", "--now", "1"], "give one"),
        (["syn", "--record", ""], "--now is missing"),
        (["syn", "--set", "=1"], "write NAME=VALUE"),
        (["reuse", "--time-wait", "ts=1,stamp=1", "--now", "5"], "snd_nxt is missing"),
        (["length", "--linger2", "5"], "needs --fin-wait2"),
        (["length", "--linger2", "121", "--fin-wait2"], "no more than 120 s"),
        (["syn", "--time-wait", "stamp=5,entered_ms=x", "--now", "1"], "whole milliseconds"),
        (["syn", "--flags", "RST"], "needs --time-wait"),
        (["syn", "--flags", "FOO", *WAITING, "--now", "1"], "none of FIN, SYN, RST, PSH, ACK"),
        (["syn", "--tsval", "4294967296"], "from 0 to 4294967295"),
        (["syn", "--tsval", "1", "--no-timestamps"], "exclude each other"),
        (["syn", "--seq", "abc"], "from 0 to 4294967295"),
        (["reuse", *WAITING, "--now", "soon"], "write seconds"),
        (["length", "--rto", "0"], "more than 0 and at most 120 s"),
        (["length", "--rto", "121"], "at most 120 s"),
        (["length", "--hz", "50"], "100 to 1000"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence_and_exit_code_2(ask: Any, words: list[str], sentence: str) -> None:
    found = ask(*words)
    assert (found.code, found.out) == (2, "")
    assert sentence in found.err
    assert found.err.startswith("timewait: ")
    assert found.err.count("\n") == 1


def test_the_whole_way_from_the_shell() -> None:
    timewait = Path(sys.executable).with_name("timewait")
    words = [str(timewait), "rules", "length", *RECYCLE, "--rto", "0.2", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout)["seconds"] == [0.768, 0.768]
    done = subprocess.run(
        [str(timewait), "rules", "syn", "--kernel", "nope"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
