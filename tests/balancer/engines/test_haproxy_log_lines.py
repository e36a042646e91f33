"""What HAProxy is told to log, and the records its lines become."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest

from balancer.engines.texts import HAPROXY, haproxy
from timewait.balancer.config.read import configuration
from timewait.balancer.haproxy import text
from timewait.balancer.haproxy.log_lines import LONGEST, Lines

TRUSTING = configuration(HAPROXY["logged"], "a.toml")
REQUEST = '"web 4 2 1795622044721243 10.9.9.9 486 200 1 -- 10.2.1.2:8080 0 50 51 5 1 2 - GET {a.test} /two?q=1'


def read(line: str) -> dict[str, Any]:
    """A line as the file has it."""
    found = Lines(TRUSTING, 3).record(line)
    assert found is not None
    return dict(json.loads(msgspec.json.encode(found)))


def changed(line: str, **fields: str) -> str:
    """Other fields, by their place: `f8="SH"`."""
    words = line.split(" ")
    for place, word in fields.items():
        words[int(place[1:])] = word
    return " ".join(words)


def test_nothing_logs_unless_asked() -> None:
    for name, file in HAPROXY.items():
        words = text(configuration(file, "a.toml")).split()
        assert ("log" in words, "log-format" in words, "capture" in words) == (
            name.startswith("logged"),
            name.startswith("logged"),
            name == "logged",
        )


def test_what_is_printed_can_be_started_by_hand() -> None:
    printed = text(TRUSTING)
    assert f"  log stdout len {LONGEST} format raw local0\n" in printed
    assert "  tune.http.logurilen 8193\n" in printed
    kept = "http-request set-var-fmt(txn.forwarded) %[req.hdr(x-forwarded-for,-1),hex],"
    assert kept in printed and printed.index(kept) < printed.index("add-header X-Forwarded-For")


def test_a_request_is_a_record() -> None:
    assert read(REQUEST) == {
        "time": 1795622044.721243,
        "listener": "web",
        "client": "10.9.9.9:486",
        "connection": (3 << 32) + 5,
        "request": 2,
        "method": "GET",
        "host": "a.test",
        "path": "/two?q=1",
        "status": 200,
        "made_by": "target",
        "target": "10.2.1.2:8080",
        "bytes_in": 50,
        "bytes_out": 51,
        "seconds": 0.005,
        "connect_seconds": 0.001,
        "answer_seconds": 0.002,
    }


@pytest.mark.parametrize(
    ("state", "status", "server", "expected"),
    [
        ("--", "200", "10.2.1.2:8080", ("target", "", 200)),
        ("SD", "200", "10.2.1.2:8080", ("target", "answer-cut-off", 200)),
        ("sD", "101", "10.2.1.2:8080", ("target", "", 101)),
        ("CD", "200", "10.2.1.2:8080", ("target", "client-gone", 200)),
        ("SC", "503", "<NOSRV>", ("balancer", "no-target", 503)),
        ("SC", "503", "10.2.1.2:8080", ("balancer", "target-failed", 503)),
        ("sC", "503", "10.2.1.2:8080", ("balancer", "connect-timeout", 503)),
        ("RC", "503", "10.2.1.2:8080", ("balancer", "no-port", 503)),
        ("sH", "504", "10.2.1.2:8080", ("balancer", "read-timeout", 504)),
        ("SH", "502", "10.2.1.2:8080", ("balancer", "target-closed", 502)),
        ("KH", "502", "10.2.1.2:8080", ("balancer", "target-closed", 502)),
        ("PH", "502", "10.2.1.2:8080", ("balancer", "malformed", 502)),
        ("CH", "-1", "10.2.1.2:8080", ("balancer", "client-gone", 499)),
        ("cD", "408", "10.2.1.2:8080", ("balancer", "body-timeout", 408)),
        ("LR", "404", "<NOSRV>", ("balancer", "no-rule", 404)),
        ("LR", "301", "<NOSRV>", ("balancer", "", 301)),
        ("PR", "413", "<NOSRV>", ("balancer", "body-too-large", 413)),
    ],
)
def test_who_made_an_answer_and_why(state: str, status: str, server: str, expected: tuple[str, str, int]) -> None:
    answered = "1" if expected[0] == "target" else "-"
    found = read(changed(REQUEST, f6=status, f7=answered, f8=state, f9=server, f10="+1"))
    assert (found["made_by"], found.get("reason", ""), found["status"]) == expected
    assert (found.get("target", ""), found["retries"]) == (server.replace("<NOSRV>", ""), 1)


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        (["10.0.0.7", "10.0.0.8"], "10.0.0.8"),
        (["10.0.0.7", "1.2.3.4", "5.6.7.8"], "1.2.3.4"),
        (["10.0.0.7", '"|{ \\\xff'], '"|{ \\\xff'),
        (["10.0.0.7", "10.0.0.8", "10.0.0.9", "10.0.0.10"], "10.0.0.10"),
    ],
)
def test_whom_trusted_proxies_vouch_for(forwarded: list[str], client: str) -> None:
    said = [word.encode("latin-1").hex().upper() for word in forwarded]
    assert read(changed(REQUEST, f16=",".join([*said, *["-"] * (4 - len(said))])))["client"] == client


def test_clients_as_the_embedded_engine_shows_them() -> None:
    for host, client in [("unix", "unix"), ("::ffff:1.2.3.4", "1.2.3.4:486"), ("fd00::1", "[fd00::1]:486")]:
        assert read(changed(REQUEST, f4=host))["client"] == client


@pytest.mark.parametrize(
    ("state", "server", "reason"),
    [
        ("--", "10.2.1.2:8080", ""),
        ("cD", "10.2.1.2:8080-1", ""),
        ("SC", "<NOSRV>", "no-target"),
        ("SC", "10.2.1.2:8080", "connect-failed"),
        ("sC", "10.2.1.2:8080", "connect-timed-out"),
        ("CC", "10.2.1.2:8080", "client-gone"),
    ],
)
def test_a_stream_is_a_record(state: str, server: str, reason: str) -> None:
    sources = "upstream = { source = ['127.0.0.2', '127.0.0.3'] }"
    lines = Lines(configuration(haproxy(sources, protocol="tcp"), "a.toml"), 1)
    found = lines.record(f'"web 4 - 1795622044721243 10.9.9.9 486 - - {state} {server} 0 50 51 2003 1 - -')
    assert found is not None
    assert (found.target, found.reason) == ("" if server == "<NOSRV>" else "10.2.1.2:8080", reason)
    assert (found.made_by, found.request) == ("balancer" if reason else "target", 0)
    assert (found.bytes_in, found.bytes_out, found.seconds, found.connect_seconds) == (50, 51, 2.003, 0.001)


def test_what_was_no_request() -> None:
    found = read('"web 4 1 1795622044721243 10.9.9.9 486 400 ! PR')
    assert (found["status"], found["reason"], found["request"]) == (400, "malformed", 2)
    assert read('"web 4 - 1795622044721243 10.9.9.9 486 408 ! cR')["reason"] == "header-timeout"
    lines = Lines(TRUSTING, 1)
    for nothing in ('"!', '"web 4 - 1795622044721243 10.9.9.9 486 400 ! CR', "Proxy web stopped.", ""):
        assert lines.record(nothing) is None


def test_any_bytes_of_a_client_come_back_as_they_were() -> None:
    """Written as HAProxy writes them, and cut where it cuts: never another field than the path."""
    chance = random.Random(7)
    for _ in range(300):
        asked, path = (bytes(chance.choices(range(256), k=chance.randrange(20))) for _ in "ab")
        line = changed(REQUEST, f18=f"{{{coded(asked, OF_A_HEADER)}}}", f19=coded(path, OF_A_PATH))
        found = read(line)
        assert (found.get("host", ""), found.get("path", "")) == (asked.decode("latin-1"), path.decode("latin-1"))
        short = read(line[: chance.randrange(line.index("} ") + 2, len(line) + 1)])
        assert path.decode("latin-1").startswith(short.pop("path", ""))
        found.pop("path", "")
        assert short == found


OF_A_HEADER, OF_A_PATH = b'"#{|}', b'"#'


def coded(data: bytes, special: bytes) -> str:
    return "".join(f"#{x:02X}" if x < 32 or x >= 127 or x in special else chr(x) for x in data)


def test_no_line_does_harm() -> None:
    lines, chance = Lines(TRUSTING, 1), random.Random(8)
    for _ in range(3000):
        damaged = [*REQUEST, *" /x"]
        for _ in range(chance.randrange(1, 9)):
            place = chance.randrange(1, len(damaged))
            damaged[place : place + chance.randrange(3)] = chance.choices(' "#-0Z\xff', k=chance.randrange(3))
        try:
            found = lines.record("".join(damaged))
        except (ValueError, LookupError):
            continue
        assert found is None or json.loads(msgspec.json.encode(found))
