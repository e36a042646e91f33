"""Networks as data: the ready-made ones are right, and what is wrong is said in one sentence."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from timewait.lab import nat, topologies
from timewait.lab.files import load
from timewait.lab.topology import (
    End,
    Forward,
    Host,
    Link,
    Nat,
    PortChoice,
    Role,
    Route,
    Target,
    Topology,
    TopologyError,
)
from timewait.lab.wire.spec import WireSpec

CLIENT, BALANCER = Host("client", Role.CLIENT), Host("balancer", Role.BALANCER)
ENDS = End("client", "eth0", ("10.0.0.2/24",)), End("balancer", "eth0", ("10.0.0.1/24",))


def network(hosts: tuple[Host, ...] = (CLIENT, BALANCER), *links: tuple[End, End]) -> Topology:
    return Topology("own", "a network of one's own", hosts, tuple(Link(ends) for ends in links or (ENDS,)))


def host(**fields: Any) -> Host:
    return msgspec.structs.replace(CLIENT, **fields)


@pytest.mark.parametrize("name", topologies.TOPOLOGIES)
def test_the_ready_made_ones_survive_a_file(name: str, tmp_path: Path) -> None:
    found = load(name)
    assert found.name == name
    file = tmp_path / "own.json"
    first, second = (end.host for end in found.links[0].ends)
    file.write_bytes(msgspec.json.encode(found.wired(first, second, WireSpec(delay=0.1))))
    again = load(str(file))
    assert again.links[0].wire == WireSpec(delay=0.1)
    assert again.hosts == found.hosts


@pytest.mark.parametrize("name", topologies.TOPOLOGIES)
def test_every_link_has_both_families_and_every_name_fits(name: str) -> None:
    for link in load(name).links:
        for end in link.ends:
            assert {":" in address for address in end.addresses} == {True, False}


def test_one_of_a_kind_has_no_number_and_more_can_be_had() -> None:
    assert [one.name for one in topologies.proxy().hosts] == ["client", "balancer", "server"]
    assert [one.name for one in topologies.proxy(servers=2).hosts][2:] == ["server-1", "server-2"]
    sources = topologies.proxy(sources=3).ends("balancer")[1].addresses
    assert [one for one in sources if "." in one] == ["10.2.1.1/24", "10.2.1.11/24", "10.2.1.12/24"]
    wide = topologies.nat(pool=4).host("gateway").nat
    assert wide is not None and wide.pool[:4] == ("10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5")


def test_a_host_is_changed_and_the_rest_is_not() -> None:
    before = topologies.direct()
    after = before.changed("client", sysctls={"net.a": "1"}, ports=(5, 6)).changed("client", sysctls={"net.b": "2"})
    assert after.host("client") == Host("client", Role.CLIENT, sysctls={"net.a": "1", "net.b": "2"}, ports=(5, 6))
    assert after.host("balancer") is before.host("balancer")
    assert before.host("client").sysctls == {}


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: network((CLIENT, CLIENT)), "two hosts are named 'client'"),
        (lambda: network((), ENDS), "it has no host"),
        (lambda: network((host(sysctls={"kernel.hostname": "x"}), BALANCER)), "'kernel.hostname' of 'client' is no"),
        (lambda: network((host(sysctls={"net./../vm.swappiness": "1"}), BALANCER)), "is no sysctl of a network"),
        (lambda: network((host(forward=Forward(("x",), (Target("10.0.0.2"),))), BALANCER)), "'x', which is no addr"),
        (
            lambda: network((host(forward=Forward(("10.0.0.1",), (Target("10.0.0.2"),), 0)), BALANCER)),
            "what comes to port 0",
        ),
        (lambda: network((host(name="it's"), BALANCER)), '"it\'s" is no name: up to 63 letters'),
        (lambda: network((host(name=""), BALANCER)), "'' is no name"),
        (lambda: msgspec.structs.replace(topologies.direct(), name="a" * 64), "aaa' is no name"),
        (lambda: msgspec.structs.replace(topologies.direct(), name="../a\n"), "'../a\\n' is no name"),
        (lambda: network((CLIENT, host(name="balancr"))), "unknown host 'balancer'; did you mean balancr?"),
        (lambda: network((CLIENT,), (ENDS[0], ENDS[0])), "joins 'client' to itself"),
        (lambda: network((CLIENT, BALANCER), ENDS, ENDS), "address 10.0.0.2 is given twice"),
        (
            lambda: network((CLIENT, BALANCER), (ENDS[0], End("balancer", "eth0", ("10.0.1.1/24",)))),
            "the link between 'client' and 'balancer' has no network that both ends are in",
        ),
        (lambda: network((CLIENT, BALANCER), (End("client", "eth0", ("10.0.0.2",)), ENDS[1])), "no address with a"),
        (
            lambda: network((CLIENT, BALANCER), (End("client", "eth0", ("10.0/24",)), ENDS[1])),
            "'10.0/24' on 'client'",
        ),
        (lambda: network((CLIENT, BALANCER), (End("client", "a" * 16, ENDS[0].addresses), ENDS[1])), "15 characters"),
        (lambda: network((host(ports=(9, 8)), BALANCER)), "ports of 'client', 9-8"),
        (lambda: network((host(ports=(0, 8)), BALANCER)), "no range within 1-65535"),
        (lambda: network((host(routes=(Route("default", "10.9.0.1"),)), BALANCER)), "cannot reach '10.9.0.1'"),
        (lambda: network((host(routes=(Route("10/8", "10.0.0.1"),)), BALANCER)), "'10/8', a route of 'client'"),
        (lambda: network((host(nat=Nat("eth1", ("10.0.0.2",))), BALANCER)), "unknown interface: no interface 'eth1'"),
        (lambda: network((host(nat=Nat("eth0", ("10.0.0.9",))), BALANCER)), "gives 10.0.0.9, which is no address of"),
        (lambda: network((host(nat=Nat("eth0", ())), BALANCER)), "the NAT of 'client' has no address"),
        (lambda: network((host(forward=Forward(("10.0.0.1",), ())), BALANCER)), "no server to forward to"),
        (
            lambda: network((host(forward=Forward(("10.0.0.1",), (Target("10.0.0.2", weight=101),))), BALANCER)),
            "10.0.0.2:80 with weight 101 (0-100)",
        ),
        (lambda: topologies.direct().host("balanced"), "no host 'balanced'; did you mean balancer?"),
        (lambda: topologies.direct().host("x"), "no host 'x'; there is client, balancer"),
        (lambda: topologies.nat().wired("client-1", "balancer", None), "no link between 'client-1' and 'balancer'"),
        (lambda: topologies.topology("natt"), "no topology 'natt'; did you mean nat?"),
        (lambda: load("/nowhere/x.json"), "/nowhere/x.json: No such file or directory"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(make: Callable[[], object], told: str) -> None:
    with pytest.raises(TopologyError) as caught:
        make()
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"name": "x"}', "`title`"),
        (msgspec.json.encode(topologies.direct()).decode().replace('"ports"', '"prots"', 1), "prots"),
        (msgspec.json.encode(topologies.direct()).decode().replace('"eth0"', '"a b"', 1), "'a b' on 'client'"),
        ("nonsense", "malformed"),
    ],
)
def test_a_file_is_told_where_it_is_wrong(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    file.write_text(text)
    with pytest.raises(TopologyError, match=r"own\.json") as caught:
        load(str(file))
    assert told in str(caught.value)


def test_rules_are_made_of_what_was_asked_for_and_nothing_else() -> None:
    assert nat.ruleset(CLIENT) == ""
    gateway = topologies.nat(pool=2).host("gateway")
    text = nat.ruleset(gateway)
    assert "snat to 10.0.0.2-10.0.0.3:20000-20999\n" in text
    assert "snat to [fd00::2]-[fd00::3]:20000-20999\n" in text
    assert gateway.nat is not None
    other = msgspec.structs.replace(gateway.nat, choice=PortChoice.FULLY_RANDOM, persistent=True, pool=("10.0.0.2",))
    text = nat.ruleset(msgspec.structs.replace(gateway, nat=other))
    assert "snat to 10.0.0.2:20000-20999 fully-random persistent\n" in text
    assert "ip6" not in text and "drop" not in text


def test_weights_are_turns() -> None:
    targets = Target("10.2.1.2", weight=6), Target("10.2.2.2"), Target("10.2.3.2", weight=0), Target("fd00::5")
    balancer = msgspec.structs.replace(BALANCER, forward=Forward(("10.0.0.1",), targets))
    text = nat.ruleset(balancer)
    assert "numgen inc mod 7 map { 0-5 : 10.2.1.2 . 80, 6 : 10.2.2.2 . 80 }" in text
    assert "fd00" not in text and "10.2.3.2" not in text


def test_the_wires_of_the_docs_can_be_built() -> None:
    page = (Path(__file__).parents[2] / "docs" / "lab.md").read_text()
    old, far = (
        msgspec.json.decode(text, type=WireSpec) for text in re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    )
    found = topologies.nat().wired("gateway", "balancer", old).wired("client-2", "gateway", far)
    ends = [[end.host for end in link.ends] for link in found.links if link.wire is not None]
    assert ends == [["client-2", "gateway"], ["gateway", "balancer"]]  # which of them is `a`, as the page says
    assert old.b.kernel is not None and far.a.clock_shift < 0
