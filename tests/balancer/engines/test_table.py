"""The commands that lead from one table to another, carried out by the kernel's own nftables."""

from __future__ import annotations

from itertools import pairwise

import pytest

import peers
from balancer.engines.texts import NFTABLES
from kit.namespace import Namespace, needs_namespaces
from timewait.balancer.config.read import configuration
from timewait.balancer.nftables import text
from timewait.balancer.nftables.ruleset import NAME, table
from timewait.balancer.nftables.table import Table, changes, rendered


@pytest.fixture(scope="module")
def namespace():  # type: ignore[no-untyped-def]
    needs_namespaces()
    with Namespace() as one:
        yield one


def loaded(namespace: Namespace, *commands: str) -> str:
    """What `nft list` says after these transactions."""
    nft = peers.needs("nft")
    for command in commands:
        namespace.run(nft, "-f", "-", input=command)
    listed = namespace.run(nft, "-s", "list", "table", "inet", NAME)
    namespace.run(nft, "delete", "table", "inet", NAME)
    return listed


@pytest.mark.parametrize("name", NFTABLES)
def test_what_print_shows_can_be_loaded(namespace: Namespace, name: str) -> None:
    listed = loaded(namespace, text(configuration(NFTABLES[name], f"{name}.toml")))
    assert "hook prerouting" in listed and "owner" not in listed


def order(listed: str) -> list[str]:
    """Blocks of a listing, sorted: objects are listed in the order they were made, chains too."""
    return sorted(listed.split("{\n", 1)[1].removesuffix("\n}\n").split("\n\n"))


def test_changes_end_where_a_fresh_load_ends(namespace: Namespace) -> None:
    """From each configuration to each other, through all of them, in one transaction each."""
    tables = [table(configuration(content, "a.toml")) for content in NFTABLES.values()]
    for before, after in [*pairwise(tables), (tables[-1], tables[0])]:
        fresh = loaded(namespace, rendered(after, NAME, owner=False))
        step = changes(before, after, NAME)
        assert order(loaded(namespace, rendered(before, NAME, owner=False), step)) == order(fresh), step
        assert changes(after, after, NAME) == ""


def test_only_what_differs_is_touched() -> None:
    before = Table(
        objects={"counter a": (), "set at": ("type a;",), "map keep-1": ("type ipv4_addr : mark;",)},
        elements={"set at": ("1.1.1.1 . 80", "2.2.2.2 . 80")},
        chains={"one": ("type nat hook output priority -100;", "goto two"), "two": ("accept",), "old": ("drop",)},
    )
    after = Table(
        objects={"counter a": (), "set at": ("type a;",), "ct timeout t-9": ("protocol tcp;",)},
        elements={"set at": ("2.2.2.2 . 80",)},
        chains={"one": before.chains["one"], "two": ("drop",), "new": ("type filter hook input priority 0;", "drop")},
    )
    assert changes(before, after, "t").splitlines() == [
        "add ct timeout inet t t-9 { protocol tcp; }",
        "add chain inet t new { type filter hook input priority 0; }",
        "flush chain inet t two",
        "flush chain inet t old",
        "add rule inet t two drop",
        "add rule inet t new drop",
        "delete chain inet t old",
        "delete element inet t at { 1.1.1.1 . 80 }",
        "delete map inet t keep-1",
    ]
