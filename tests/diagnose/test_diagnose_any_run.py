"""Whatever a record says, however damaged: an answer from the closed lists, never an exception."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diagnose.synthetic import SYSCTLS, TARGET
from timewait.diagnose import IDS, Exit, diagnose, exit_code, forecast, missed
from timewait.histogram import Sparse
from timewait.plan import METRICS, Closing, Plan, PortPolicy, Ports, Rate, RateUnit, Threshold, parse_url
from timewait.run import Cause, Host, Phase, PortUse, Run, Snapshot, Tick, error_key

count = st.one_of(st.integers(0, 100_000), st.integers(-3, 2**62))
number = st.floats(0, 1e9) | st.floats(allow_nan=True, allow_infinity=True)
sparse = st.one_of(
    st.builds(Sparse),
    st.dictionaries(st.integers(0, 20_000), st.integers(0, 10**6), max_size=5).map(
        lambda table: Sparse(sorted(table), [table[index] for index in sorted(table)], 10**10)
    ),
    st.builds(
        Sparse, st.lists(st.integers(-5, 2**62), max_size=3), st.lists(st.integers(-5, 2**62), max_size=3), count
    ),
)
keys = st.one_of(
    st.builds(
        error_key, st.sampled_from(Phase), st.sampled_from(["", "EADDRNOTAVAIL", "ENOBUFS"]), st.sampled_from(Cause)
    ),
    st.text(max_size=12),
)
NAMED: dict[str, Any] = {
    "at": number, "seconds": number, "cpu": number, "lag_max": number, "waited": number, "sampled_rtt": number,
    "errors": st.dictionaries(keys, count, max_size=5),
    "details": st.dictionaries(st.text(max_size=5), count, max_size=3),
    "status": st.dictionaries(st.integers(0, 999), count, max_size=3),
    **dict.fromkeys(("connect", "tls", "first_byte", "total", "late", "search"), sparse),
}  # fmt: skip


def _tick(fields: dict[str, Any]) -> Tick:
    return Tick(**fields)


ticks = st.fixed_dictionaries(
    {}, optional={name: NAMED.get(name, count) for name in Tick.__struct_fields__}
).map(_tick)  # fmt: skip
uses = st.builds(PortUse, destination=st.sampled_from([TARGET, "[::1]:80", "", "x"]), capacity=count, in_use=count,
                 time_wait=count, free=count, peer_time_wait=st.none() | count)  # fmt: skip
COUNTER_NAMES = [
    "TcpExt.ListenOverflows", "TcpExt.ListenDrops", "TcpExt.PAWSEstab", "TcpExt.PAWSTimewait", "TcpExt.PAWSPassive",
    "TcpExt.TCPTimeWaitOverflow", "TcpExt.TCPSynRetrans", "conntrack.drop", "conntrack.early_drop",
]  # fmt: skip
snapshots = st.builds(
    Snapshot, ports=st.lists(uses, max_size=2), counters=st.dictionaries(st.sampled_from(COUNTER_NAMES), count),
    accept_queue=st.none() | count, accept_queue_max=st.none() | count, open_files=st.none() | count,
    conntrack=st.none() | count, conntrack_max=st.none() | count,
)  # fmt: skip
values = st.sampled_from(["0", "1", "2", "60", "15", "5000", "131072", "", "-1", "x", "²", "9" * 30])
hosts = st.builds(
    Host, kernel=st.sampled_from(["6.18.44", "5.10.0-28-amd64", "2.6.32", "", "weird"]), cores=count,
    nofile_soft=count, nofile_hard=count, port_low=st.integers(0, 65535), port_high=st.integers(0, 65535),
    reserved_ports=count, loopback=st.booleans(), local_target=st.booleans(),
    addresses=st.dictionaries(st.text(max_size=3), st.lists(st.text(max_size=3), max_size=3), max_size=2),
    sysctls=st.dictionaries(st.sampled_from([*SYSCTLS, "net.ipv4.tcp_tw_recycle"]), values),
)  # fmt: skip
thresholds = st.builds(Threshold, st.text(max_size=4), st.sampled_from([*METRICS, "odd"]), st.booleans(), number)
plans = st.builds(
    Plan, requests_list=st.sampled_from(
        [(parse_url("http://a/"),), (parse_url("https://[::1]/"), parse_url("http://b/")), (parse_url("tcp://c:9"),)]
    ),
    connections=st.none() | st.integers(1, 10**6),
    rate=st.none() | st.builds(Rate, st.floats(0.001, 1e7), st.sampled_from(RateUnit)),
    requests=st.none() | st.integers(1, 10**9), duration=st.none() | st.floats(0.001, 1e6),
    requests_per_connection=st.none() | st.integers(1, 1000), closing=st.sampled_from(Closing),
    sources=st.lists(st.just("10.0.0.2"), max_size=3).map(tuple),
    thresholds=st.lists(thresholds, max_size=2).map(tuple),
    ports=st.builds(Ports, st.sampled_from(PortPolicy), st.integers(0, 65535), st.integers(0, 65535)),
    workers=st.integers(0, 8),
)  # fmt: skip
runs = st.builds(
    Run, plan=plans, host=hosts, before=snapshots, after=snapshots, total=ticks, ticks=st.lists(ticks, max_size=3),
    snapshots=st.lists(snapshots, max_size=3), peak_open=count, peak_open_files=count,
    interrupted=st.sampled_from(["", "SIGINT"]),
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(runs)
def test_any_record_is_diagnosed(run: Run) -> None:
    copy: Any = msgspec.to_builtins(run)
    findings = diagnose(run)
    found = [finding.id for finding in findings]
    assert set(found) <= set(IDS)
    assert len(set(found)) == len(found)
    assert exit_code(run, findings) in set(Exit)
    assert len(missed(run)) <= len(run.plan.thresholds)
    for finding in findings:
        msgspec.json.encode(finding)
        assert "nan" not in finding.summary.split()
    assert repr(msgspec.to_builtins(run)) == repr(copy)  # a diagnosis never touches the run


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(plans, hosts, snapshots)
def test_any_plan_has_a_forecast_or_none(plan: Plan, host: Host, before: Snapshot) -> None:
    sentence = forecast(plan, host, before)
    assert sentence is None or sentence.endswith(".")
