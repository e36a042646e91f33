"""`timewait rules play` as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from kit.labs import USERS, python
from kit.namespace import needs_namespaces
from kit.run_timewait import SCRIPT, timewait
from timewait.lab.dialogue import nearest_profile

SCRIPTS = Path(__file__).parent / "scripts"
HERE, _ = nearest_profile()
WRONG = """why An ACK comes, not a RST [tcp_timewait_state_process]
kernels all
given TIME_WAIT seq=5000 ts=100000
> SYN seq=4000 ts=100000
< RST seq=2
"""


def test_the_dialogue_is_shown_line_by_line_with_what_came() -> None:
    done = timewait("rules", "play", SCRIPTS / "syn-lower-sequence.txt", "--kernel", "2.6.32", "--kernel", "6.18.44")
    assert done.exit_code == 0
    assert "[tcp_timewait_state_process]" in done.stdout
    assert "Linux 2.6.32, model: as expected" in done.stdout
    assert "Linux 6.18, model: as expected" in done.stdout
    line = next(line for line in done.stdout.splitlines() if "< ACK" in line)
    assert " ".join(line.split()) == "6 < ACK seq=2 ack=5000 ecr=100000 < ACK seq=2 ack=5000 ts ecr=100000"


def test_a_difference_is_marked_and_gives_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "wrong.txt").write_text(WRONG)
    done = timewait("rules", "play", tmp_path / "wrong.txt", "--kernel", "6.18")
    assert done.exit_code == 1
    assert "model: differs" in done.stdout
    marked = next(line for line in done.stdout.splitlines() if line.startswith("!!"))
    assert "< RST seq=2" in marked and "< ACK seq=2 ack=5000" in marked
    assert done.stdout.rstrip().endswith("other flags; it has timestamps")


def test_json_says_the_same_for_programs() -> None:
    done = subprocess.run(
        [SCRIPT, "rules", "play", "-", "--json", "--kernel", "el7"],
        input=WRONG, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    (played,) = json.loads(done.stdout)
    assert (played["script"], played["kernel"], played["where"]) == ("stdin", "el7", "model")
    assert played["lines"][-1]["differs"] == "other flags; it has timestamps"


def test_the_same_dialogue_for_real() -> None:
    needs_namespaces()
    done = timewait("rules", "play", SCRIPTS / "syn-newer-timestamp.txt", "--real")
    assert done.exit_code == 0, done.stderr
    assert f"Linux {os.uname().release}, for real: as expected" in done.stdout


@pytest.mark.parametrize("user", USERS)
def test_an_ordinary_user_can_play_it_for_real(user: str) -> None:
    needs_namespaces()
    code = """
import sys
from timewait.lab.dialogue import parse, play_on_kernel
script = parse(sys.argv[1], "script")
"""
    code += USERS[user] + "print([played.differs for played in play_on_kernel([script])])"
    assert python(code, (SCRIPTS / "syn-older-timestamp-ipv6.txt").read_text()) == "['']"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("/nowhere/x.txt",), "/nowhere/x.txt: No such file or directory"),
        (("/",), "Is a directory"),
        ((str(SCRIPT.resolve().parent / "python3"),), "is no text"),
        ((str(SCRIPTS / "expires.txt"), "--kernel", "7.1"), "kernel '7.1': no rules were read for it"),
        ((str(SCRIPTS / "recycle-drops.txt"), "--kernel", "6.18"), "the script does not name 6.18"),
        ((str(SCRIPTS / "expires.txt"), "--real"), "for the model only: a minute passes"),
        ((str(SCRIPTS / "expires.txt"), "--real", "--kernel", "6.18"), "exclude each other"),
        ((str(Path(__file__)),), "line 1: unknown word"),
    ],
)
def test_what_cannot_be_played_is_said_in_one_sentence(words: tuple[str, ...], says: str) -> None:
    done = timewait("rules", "play", *words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert says in done.stderr
    assert done.stderr.startswith("timewait: ") and done.stderr.count("\n") == 1


def test_a_script_for_other_kernels_is_not_played_for_real(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text(WRONG.replace("kernels all", "kernels 2.6.32"))
    done = timewait("rules", "play", tmp_path / "old.txt", "--real")
    assert done.exit_code == 2
    assert f"not for this kernel ({HERE})" in done.stderr
