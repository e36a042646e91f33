"""`timewait simulate` as a user meets it: answers, files, interruptions, and sentences about what is wrong."""

from __future__ import annotations

import errno
import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kit.run_timewait import BAD_USAGE, INTERRUPTED, MACHINE, Result, interrupted, timewait
from report import samples
from simulate.clusters import Dask, dask
from timewait.cli.simulate import files
from timewait.cli.simulate.wishes import Wishes
from timewait.run import RunFile
from timewait.simulate import sweep
from timewait.simulate.scenario_file import names
from timewait.simulate.world import Scenario

COMPILING = 280  # seconds: whichever test comes first compiles the engine, on a machine that may be busy
pytestmark = pytest.mark.timeout(300)

SMALL = ("nat", "--clients", "500", "--addresses", "2", "--ports", "1k", "--rate", "200", "--duration", "20s")
SWEEP = (*SMALL, "--sweep", "nat.ports=500,1k", "--sweep", "server.timestamps=on,off", "--replications", "2")


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    done = simulate("port-wall", "--quiet")
    assert done.exit_code == 0, done.stderr


def simulate(*words: str | Path, timeout: float = COMPILING) -> Result:
    return timewait("simulate", *words, timeout=timeout)


def refused(*words: str | Path) -> str:
    """The one sentence of a refusal."""
    done = simulate(*words)
    assert (done.exit_code, done.stdout) == (BAD_USAGE, ""), done.stderr
    assert done.stderr.startswith("timewait: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def answer(*words: str | Path) -> Any:
    done = simulate(*words, "--json", "--quiet")
    assert done.exit_code == 0, done.stderr
    assert done.stderr == ""
    return done.json


def test_the_list_names_every_scenario() -> None:
    shown = simulate("list").stdout
    assert all(name in shown for name in names())
    assert [row["name"] for row in json.loads(simulate("list", "--json").stdout)] == names()


def test_the_flags_of_the_issue() -> None:
    shown = simulate(
        "nat", "--clients", "2M", "--addresses", "64", "--kernel", "2.6.32", "--recycle", "--timestamps", "on",
        "--check",
    ).stdout  # fmt: skip
    for line in (
        "count = 2_000_000",
        'kernel = "2.6.32"',
        "tcp_tw_recycle = 1",
        "tcp_timestamps = 1",
        "addresses = 64",
    ):
        assert line in shown
    assert "tcp_tw_recycle = 0" in simulate("nat-recycle", "--no-recycle", "--check").stdout


def test_one_scenario_says_its_answer(tmp_path: Path) -> None:
    page, run = tmp_path / "page.html", tmp_path / "run.jsonl"
    done = simulate("port-wall", "--html", page, "--save", run)
    assert done.exit_code == 0, done.stderr
    assert "The first connect without a port comes after 2 s." in done.stdout
    assert "ports-exhausted" in done.stdout
    assert "comes after 2 s" in page.read_text()
    again = timewait("report", run)
    assert again.exit_code == 0, again.stderr
    assert "ports-exhausted" in again.stdout


def test_json_of_one_scenario() -> None:
    found = answer("port-wall")
    assert found["figures"]["wall"]["mean"] == 2.0
    assert found["figures"]["failed"]["mean"] == pytest.approx(1 / 3)
    assert found["figures"]["connected"]["mean"] == 1000
    assert [finding["id"] for finding in found["findings"]] == ["ports-exhausted"]
    assert found["over_time"]["ends"][-1] == 3.0
    assert found["interrupted"] is None


def test_the_same_seed_the_same_figures_wherever_it_runs() -> None:
    one = answer(*SWEEP, "--seed", "7", "--workers", "1")
    assert answer(*SWEEP, "--seed", "7", "--workers", "2") == one
    other = answer(*SWEEP, "--seed", "8", "--workers", "1")
    assert other["points"] != one["points"]
    assert [point["settings"] for point in one["points"]][1] == {"nat.ports": "500", "server.timestamps": "off"}
    assert all(point["replications"] == 2 for point in one["points"])


def test_replications_of_one_scenario_are_those_of_a_sweep() -> None:
    alone = answer(*SMALL, "--replications", "3", "--workers", "1")
    spread = answer(*SMALL, "--replications", "3", "--workers", "2")
    for found in (alone, spread):
        found.pop("wall_seconds")
    assert alone == spread
    figure = alone["figures"]["first_try"]
    assert figure["low"] < figure["mean"] < figure["high"]
    swept = answer(*SMALL, "--replications", "3", "--sweep", "nat.ports=1k")
    assert swept["points"][0]["figures"] == alone["figures"]


def test_a_trace_opens_connections_when_it_says(tmp_path: Path) -> None:
    trace = tmp_path / "times.txt"
    trace.write_text("".join(f"{at / 10}\n" for at in range(50)))
    found = answer(*SMALL, "--trace", trace)
    assert found["figures"]["connected"]["mean"] == 50


def test_a_scenario_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        "duration = '5s'\n[clients]\ncount = 10\n[nat]\n[arrivals]\nrate = '10/s'\n[ask]\nfigure = 'connected'\n"
    )
    found = answer(file)
    assert found["scenario"]["name"] == "mine"
    assert "connections are made" in found["answer"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "simulate list"),
        (("nat-recicle",), "did you mean nat-recycle"),
        (("none.toml",), "No such file"),
        (("nat", "--clients", "many"), "whole number"),
        (("nat", "--clients", "9M", "--addresses", "64"), "9,000,000 clients are more than the 4,128,768 tuples"),
        (("nat", "--kernel", "2.6.33"), "nearest: 2.6.32"),
        (("nat", "--kernel", "6.18", "--recycle"), "was removed in 4.12"),
        (("",), "simulate list"),
        (("nat", "--timestamps", "maybe"), "write one of on, off"),
        (("nat", "--save", "x", "--html", "./x"), "two names"),
        (("nat", "--html", ""), "--html '': name a file"),
        (("nat", "--set", "arrivals.times=1,2"), "--trace FILE"),
        (("nat", "--set", "tick=1ms", "--duration", "100d"), "give tick a longer time"),
        (("port-wall", "--ports", "60k"), "from 1 to 45,536, or LOW-HIGH"),
        (("nat", "--rate", "fast"), "50k/s"),
        (("nat", "--duration", "-3"), "write a duration from 1ms to 3660d"),
        (("nat", "--close", "nobody"), "server, client, reset"),
        (("nat", "--set", "nat.adresses=3"), "nat.addresses"),
        (("nat", "--set", "tcp_tw_reuse=1"), "clients.tcp_tw_reuse or server.tcp_tw_reuse"),
        (("nat", "--set", "nat.ports"), "NAME=VALUE"),
        (("nat", "--sweep", "nat.ports=60k,x"), "whole number"),
        (("nat", "--figure", "failled"), "did you mean failed?"),
        (("nat", "--seed", "x"), "--seed"),
        (("nat", "--replications", "0"), "--replications"),
        (("nat", "--workers", "0"), "--workers"),
        (("nat", "--workers", "2", "--scheduler", "tcp://127.0.0.1:1"), "leave --workers out"),
        (("nat", "--html", "/none/page.html"), "--html /none/page.html: cannot be written"),
        (("nat", "--trace", "none.txt"), "none.txt: cannot be read"),
        (("nat", "--from", "run.jsonl"), "exclude each other"),
        (("--from", "none.jsonl"), "none.jsonl: cannot be read"),
        (("--resume", "none.jsonl"), "none.jsonl"),
        (("--resume", "none.jsonl", "--seed", "3"), "only where it runs"),
        (("nat", "--set", "nat=none", "--clients", "1M"), "GB of memory"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence(words: tuple[str, ...], sentence: str) -> None:
    assert sentence in refused(*words)


def test_files_that_are_wrong_are_one_sentence(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("[server]\n\nkernal = '6.18'\n")
    assert "bad.toml line 3: there is no setting 'kernal' in server; did you mean server.kernel?" in refused(bad)
    trace = tmp_path / "times.txt"
    trace.write_text("1\n2\n1.5\n")
    assert "times.txt line 3: 1.5 is before 2" in refused("nat", "--trace", trace)
    trace.write_text("1e300\n")
    assert "times.txt line 1: 1e300 is no moment" in refused("nat", "--trace", trace)
    for line, told in (("seed = -1", "a whole number"), ("seed = 99999999999999999999", "ask.seed")):
        bad.write_text(f"[ask]\n{line}\n")
        assert told in refused(bad)
    for times in ("[nan]", "[inf]", "[1e300]", "[-1]"):
        bad.write_text(f"[arrivals]\nprocess = 'trace'\ntimes = {times}\n")
        assert "arrivals.times: number 1" in refused(bad)
    bad.write_text("[server]\n\nkernal = '6.18'\n")
    assert "is no saved run" in refused("--from", bad)
    assert "is no saved sweep" in refused("--resume", bad)


def test_a_cluster_that_is_not_there() -> None:
    assert "write its address" in refused(*SWEEP, "--scheduler", "nonsense")


LONG = (*SMALL[:-1], "2m", "--sweep", "nat.ports=500,1k,2k", "--replications", "200")


def test_a_sweep_that_is_interrupted_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    words = (*SMALL, "--sweep", "nat.ports=500,1k,2k", "--replications", "12", "--workers", "1", "--json")
    whole = answer(*words[:-1])
    file = tmp_path / "sweep.jsonl"

    def some() -> bool:
        return file.exists() and file.read_bytes().count(b"\n") > 3

    done = interrupted("simulate", *words, "--save", file, send=signal.SIGINT, when=some)
    if done.exit_code == 0:  # it was faster than the signal
        assert done.json["points"] == whole["points"]
        return
    assert done.exit_code == INTERRUPTED, done.stderr
    assert done.json["interrupted"] == "SIGINT"
    assert "--resume" in done.json["notes"][-1]
    again = simulate("--resume", file, "--json", "--quiet")
    assert again.exit_code == 0, again.stderr
    assert again.json == whole


@pytest.fixture
def cluster(free_port: Callable[[], int]) -> Iterator[Dask]:
    with dask(free_port) as made:
        yield made


def test_a_cluster_gives_the_same_and_may_die(cluster: Dask, tmp_path: Path) -> None:
    whole = answer(*SWEEP)
    assert answer(*SWEEP, "--scheduler", cluster.address) == whole
    file = tmp_path / "sweep.jsonl"

    def some() -> bool:
        if file.exists() and file.read_bytes().count(b"\n") > 2:
            cluster.scheduler.kill()
            return True
        return False

    done = interrupted(
        "simulate", *LONG, "--scheduler", cluster.address, "--save", file, send=signal.SIGCONT, when=some
    )
    assert done.exit_code == MACHINE, done.stderr
    assert f"the dask scheduler at {cluster.address} is gone" in done.stderr.lower()
    assert f"go on with `timewait simulate --resume {file}`" in done.stderr
    assert file.read_bytes().count(b"\n") > 2


def saved_run(file: Path) -> Path:
    """A measured run that ran out of ports."""
    run = samples.exhausted()
    run.host.kernel = "6.12.1"
    run.host.sysctls = {"net.ipv4.tcp_tw_reuse": "0", "net.ipv4.tcp_timestamps": "1"}
    with file.open("wb") as stream:
        saved = RunFile(stream)
        saved.start(run)
        for tick, snapshot in zip(run.ticks, run.snapshots, strict=True):
            saved.tick(tick, snapshot)
        saved.end(run)
    return file


def test_what_a_measured_run_would_have_met(tmp_path: Path) -> None:
    file = saved_run(tmp_path / "run.jsonl")
    found = answer("--from", file, "--set", "tcp_tw_reuse=1")
    measured, before, after = found["columns"].values()
    assert list(found["columns"]) == ["measured", "simulated", "changed"]
    assert before["no_port"]["mean"] > 0.5 > after["no_port"]["mean"] == 0
    assert before["wall"]["mean"] == pytest.approx(measured["wall"]["mean"], rel=0.1)
    shown = simulate("--from", file, "--set", "tcp_tw_reuse=1", "--html", tmp_path / "page.html")
    assert "0% with tcp_tw_reuse=1." in shown.stdout
    assert "Side by side" in (tmp_path / "page.html").read_text()


def test_a_comparison_that_is_interrupted_keeps_what_was_done(tmp_path: Path) -> None:
    words = ("--from", saved_run(tmp_path / "run.jsonl"), "--set", "clients.count=500", "--set", "tcp_tw_reuse=1")
    began = time.monotonic()
    done = interrupted(
        "simulate", *words, "--set", "arrivals.rate=40k", "--set", "duration=1h", "--json", "--quiet",
        send=signal.SIGINT, when=lambda: time.monotonic() - began > 6.0,
    )  # fmt: skip
    assert done.exit_code == INTERRUPTED, done.stderr
    if done.stdout:  # the simulation as it was is done, the changed one is not
        assert list(done.json["columns"]) == ["measured", "simulated"]
        assert done.json["interrupted"] == "SIGINT"
        assert "simulated: 1 of 1, changed: 0 of 1" in done.json["notes"][-1]
    else:
        assert "before anything was simulated" in done.stderr


@pytest.mark.parametrize("flag", ["--save", "--html"])
def test_a_full_disk_costs_the_file_and_not_the_answer(flag: str) -> None:
    done = simulate("port-wall", flag, "/dev/full", "--quiet")
    assert done.exit_code == BAD_USAGE
    assert "comes after 2 s" in done.stdout
    assert done.stderr == f"timewait: {flag} /dev/full: No space left on device\n"


def test_a_sweep_whose_file_fills_up_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan = sweep.Plan(Scenario(), (), 1, 2)
    kept = files.Kept(Wishes(save=str(tmp_path / "sweep.jsonl")), plan, [])

    def full(self: sweep.SweepFile, done: sweep.Done) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sweep.SweepFile, "add", full)
    kept.add(sweep.Done(0, 0, {}))
    with pytest.raises(files.FileError, match="not all of the sweep"):
        kept.close()


def test_a_refused_simulation_leaves_no_file_and_touches_none(tmp_path: Path) -> None:
    page, kept = tmp_path / "page.html", tmp_path / "kept.jsonl"
    kept.write_text("mine\n")
    refused("nat", "--clients", "20k", "--addresses", "1", "--ports", "16", "--html", page, "--save", kept)
    assert not page.exists()
    assert kept.read_text() == "mine\n"
