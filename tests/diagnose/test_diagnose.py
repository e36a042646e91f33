"""Every cause yields its one finding and no other; a healthy run yields none."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from msgspec.structs import replace

from diagnose.synthetic import (
    CLIENT,
    FILLING,
    HEALTHY,
    NO_PORT,
    PER_SECOND,
    RESET,
    SERVER,
    SICK,
    SLOW_SEARCH,
    VOID,
    healthy,
    short_lived,
    times,
    use,
)  # fmt: skip
from timewait.diagnose import IDS, Finding, catalogue, diagnose, exit_code
from timewait.plan import PortPolicy, Ports, Rate
from timewait.run import Cause, Phase, Run

CONTRACT = {
    "ports-exhausted", "ports-held-open", "port-search-slow", "tw-reuse-void", "tw-reuse-loopback-only",
    "syn-retransmitted", "paws-rejected", "accept-queue-overflow", "refused", "reset", "timeout", "bad-response",
    "close-ignored", "tls-failed", "open-files", "conntrack-full", "time-wait-overflow", "client-limited", "residue",
    "harmful-sysctl",
}  # fmt: skip


def ids(run: Run) -> list[str]:
    return [finding.id for finding in diagnose(run)]


def only(run: Run) -> Finding:
    (finding,) = diagnose(run)
    return finding


def flags(finding: Finding) -> list[str]:
    return [remedy.action for remedy in finding.remedy]


def test_the_list_is_the_contract() -> None:
    assert set(IDS) == CONTRACT
    assert len(set(IDS)) == len(IDS)
    assert [row[0] for row in catalogue()] == list(IDS)
    assert {blame for _, _, blame in catalogue()} == {"machine", "target", "network", "setting"}


def test_every_finding_has_a_run_that_shows_it() -> None:
    assert {*SICK, "tw-reuse-void"} == set(IDS)


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_has_no_finding(name: str) -> None:
    run = HEALTHY[name]()
    assert diagnose(run) == []
    assert exit_code(run, []) == 0


CASES = [(id_, make) for id_, makers in SICK.items() for make in makers]


@pytest.mark.parametrize(("id_", "make"), CASES, ids=[f"{id_}-{at}" for at, (id_, _) in enumerate(CASES)])
def test_a_cause_yields_its_finding_and_no_other(id_: str, make: Callable[[], Run]) -> None:
    run = make()
    finding = only(run)
    assert finding.id == id_
    assert finding.blame == {name: blame for name, _, blame in catalogue()}[id_]
    assert finding.confidence in ("certain", "likely", "possible")
    assert finding.summary.endswith(".")
    assert finding.evidence
    assert all(row.text and row.source for row in finding.evidence)
    assert finding.remedy
    assert all(row.action and row.effect and row.cost for row in finding.remedy)
    assert finding.wrong
    assert diagnose(run) == [finding]  # and looking changes nothing
    assert diagnose(msgspec.json.decode(msgspec.json.encode(run), type=Run)) == [finding]


@pytest.mark.parametrize("make", VOID)
def test_tw_reuse_without_timestamps_is_told_beside_the_wall(make: Callable[[], Run]) -> None:
    exhausted, void = diagnose(make())
    assert (exhausted.id, void.id) == ("ports-exhausted", "tw-reuse-void")
    assert void.confidence == "certain"
    assert not [flag for flag in flags(exhausted) if "tcp_tw_reuse" in flag or flag.startswith("--ports")]


def test_tw_reuse_that_would_carry_the_load_is_told_beside_the_wall() -> None:
    run = short_lived(plan={**CLIENT, "rate": PER_SECOND}, failures=NO_PORT, ends=FILLING)
    assert ids(run) == ["ports-exhausted", "tw-reuse-loopback-only"]
    # at more than one connection per port and second the setting makes no difference
    faster = replace(run, plan=replace(run.plan, rate=Rate(30_000.0)))
    assert ids(faster) == ["ports-exhausted"]


def test_two_causes_yield_two_findings() -> None:
    rows = [(Phase.CONNECT, "ECONNREFUSED", Cause.REFUSED, 5), (Phase.FIRST_BYTE, "", Cause.TIMEOUT, 5)]
    assert ids(short_lived(failures=rows)) == ["refused", "timeout"]
    connect = (Phase.CONNECT, "", Cause.TIMEOUT, 5)
    assert ids(short_lived(failures=[connect, rows[1]])) == ["syn-retransmitted", "timeout"]


def test_a_single_reset_does_not_hide_a_machine_at_its_limit() -> None:
    run = short_lived(
        plan={**SERVER, "rate": Rate(20_000.0)}, cpu=9.8, late=times((1.5, 28_000)), unsent=170_000,
        failures=[(Phase.BODY, "ECONNRESET", Cause.RESET, 1)],
    )  # fmt: skip
    assert ids(run) == ["reset", "client-limited"]


def test_exhaustion_speaks_in_this_runs_numbers() -> None:
    run = short_lived(
        plan={**CLIENT, "rate": PER_SECOND}, failures=NO_PORT, ends=FILLING, closed_us=28_000, searches=SLOW_SEARCH
    )
    finding = diagnose(run)[0]
    assert "5,005 connections" in finding.summary
    assert "28,232 ports" in finding.summary
    text = " ".join(row.text for row in finding.evidence)
    assert "EADDRNOTAVAIL 5,000, EADDRINUSE 5" in text
    assert "470/s" in text  # 28,232 / 60, rounded down
    assert "1,000/s" in text
    assert "this client 28,000" in text
    assert "median 2 ms" in text  # the slow search is evidence here, no finding of its own
    effects = {remedy.action: remedy.effect for remedy in finding.remedy}
    assert "28,232/s instead of 470/s" in effects["sysctl -w net.ipv4.tcp_tw_reuse=1"]
    assert "84,696 ports instead of 28,232: 1,411/s" in effects["--source with 3 addresses"]
    assert "1,000/s of requests on 333/s of new connections" in effects["--requests-per-connection 3"]
    assert "64,512 ports" in effects["sysctl -w net.ipv4.ip_local_port_range='1024 65535'"]
    assert {"--close server", "--close reset", "--ports oldest", "--rate 470cps"} <= set(effects)


def test_remedies_leave_out_what_is_done_already() -> None:
    exhausted = {"failures": NO_PORT, "ends": FILLING}
    assert "--close server" not in flags(only(short_lived(plan=SERVER, **exhausted)))
    assert "--close reset" not in flags(only(short_lived(plan=RESET, **exhausted)))
    tcp = {**CLIENT, "url": "tcp://10.0.0.1:80"}
    assert "--close server" not in flags(only(short_lived(plan=tcp, **exhausted)))
    on = {"sysctls": {"net.ipv4.tcp_tw_reuse": "1"}}
    assert not [flag for flag in flags(only(short_lived(plan=CLIENT, host=on, **exhausted))) if "tw_reuse" in flag]
    wide = {"port_low": 1024, "port_high": 65535}
    full = [use(64_000, 500, 64_512)]
    run = short_lived(plan=CLIENT, host=wide, failures=NO_PORT, ends=full)
    assert not [flag for flag in flags(only(run)) if "ip_local_port_range" in flag]


def test_tw_reuse_is_promised_only_as_far_as_it_goes() -> None:
    fast = {**CLIENT, "rate": Rate(1000.0)}
    run = short_lived(plan=fast, failures=NO_PORT, ends=[use(195, 5, 200)], sampled=0, sampled_timestamps=0)
    effect = {row.action: row.effect for row in only(run).remedy}["sysctl -w net.ipv4.tcp_tw_reuse=1"]
    assert "200/s instead of 3.3/s" in effect
    assert "asks for 1,000/s, so the wall remains" in effect
    assert "only if the target negotiates timestamps" in effect


def test_more_sources_for_open_connections() -> None:
    finding = only(healthy(plan={"connections": 60_000}, failures=NO_PORT, ends=[use(0, 28_232)], peak_open=28_232))
    assert "--source with 3 addresses" in flags(finding)
    assert "-c 28232" in flags(finding)


def test_open_connections_are_not_mistaken_for_the_time_wait_they_end_in() -> None:
    run = healthy(plan={"connections": 250}, failures=NO_PORT, ends=[use(200, 0, 200)], peak_open=200, closed_us=200)
    assert "open connections held 200 of 200 ports, 250 were asked for" in only(run).summary
    # by the seconds in which ports were short, not by the last one
    run = short_lived(
        failures=NO_PORT, ends=[use(10, 190, 200), use(200, 0, 200)], plan={**CLIENT, "connections": 300}
    )
    run.ticks[0].errors = {"connect EADDRNOTAVAIL no-port": 300}
    assert only(run).id == "ports-held-open"


def test_a_range_for_the_kernel_is_widened_only_as_far_as_the_sysctl() -> None:
    ports = Ports(PortPolicy.KERNEL, 40_000, 40_199)
    run = short_lived(plan={**CLIENT, "ports": ports}, failures=NO_PORT, ends=[use(195, 5, 200)])
    effects = {remedy.action: remedy.effect for remedy in only(run).remedy}
    assert effects["--ports kernel, without a range"].startswith("28,232 ports instead of 200")
    assert "--ports oldest:40000-40199" in effects


def test_a_lack_of_ports_nobody_holds_is_not_put_down_to_them() -> None:
    finding = only(SICK["ports-held-open"][2]())
    assert finding.confidence == "possible"
    assert "looked free" in finding.summary
    assert any(flag.startswith("ip route get 10.0.0.1") for flag in flags(finding))


def test_reused_tuples_are_told_from_fresh_ones() -> None:
    slow = {"syn_slow": 100, "connect": times((0.0002, 27_900), (1.01, 100))}
    reused = short_lived(**slow, syn_slow_known=100, syn_slow_reused=98, reused_known=900, fresh_known=20_000)
    finding = only(reused)
    assert finding.confidence == "likely"
    assert "reused five-tuples" in finding.summary
    assert any("10% of 998 five-tuples" in row.text for row in finding.evidence)
    assert "--ports oldest" in flags(finding)
    alike = short_lived(**slow, syn_slow_known=100, syn_slow_reused=5, reused_known=900, fresh_known=20_000)
    assert "reused five-tuples" not in only(alike).summary


@pytest.mark.parametrize(
    ("kernel", "linear", "clusters", "expected"),
    [
        ("5.10.0", "", [(1.01, 600), (3.02, 200), (7.01, 100)], "100% of slow connects sit on the SYN schedule (d"),
        ("6.18.0", "4", [(1.01, 500), (2.02, 300), (5.03, 100)], "(linear, Linux 6.5+): 500 at 1 s, 300 at 2 s"),
        ("6.18.0", "4", [(1.7, 500), (2.7, 400)], "0% of slow connects"),
    ],
)  # fmt: skip
def test_the_fingerprint_of_lost_syns(
    kernel: str, linear: str, clusters: list[tuple[float, int]], expected: str
) -> None:
    run = short_lived(
        syn_slow=900, connect=times((0.0002, 1000), *clusters),
        host={"kernel": kernel, "sysctls": {"net.ipv4.tcp_syn_linear_timeouts": linear}},
    )  # fmt: skip
    assert expected in " ".join(row.text for row in only(run).evidence)


def test_a_silent_target_is_called_silent() -> None:
    finding = only(SICK["syn-retransmitted"][0]())
    assert "silent" in finding.summary
    assert finding.confidence == "certain"


def test_overflow_elsewhere_is_not_ours_to_claim() -> None:
    """Local counters say nothing about a listener on another host."""
    run = short_lived(rose={"TcpExt.ListenOverflows": 80}, failures=[(Phase.CONNECT, "", Cause.TIMEOUT, 40)])
    assert ids(run) == ["syn-retransmitted"]


def test_residue_that_comes_back_by_itself_is_no_finding_until_ports_run_out() -> None:
    on = {"sysctls": {"net.ipv4.tcp_tw_reuse": "1"}}
    assert ids(healthy(before=use(12_431, 0), host=on)) == []
    run = short_lived(before=use(12_431, 0), host=on, plan=CLIENT, failures=NO_PORT, ends=FILLING)
    assert ids(run) == ["ports-exhausted", "residue"]


def test_several_settings_make_one_finding() -> None:
    many = {"net.ipv4.tcp_rfc1337": "1", "net.ipv4.tcp_fin_timeout": "15", "net.ipv4.tcp_tw_recycle": "1"}
    finding = only(healthy(host={"sysctls": many}))
    assert len(finding.evidence) == len(finding.remedy) == 3


@pytest.mark.parametrize(
    ("sysctls", "lowered"),
    [
        ({"tcp_max_tw_buckets": "131072"}, False),
        ({"tcp_max_tw_buckets": "8192", "tcp_max_orphans": "8192", "tcp_max_syn_backlog": "128"}, False),  # 2 GB
        (
            {"tcp_max_tw_buckets": "8192", "tcp_max_orphans": "", "tcp_max_syn_backlog": "2048"},
            True,
        ),
        ({"tcp_max_tw_buckets": "16384", "tcp_max_orphans": "", "tcp_max_syn_backlog": "65535"}, False),  # unknown
        ({"tcp_max_tw_buckets": "5000", "tcp_max_orphans": "", "tcp_max_syn_backlog": "65535"}, True),
        ({"tcp_max_tw_buckets": "2000000"}, False),
    ],
)
def test_lowered_buckets_are_told_from_a_small_machine(sysctls: dict[str, str], lowered: bool) -> None:
    run = healthy(host={"sysctls": {f"net.ipv4.{name}": value for name, value in sysctls.items()}})
    assert (ids(run) == ["harmful-sysctl"]) is lowered


def test_a_bounded_open_loop_is_told_how_many_connections_it_would_take() -> None:
    run = healthy(plan={"rate": Rate(50_000.0)}, cpu=3.0, waited=5.0, unsent=400_000)  # 100,000 sent on 50
    finding = only(run)
    assert "all 50 connections" in finding.summary
    assert "400,000 arrivals (80%) were never sent" in finding.summary
    assert finding.confidence == "possible"
    assert flags(finding)[0] == "-c 250"
    rows = [(Phase.FIRST_BYTE, "", Cause.TIMEOUT, 5000)]
    assert ids(healthy(plan={"rate": Rate(50_000.0)}, cpu=3.0, waited=5.0, unsent=400_000, failures=rows)) == [
        "timeout"
    ]


def test_long_turns_must_last() -> None:
    run = healthy(lag_max=0.4)
    assert ids(run) == ["client-limited"]
    for tick in run.ticks[1:]:
        tick.lag_max = 0.01
    assert ids(run) == []


def test_a_number_that_is_none_is_not_spelled_out() -> None:
    run = healthy(lag_max=0.5)
    run.total.lag_max = float("nan")
    assert "nan" not in only(run).summary
