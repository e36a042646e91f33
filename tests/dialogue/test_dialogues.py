"""Every script, on the model for each kernel it names and on the running kernel; and that wrong scripts do fail."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dialogue.mutations import Flipped, flipped
from kit.namespace import needs_namespaces
from timewait.lab.dialogue import Played, nearest_profile, parse, play_on_kernel, play_on_model, transcript
from timewait.tcp.kernels import KERNELS

SCRIPTS = {
    path.stem: parse(path.read_text(), path.stem)
    for path in sorted((Path(__file__).parent / "scripts").glob("*.txt"))
}
HERE, NOTE = nearest_profile()
REAL = {name: script for name, script in SCRIPTS.items() if HERE in script.kernels and not script.model}
AT_ONCE = min(2, len(os.sched_getaffinity(0)))


def told(played: Played) -> str:
    """The dialogue as far as it went, for whoever reads the failure."""
    heading = f"{played.script} on {played.where}, by the rules of {played.kernel}"
    return "\n".join(["", heading, *transcript(played), *filter(None, [NOTE])])


@pytest.mark.parametrize("name", SCRIPTS)
def test_on_the_model(name: str) -> None:
    script = SCRIPTS[name]
    wrong = [told(played) for kernel in script.kernels if (played := play_on_model(script, kernel)).differs]
    assert not wrong, "\n".join(wrong)


@pytest.fixture(scope="module")
def on_the_kernel() -> dict[str, Played]:
    """All of them at one go, two side by side: most of their time they wait."""
    needs_namespaces()
    return {played.script: played for played in play_on_kernel(REAL.values(), AT_ONCE)}


@pytest.mark.parametrize("name", REAL)
def test_on_the_kernel(name: str, on_the_kernel: dict[str, Played]) -> None:
    played = on_the_kernel[name]
    assert not played.differs, told(played)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_wrong_expectation_fails_on_the_model(name: str) -> None:
    """Each expectation turned into another, one at a time: else a line of a script would say nothing."""
    for wrong in flipped(SCRIPTS[name]):
        for kernel in {wrong.kernels[0], wrong.kernels[-1]}:
            assert play_on_model(wrong.script, kernel).differs, f"passes on {kernel}: {wrong.what} of {wrong.line}"


def test_a_wrong_expectation_fails_on_the_kernel() -> None:
    """One of every kind, over a few scripts."""
    needs_namespaces()
    chosen = ("syn-older-timestamp", "close-unread", "syn-lower-sequence", "reuse-off", "half-close")
    kinds: dict[str, Flipped] = {}
    for name in chosen:
        for wrong in flipped(REAL[name]):
            if HERE in wrong.kernels:
                kinds.setdefault(wrong.what, wrong)
    played = play_on_kernel([wrong.script for wrong in kinds.values()], AT_ONCE)
    survivors = [wrong for wrong, one in zip(kinds.values(), played, strict=True) if not one.differs]
    assert len(kinds) >= 12
    assert survivors == []


NOT_SHOWN = {
    "timer": "in the model a TIME_WAIT ends when it should; how late kernels are is told by tcp.length",
    "port_search": "a search over one port has no order",
    "own_range_by_one": "a search over one port has no order",
    "knows_reserved_ports": "no port is reserved",
    "sole_owner_unchecked": "whoever binds first meets nobody",
    "recycled_overcounts": "takes a second destination",
    "ts_in_ms": "the host's own clock is not foretold",
    "ts_offset": "the host's own clock is not foretold",
    "knows_usec_ts": "takes a route with that feature",
    "ack_must_be_next": "before a SYN only one number is unacknowledged",
    "hz": "an option of the build, not of the version",
    "monotonic_seconds": "nobody sets the wall clock back",
}


@pytest.mark.parametrize("rule", KERNELS[0].rules._fields)
def test_every_difference_between_versions_is_shown_by_a_script(rule: str) -> None:
    """Each rule turned into another version's makes some script fail; the few that cannot are named above."""
    assert _is_shown(rule) is (rule not in NOT_SHOWN)


def _is_shown(rule: str) -> bool:
    values = {getattr(row.rules, rule) for row in KERNELS}
    for row in reversed(KERNELS):
        for other in values - {getattr(row.rules, rule)}:
            wrong = row._replace(rules=row.rules._replace(**{rule: other}))
            scripts = [script for script in SCRIPTS.values() if row.name in script.kernels]
            if any(play_on_model(script, row.name, wrong).differs for script in scripts):
                return True
    return False


def test_the_scripts_are_many_and_each_kernel_has_some() -> None:
    assert len(SCRIPTS) >= 30
    for row in KERNELS:
        assert sum(row.name in script.kernels for script in SCRIPTS.values()) >= 30, row.name
    if KERNELS[-1].name == HERE:
        assert len(REAL) >= 30
