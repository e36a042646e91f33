"""Every claim on the kernel that runs here, and the command that runs them."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
from pathlib import Path

import pytest

import peers
from kit.labs import wait_until
from kit.namespace import needs_namespaces
from kit.run_timewait import MACHINE, SCRIPT
from timewait.claims import claims
from timewait.claims.runner import Settings, run_one
from timewait.verdict import HOLDS, ONLY_IF

LONGEST = 300.0  # seconds; what a test may take is set by `timeout` below, and this one waits for the kernel's 60 s
LEFT_OUT = "wrap-age"  # 36 minutes; `make docs-claims` runs it
IDS = [one for one in claims() if one != LEFT_OUT]
EXPECTED = {
    "closer-holds", "port-wall", "port-search", "tw-reuse", "tw-reuse-void", "tw-reuse-loopback", "bound-port",
    "recycle-nat", "recycle-or-timestamps", "nat-tuple-reuse", "timestamps-off-is-half", "wrap", "server-closes",
    "reset-closes", "layer4-passes", "balancer-is-a-client",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _peers() -> None:
    needs_namespaces()
    for program in ("nginx", "haproxy", "nft"):
        peers.needs(program)


def test_the_list_of_claims_is_whole() -> None:
    assert set(claims()) == EXPECTED | {LEFT_OUT}
    assert {one.id for one in claims().values() if one.slow} == {"closer-holds", LEFT_OUT}


@pytest.mark.slow
@pytest.mark.timeout(LONGEST)
@pytest.mark.parametrize("name", IDS)
def test_a_claim_comes_out_as_the_rules_say(name: str) -> None:
    result = run_one(claims()[name], Settings(time=2.0), lambda text: None)
    wrong = [
        f"{one.what}: predicted {one.predicted}, was {one.measured}" for one in result.measures if not one.agrees
    ]
    assert (wrong, result.why) == ([], "")
    assert result.kind in (HOLDS, ONLY_IF)


@pytest.mark.parametrize("balancer", ["nginx", "haproxy"])
def test_the_other_balancers_can_play_it_too(balancer: str) -> None:
    result = run_one(claims()["server-closes"], Settings(balancer=balancer, time=2.0), lambda text: None)
    assert (result.verdict, result.balancer) == ("holds", balancer)


@pytest.mark.slow
@pytest.mark.parametrize("balancer", ["nginx", "haproxy"])
def test_toward_servers_each_does_what_it_can(balancer: str) -> None:
    settings = Settings(balancer=balancer, time=2.0)
    result = run_one(claims()["balancer-is-a-client"], settings, lambda text: None)
    assert (result.kind, result.why) == (ONLY_IF, "")


def lab_run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(SCRIPT), "lab", "run", *map(str, words)], capture_output=True, text=True, timeout=100)


def test_what_cannot_be_written_is_told_and_nothing_empty_is_left(tmp_path: Path) -> None:
    """A disk of 16 KiB: a capture is cut short, the next one cannot even begin; a page that was never written."""
    page, folder = tmp_path / "page.html", tmp_path / "small"
    folder.mkdir()
    command = (
        f"mount -t tmpfs -o size=16k tmpfs {folder} && exec {SCRIPT} lab run server-closes wrap --pcap {folder} "
        f"--html {page}"
    )
    done = subprocess.run(["unshare", "-Urm", "sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == MACHINE, done.stderr
    assert "server-closes holds" in done.stderr
    assert f"timewait: {folder}/server-closes-1-client-eth0.pcap: recording stopped after" in done.stderr
    assert "wrap-1-client-eth0.pcap cannot be recorded to: No space left on device" in done.stderr
    page.unlink()
    forbid = "echo 0 > /proc/sys/user/max_net_namespaces; exec "
    words = f"{forbid}{SCRIPT} lab run wrap --html {page}"
    done = subprocess.run(["unshare", "-Ur", "sh", "-c", words], capture_output=True, text=True, timeout=60)
    assert (done.returncode, page.exists()) == (MACHINE, False)
    assert done.stderr.count("\n") == 1


def test_json_html_and_captures(tmp_path: Path) -> None:
    page, folder = tmp_path / "page.html", tmp_path / "captures"
    done = lab_run("reset-closes", "wrap", "--json", "--html", page, "--pcap", folder)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["claim"] for row in rows] == ["reset-closes", "wrap"]
    for row in rows:
        assert {"claim", "predicted", "measured", "verdict", "seconds", "kernel"} <= set(row)
        assert row["verdict"] == "holds"
        assert row["kernel"] == os.uname().release
        assert row["claim"] in page.read_text()
    assert "1 of 2: reset-closes holds" in done.stderr
    captures = sorted(folder.glob("*.pcap"))
    assert {capture.name.rpartition("-1-")[0] for capture in captures} == {"reset-closes", "wrap"}
    for capture in captures:
        magic, *_ = struct.unpack_from("=I", capture.read_bytes())
        assert magic in (0xA1B2C3D4, 0xA1B23C4D)
        assert capture.stat().st_size > 1_000


def test_the_table_on_a_pipe() -> None:
    done = lab_run("wrap")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].split() == ["claim", "predicted", "measured", "verdict", "s"]
    assert "1 holds; Linux" in done.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["wrapp"], "no claim 'wrapp'; did you mean wrap"),
        (["wrap", "--balancer", "nginks"], "--balancer 'nginks': write timewait, nginx or haproxy"),
        (["wrap", "--html", "/nowhere/page.html"], "--html /nowhere/page.html: No such file or directory"),
        (["wrap", "--pcap", "/dev/null/x"], "--pcap /dev/null/x: Not a directory"),
    ],
)
def test_bad_usage_is_one_sentence(words: list[str], told: str) -> None:
    done = lab_run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_missing_program_leaves_the_other_claims_running(tmp_path: Path) -> None:
    """PATH without nft, and with an nft that cannot be run where daemons lie: found nowhere."""
    script = (
        "import sys; import timewait.lab.processes as p; find = p.find\n"
        "def lacking(program, package):\n"
        "    if program == 'nft': raise p.MissingProgramError(program, package)\n"
        "    return find(program, package)\n"
        "import timewait.lab.nat as nat; nat.find = lacking\n"
        "sys.argv = ['timewait', 'lab', 'run', 'layer4-passes', 'wrap', '--json']\n"
        "from timewait.cli import main; main()\n"
    )
    python = SCRIPT.with_name("python")
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, timeout=60)
    rows = {row["claim"]: row for row in json.loads(done.stdout)}
    assert done.returncode == 3
    assert rows["layer4-passes"]["verdict"] == "inconclusive"
    assert "sudo apt-get install nftables" in rows["layer4-passes"]["why"]
    assert rows["wrap"]["verdict"] == "holds"


def test_ctrl_c_keeps_what_was_done() -> None:
    command = [str(SCRIPT), "lab", "run", "wrap", "port-wall", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None and process.stdout is not None
        assert "wrap holds" in process.stderr.readline()
        _wait_for_an_experiment(process.pid)  # the second, which takes three seconds at least
        process.send_signal(signal.SIGINT)
        rows = json.loads(process.stdout.read())
        assert process.wait(20) == 130
    assert [row["claim"] for row in rows] == ["wrap"]


def test_ctrl_c_before_anything_was_done_is_told() -> None:
    command = [str(SCRIPT), "lab", "run", "port-wall"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None and process.stdout is not None
        _wait_for_an_experiment(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "timewait: interrupted before the first of them was done\n"
        assert process.stdout.read() == ""
        assert process.wait(20) == 130


def _wait_for_an_experiment(pid: int) -> None:
    wait_until(lambda: Path(f"/proc/{pid}/task/{pid}/children").read_text() != "", "an experiment begins", 30)
