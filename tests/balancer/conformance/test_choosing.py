"""Which target a client gets and what that is told, on every engine that offers it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from balancer.conformance.engines import LAYER_4, LAYER_7, LONGEST, played, scene

pytestmark = pytest.mark.timeout(LONGEST)

CLIENT = "10.0.0.2"
RULES = [
    ("_default", "/", "default"),
    ("a.example", "/", "exact"),
    ("*.a.example", "/", "leading"),
    ("a.*", "/", "trailing"),
    (r"~^x\d+\.example$", "/", "regex"),
    ("paths.example", "/", "root"),
    ("paths.example", "= /exact", "exact"),
    ("paths.example", "^~ /static/", "first"),
    ("paths.example", "/static/pictures/", "longer"),
    ("paths.example", r"~ \.php$", "case"),
    ("paths.example", r"~* \.jpg$", "nocase"),
    ("paths.example", "/folder/", "folder"),
    ("bare.example", "/only/", "only"),
]
QUERIES = [
    ("nobody.example", "/", "default"),
    ("a.example", "/", "exact"),
    ("A.EXAMPLE:80", "/anything", "exact"),
    ("b.a.example", "/", "leading"),
    ("a.test", "/", "trailing"),
    ("x42.example", "/", "regex"),
    ("xy.example", "/", "default"),
    ("paths.example", "/", "root"),
    ("paths.example", "/exact", "exact"),
    ("paths.example", "/exact?q=1", "exact"),
    ("paths.example", "/exact/more", "root"),
    ("paths.example", "/static/a.php", "first"),  # ^~: no expression is asked any more
    ("paths.example", "/static/pictures/a.txt", "longer"),
    ("paths.example", "/static/pictures/a.JPG", "nocase"),  # the longest prefix has no ^~
    ("paths.example", "/a.php", "case"),
    ("paths.example", "/a.PHP", "root"),
    ("paths.example", "/a.JPG", "nocase"),
    ("paths.example", "/folder/x", "folder"),
    ("paths.example", "/folder", "301 /folder/"),
    ("bare.example", "/only/x", "only"),
    ("bare.example", "/", "404"),
]


ASKED = [(host, path) for host, path, _ in QUERIES]
ALL = {engine: scene("choosing.everything", engine, RULES, ASKED) for engine in LAYER_4}


def asked(*engines: str) -> pytest.MarkDecorator:
    return played(*(ALL[engine] for engine in engines))


@asked(*LAYER_7)
def test_domains_and_paths(engine: str, told: Any) -> None:
    """CLB: exact before *.x before x.* before expressions, else the default domain; paths as nginx's locations."""
    found = [one.replace("http://paths.example", "") for one in told["routes"]]
    assert list(zip(QUERIES, found, strict=True)) == [(query, query[2]) for query in QUERIES]


@asked(*LAYER_4)
def test_weights(engine: str, told: Any) -> None:
    """Weights 30, 10 and 0 of 160 requests: within four standard deviations of a fair draw, though none is one."""
    for protocol in ("tcp",) if engine == "nftables" else ("http", "tcp"):
        counts = [sum(told[f"weights {protocol}"][f"server-{n}"]) for n in (1, 2, 3)]
        assert counts[2] == 0 and sum(counts) == 160
        assert abs(counts[0] - 120) <= 4 * math.sqrt(160 * 0.75 * 0.25)


@pytest.mark.parametrize(("kind", "each"), [("hash", 3), ("source", 4)])
@asked(*LAYER_4)
def test_a_source_stays_with_one_target(engine: str, told: Any, kind: str, each: int) -> None:
    """By its hash, or because a session remembers it."""
    table = told[kind]
    for one, other in zip(table["server-1"], table["server-2"], strict=True):
        assert sorted((one, other)) == [0, each]
    assert min(sum(table["server-1"]), sum(table["server-2"])) > 0  # of 20 sources all at one: once in a million


@asked(*LAYER_7)
def test_least_connections_by_weight(engine: str, told: Any) -> None:
    assert told["least http"] == [6, 2]
    if engine == "embedded":
        assert told["least tcp"] == [6, 2]


@asked(*LAYER_7)
def test_a_session_by_cookie_stays(engine: str, told: Any) -> None:
    assert told["cookie"] == {
        "servers": ["server-1", "server-2"], "same": True, "set_again": False, "wrong": 200, "wrong_gets_one": True,
        "leaks": False,
    }  # fmt: skip


def lines(told: Any) -> list[str]:
    """What came to the target, as lower-case lines."""
    return bytes.fromhex(told["raw"]).decode().lower().split("\r\n")


@asked(*LAYER_7)
def test_who_is_not_trusted_cannot_say_who_he_is(engine: str, told: Any) -> None:
    found = lines(told["stranger"])
    assert f"x-forwarded-for: {CLIENT}" in found and "x-forwarded-proto: http" in found
    assert not any("192.0.2.7" in line for line in found)


@asked(*LAYER_7)
def test_who_is_trusted_is_passed_on(engine: str, told: Any) -> None:
    found = lines(told["friend"])
    given = ", ".join(line.partition(": ")[2] for line in found if line.startswith("x-forwarded-for:"))
    assert given == f"192.0.2.7, {CLIENT}"
    assert "x-forwarded-proto: https" in found


@pytest.mark.parametrize("protocol", ["http", "tcp"])
@asked(*LAYER_7)
def test_proxy_protocol_to_the_target(engine: str, told: Any, protocol: str) -> None:
    """A line; or signature, version and command, family, addresses and ports (proxy-protocol.txt, 2.1 and 2.2)."""
    one, two = told[f"proxy v1 {protocol}"], told[f"proxy v2 {protocol}"]
    first = lines(one)[0].split()
    assert first[:4] == ["proxy", "tcp4", CLIENT, "10.0.0.1"] and first[4] == str(one["port"])
    raw = bytes.fromhex(two["raw"])
    assert raw.startswith(b"\r\n\r\n\x00\r\nQUIT\n\x21\x11")
    assert raw[16:26] == bytes([10, 0, 0, 2, 10, 0, 0, 1]) + two["port"].to_bytes(2, "big")


@asked(*LAYER_7)
def test_proxy_protocol_from_whoever_is_trusted(engine: str, told: Any) -> None:
    assert "x-forwarded-for: 192.0.2.9" in lines(told["accept"])


@asked("nftables")
def test_the_kernel_can_show_the_client_itself(engine: str, told: Any) -> None:
    assert told["transparent"]["source"] == CLIENT
    assert told["full"]["source"] == "10.2.1.1"
