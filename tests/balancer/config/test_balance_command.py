"""`timewait balance FILE`, as far as it shows or refuses; running is tested where the supervisor is."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from balancer.config.texts import file, tcp
from kit.run_timewait import BAD_USAGE, timewait
from timewait.balancer.config.read import configuration


@pytest.fixture
def clb(tmp_path: Path) -> Path:
    path = tmp_path / "clb.toml"
    path.write_text(file(listener='client.keepalive = "10s"'))
    return path


def test_check_prints_the_whole_file_and_who_closes_first(clb: Path) -> None:
    result = timewait("balance", clb, "--check")
    assert (result.exit_code, result.stderr) == (0, "")
    assert configuration(result.stdout, "clb.toml") == configuration(clb.read_text(), "clb.toml")
    assert "# Who closes first, and where TIME_WAIT stands" in result.stdout
    again = timewait("balance", "run", "--check", "-", input=result.stdout)
    assert (again.exit_code, again.stdout) == (0, result.stdout)


def test_the_example_is_a_file_to_begin_with() -> None:
    example = timewait("balance", "--example")
    assert example.exit_code == 0 and tomllib.loads(example.stdout)["schema"] == 1
    assert timewait("balance", "--check", "-", input=example.stdout).exit_code == 0


def test_a_wrong_file_is_refused_with_a_sentence_for_each_mistake(clb: Path) -> None:
    clb.write_text(file(top="worker = 2", listener='client.keepalive = "75"'))
    for words in (["--check"], ["--print"], []):
        result = timewait("balance", clb, *words)
        assert (result.exit_code, result.stdout) == (BAD_USAGE, "")
        first, second = result.stderr.splitlines()
        assert first == f'timewait: {clb}, line 2: there is no "worker" at the top; did you mean workers?'
        assert second.startswith(f'timewait: {clb}, line 6: listener.client.keepalive = "75" has no unit')


def test_what_is_odd_is_told_and_runs(clb: Path) -> None:
    clb.write_text(file(pool='session.ttl = "50s"'))
    result = timewait("balance", clb, "--check")
    assert result.exit_code == 0 and result.stdout
    assert result.stderr.startswith(f"timewait: warning: {clb}, line 13: session.ttl of pool app has no effect")


def test_print_shows_what_engines_are_given(clb: Path) -> None:
    haproxy = timewait("balance", clb, "--print", "--engine", "haproxy")
    assert haproxy.exit_code == 0 and "timeout http-keep-alive 10s" in haproxy.stdout
    clb.write_text(tcp(top='engine = "nftables"'))
    nftables = timewait("balance", clb, "--print")
    assert nftables.exit_code == 0 and "dnat" in nftables.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["clb.toml", "--print"], "every listener is embedded; see --check"),
        (["clb.toml", "--check", "--print"], "are two questions; ask one"),
        (["clb.toml", "--check", "--engine", "haprox"], "did you mean haproxy?"),
        (["clb.toml", "--engine", "haproxy"], "to run on another one write it into the file"),
        (["none.toml"], "none.toml: cannot be read (No such file or directory)"),
        (["ctll"], "did you mean `timewait balance ctl`?"),
        (["."], "cannot be read (Is a directory)"),
        (["/dev/zero"], "/dev/zero: more than 16 MB, which no balancer's file has"),
        (["latin.toml"], "latin.toml, line 2: no text in UTF-8"),
        (["--check"], "no FILE; `timewait balance --example` prints one"),
        (["clb.toml", "--chek"], "No such option"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(
    clb: Path, words: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clb.parent)
    Path("latin.toml").write_bytes(b"# \n# \xe9\n")
    result = timewait("balance", *words)
    assert (result.exit_code, result.stdout) == (BAD_USAGE, "")
    assert said in result.stderr and result.stderr.count("\n") == 1


def test_the_other_commands_stand_beside_the_file() -> None:
    result = timewait("balance", "--help")
    assert result.exit_code == 0
    assert all(f"\n  {name} " in result.stdout for name in ("run", "ctl", "top"))
    assert "Ask a balancer that runs" in timewait("balance", "ctl", "--help").stdout
