"""Bad input gets one sentence on stderr that names what is wrong, nothing on stdout, and the usage code."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from kit import behaviours
from kit.namespace import Namespace
from kit.run_timewait import BAD_USAGE, SCRIPT, Result, timewait
from kit.servers import Server

URL = "http://127.0.0.1:1/"  # nothing is sent: each of these is refused before


def refused(result: Result, names: str) -> None:
    assert result.exit_code == BAD_USAGE, result.stderr
    assert result.stdout == ""
    assert names in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["ftp://127.0.0.1/"], "ftp"),
        (["127.0.0.1:80"], "http://"),
        (["http://127.0.0.1:0/"], "port 0"),
        (["http://127.0.0.1:70000/"], "65535"),
        (["http://127.0.0.1/a b"], "space"),
        ([URL, "-R", "fast"], "fast"),
        ([URL, "-R", "-5"], "-5"),
        ([URL, "-c", "0"], "'0'"),
        ([URL, "-d", "soon"], "soon"),
        ([URL, "--close", "politely"], "politely"),
        ([URL, "--source", "192.0.2.77"], "192.0.2.77"),
        ([URL, "--source", "localhost"], "localhost"),
        ([URL, "--source", "::1"], "::1"),
        ([URL, "--source", "10.0.0.0/8"], "65536"),
        ([URL, "--ports", "40000-30000"], "40000-30000"),
        ([URL, "--body", "@/no/such/file"], "/no/such/file"),
        ([URL, "--cacert", "/no/such/file"], "/no/such/file"),
        ([URL, "--header", "no colon"], "no colon"),
        ([URL, "--expect", "good"], "good"),
        ([URL, "--fail-if", "p77>1s"], "p77"),
        ([URL, "--connect-to", "somewhere"], "somewhere"),
        (["--targets", "/no/such/file"], "/no/such/file"),
        ([URL, "--method", "GE T"], "GE T"),
        ([URL, "--requests-per-connection", "none"], "none"),
        ([URL, "--no-such-flag"], "--no-such-flag"),
        ([], "URL"),
        ([URL, "--workers", "0"], "0"),
        ([URL, "--save", "/no/such/folder/run.jsonl"], "/no/such/folder"),
        ([URL, "--json", "--csv", "-"], "--csv"),
        ([URL, "--close", "client", "--requests-per-connection", "unlimited"], "--close"),
        ([URL, "--find-max", "-n", "10"], "--find-max"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)
def test_bad_flags(words: list[str], names: str) -> None:
    refused(timewait("stress", *words), names)


def test_a_bad_line_of_a_target_file_is_named(tmp_path: Path) -> None:
    targets = tmp_path / "targets.txt"
    targets.write_text(f"GET {URL}\n# fine so far\nGET {URL} and more\n")
    refused(timewait("stress", "--targets", targets), "line 3")
    targets.write_text(f"GET {URL}\nGET gopher://127.0.0.1/\n")
    refused(timewait("stress", "--targets", targets), "line 2")
    targets.write_text(f"GET {URL}\nGET https://127.0.0.1/\n")
    refused(timewait("stress", "--targets", targets), "line 2")
    targets.write_text("# nothing\n")
    refused(timewait("stress", "--targets", targets), "no target")
    refused(timewait("stress", "--targets", "-", input=f"GET {URL}\n\nFETCH it now\n"), "line 3")
    targets.write_bytes(b"\xff\xfe\x00bad")
    assert timewait("stress", "--targets", targets).exit_code == BAD_USAGE


def test_a_certificate_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("this is no certificate\n")
    refused(timewait("stress", "https://127.0.0.1:1/", "--cacert", tmp_path / "ca.pem"), "ca.pem")


def test_a_range_with_no_free_port(namespace: Namespace) -> None:
    """Every port of the range has a listener."""
    held = [namespace.listen(port=port, host="0.0.0.0") for port in (30000, 30001)]
    try:
        refused(timewait("stress", URL, "--ports", "30000-30001", namespace=namespace), "30000-30001")
    finally:
        for sock in held:
            sock.close()


@pytest.fixture
def saved(namespace: Namespace, tmp_path: Path) -> Path:
    path = tmp_path / "run.jsonl"
    with Server(behaviours.well, listener=namespace.listen()) as server:
        words = ["-d", "2s", "-c", "2", "--json", "--save", str(path)]
        assert timewait("stress", server.url, *words, namespace=namespace).exit_code == 0
    return path


def test_a_saved_run_renders_again(saved: Path) -> None:
    result = timewait("report", saved, "--json")
    assert (result.exit_code, result.findings) == (0, [])
    assert result.totals["succeeded"] > 0


def test_a_saved_run_of_another_version(saved: Path) -> None:
    first, rest = saved.read_text().split("\n", 1)
    record = json.loads(first)
    record["format"] = 99
    saved.write_text(json.dumps(record) + "\n" + rest)
    refused(timewait("report", saved), "99")


def test_a_saved_run_cut_in_the_middle_is_used_and_said(saved: Path) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[: whole.rindex(b"\n", 0, -1) - 40])
    result = timewait("report", saved)
    assert result.exit_code == 0, result.stderr
    assert "cut short" in result.stdout + result.stderr


@pytest.mark.parametrize("content", [b"", b"no json\n", b"\x00\x01\n", b"{}\n", b'{"kind": "tick"}\n'])
def test_what_is_no_saved_run(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(content)
    refused(timewait("report", path), "run.jsonl")


def test_a_saved_run_that_is_not_there(tmp_path: Path) -> None:
    refused(timewait("report", tmp_path / "none.jsonl"), "none.jsonl")


@pytest.mark.parametrize("words", [["watch", "--once"], ["rules", "syn"], ["lab", "show", "direct"]])
def test_standard_files_that_the_caller_closed(words: list[str]) -> None:
    """No fault, and no other file under their numbers that a line of output could go to."""
    command = f"exec {shlex.quote(str(SCRIPT))} {shlex.join(words)}"
    for closed in (">&-", "<&- >&-", "<&- >&- 2>&-"):
        done = subprocess.run(f"{command} {closed}", shell=True, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
