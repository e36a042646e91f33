"""What becomes of an experiment that goes wrong: inconclusive with the reason, never a verdict."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.namespace import needs_namespaces
from timewait.claims.claim import Claim, UnknownClaimError, find
from timewait.claims.places import pair
from timewait.claims.runner import Settings, run, run_one
from timewait.claims.source_ports import wall
from timewait.claims.stage import Stage
from timewait.lab import ForbiddenError, topologies
from timewait.plan import Closing
from timewait.verdict import Outcome, Result, exactly

Experiment = Callable[[Stage], Outcome]


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    needs_namespaces()


def play(experiment: Experiment, *, limit: float = 30.0, needs: tuple[str, ...] = ()) -> Result:
    claim = Claim("trial", "A trial.", "direct", needs, experiment, limit=limit)
    return run_one(claim, Settings(), lambda text: None)


def test_measures_come_back_with_their_verdict_and_what_was_said_on_the_way() -> None:
    def experiment(stage: Stage) -> Outcome:
        stage.say("half way")
        with pair(stage) as here:
            run = stage.load(here.client, here.url, Closing.SERVER, count=10, at_once=2)
        return Outcome(measures=(exactly("answered", 10, run.total.succeeded),), notes=("a note",))

    said: list[str] = []
    claim = Claim("trial", "A trial.", "direct", ("balancer",), experiment)
    (result,) = run([claim], Settings(), lambda one, text: said.append(text))
    assert (result.verdict, result.predicted, result.measured, result.notes) == ("holds", "10", "10", ("a note",))
    assert result.kernel == os.uname().release
    assert result.balancer == "timewait"
    assert result.seconds > 0
    assert said[0] == "half way"
    assert any("closed by server" in text for text in said)


def test_a_prediction_that_is_wrong_does_not_hold() -> None:
    def experiment(stage: Stage) -> Outcome:
        with pair(stage) as here:  # the balancer closes first here, so there is no wall
            run = stage.load(here.client, here.url, Closing.SERVER, count=1_500, at_once=10)
        return Outcome(measures=tuple(wall(run)))

    result = play(experiment)
    assert result.verdict == "does not hold"
    assert result.measured == "1,500 connections"


@pytest.mark.parametrize("balancer", ["nginx", "haproxy"])
def test_a_balancer_that_dies_under_the_load_makes_it_inconclusive(balancer: str) -> None:
    def experiment(stage: Stage) -> Outcome:
        stage.balancer = balancer
        with pair(stage) as here:
            stage.load(here.client, here.url, Closing.SERVER, count=10, at_once=2)
            victim = next(
                int(entry.name)
                for entry in Path("/proc").iterdir()
                if entry.name.isdigit() and _parent(entry) == os.getpid() and balancer in _command(entry)
            )
            os.kill(victim, signal.SIGKILL)
            run = stage.load(here.client, here.url, Closing.SERVER, count=10, at_once=2)
        return Outcome(measures=(exactly("answered", 10, run.total.succeeded),))

    result = play(experiment)
    assert result.verdict == "inconclusive"
    assert result.why == f"{balancer} on balancer was ended by SIGKILL"
    assert result.measures == ()


def test_a_process_of_the_load_that_dies_makes_it_inconclusive() -> None:
    def experiment(stage: Stage) -> Outcome:
        stage.balancer = "nginx"
        with pair(stage) as here:
            run = stage.load(here.client, here.url, Closing.SERVER, rate=200, seconds=8)  # time to be killed in
        return Outcome(measures=(exactly("failures", 0, run.total.failed),))

    victims: list[int] = []
    others = _children(os.getpid())  # left by another test, which may have children of their own

    def kill_one(text: str) -> None:
        if " ok, " in text and not victims:
            (experiment,) = _children(os.getpid()) - others
            loads = [pid for pid in _children(experiment) if "nginx" not in _command(Path("/proc", str(pid)))]
            victims.append(loads[0])
            os.kill(loads[0], signal.SIGKILL)

    result = run_one(Claim("trial", "A trial.", "direct", (), experiment), Settings(), kill_one)
    assert result.verdict == "inconclusive"
    assert result.why.startswith("the load from client lost a process: worker ")
    assert "SIGKILL" in result.why


def _children(pid: int) -> set[int]:
    return {int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _parent(entry) == pid}


def _parent(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(") ")[2].split()[1])
    except OSError:
        return 0


def _command(entry: Path) -> str:
    try:
        return (entry / "cmdline").read_text()
    except OSError:
        return ""


def test_an_experiment_whose_process_is_killed_is_inconclusive() -> None:
    def experiment(stage: Stage) -> Outcome:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("not reached")

    result = play(experiment)
    assert (result.verdict, result.why) == ("inconclusive", "its process was ended by SIGKILL")


def test_an_experiment_that_hangs_is_given_up() -> None:
    def experiment(stage: Stage) -> Outcome:
        with stage.network(topologies.direct()):
            time.sleep(100)
        return Outcome(measures=())

    result = play(experiment, limit=1.0)
    assert result.verdict == "inconclusive"
    assert result.why.startswith("it was given up after 1 s")


def test_an_experiment_that_fails_says_how() -> None:
    def experiment(stage: Stage) -> Outcome:
        raise KeyError("a reason")

    result = play(experiment)
    assert result.verdict == "inconclusive"
    assert "KeyError: 'a reason' (experiment, line" in result.why


def test_a_machine_that_forbids_namespaces_is_told_once_and_is_no_matter_of_a_claim(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refusal = ForbiddenError("this machine allows no user namespaces", "user.max_user_namespaces=0", "allow it")

    def forbidden() -> None:
        raise refusal

    monkeypatch.setattr("timewait.claims.runner.enter", forbidden)
    with pytest.raises(ForbiddenError) as told:
        play(lambda stage: Outcome(measures=()))
    assert str(told.value) == str(refusal)


def test_an_experiment_without_a_measurement_has_no_verdict() -> None:
    result = play(lambda stage: Outcome(measures=()))
    assert (result.verdict, result.why) == ("inconclusive", "the experiment measured nothing")


@pytest.mark.parametrize(
    ("topology", "told"),
    [("direct", "nginx is not installed: `sudo apt-get install nginx`"), ("nat", "nft is not installed")],
)
def test_a_program_that_is_missing_is_named_with_its_package(
    topology: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timewait.lab.processes.PATH", "/nowhere")

    def experiment(stage: Stage) -> Outcome:
        stage.balancer = "nginx"
        with stage.network(topologies.topology(topology)) as network:
            stage.answering(network["balancer"])
        raise AssertionError("not reached")

    result = play(experiment)
    assert result.verdict == "inconclusive"
    assert told in result.why


def _claims(*names: str, slow: str = "") -> dict[str, Claim]:
    return {name: Claim(name, "t", "direct", (), lambda stage: Outcome(measures=()), name == slow) for name in names}


def test_claims_are_found_by_name_and_all_leaves_the_slow_ones_out() -> None:
    known = _claims("port-wall", "closer-holds", "wrap", slow="closer-holds")
    assert [one.id for one in find(["all"], known, slow=False)] == ["port-wall", "wrap"]
    assert [one.id for one in find(["all"], known, slow=True)] == ["port-wall", "closer-holds", "wrap"]
    assert [one.id for one in find(["wrap", "closer-holds", "wrap"], known, slow=False)] == ["wrap", "closer-holds"]


def test_an_unknown_claim_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownClaimError, match=r"no claim 'port-wal'; did you mean port-wall\?"):
        find(["port-wal"], _claims("port-wall", "wrap"), slow=False)
    with pytest.raises(UnknownClaimError, match="`timewait lab list` shows all"):
        find(["xyz"], _claims("port-wall"), slow=False)
