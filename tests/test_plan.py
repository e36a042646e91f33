"""Wishes are parsed once; what cannot be meant is refused in one sentence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timewait.plan import (
    PlanError,
    PortPolicy,
    Ports,
    Rate,
    RateUnit,
    parse_connect_to,
    parse_count,
    parse_duration,
    parse_expect,
    parse_header,
    parse_ports,
    parse_rate,
    parse_sources,
    parse_targets,
    parse_threshold,
    parse_url,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("5m", 300),
        ("1m30s", 90),
        ("2", 2),
        ("1.5", 1.5),
        ("1h", 3600),
        ("250us", 250e-6),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text, "--duration") == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "abc", "0", "0s", "-1s", "5x", "5s3", "s", "1 s", "1e3", "nan"])
def test_no_durations(text: str) -> None:
    with pytest.raises(PlanError, match="--duration"):
        parse_duration(text, "--duration")


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("500", Rate(500)),
        ("5k/s", Rate(5000)),
        ("5k", Rate(5000)),
        ("300/m", Rate(5)),
        ("1.5krps", Rate(1500)),
        ("2kcps", Rate(2000, RateUnit.CONNECTIONS)),
        ("2k conn/s", Rate(2000, RateUnit.CONNECTIONS)),
        ("3600/h", Rate(1)),
    ],
)
def test_rates(text: str, rate: Rate) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "fast", "0", "-5", "5k/y", "1..2", "k", "5kk", "nan", "inf"])
def test_no_rates(text: str) -> None:
    with pytest.raises(PlanError, match="--rate"):
        parse_rate(text)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "ten", "", "1e3"])
def test_no_counts(text: str) -> None:
    with pytest.raises(PlanError):
        parse_count(text, "-n")


def test_counts() -> None:
    assert [parse_count(text, "-n") for text in ("1", "10k", "1m", "1.5k", "2K")] == [1, 10_000, 10**6, 1500, 2000]


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("kernel", Ports()),
        ("oldest", Ports(PortPolicy.OLDEST)),
        ("20000-29999", Ports(PortPolicy.OLDEST, 20000, 29999)),
        ("kernel:40000-40199", Ports(PortPolicy.KERNEL, 40000, 40199)),
        ("random:1024-1024", Ports(PortPolicy.RANDOM, 1024, 1024)),
    ],
)
def test_ports(text: str, ports: Ports) -> None:
    assert parse_ports(text) == ports


@pytest.mark.parametrize("text", ["", "newest", "5", "9-1", "0-10", "1-65536", "oldest:5", "a-b"])
def test_no_ports(text: str) -> None:
    with pytest.raises(PlanError, match="--ports"):
        parse_ports(text)


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("http://h/", "h", 80, "/"),
        ("https://h", "h", 443, "/"),
        ("http://[::1]:8080/a?b=c", "::1", 8080, "/a?b=c"),
        ("tcp://10.0.0.1:6379", "10.0.0.1", 6379, ""),
        ("http://h?q", "h", 80, "/?q"),
    ],
)
def test_urls(url: str, host: str, port: int, path: str) -> None:
    request = parse_url(url)
    assert (request.host, request.port, request.path) == (host, port, path)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://h/", "scheme 'ftp'"),
        ("h:80/", "no scheme"),
        ("http://h:0/", "port 0"),
        ("http://h:99999/", "1-65535"),
        ("http://", "no host"),
        ("tcp://h", "needs a port"),
        ("tcp://h:1/x", "no path"),
        ("http://h/a b", "space"),
        ("http://h/\u00e9", "ASCII"),
        ("http://[::1/", "brackets"),
    ],
)
def test_no_urls(url: str, says: str) -> None:
    with pytest.raises(PlanError, match=says):
        parse_url(url)


def test_targets_are_used_line_by_line() -> None:
    requests = parse_targets(["# two", "", "GET http://h/a", "http://h/b", "POST http://h/c"], "f")
    assert [(request.method, request.path) for request in requests] == [("GET", "/a"), ("GET", "/b"), ("POST", "/c")]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["GET http://h/", "GET http://h/ x"], "f line 2"),
        (["", "nonsense"], "f line 2"),
        (["http://h/", "tcp://h:1"], "f line 2: tcp and http"),
        (["G@T http://h/"], "f line 1"),
        (["# nothing"], "no target"),
    ],
)
def test_bad_targets_are_named_by_line(lines: list[str], says: str) -> None:
    with pytest.raises(PlanError, match=says):
        parse_targets(lines, "f")


def test_sources() -> None:
    assert parse_sources(["127.0.0.2-127.0.0.4,10.0.0.1", "10.9.0.0/30"]) == (
        "127.0.0.2", "127.0.0.3", "127.0.0.4", "10.0.0.1", "10.9.0.1", "10.9.0.2",
    )  # fmt: skip
    assert parse_sources(["::1", "::1"]) == ("::1",)


@pytest.mark.parametrize("word", ["host", "10.0.0.9-10.0.0.1", "10.0.0.1-::1", "10.0.0.0/33", "10.0.0.0/8", "::/0"])
def test_no_sources(word: str) -> None:
    with pytest.raises(PlanError, match="--source"):
        parse_sources([word])


def test_connect_to() -> None:
    rule = parse_connect_to("example.com:443:[::1]:8443")
    assert (rule.host, rule.port, rule.to_host, rule.to_port) == ("example.com", 443, "::1", 8443)
    assert parse_connect_to("::127.0.0.1:").to_host == "127.0.0.1"
    with pytest.raises(PlanError):
        parse_connect_to("a:b")


def test_headers_and_expectations() -> None:
    assert parse_header("X-A:  b ") == ("X-A", "b")
    assert parse_expect("2xx, 404") == ("2xx", "404")
    for text in ("X-A", "X A: b", "A: b\r\nC: d"):
        with pytest.raises(PlanError):
            parse_header(text)
    for text in ("", "6xx", "20", "ok"):
        with pytest.raises(PlanError):
            parse_expect(text)


@pytest.mark.parametrize(
    ("text", "metric", "greater", "value"),
    [
        ("failed>0.1%", "failed", True, 0.001),
        ("failed > 0.01", "failed", True, 0.01),
        ("p99>50ms", "p99", True, 0.05),
        ("p99.9>1s", "p99_9", True, 1.0),
        ("connect_p99>1s", "connect_p99", True, 1.0),
        ("rate<5k/s", "rate", False, 5000.0),
    ],
)
def test_thresholds(text: str, metric: str, greater: bool, value: float) -> None:
    found = parse_threshold(text)
    assert (found.metric, found.greater) == (metric, greater)
    assert found.value == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "p98>1s", "p99", "p99>", "p99>fast", "failed>x%", "p99=1s", "rate<0"])
def test_no_thresholds(text: str) -> None:
    with pytest.raises(PlanError):
        parse_threshold(text)


@given(st.text(max_size=30))
def test_any_text_is_parsed_or_refused_with_a_sentence(text: str) -> None:
    for parse in (
        parse_rate, parse_ports, parse_url, parse_header, parse_expect, parse_threshold, parse_connect_to,
        lambda t: parse_duration(t, "-d"), lambda t: parse_count(t, "-n"), lambda t: parse_sources([t]),
        lambda t: parse_targets([t], "f"),
    ):  # fmt: skip
        try:
            parse(text)
        except PlanError as error:
            assert str(error)
