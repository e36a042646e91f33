"""What engines do with fields: every field has its row, and what a row refuses is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from balancer.config.texts import document
from timewait.balancer.config.capability import refusals
from timewait.balancer.config.capability_row import Refused, Row
from timewait.balancer.config.capability_rows import ROWS
from timewait.balancer.config.model import Configuration, Engine, Protocol
from timewait.balancer.config.read import ConfigError, configuration, read


def leaves(kind: msgspec.inspect.Type, before: str = "") -> Iterator[str]:
    """Every field that holds a value, `listener.client.close`."""
    if isinstance(kind, msgspec.inspect.VarTupleType) and isinstance(kind.item_type, msgspec.inspect.StructType):
        kind = kind.item_type
    if not isinstance(kind, msgspec.inspect.StructType):
        yield before
        return
    for field in kind.fields:
        yield from leaves(field.type, f"{before}.{field.name}".lstrip("."))


def test_every_field_has_its_row() -> None:
    assert {row.field for row in ROWS} == set(leaves(msgspec.inspect.type_info(Configuration)))


def plain(engine: Engine, protocol: Protocol) -> dict[str, Any]:
    """A file with nothing in it that need not be."""
    listener: dict[str, Any] = {"name": "web", "bind": ["0.0.0.0:80"], "protocol": str(protocol)}
    web = protocol in (Protocol.HTTP, Protocol.HTTPS)
    listener |= {"rule": [{"pool": "app"}]} if web else {"pool": "app"}
    pool = {"name": "app", "target": [{"addr": "10.0.0.1:8080"}]}
    return {"engine": str(engine), "listener": [listener], "pool": [pool]}


SPEAKS = {
    Engine.EMBEDDED: (Protocol.HTTP, Protocol.TCP),
    Engine.HAPROXY: (Protocol.HTTP, Protocol.TCP),
    Engine.NFTABLES: (Protocol.TCP, Protocol.UDP),
}


@pytest.mark.parametrize("engine", Engine)
def test_no_default_is_refused(engine: Engine) -> None:
    for protocol in SPEAKS[engine]:
        assert read(document(plain(engine, protocol)), "clb.toml").warnings == ()


# A value that is not the default, and passes every other check
OTHERWISE: dict[str, Any] = {
    "workers": 2, "user": "root", "access_log": "-", "listener.backlog": 9, "listener.client.keepalive": "9s",
    "listener.client.max_requests": 9, "listener.client.header_timeout": "9s", "listener.client.body_timeout": "9s",
    "listener.client.send_timeout": "9s", "listener.client.close_wait": "2s", "listener.upstream.keepalive": False,
    "listener.upstream.reuse": "never", "listener.upstream.idle": "9s", "listener.upstream.pool_max": 9,
    "listener.upstream.connect_timeout": "9s", "listener.upstream.read_timeout": "9s",
    "listener.upstream.send_timeout": "9s", "listener.upstream.retries": 0,
    "listener.real_ip.trusted": ["10.0.0.0/8"],
    "listener.real_ip.accept_proxy": True, "listener.limits.request_line": "9k", "listener.limits.header_size": "9k",
    "listener.limits.header_count": 99, "listener.limits.body_size": "9k", "pool.session.cookie": "id",
}  # fmt: skip

# Cases: what else must stand in the file for the row to be met
CASES: dict[str, dict[str, Any]] = {
    "a bind at a unix socket": {"listener.bind": ["unix:/run/x"]},
    "another client.send_timeout than client.body_timeout": {"listener.client.send_timeout": "9s"},
    "another upstream.send_timeout than upstream.read_timeout": {"listener.upstream.send_timeout": "9s"},
    'upstream.source with nat = "dnat"': {"listener.upstream.source": ["10.0.0.9"], "pool.nat": "dnat"},
    'real_ip.mode = "transparent" with a pool of nat = "full"': {"listener.real_ip.mode": "transparent"},
    "a target of another IP version than its binds": {"pool.target": [{"addr": "[fd00::1]:80"}]},
}


def put(table: dict[str, Any], field: str, value: Any) -> None:
    """Writes `listener.client.close` into a file."""
    *words, last = field.split(".")
    for word in words:
        inner = table.setdefault(word, {})
        table = inner[0] if isinstance(inner, list) else inner
    table[last] = value


REFUSED = [
    (row, engine)
    for row in ROWS
    for engine in Engine
    if isinstance(row.does(engine), Refused)
    and set(row.protocols) & set(SPEAKS[engine])
    and row.field not in ("listener.protocol", "listener.rule.pool")
    and not row.label.startswith("another limits.")
]


@pytest.mark.parametrize(
    ("row", "engine"), REFUSED, ids=[f"{row.label or row.field}-{row.value}-{engine}" for row, engine in REFUSED]
)
def test_what_a_row_refuses_is_refused_with_its_reason(row: Row, engine: Engine) -> None:
    protocol = next(one for one in SPEAKS[engine] if one in row.protocols)
    table = plain(engine, protocol)
    wanted = CASES[row.label] if row.label else {row.field: OTHERWISE[row.field] if row.value is None else row.value}
    for field, value in wanted.items():
        put(table, field, str(value) if isinstance(value, str) else value)
    with pytest.raises(ConfigError) as caught:
        configuration(document(table), "clb.toml")
    said = [sentence for sentence in caught.value.sentences if str(row.does(engine)) in sentence]
    assert said and f" on {engine} and has " in said[0]
    assert said[0].startswith("clb.toml, line ")


@pytest.mark.parametrize("protocol", [Protocol.HTTP, Protocol.HTTPS, Protocol.TCP_SSL])
def test_a_protocol_that_is_refused_is_all_that_is_said_of_its_listener(protocol: Protocol) -> None:
    table = plain(Engine.NFTABLES, protocol)
    put(table, "listener.client.keepalive", "9s")
    put(table, "listener.tls", {"certificate": []})
    with pytest.raises(ConfigError) as caught:
        configuration(document(table), "clb.toml")
    about = [sentence for sentence in caught.value.sentences if "nftables" in sentence]
    assert len(about) == 1
    assert f'has protocol = "{protocol}"' in about[0] and 'engine = "embedded" or "haproxy"' in about[0]


@pytest.mark.parametrize(("field", "value"), [("client.keepalive", "9s"), ("limits.body_size", "9k")])
def test_what_means_nothing_in_a_protocol_is_refused(field: str, value: str) -> None:
    table = plain(Engine.EMBEDDED, Protocol.TCP)
    put(table, f"listener.{field}", value)
    with pytest.raises(ConfigError, match=r"speaks tcp and has .* which means something with http and https only"):
        configuration(document(table), "clb.toml")


def test_one_limit_is_for_the_whole_of_haproxy() -> None:
    table = plain(Engine.HAPROXY, Protocol.HTTP)
    other = {**table["listener"][0], "name": "b", "bind": ["0.0.0.0:81"], "limits": {"header_size": "16k"}}
    table["listener"].append(other)
    with pytest.raises(ConfigError, match=r"another limits\.header_size than a listener above"):
        configuration(document(table), "clb.toml")
    other["engine"] = "embedded"
    configuration(document(table), "clb.toml")


def test_a_field_of_the_file_counts_where_one_engine_honours_it() -> None:
    table = plain(Engine.EMBEDDED, Protocol.HTTP)
    other = {"name": "b", "bind": ["0.0.0.0:81"], "protocol": "tcp", "engine": "nftables", "pool": "app"}
    table["listener"].append(other)
    table["access_log"] = "-"
    reading = read(document(table), "clb.toml")
    assert [warning.partition(": ")[2] for warning in reading.warnings] == [
        "access_log has no effect on nftables: the kernel forwards packets and sees no requests"
    ]
    assert refusals(reading.configuration) == []


def test_another_engine_may_be_asked_about() -> None:
    table = plain(Engine.EMBEDDED, Protocol.HTTP)
    put(table, "listener.client.close", "peer")
    text = document(table)
    assert read(text, "clb.toml").configuration.engine is Engine.EMBEDDED
    with pytest.raises(ConfigError, match="HAProxy closes at once and waits for nobody"):
        read(text, "clb.toml", engine="haproxy")
    with pytest.raises(ConfigError, match="did you mean haproxy"):
        read(text, "clb.toml", engine="haprox")
