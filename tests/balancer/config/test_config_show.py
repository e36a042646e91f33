"""What --check prints: the same configuration again, what engines do with it, and who closes first."""

from __future__ import annotations

import textwrap
import tomllib
from typing import Any

import msgspec
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from balancer.config.texts import document, file, tcp
from timewait.balancer.config.closing import summary
from timewait.balancer.config.model import Configuration, Engine, Protocol
from timewait.balancer.config.read import ConfigError, configuration, read
from timewait.balancer.config.show import effective, example
from timewait.balancer.config.units import duration_text, size_text


def again(made: Configuration) -> Configuration:
    return configuration(effective(made), "clb.toml")


def test_the_example_runs_and_reads_back_the_same() -> None:
    made = read(example(), "example.toml")
    assert made.warnings == ()
    assert again(made.configuration) == made.configuration


def test_every_default_is_spelled_out() -> None:
    shown = tomllib.loads(effective(configuration(file(), "clb.toml")))
    listener, pool = shown["listener"][0], shown["pool"][0]
    assert listener["client"] == {
        "keepalive": "75s", "max_requests": 0, "header_timeout": "60s", "body_timeout": "60s", "send_timeout": "60s",
        "close": "fin", "close_wait": "1s",
    }  # fmt: skip
    assert listener["limits"] == {
        "request_line": "8k", "header_size": "32k", "header_count": 100, "body_size": "60M",
    }  # fmt: skip
    assert pool["health"]["http"]["expect"] == ["1xx", "2xx", "3xx", "4xx"]


def test_what_is_not_written_for_good_reason_stands_as_a_comment() -> None:
    lines = effective(configuration(tcp(), "clb.toml")).splitlines()
    assert [line for line in lines if line.startswith("# ") and " = " in line] == [
        '# engine = "embedded"  # what holds without it',
        '# idle = "15m"  # what holds without it',
        '# mode = "none"  # what holds without it',
        '# type = "tcp"  # what holds without it',
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            file(listener='client.keepalive = "10s"'),
            'keepalive = "10s"  # default "75s"; 0: closes after each answer',
        ),
        (file(top='engine = "haproxy"'), 'reuse = "safe"  # http-reuse'),
        (file(top='engine = "haproxy"'), 'close_wait = "1s"  # no effect on haproxy'),
        (tcp(top='engine = "nftables"'), 'header_timeout = "60s"  # no effect with tcp'),
        (tcp(top='engine = "nftables"'), 'connect_timeout = "4s"  # no effect on nftables'),
        (tcp(top='engine = "nftables"'), 'scheduler = "wrr"  # numgen inc, by connection'),
        (file(pool='health.custom.send = "a\\r\\n\\u007f\\u0000é"'), 'send = "a\\r\\n\\u007f\\u0000é"'),
    ],
)
def test_beside_a_value_stands_what_is_done_with_it(text: str, line: str) -> None:
    assert line in effective(configuration(text, "clb.toml")).splitlines()


def test_a_pool_of_two_engines_says_what_each_does() -> None:
    second = '[[listener]]\nname = "b"\nbind = ["0.0.0.0:81"]\nprotocol = "tcp"\nengine = "nftables"\npool = "app"\n'
    shown = effective(configuration(tcp() + second, "clb.toml"))
    assert 'scheduler = "wrr"  # embedded: smooth, by request; nftables: numgen inc, by connection' in shown


# Values of every type in model.py, as a file writes them
def _values(kind: msgspec.inspect.Type) -> st.SearchStrategy[Any]:
    if isinstance(kind, msgspec.inspect.UnionType):
        kind = next(one for one in kind.types if not isinstance(one, msgspec.inspect.NoneType))
    if isinstance(kind, msgspec.inspect.Metadata):
        inner: Any = kind.type
        if (kind.extra or {})["unit"] == "size":
            return st.integers(inner.ge, inner.le).map(size_text)
        return st.integers(int(inner.ge * 1000), int(inner.le * 1000)).map(lambda ms: duration_text(ms / 1000))
    if isinstance(kind, msgspec.inspect.EnumType):
        return st.sampled_from([str(one) for one in kind.cls])
    if isinstance(kind, msgspec.inspect.BoolType):
        return st.booleans()
    if isinstance(kind, msgspec.inspect.IntType):
        return st.integers(kind.ge if kind.ge is not None else -5, kind.le if kind.le is not None else 10**6)
    if isinstance(kind, msgspec.inspect.StructType):
        return _tables(kind)
    raise AssertionError(kind)


WORDS: dict[str, st.SearchStrategy[Any]] = {
    "min_version": st.sampled_from(["1.2", "1.3"]),
    "source": st.lists(st.sampled_from(["10.0.0.2", "10.0.0.3:20000-39999", "fd00::2"]), max_size=2, unique=True),
    "trusted": st.lists(st.sampled_from(["10.0.0.0/8", "fd00::/8", "192.0.2.1"]), max_size=2),
    "cookie": st.sampled_from(["CLBSESSION", "id", "__Host-x"]),
    "method": st.sampled_from(["HEAD", "GET"]),
    "path": st.sampled_from(["/", "/ping?a=b"]),
    "host": st.sampled_from(["", "a.example"]),
    "expect": st.lists(st.sampled_from(["1xx", "2xx", "3xx", "4xx", "5xx"]), min_size=1, unique=True),
    "send": st.text(max_size=20),
}


def _tables(kind: msgspec.inspect.StructType) -> st.SearchStrategy[dict[str, Any]]:
    fields = {field.name: WORDS[field.name] if field.name in WORDS else _values(field.type) for field in kind.fields}
    if kind.cls.__name__ == "CustomCheck":
        fields["expect"] = st.text(max_size=20)
    return st.fixed_dictionaries({}, optional=fields)


def _inside(kind: type[msgspec.Struct], *leave_out: str) -> st.SearchStrategy[dict[str, Any]]:
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    kept = tuple(field for field in info.fields if field.name not in leave_out)
    return _tables(msgspec.structs.replace(info, fields=kept))


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A file whose values are all in range; what they say together may be wrong."""
    from timewait.balancer.config.model import Listener, Pool

    engine = draw(st.sampled_from(["embedded", "embedded", "haproxy", "nftables"]))
    protocol = "tcp" if engine == "nftables" else draw(st.sampled_from(["http", "tcp"]))
    listener = draw(_inside(Listener, "name", "bind", "protocol", "engine", "pool", "tls", "rule"))
    pool = draw(_inside(Pool, "name", "target"))
    listener |= {"name": "web", "bind": ["0.0.0.0:80"], "protocol": protocol}
    rule = {"domain": "_default", "path": draw(st.sampled_from(["/", "~* a\\d", "= /x"])), "pool": "app"}
    listener |= {"rule": [rule]} if protocol == "http" else {"pool": "app"}
    weights = draw(st.lists(st.integers(0, 100), min_size=1, max_size=3))
    pool |= {"name": "app", "target": [{"addr": f"10.0.0.1:{81 + n}", "weight": w} for n, w in enumerate(weights)]}
    top = draw(st.fixed_dictionaries({}, optional={"workers": st.integers(0, 9), "access_log": st.just("-")}))
    return {"engine": engine, **top, "listener": [listener], "pool": [pool]}


@settings(max_examples=150, deadline=None)
@given(documents())
def test_what_is_printed_reads_back_the_same(table: dict[str, Any]) -> None:
    """Of the files that are refused, what is refused is left out until the rest can be run."""
    for _ in range(60):
        try:
            made = configuration(document(table), "clb.toml")
        except ConfigError as error:
            assume(_without(table, error.sentences))
        else:
            event(f"{made.engine}, {made.listener[0].protocol}")
            assert again(made) == made
            return
    raise AssertionError("it was refused again and again")


def _without(table: dict[str, Any], sentences: tuple[str, ...]) -> bool:
    """Takes a table out that a sentence names; whether there was one."""
    for part in (table["listener"][0], table["pool"][0], table):
        for key in list(part):
            if key not in NEEDED and any(key in sentence for sentence in sentences):
                del part[key]
                return True
    return False


NEEDED = ("name", "bind", "protocol", "rule", "pool", "target", "listener", "engine")


def told(text: str) -> str:
    """The summary, on one line."""
    lines = summary(configuration(text, "clb.toml"))
    assert all(line.startswith("#") and len(line) <= 100 for line in lines)
    return " ".join(" ".join(line.lstrip("# ") for line in lines).split())


CLOSES = [
    (file(), "the balancer closes first, on `Connection: close`, HTTP/1.0, and after 75s without a request."),
    (file(), "TIME_WAIT stands here, at 0.0.0.0:80: it costs memory and no port."),
    (
        file().replace('["0.0.0.0:80"]', '["0.0.0.0:80", "[::1]:81", "127.0.0.1:82", "unix:/run/web.sock"]'),
        "TIME_WAIT stands here, at 0.0.0.0:80, [::1]:81 and 127.0.0.1:82: it costs",
    ),
    (file().replace('"0.0.0.0:80"', '"unix:/run/web.sock"'), "web, clients: they come over a unix socket"),
    (file(listener="client.keepalive = 0"), "the balancer closes first, after every answer."),
    (file(listener="client.max_requests = 1000"), "and after 1,000 requests"),
    (
        file(listener='client.close = "fin-rst"'),
        "a reset once everything was acknowledged. TIME_WAIT stands nowhere.",
    ),
    (file(listener='client.close = "fin-rst"'), "A client that closes first keeps it itself."),
    (
        file(top='engine = "haproxy"', listener='client.close = "fin-rst"'),
        "HAProxy resets a client that closes first",
    ),
    (file(listener='client.close = "peer"'), "TIME_WAIT stands at the client and keeps its port for 60 s."),
    (file(listener='timestamps = "strip"'), "Without timestamps a client's tcp_tw_reuse is void"),
    (file(), "With timestamps a client's tcp_tw_reuse works"),
    (file(), "kept for up to 4s between requests, ended with a reset"),
    (file(), "28,232 at once to each target"),
    (file(listener="upstream.keepalive = false"), "a connection for each request, ended with a reset"),
    (
        file(listener='upstream.close = "fin"'),
        "28,232 ports (Linux's ip_local_port_range) last for 471 such connections",
    ),
    (
        file(listener='upstream = { close = "fin", source = ["10.0.0.2:20000-20599", "10.0.0.3:20000-20599"] }'),
        "1,200 ports (upstream.source) last for 20 such connections a second to each target",
    ),
    (
        file(listener='upstream = { close = "peer", keepalive = false }'),
        "the target closes first. TIME_WAIT stands at the target's port",
    ),
    (tcp(), "whoever closes first is first here, too"),
    (tcp(), "last for 471 such connections a second to each target"),
    (tcp(top='engine = "nftables"'), "the kernel passes FINs on: TIME_WAIT stands at the client if it closes first"),
    (tcp(top='engine = "nftables"'), "64,512 ports last for 538 new connections a second to each target"),
    (tcp(top='engine = "nftables"', pool='nat = "dnat"'), "they see the client's own address and port"),
    (
        tcp(top='engine = "nftables"', pool='nat = "dnat"').replace('"tcp"', '"udp"'),
        "there is nothing to close; UDP knows no TIME_WAIT.",
    ),
    (
        tcp(top='engine = "nftables"').replace('"tcp"', '"udp"'),
        "until it was silent for 5m: 64,512 ports last for 215",
    ),
]


@pytest.mark.parametrize(("text", "words"), CLOSES, ids=[textwrap.shorten(words, 50) for _, words in CLOSES])
def test_who_closes_first_is_told_in_words(text: str, words: str) -> None:
    assert words in told(text)


def test_every_listener_has_both_sides() -> None:
    second = '[[listener]]\nname = "b"\nbind = ["0.0.0.0:81"]\nprotocol = "tcp"\nengine = "nftables"\npool = "app"\n'
    text = told(file() + second)
    assert all(
        part in text for part in ("web, clients:", "web, targets of app:", "b, clients:", "b, targets of app:")
    )


def test_engines_and_protocols_are_all_known_here() -> None:
    """What a new one closes must be said in closing.py."""
    assert set(Engine) == {"embedded", "haproxy", "nftables"}
    assert set(Protocol) == {"tcp", "udp", "http", "https", "tcp_ssl"}
