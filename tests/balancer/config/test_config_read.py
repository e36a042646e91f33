"""A balancer's file: what it means, and what is said when something is wrong with it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.config.texts import RULE, TARGET, file, inline, tcp
from timewait.balancer.config import units
from timewait.balancer.config.model import ClientClose, Configuration, Engine, Scheduler
from timewait.balancer.config.read import ConfigError, configuration, read
from timewait.balancer.engine import BalancerError


def refused(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        configuration(text, "clb.toml")
    assert isinstance(caught.value, BalancerError)
    assert str(caught.value) == "\n".join(caught.value.sentences)
    return list(caught.value.sentences)


def test_what_is_not_said_is_as_clb_has_it() -> None:
    made = configuration(file(), "clb.toml")
    assert made.engine is Engine.EMBEDDED
    listener, pool = made.listener[0], made.pool[0]
    assert (listener.client.keepalive, listener.client.header_timeout, listener.limits.body_size) == (
        75,
        60,
        60 << 20,
    )
    assert (listener.upstream.connect_timeout, listener.max_conn, listener.max_cps) == (4, -1, -1)
    assert listener.rule[0].domain == "_default" and listener.rule[0].path == "/"
    assert pool.scheduler is Scheduler.WRR and pool.target[0].weight == 10
    assert (pool.health.interval, pool.health.timeout, pool.health.rise, pool.health.fall) == (5, 2, 3, 3)
    assert listener.client.close is ClientClose.FIN


def test_units() -> None:
    text = file(
        top='stop_timeout = "1m30s"',
        listener="""
        client = { keepalive = 0, header_timeout = "500ms", body_timeout = "0.5m" }
        upstream.idle = "2.5s"
        limits = { request_line = "64k", header_size = 65536, body_size = "1G" }
        """,
    )
    made = configuration(text, "clb.toml")
    client, limits = made.listener[0].client, made.listener[0].limits
    assert (made.stop_timeout, client.keepalive, client.header_timeout, client.body_timeout) == (90, 0, 0.5, 30)
    assert made.listener[0].upstream.idle == 2.5
    assert (limits.request_line, limits.header_size, limits.body_size) == (65536, 65536, 1 << 30)


@settings(deadline=None)
@given(st.one_of(st.floats(0, 1e6), st.integers(0, 10_000_000).map(lambda ms: ms / 1000)))
def test_durations_are_read_as_they_are_written(seconds: float) -> None:
    assert units.seconds(units.duration_text(seconds)) == seconds


@settings(deadline=None)
@given(st.integers(0, 1 << 40))
def test_sizes_are_read_as_they_are_written(size: int) -> None:
    assert units.size(units.size_text(size)) == size


def more(rule: str) -> str:
    """The default rule, and another one with these lines."""
    return f'{RULE}[[listener.rule]]\npool = "app"\n{rule}\n'


def at(address: str, weight: int = 10) -> str:
    """A target."""
    return f'[[pool.target]]\naddr = "{address}"\nweight = {weight}\n'


# A text with one mistake, how the line begins that it is on ("": none), and what must be said of it.
WRONG = [
    # What is not known, and what is near
    (file(top='enginee = "haproxy"'), "enginee", 'there is no "enginee" at the top; did you mean engine?'),
    (file(top='engine = "haprxy"'), "engine", 'engine = "haprxy" is none of its values; did you mean haproxy?'),
    (file(listener="keepalive = 3"), "keepalive", "it belongs in [listener.client] or [listener.upstream]"),
    (file(listener='client.keepalve = "3s"'), "client.keepalve", "did you mean keepalive?"),
    (
        file(listener='[listener.client]\nclose = "fin_rst"'),
        "close",
        "did you mean fin-rst? write one of fin, fin-rst, peer",
    ),
    (file(rules='[[listener.rule]]\npool = "ap"'), "pool", 'pool = "ap" is not in the file; did you mean app?'),
    (file(pool='scheduler = "wlc"'), "scheduler", "write one of wrr, least_conn, ip_hash"),
    (file(pool='[pool.health]\nhttp.expect = ["2x"]'), "http.expect", "did you mean 2xx?"),
    # Values of a wrong kind
    (file(top="workers = true"), "workers", "workers = true is no whole number"),
    (file(top='workers = "2"'), "workers", 'workers = "2" is no whole number'),
    (file(top="workers = -1"), "workers", "workers = -1 is out of range; write 0 to 256"),
    (file(listener='upstream.keepalive = "on"'), "upstream.keepalive", "is neither true nor false"),
    (file(listener="engine = 3"), "engine", "engine = 3 is none of its values"),
    (file(listener="backlog = 1e3"), "backlog", "is no whole number"),
    (file(top='user = "a\\u0000b"'), "user", "has a control character in it"),
    (file(top="access_log = 2020-01-01"), "access_log", "is no text"),
    (file(listener="client = 3"), "client", "listener.client = 3 has parts; write it as [listener.client]"),
    (file(pool='health = "on"'), "health", "write it as [pool.health]"),
    (file().replace('bind = ["0.0.0.0:80"]', 'bind = "0.0.0.0:80"'), "bind", 'write a list: bind = ["0.0.0.0:80"]'),
    (file(rules="").replace("[[listener]]", "[listener]"), "[listener]", "write it as [[listener]]"),
    (file().replace('name = "web"', ""), "[[listener]]", "listener lacks its name"),
    ("schema = 1", "", "there is no listener; write [[listener]]"),
    (file(top="listener = []").replace("[[listener]]", "[[other]]").replace("[[listener.", "[[other."), "", "other"),
    ("listener = []\npool = []\n", "listener", "there is no listener"),
    (file().replace("schema = 1", "schema = 2"), "schema", "this program reads schema = 1"),
    # Durations and sizes
    (file(listener='client.keepalive = "75"'), "client.keepalive", 'has no unit; write "75s" for seconds'),
    (file(listener="client.keepalive = 75"), "client.keepalive", 'has no unit; write "75s" for seconds'),
    (file(listener='client.keepalive = "75 sec"'), "client.keepalive", "is no duration"),
    (file(listener='client.keepalive = "-1s"'), "client.keepalive", "is no duration"),
    (file(listener="client.keepalive = false"), "client.keepalive", "is no duration"),
    (file(listener='client.keepalive = "2h"'), "client.keepalive", 'is out of range; write "0s" to "1h"'),
    (file(listener='client.close_wait = "2m"'), "client.close_wait", 'is out of range; write "0s" to "60s"'),
    (file(listener='limits.body_size = "60MB"'), "limits.body_size", 'is no size; write bytes, or as "64k" or "60M"'),
    (file(listener='limits.body_size = "60G"'), "limits.body_size", 'is out of range; write "1" to "10240M"'),
    (file(listener="limits.body_size = 1.5"), "limits.body_size", "is no size"),
    (file(pool='session = { type = "source_ip", ttl = "5s" }'), "session", 'write "30s" to "1d"'),
    # Weights
    (file(target=at("10.0.0.1:80", 101)), "weight", "weight = 101 is out of range; write 0 to 100"),
    (file(target=at("10.0.0.1:80", -1)), "weight", "write 0 to 100"),
    # Listeners
    (file().replace('["0.0.0.0:80"]', "[]"), "bind", 'web listens nowhere; write bind = ["0.0.0.0:80"]'),
    (file().replace("0.0.0.0:80", "80"), "bind", 'bind "80" has no address'),
    (file().replace("0.0.0.0:80", ":80"), "bind", 'bind ":80" has no address'),
    (file().replace("0.0.0.0:80", "*:80"), "bind", 'bind "*:80" has no address'),
    (file().replace("0.0.0.0:80", "10.0.0.1"), "bind", "has no port"),
    (file().replace("0.0.0.0:80", "10.0.0.1:0"), "bind", "ports are 1 to 65535, not 0"),
    (file().replace("0.0.0.0:80", "10.0.0.1:65536"), "bind", "ports are 1 to 65535, not 65536"),
    (file().replace("0.0.0.0:80", "web.example:80"), "bind", "names a host (web.example), which may change"),
    (file().replace("0.0.0.0:80", "fd00::1"), "bind", "has no port"),
    (file().replace("0.0.0.0:80", "fd00:zz:80"), "bind", "lacks the brackets of IPv6"),
    (file().replace("0.0.0.0:80", "[10.0.0.1]:80"), "bind", "has brackets around an IPv4 address"),
    (file().replace("0.0.0.0:80", "[fe80::1%eth0]:80"), "bind", "an address of one link only"),
    (file().replace("0.0.0.0:80", "[::ffff:10.0.0.1]:80"), "bind", "write 10.0.0.1"),
    (file().replace("0.0.0.0:80", "unix:web.sock"), "bind", "is no whole path"),
    (file().replace("0.0.0.0:80", "unix:/" + "x" * 107), "bind", "too long for a unix socket"),
    (file().replace('name = "web"', 'name = "a/b"'), "name", "is no usable name"),
    (file().replace('name = "web"', 'name = ""'), "name", "is no usable name"),
    (file(listener="max_conn = 0"), "max_conn", "lets nobody in; write -1 for no limit"),
    (
        file(rules=""),
        "[[listener]]",
        'no rule for the default domain, which CLB requires; write [[listener.rule]] with domain = "_default"',
    ),
    (
        file(rules='[[listener.rule]]\ndomain = "a.com"\npool = "app"'),
        "[[listener]]",
        "no rule for the default domain",
    ),
    (file(listener='pool = "app"'), "pool", "where rules name the pools"),
    (tcp().replace('pool = "app"\n', "", 1), "[[listener]]", "speaks tcp and lacks its pool"),
    (
        tcp() + "[[listener]]\n" + 'name = "l"\nbind = ["0.0.0.0:81"]\nprotocol = "tcp"\npool = "app"\n' + RULE,
        "[[listener.rule]]",
        "neither domains",
    ),
    (file(listener='limits = { request_line = "64k", header_size = "32k" }'), "limits", "of which it is a part"),
    # Rules
    (file(rules=RULE + RULE), "[[listener.rule]]", 'domain "_default" has path "/" twice'),
    (file(rules=more('domain = "defaut"\npath = "x"')), "path", 'path = "x" is no path'),
    (file(rules=more('domain = "_defaut"')), "domain", 'did you mean "_default"?'),
    (file(rules=more('domain = "https://a.com"')), "domain", "without scheme, port and path"),
    (file(rules=more('domain = "a.*.com"')), "domain", "is no domain"),
    (file(rules=more('domain = "bücher.de"')), "domain", "xn--"),
    (file(rules=more("path = '~ a(?=b)'")), "path", "cannot be matched in bounded time"),
    (file(rules=more('domain = "~("')), "domain", "missing )"),
    (file(rules=more('path = "~ a{2000}"')), "path", "cannot be used"),
    (file(rules=more('path = "~"')), "path", "is an empty regular expression"),
    (file(rules=more('path = "/a?b=c"')), "path", "leave out ? and #"),
    (file(rules=more(f'path = "/{"a" * 200}"')), "path", "CLB takes 1 to 200 characters"),
    # TLS
    (file(listener='protocol = "https"'), "[[listener]]", "speaks https and has no certificate"),
    (file(listener='tls.min_version = "1.1"'), "tls.min_version", 'write "1.2" or "1.3"'),
    # The side of the targets
    (file(listener='upstream.close = "peer"'), "upstream.close", "write keepalive = false with it"),
    (file(listener='upstream.source = ["10.0.0.1:80"]'), "upstream.source", "is no source address"),
    (file(listener='upstream.source = ["10.0.0.1:2-1"]'), "upstream.source", "write the lower first"),
    (file(listener='upstream.source = ["0.0.0.0"]'), "upstream.source", "no address to connect from"),
    (
        file(listener='upstream.source = ["10.0.0.1:1-9", "10.0.0.1:9-12"]'),
        "upstream.source",
        "stands twice, or its ports do",
    ),
    (file(listener='upstream.source = ["fd00::1"]'), "upstream.source", "add one of IPv4"),
    # Who the client is
    (
        file(listener="real_ip.accept_proxy = true"),
        "real_ip.accept_proxy",
        "believes nobody as long as trusted is empty",
    ),
    (
        file(listener='real_ip.trusted = ["10.0.0.5/8"]'),
        "real_ip.trusted",
        'has bits beyond its length; write "10.0.0.0/8"',
    ),
    (file(listener='real_ip.trusted = ["me"]'), "real_ip.trusted", "is no network"),
    (tcp(listener='real_ip.trusted = ["10.0.0.0/8"]'), "real_ip.trusted", "tcp carries no X-Forwarded-For"),
    (tcp(listener='real_ip.mode = "xff"'), "real_ip.mode", "is a header of HTTP"),
    (file(top='admin.metrics = "localhost:9100"'), "admin.metrics", "names a host (localhost)"),
    (file(top='admin.metrics = "127.0.0.1:80"'), "admin.metrics", "overlaps a bind of listener web"),
    (file(top=f'admin.socket = "/{"a" * 120}"'), "admin.socket", "too long for a unix socket"),
    (file(top='admin.socket = "/no/such/folder/x"'), "admin.socket", "is in a folder that does not exist"),
    (file(top='access_log = "/no/such/folder/x"'), "access_log", "is in a folder that does not exist"),
    (file(top='user = "rot"'), "user", "is no user of this machine; did you mean root?"),
    # Pools
    (file(target=""), "[[pool]]", "pool app has no targets"),
    (file(target=TARGET + TARGET), "addr", "stands twice in pool app"),
    (
        file(target='[[pool.target]]\naddr = "[::1]:80"\n[[pool.target]]\naddr = "[0:0::1]:80"'),
        "addr",
        "stands twice",
    ),
    (file(target=at("app.internal:80")), "addr", "names a host (app.internal)"),
    (file(target=at("0.0.0.0:80")), "addr", "is no machine's address"),
    (file(target=at("127.0.0.1:80")), "addr", "is listener web itself"),
    (
        file(pool='scheduler = "ip_hash"\nsession.type = "source_ip"'),
        "session.type",
        'CLB does with scheduler = "wrr" only',
    ),
    (file(pool='session = { type = "cookie_insert", cookie = "a b" }'), "session", "is no cookie's name"),
    (tcp(pool='session.type = "cookie_insert"'), "pool", "keeps sessions by cookie, which tcp has not"),
    (file(pool='health.timeout = "5s"'), "health.timeout", 'timeout = "5s" is not below its interval, "5s"'),
    (file(pool='health.interval = "2s"'), "health.interval", "is not below its interval"),
    (file(pool="health.rise = 11"), "health.rise", "write 1 to 10"),
    (file(pool='health.http.method = "POST"'), "health.http.method", "write HEAD or GET"),
    (file(pool='health.http.path = "ping"'), "health.http.path", "is no path"),
    (file(pool="health.http.expect = []"), "health.http.expect", "no answer would be good"),
    (file(pool='health = { type = "custom" }'), "health", "finds everything healthy"),
    (file(pool='health.custom = { expect = "0g", hex = true }'), "health.custom", "is not hexadecimal"),
    (file(pool=f'health.custom.send = "{"ü" * 251}"'), "health.custom.send", "has 502 bytes; CLB takes 500 at most"),
    # Not TOML
    ("\ufeff" + file(), "\ufeffschema", "byte order mark"),
    ("a =\n", "a =", "not TOML"),
    ("schema = 1\n[[listener]\n", "[[listener]", "not TOML"),
    ("schema = 1\nschema = 1\n", "schema", "not TOML"),
    ("a = " + "1" * 5000, "", "not TOML"),
    ("a = " + "[" * 5000, "", "not TOML"),
]


@pytest.mark.parametrize(("text", "at", "words"), WRONG, ids=[row[2][:60] for row in WRONG])
def test_a_mistake_is_one_sentence_with_its_line(text: str, at: str, words: str) -> None:
    found = refused(text)
    said = [sentence for sentence in found if words in sentence]
    assert said, "\n".join(found)
    place = re.match(r"clb\.toml(?:, line ([0-9]+))?: \S", said[0])
    assert place, said[0]
    line = text.split("\n")[int(place[1]) - 1] if place[1] else ""
    assert line.strip().startswith(at) and bool(at) == bool(line), f"{said[0]!r} is about {line!r}"
    assert "\n" not in said[0]


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    found = refused(file(top="workers = -1", listener="max_con = 3", pool="scheduler = 3"))
    assert [re.findall(r"line ([0-9]+)", sentence)[0] for sentence in found] == ["2", "6", "13"]


FIFTY = range(1, 51)
TWO = """
[[listener]]
name = "{name}"
bind = ["{bind}"]
protocol = "{protocol}"
engine = "{engine}"
pool = "app"
"""


@pytest.mark.parametrize(
    ("first", "second", "overlap"),
    [
        ("0.0.0.0:81", "0.0.0.0:81", True),
        ("0.0.0.0:81", "10.0.0.1:81", True),
        ("10.0.0.1:81", "0.0.0.0:81", True),
        ("10.0.0.1:81", "10.0.0.2:81", False),
        ("0.0.0.0:81", "0.0.0.0:82", False),
        ("[::]:81", "0.0.0.0:81", True),
        ("10.0.0.1:81", "[::]:81", True),
        ("[::]:81", "[fd00::1]:81", True),
        ("[fd00::1]:81", "[fd00:0::1]:81", True),
        ("0.0.0.0:81", "[fd00::1]:81", False),
        ("unix:/tmp/a", "unix:/tmp/a", True),
        ("unix:/tmp/a", "unix:/tmp/b", False),
    ],
)
def test_listeners_must_not_overlap(first: str, second: str, overlap: bool) -> None:
    one, two = (
        TWO.format(name=name, bind=bind, protocol="tcp", engine="embedded")
        for name, bind in (("a", first), ("b", second))
    )
    text = file() + one + two
    if not overlap:
        configuration(text, "clb.toml")
        return
    assert f'bind "{second}" overlaps "{first}" of listener a' in refused(text)[0]


def test_udp_and_tcp_may_share_a_port() -> None:
    pool = '[[pool]]\nname = "dns"\n[[pool.target]]\naddr = "10.0.0.53:53"\n'
    udp = TWO.format(name="dns", bind="0.0.0.0:80", protocol="udp", engine="nftables").replace('"app"', '"dns"')
    configuration(file() + udp + pool, "clb.toml")
    both = refused(file() + udp.replace('"dns"\n', '"app"\n').replace('name = "app"', 'name = "dns"'))
    assert any("serves UDP and TCP listeners" in sentence for sentence in both)


def test_names_are_given_once() -> None:
    again = TWO.format(name="web", bind="0.0.0.0:81", protocol="tcp", engine="embedded")
    assert "two of the listeners are called web" in refused(file() + again)[0]
    assert "two of the pools are called app" in refused(file() + '[[pool]]\nname = "app"\n' + TARGET)[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (file(listener='client.close_wait = "5s"'), 'client.close_wait has no effect without close = "peer"'),
        (file(listener="upstream = { keepalive = false, pool_max = 3 }"), "upstream.pool_max has no effect"),
        (file(listener='real_ip.trusted = ["0.0.0.0/0"]'), "everybody can claim to be any client"),
        (file(pool='session.ttl = "50s"'), "session.ttl of pool app has no effect without session.type"),
        (file(pool='session.cookie = "a"'), "session.cookie of pool app has no effect"),
        (tcp(pool='session = { type = "source_ip", ttl = "2h" }'), "longer than the hour that CLB takes"),
        (file(pool="health = { enabled = false, rise = 2 }"), "has no effect with enabled = false"),
        (file(pool='health.http.path = "/ping"'), "pool.health.http has no effect on a check of type tcp"),
        (file(target=TARGET + "weight = 0"), "gets no traffic: the weight of every target is 0"),
        (file() + '[[pool]]\nname = "b"\n' + TARGET, "pool b is used by no listener"),
        (
            file(rules=RULE + "".join(f'[[listener.rule]]\npath = "/{n}"\npool = "app"\n' for n in range(50))),
            "51 rules of listener web are more than the 50 that CLB takes; here they run",
        ),
        (
            file(target="".join(f'[[pool.target]]\naddr = "10.0.0.1:{1 + n}"\n' for n in range(101))),
            "101 targets of pool app are more than the 100 that CLB takes; here they run",
        ),
        (
            file()
            + "".join(TWO.format(name=n, bind=f"1.1.1.1:{n}", protocol="tcp", engine="embedded") for n in FIFTY),
            "51 listeners are more than the 50 of a CLB instance; here they run",
        ),
    ],
)
def test_what_is_odd_is_a_warning(text: str, words: str) -> None:
    found = read(text, "clb.toml").warnings
    assert len(found) == 1 and words in found[0] and found[0].startswith("clb.toml, line ")


@pytest.mark.parametrize("text", [file(), tcp(), file(listener='upstream = { keepalive = false, close = "peer" }')])
def test_a_good_file_has_no_warnings(text: str) -> None:
    assert read(text, "clb.toml").warnings == ()


def test_paths_are_relative_to_the_file(tmp_path: pytest.TempPathFactory) -> None:
    text = file(top='access_log = "log.json"\nadmin.socket = "../x.sock"')
    made = configuration(text, f"{tmp_path}/clb.toml")
    assert made.access_log == f"{tmp_path}/log.json"
    assert made.admin.socket == f"{tmp_path}/../x.sock".replace(f"{str(tmp_path).rpartition('/')[2]}/../", "")
    assert configuration(file(top='access_log = "-"'), "clb.toml").access_log == "-"


_SCALARS = st.one_of(
    st.text(max_size=8),
    st.integers(-(10**12), 10**12),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["75s", "64k", "0.0.0.0:80", "app", "peer", "~(", "= /", "custom", "[::]:1", "\x00", "1" * 300]),
)
_KEYS = st.sampled_from(re.findall(r"\w+", """
    schema engine workers listener pool name bind protocol client upstream rule target addr weight session health
    http custom limits tls certificate key real_ip trusted source close idle admin socket drain x
"""))  # fmt: skip
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_KEYS, inner, max_size=5)),
    max_leaves=25,
)


def survives(text: str) -> Configuration | None:
    """A configuration or sentences, never anything else."""
    try:
        return configuration(text, "clb.toml")
    except ConfigError as error:
        assert error.sentences
        assert all(re.fullmatch(r"clb\.toml(, line [0-9]+)?: .{10,}", sentence) for sentence in error.sentences)
        return None


@settings(deadline=None)
@given(st.dictionaries(_KEYS, _VALUES, max_size=6))
def test_values_in_wrong_places_are_refused_with_words(table: dict[str, object]) -> None:
    survives("".join(f"{key} = {inline(value)}\n" for key, value in table.items()))


@settings(deadline=None)
@given(st.text())
def test_any_text_is_refused_with_words(text: str) -> None:
    survives(text)


@settings(deadline=None)
@given(st.data())
def test_a_file_with_a_piece_changed_is_read_or_refused_with_words(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([file(), tcp(), file(top='engine = "nftables"', pool='nat = "dnat"')]))
    at = data.draw(st.integers(0, len(text)))
    piece = data.draw(
        st.one_of(st.text(max_size=3), st.sampled_from(['"', "[", "]", "=", "\n", "#", "{}", "0", "nan"]))
    )
    survives(text[:at] + piece + text[at + data.draw(st.integers(0, 8)) :])
