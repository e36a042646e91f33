"""The ground the project stands on: the lock files, the list of peers, the helpers of the tests themselves."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import peers

TOP = Path(__file__).resolve().parent.parent


def locked(name: str) -> dict[str, str]:
    """Package -> version in a lock file."""
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", (TOP / name).read_text(), re.MULTILINE))


def wanted() -> tuple[set[str], set[str]]:
    project = tomllib.loads((TOP / "pyproject.toml").read_text())
    groups = project["dependency-groups"]

    def names(requirements: list[str]) -> set[str]:
        return {match[0] for requirement in requirements if (match := re.match(r"[A-Za-z0-9_-]+", requirement))}

    run = names(project["project"]["dependencies"]) | names(groups["build"])
    return run, run | names(groups["dev"])


def test_every_dependency_is_locked() -> None:
    run, dev = wanted()
    assert run <= locked("requirements.lock").keys()
    assert dev <= locked("requirements-dev.lock").keys()


def test_both_locks_agree_on_versions() -> None:
    run, dev = locked("requirements.lock"), locked("requirements-dev.lock")
    assert run.items() <= dev.items()


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_locks_have_hashes_and_name_no_host(name: str) -> None:
    text = (TOP / name).read_text()
    entries = re.split(r"^(?=[a-z0-9-]+==)", text, flags=re.MULTILINE)[1:]
    assert len(entries) > 20
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text
    assert not re.search(r"--(extra-)?index-url|--find-links|--trusted-host", text)


def test_peers_are_the_ones_the_script_installs() -> None:
    script = (TOP / "scripts" / "peers").read_text()
    match = re.search(r'^peers="([^"]+)"', script, re.MULTILINE)
    assert match
    assert dict(pair.split(":") for pair in match[1].split()) == peers.PACKAGES


def test_a_missing_peer_leaves_the_test_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "")
    monkeypatch.setattr(peers, "left_out", {})
    monkeypatch.setattr(peers, "_PATH", "/nonexistent")
    missing = "ab"
    with pytest.raises(pytest.skip.Exception, match="apt-get install apache2-utils"):
        peers.needs(missing)
    assert peers.left_out == {"ab": 1}


def test_under_ci_a_missing_peer_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setattr(peers, "left_out", {})
    monkeypatch.setattr(peers, "_PATH", "/nonexistent")
    missing = "nginx"
    with pytest.raises(pytest.fail.Exception, match="no test may be left out"):
        peers.needs(missing)


def test_a_present_peer_is_found() -> None:
    assert peers.find("sh") is not None
