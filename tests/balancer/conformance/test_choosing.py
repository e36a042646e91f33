"""Which target a client gets and what that is told, on every engine that offers it."""

from __future__ import annotations

import math
from typing import Any

from balancer.conformance.engines import EVERY, LAYER_7, USUAL, Scene, played, scene

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


@played(*(scene("choosing.routes", engine, RULES, ASKED) for engine in LAYER_7))
def test_domains_and_paths(engine: str, told: Any) -> None:
    """CLB: exact before *.x before x.* before expressions, else the default domain; paths as nginx's locations."""
    found = [one.replace("http://paths.example", "") for one in told["found"]]
    assert list(zip(QUERIES, found, strict=True)) == [(query, query[2]) for query in QUERIES]


@played(*(scene("choosing.shares", *case, [30, 10, 0], 160) for case in EVERY))
def test_weights(engine: str, told: Any) -> None:
    """Weights 30, 10 and 0 of 160 requests: within four standard deviations of a fair draw, though none is one."""
    counts = [sum(told[f"server-{n}"]) for n in (1, 2, 3)]
    assert counts[2] == 0 and sum(counts) == 160
    assert abs(counts[0] - 120) <= 4 * math.sqrt(160 * 0.75 * 0.25)


@played(*(scene("choosing.shares", *case, [10, 10], 60, "ip_hash") for case in USUAL))
def test_a_source_hashes_to_one_target(engine: str, told: Any) -> None:
    for one, other in zip(told["server-1"], told["server-2"], strict=True):
        assert sorted((one, other)) == [0, 3]
    assert min(map(sum, told.values())) > 0  # of 20 sources all to one side: once in a million


@played(*(scene("choosing.least_connections", *case, [30, 10], 8) for case in EVERY[:3]))
def test_least_connections_by_weight(engine: str, told: Any) -> None:
    assert told["held"] == [6, 2]


@played(*(scene("choosing.persists", *case) for case in USUAL))
def test_a_session_by_source_stays(engine: str, told: Any) -> None:
    assert set(told["each"]) == {1}
    assert told["all"] == ["server-1", "server-2"]


@played(*(scene("choosing.cookie", engine) for engine in LAYER_7))
def test_a_session_by_cookie_stays(engine: str, told: Any) -> None:
    assert told == {
        "servers": ["server-1", "server-2"], "same": True, "set_again": False, "wrong": 200, "wrong_gets_one": True,
        "leaks": False,
    }  # fmt: skip


def lines(told: Any) -> list[str]:
    """What came to the target, as lower-case lines."""
    return bytes.fromhex(told["raw"]).decode().lower().split("\r\n")


def tells(engine: str, protocol: str, before: bytes = b"", headers: str = "", **real_ip: object) -> Scene:
    """What a target is told of a client."""
    listener: dict[str, object] = {"protocol": protocol, **({"real_ip": real_ip} if real_ip else {})}
    return scene("choosing.told_to_target", engine, listener, before=before.hex(), headers=headers)


CLAIM = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n"
NEAR = ["10.0.0.0/24"]


@played(*(tells(engine, "http", headers=CLAIM) for engine in LAYER_7))
def test_who_is_not_trusted_cannot_say_who_he_is(engine: str, told: Any) -> None:
    found = lines(told)
    assert f"x-forwarded-for: {CLIENT}" in found and "x-forwarded-proto: http" in found
    assert not any("192.0.2.7" in line for line in found)


@played(*(tells(engine, "http", headers=CLAIM, trusted=NEAR) for engine in LAYER_7))
def test_who_is_trusted_is_passed_on(engine: str, told: Any) -> None:
    found = lines(told)
    given = ", ".join(line.partition(": ")[2] for line in found if line.startswith("x-forwarded-for:"))
    assert given == f"192.0.2.7, {CLIENT}"
    assert "x-forwarded-proto: https" in found


@played(*(tells(*case, mode="proxy_v1") for case in EVERY[:4]))
def test_proxy_protocol_1_to_the_target(engine: str, told: Any) -> None:
    assert lines(told)[0] == f"proxy tcp4 {CLIENT} 10.0.0.1 {told['port']} 80"


@played(*(tells(*case, mode="proxy_v2") for case in EVERY[:4]))
def test_proxy_protocol_2_to_the_target(engine: str, told: Any) -> None:
    """Signature, version and command, family, then addresses and ports (proxy-protocol.txt, 2.2)."""
    raw = bytes.fromhex(told["raw"])
    addresses = bytes([10, 0, 0, 2, 10, 0, 0, 1]) + told["port"].to_bytes(2, "big") + (80).to_bytes(2, "big")
    assert raw.startswith(b"\r\n\r\n\x00\r\nQUIT\n\x21\x11")
    assert raw[16:28] == addresses


FROM_OUTSIDE = b"PROXY TCP4 192.0.2.9 192.0.2.1 4711 80\r\n"


@played(*(tells(engine, "http", before=FROM_OUTSIDE, accept_proxy=True, trusted=NEAR) for engine in LAYER_7))
def test_proxy_protocol_from_whoever_is_trusted(engine: str, told: Any) -> None:
    assert "x-forwarded-for: 192.0.2.9" in lines(told)


@played(tells("nftables", "tcp", mode="transparent"), tells("nftables", "tcp"))
def test_the_kernel_can_show_the_client_itself(engine: str, told: Any) -> None:
    transparent = told["nat"] == "dnat"
    assert told["source"] == (CLIENT if transparent else "10.2.1.1")
