"""`timewait report`: what it reads, refuses and writes."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from report import samples
from timewait.run import Run, RunFile


def save(run: Run, path: Path) -> Path:
    file = RunFile(path.open("wb"))
    file.start(msgspec.structs.replace(run, ticks=[], snapshots=[]))
    for tick, snapshot in zip(run.ticks, run.snapshots, strict=True):
        file.tick(tick, snapshot)
    file.end(run)
    assert file.error is None
    return path


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save(samples.exhausted(), tmp_path / "run.jsonl")


def report(*words: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "FORCE_COLOR")}
    command = [sys.executable, "-c", "from timewait.cli import main; main()", "report", *map(str, words)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60, env=environment, check=False)


def refused(*words: str | Path) -> str:
    """The one sentence of a refusal."""
    done = report(*words)
    assert done.returncode == 2
    assert done.stdout == b""
    (sentence,) = done.stderr.decode().splitlines()
    return sentence


def test_it_renders_and_diagnoses_again(saved: Path) -> None:
    done = report(saved)
    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    assert "2,800 successes per second · 11.1% failed (3,500 of 31,500)" in text
    assert "ports-exhausted" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text


def test_json_is_one_object_with_the_exit_code_of_the_run(saved: Path) -> None:
    done = report(saved, "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert found["exit_code"] == 3
    assert [finding["id"] for finding in found["findings"]] == ["ports-exhausted", "residue"][
        : len(found["findings"])
    ]
    assert found["totals"]["succeeded"] == 28_000


def test_csv_has_a_row_a_tick(saved: Path, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(report(saved, "--csv", "-").stdout.decode())))
    assert len(rows) == 10
    assert sum(int(row["succeeded"]) for row in rows) == 28_000
    assert report(saved, "--csv", tmp_path / "out.csv").returncode == 0
    assert list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text()))) == rows


def test_html_is_written(saved: Path, tmp_path: Path) -> None:
    done = report(saved, "--html", tmp_path / "page.html")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    page = (tmp_path / "page.html").read_text()
    assert "2,800" in page
    assert "ports-exhausted" in page


def test_several_files_stand_side_by_side(saved: Path, tmp_path: Path) -> None:
    other = save(samples.healthy(), tmp_path / "healthy.jsonl")
    text = report(saved, other).stdout.decode()
    assert ["run.jsonl", "healthy.jsonl"] in [line.split() for line in text.splitlines()]
    assert ["successes", "2,800/s", "8,000/s"] in [line.split() for line in text.splitlines()]
    objects = [json.loads(line) for line in report(saved, other, "--json").stdout.splitlines()]
    assert [found["file"] for found in objects] == [str(saved), str(other)]
    rows = list(csv.DictReader(io.StringIO(report(saved, other, "--csv", "-").stdout.decode())))
    assert {row["file"] for row in rows} == {str(saved), str(other)}
    assert len(rows) == 20


def test_stdin_is_a_file_too(saved: Path) -> None:
    assert report("-", stdin=saved.read_bytes()).stdout == report(saved).stdout
    assert refused("-", "-") == "timewait: stdin can be read once; give - once"


def test_a_file_cut_in_the_middle_is_used_as_far_as_it_goes(saved: Path) -> None:
    lines = saved.read_bytes().splitlines(keepends=True)
    saved.write_bytes(b"".join(lines[:4]) + lines[4][:100])
    done = report(saved, "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert found["totals"]["succeeded"] == 24_000
    assert "cut short at line 5" in " ".join(found["notes"])
    assert "cut short" in " ".join(report(saved).stdout.decode().split())


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "missing") == f"timewait: {tmp_path}/missing: No such file or directory"
    assert refused(tmp_path) == f"timewait: {tmp_path}: Is a directory"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"hello\n", "is no saved run"),
        (b"\xff\xfe\x00", "is no saved run"),
        (b"[]\n", "is no saved run"),
        (b'{"kind":"tick"}\n', "does not begin with"),
        (b'{"kind":"start","format":99,"run":{"future":1}}\n', "has format 99"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    assert words in refused(path)


def test_a_bad_file_among_good_ones_is_named(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"x")
    assert "bad is no saved run" in refused(saved, tmp_path / "bad")


def test_a_file_name_cannot_steer_the_terminal(tmp_path: Path) -> None:
    assert "\x1b" not in refused(tmp_path / "a\x1b[31m")


def test_contradictory_outputs_are_refused(saved: Path) -> None:
    assert "both want stdout" in refused(saved, "--json", "--csv", "-")


def test_a_page_that_cannot_be_written_is_refused(saved: Path, tmp_path: Path) -> None:
    assert refused(saved, "--html", tmp_path / "no" / "page").endswith("/no/page: No such file or directory")
    assert refused(saved, "--csv", tmp_path / "no" / "csv").endswith("/no/csv: No such file or directory")


@pytest.mark.parametrize("options", [[], ["--json"], ["--csv", "-"]])
def test_a_reader_that_leaves_early_is_no_error(saved: Path, options: list[str]) -> None:
    gone, end = os.pipe()
    os.close(gone)
    command = [sys.executable, "-c", "from timewait.cli import main; main()", "report", str(saved), *options]
    with os.fdopen(end, "wb") as stdout:
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
