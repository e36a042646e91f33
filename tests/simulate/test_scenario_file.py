"""Scenario files: what they say, and what they say when something is wrong."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from timewait import durations
from timewait.simulate import limits
from timewait.simulate.scenario_file import (
    Asked,
    effective,
    find,
    names,
    parse,
    read_trace,
    with_settings,
)
from timewait.simulate.settings import DURATIONS, RATES, SHARES, ScenarioError, fields, part_of
from timewait.simulate.sweep import parse_axis, plan
from timewait.simulate.world import PortChoice, Process, Scenario
from timewait.toml_lines import line_of, lines_of


def read(text: str) -> Asked:
    return parse(text, "a.toml", "a")


def refused(text: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        read(text)
    return str(caught.value)


@pytest.mark.parametrize("name", names())
def test_a_ready_made_scenario_is_a_question_that_can_be_asked(name: str) -> None:
    asked = find(name)
    assert asked.scenario.name == name
    assert asked.scenario.title.endswith("?")
    limits.check(asked.scenario)
    if asked.ask.sweep:
        assert plan(asked.scenario, [parse_axis(text) for text in asked.ask.sweep], asked.ask).jobs()


def test_there_are_enough_of_them() -> None:
    assert len(names()) >= 10


@pytest.mark.parametrize("name", names())
def test_check_prints_what_reads_back_the_same(name: str) -> None:
    asked = find(name)
    assert parse(effective(asked), "b.toml", "b") == asked


def test_units_and_short_names() -> None:
    asked = read(
        """
        duration = "1h30m"
        [clients]
        count = "2M"
        uptime_low = "10d"
        ports = "20000-20999"
        [arrivals]
        rate = "300/m"
        swing = "5%"
        [nat]
        ports = 256
        addresses = "8k"
        choice = "lru"
        [network]
        delay = "500us"
        loss = 0.25
        [server]
        kernel = "2.6.32"
        recycle = true
        timestamps = "off"
        sysctls.tcp_max_tw_buckets = "4M"
        """
    )
    scenario = asked.scenario
    assert scenario.duration == 5400
    assert (scenario.clients.count, scenario.clients.uptime_low) == (2_000_000, 10 * 86400)
    assert scenario.clients.sysctls == {"ip_local_port_range": "20000-20999"}
    assert (scenario.arrivals.rate, scenario.arrivals.swing) == (5.0, 0.05)
    assert scenario.nat is not None
    assert (scenario.nat.low, scenario.nat.high, scenario.nat.addresses) == (1024, 1279, 8000)
    assert scenario.nat.choice is PortChoice.OLDEST
    assert (scenario.network.delay, scenario.network.loss) == (0.0005, 0.25)
    assert scenario.server.sysctls == {"tcp_tw_recycle": 1, "tcp_timestamps": 0, "tcp_max_tw_buckets": 4_000_000}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[nat]\n\nadresses = 3", 3, "nat.addresses"),
        ("nats = 3", 1, "nat"),
        ("[server]\ntcp_tw_recycl = 1", 2, "server.tcp_tw_recycle"),
        ("[server.sysctls]\ntcp_timestamp = 1", 2, "tcp_timestamps"),
        ("[server]\nkernel = '6.18'\n\nrecycle = 1", 4, "was removed in 4.12"),
        ("[server]\nkernel = '2.6.33'", 2, "2.6.32"),
        ("[clients]\nkernel = 'el8'", 2, "el7"),
        ("[clients]\ncount = '2X'", 2, "a whole number"),
        ("[clients]\ncount = 2.5", 2, "a whole number"),
        ("[clients]\ncount = true", 2, "a whole number"),
        ("duration = '3 fortnights'", 1, "30s"),
        ("duration = -3", 1, "from 1ms"),
        ("[arrivals]\nprocess = 'poison'", 2, "did you mean poisson?"),
        ("[arrivals]\nrate = '50k/x'", 2, "50k/s"),
        ("[arrivals]\ntimes = [1, 'a']", 2, "expected `float`"),
        ("[arrivals]\nprocess = 'trace'\ntimes = [1, 3, 2]", 3, "number 3, 2, is before"),
        ("[network]\nloss = 'some'", 2, "5%"),
        ("nat = 4", 1, "nat.NAME"),
        ("duration.x = 4", 1, "nothing is inside"),
        ("[ask]\nfigur = 'failed'", 2, "ask.figure"),
        ("[ask]\nfigure = 'nevr'", 2, "did you mean never?"),
        ("[ask]\nreplications = 0", 2, "from 1"),
        ("[nat]\nlow = 10\nhigh = 5", 2, "above"),
        ("[clients]\ncount = '2M'\n[nat]\naddresses = 3", 4, "193,536 tuples"),
        ("tcp_timestamps = 0", 1, "clients.tcp_timestamps or server.tcp_timestamps"),
        ("title = ['a']", 1, "text"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, line: int, words: str) -> None:
    sentence = refused(text)
    assert sentence.startswith(f"a.toml line {line}: ")
    assert words in sentence


def test_text_that_is_no_toml() -> None:
    assert "line 1" in refused("[nat\n")


def test_unknown_names_and_files(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"did you mean nat-recycle"):
        find("nat-recicle")
    with pytest.raises(ScenarioError, match="No such file"):
        find(str(tmp_path / "none.toml"))
    with pytest.raises(ScenarioError, match="Is a directory"):
        find(str(tmp_path))
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ScenarioError, match="UTF-8"):
        find(str(path))
    path.write_text("duration = '2m'")
    assert find(str(path)).scenario.name == "mine"


def test_settings_of_the_command_line() -> None:
    base = find("nat").scenario
    made = with_settings(
        base, {"nat.ports": "1k", "server.timestamps": "off", "clients.count": "500", "backend.pool": "kept"}
    )
    assert made.nat is not None
    assert made.nat.high - made.nat.low + 1 == 1000
    assert made.server.sysctls["tcp_timestamps"] == 0
    assert made.backend is not None
    assert with_settings(base, {"nat": "none"}).nat is None
    with pytest.raises(ScenarioError, match=r"did you mean nat\.ports"):
        with_settings(base, {"nat.port": "1"})
    with pytest.raises(limits.WorldError, match="1,000,000 clients are more"):
        with_settings(base, {"nat.ports": "256"})


def test_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "times.txt"
    path.write_text("# moments\n0.5\n\n1  # two at once\n1\n2.25\n")
    assert read_trace(path) == (0.5, 1.0, 1.0, 2.25)
    scenario = tmp_path / "s.toml"
    scenario.write_text("[ask]\ntrace = 'times.txt'\n")
    asked = find(str(scenario))
    assert asked.scenario.arrivals.process is Process.TRACE
    assert asked.scenario.arrivals.times == (0.5, 1.0, 1.0, 2.25)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1\n3\n\n2\n", "line 4: 2 is before 3"),
        ("1\nsoon\n", "line 2: 'soon'"),
        ("-1\n", "line 1"),
        ("nan\n", "line 1"),
        ("# nothing\n", "holds no moments"),
    ],
)
def test_a_trace_that_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "times.txt"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=words):
        read_trace(path)


def test_every_number_with_a_unit_is_one() -> None:
    """Whoever adds a float to the world says here what it counts."""
    named: set[str] = set()
    for name, kind in fields(Scenario).items():
        part = part_of(kind)
        inner = fields(part) if part else {}
        named |= {f"{name}.{field}" for field, type_ in inner.items() if type_ is float}
        named |= {name} if kind is float else set()
    assert named == DURATIONS | RATES | SHARES


def test_lines_of_toml() -> None:
    text = 'a = 1\n[b]\nc.d = """\ne = 2\n"""\nf = 3\n[[g]]\nh = 1\n[[g]]\nh = 2\n'
    lines = lines_of(text)
    assert lines == {
        ("a",): 1, ("b",): 2, ("b", "c", "d"): 3, ("b", "f"): 6,
        ("g", 0): 7, ("g", 0, "h"): 8, ("g", 1): 9, ("g", 1, "h"): 10,
    }  # fmt: skip
    assert line_of(lines, ("b", "x")) == 2
    assert line_of(lines, ("z",)) is None


def test_a_table_inside_an_array_belongs_to_its_last_element() -> None:
    text = "[[a]]\n[a.b]\nc = 1\n[[a.d]]\ne = 1\n[[a.d]]\n[[a]]\nb.c = 2\n[[a.d]]\ne = 2\n"
    assert lines_of(text) == {
        ("a", 0): 1, ("a", 0, "b"): 2, ("a", 0, "b", "c"): 3,
        ("a", 0, "d", 0): 4, ("a", 0, "d", 0, "e"): 5, ("a", 0, "d", 1): 6,
        ("a", 1): 7, ("a", 1, "b", "c"): 8, ("a", 1, "d", 0): 9, ("a", 1, "d", 0, "e"): 10,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (90, "1m30s"), (86400, "1d"), (0.01, "10ms"), (5e-05, "50us")]
)
def test_durations_as_text(seconds: float, text: str) -> None:
    assert durations.written(seconds) == text


def test_a_sweep_is_refused_before_it_begins() -> None:
    scenario, ask = find("nat").scenario, find("nat").ask
    many = ",".join(map(str, range(1, 200)))
    for texts, words in (
        (["nat.ports"], "NAME=VALUE"),
        (["nat.ports=1k,,2k"], "a value is missing"),
        (["nat.ports=60k,60k"], "twice"),
        (["nat.ports=60k", "nat.ports=61k"], "given twice"),
        (["nat.prots=60k"], "nat.ports"),
        (["clients.count=1,2,x"], "whole number"),
        ([f"clients.count={many}", f"nat.addresses={many}"], "10,000"),
    ):  # fmt: skip
        with pytest.raises(ScenarioError, match=words):
            plan(scenario, [parse_axis(text) for text in texts], ask)
    assert msgspec.json.decode(msgspec.json.encode(scenario), type=Scenario) == scenario
