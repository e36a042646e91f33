"""What this machine lacked: descriptors, conntrack entries, TIME_WAIT buckets, time."""

from __future__ import annotations

from timewait.diagnose.facts import Facts, median, named, quantile, sysctl, total_of, unsent_share
from timewait.diagnose.finding import CERTAIN, LIKELY, POSSIBLE, Draft, Evidence, Remedy
from timewait.diagnose.words import asked, count, plural, rate, seconds, share
from timewait.run import Cause, Failure, Tick

SPARE_FILES = 64  # beside connections: standard streams, epoll, libraries
FULL_CORE = 0.95
LATE = 0.05  # seconds: p99 of the schedule's error past which an open loop is not the load that was asked for
FEWEST = 3  # ticks that make a state of long turns
LONG_TURN = 0.1  # seconds: a loop turn that shows in every latency
UNSENT = 0.01
NEVER_HELD = 0.9
NO_MEMORY = ("ENOBUFS", "ENOMEM")


def open_files(facts: Facts) -> Draft | None:
    """socket() found no free descriptor."""
    rows = facts.failed(Cause.NO_FILE)
    if not rows:
        return None
    host, number = facts.host, total_of(rows)
    wanted = -(-facts.plan.concurrency // facts.workers) + SPARE_FILES
    most = max(facts.run.peak_open_files, facts.run.after.open_files or 0)
    system = all(row.errno == "ENFILE" for row in rows)
    evidence = [
        Evidence(named(rows), "errno of socket()"),
        Evidence(f"soft limit {count(host.nofile_soft)}, hard limit {count(host.nofile_hard)}", "RLIMIT_NOFILE"),
    ]
    if most:
        evidence.append(Evidence(f"up to {count(most)} open in one process", "/proc/PID/fd"))
    limit = max(wanted, host.nofile_soft + 1)
    limits = "system's limit of" if system else f"limit of {count(host.nofile_soft)}"
    remedy = [
        Remedy(
            f"ulimit -Hn {limit} (as root), or in a service: LimitNOFILE={limit}",
            f"{count(facts.plan.concurrency)} connections on {plural(facts.workers, 'process')} need "
            f"{count(wanted)} descriptors each",
            "a little kernel memory for each connection",
        )
    ]
    if system:
        remedy.insert(
            0, Remedy("sysctl -w fs.file-max=1000000", "raises the limit of the whole system", "kernel memory")
        )
    fits = (host.nofile_soft - SPARE_FILES) * facts.workers
    if 0 < fits < facts.plan.concurrency:
        remedy.append(Remedy(f"-c {fits}", "as many connections as the present limit carries", "a smaller load"))
    return Draft(
        summary=(
            f"{plural(number, 'connection')} could not be opened: the {limits} open files "
            f"was reached, {plural(facts.plan.concurrency, 'connection')} were asked for."
        ),
        evidence=evidence,
        remedy=remedy,
        wrong=["ulimit -n above the hard limit, as an ordinary user: it is refused; the soft one is raised already"],
    )


def conntrack_full(facts: Facts) -> Draft | None:
    """The connection tracking table of this host was full, so packets were dropped."""
    dropped = sum(by for name, by in facts.moved.items() if name in ("conntrack.drop", "conntrack.early_drop"))
    peak = max(
        (
            (snapshot.conntrack, snapshot.conntrack_max)
            for snapshot in (*facts.run.snapshots, facts.run.after)
            if snapshot.conntrack is not None and snapshot.conntrack_max
        ),
        default=None,
    )
    full = peak is not None and peak[0] >= 0.99 * peak[1]
    if not dropped and not (full and (facts.total.failed or facts.total.syn_slow)):
        return None
    evidence = []
    if dropped:
        evidence.append(Evidence(f"entries refused or evicted: {count(dropped)}", "drop, early_drop of conntrack -S"))
    size = 0
    if peak:
        size = peak[1]
        evidence.append(
            Evidence(f"{count(peak[0])} of {count(size)} entries", "nf_conntrack_count, nf_conntrack_max")
        )
    larger, of = max(262_144, 4 * size), f" ({plural(size, 'entry')})" if size else ""
    short = sysctl(facts.host, "net.netfilter.nf_conntrack_tcp_timeout_time_wait")
    rest = f"{short} s" if short is not None else "120 s"
    return Draft(
        summary=(
            f"The connection tracking table of this host{of} was full: packets of new connections were dropped "
            "without a word."
        ),
        evidence=evidence,
        remedy=[
            Remedy(
                f"sysctl -w net.netfilter.nf_conntrack_max={larger}",
                f"room for {count(larger)} connections; each stays {rest} after its end, so "
                f"{rate(larger / (short or 120))} new connections for ever",
                f"about {count(larger * 320 / 1e6)} MB of kernel memory when full",
            ),
            Remedy(
                "nft add rule raw output tcp dport PORT notrack, and the same for sport in prerouting",
                "connections to the target are not tracked at all",
                "no stateful filtering and no NAT for them",
            ),
        ],
        wrong=["port or TIME_WAIT sysctls: conntrack keeps its own entry for each connection, with its own timeouts"],
        confidence=CERTAIN if dropped else LIKELY,
    )


def time_wait_overflow(facts: Facts) -> Draft | None:
    """More TIME_WAIT sockets than tcp_max_tw_buckets: the kernel skipped TIME_WAIT."""
    number = facts.moved.get("TcpExt.TCPTimeWaitOverflow", 0)
    if not number:
        return None
    limit = sysctl(facts.host, "net.ipv4.tcp_max_tw_buckets")
    wanted = max(262_144, 2 * (limit or 0))
    at = f" of {count(limit)}" if limit is not None else ""
    return Draft(
        summary=(
            f"{plural(number, 'connection')} skipped TIME_WAIT because the host's limit{at} was reached: ports came "
            "back early, so this run saw fewer failures than it should, and late segments can reach new connections."
        ),
        evidence=[
            Evidence(
                f"TCPTimeWaitOverflow rose by {count(number)}", "TcpExt.TCPTimeWaitOverflow in /proc/net/netstat"
            ),
            *([Evidence(f"{count(limit)}", "net.ipv4.tcp_max_tw_buckets")] if limit is not None else []),
        ],
        remedy=[
            Remedy(
                f"sysctl -w net.ipv4.tcp_max_tw_buckets={wanted}",
                f"TIME_WAIT is kept up to {count(wanted)} sockets",
                f"up to {count(wanted * 256 / 1e6)} MB of kernel memory",
            )
        ],
        wrong=["lowering tcp_max_tw_buckets against port exhaustion: that is how this comes about"],
    )


def client_limited(facts: Facts) -> Draft | None:
    """This machine was the limit: the figures are its own, not the target's."""
    draft = _no_memory(facts) or _late(facts) or _long_turns(facts) or _bounded(facts) or _never_held(facts)
    if draft is None:
        return None
    evidence = [
        *draft.evidence,
        Evidence(f"workers used {share(facts.cpu_share, 1)} of their CPU time", "getrusage() of each worker"),
        Evidence(f"longest turn of a loop {seconds(facts.total.lag_max)}", "timed by the workers"),
    ]
    return Draft(
        summary=draft.summary,
        evidence=evidence,
        remedy=[*draft.remedy, *_more_machine(facts)],
        wrong=["reading these latencies as the target's: they contain this machine's own queue", *draft.wrong],
        confidence=draft.confidence,
    )


def _no_memory(facts: Facts) -> Draft | None:
    rows: list[Failure] = [row for row in facts.failures if row.errno in NO_MEMORY and row.count > 0]
    if not rows:
        return None
    return Draft(
        summary=f"This machine's kernel had no memory left for {plural(total_of(rows), 'socket')}.",
        evidence=[Evidence(named(rows), "errno")],
        remedy=[Remedy("cat /proc/net/sockstat; sysctl net.ipv4.tcp_mem", "shows what TCP uses and may use", "none")],
    )


def _late(facts: Facts) -> Draft | None:
    """The open loop could not keep its schedule, and it was not for want of free connections."""
    total, plan = facts.total, facts.plan
    if plan.rate is None:
        return None
    late, due = quantile(total.late, 0.99), total.requests + total.unsent
    idle = facts.idle_share
    busy = facts.cpu_share >= FULL_CORE or _turns_are_long(facts) or (idle is not None and idle < 1 - FULL_CORE)
    if not busy or not (unsent_share(total) > UNSENT or late >= LATE):
        return None
    return Draft(
        summary=(
            f"This machine could not keep the schedule of {asked(plan.rate.per_second)}: arrivals started "
            f"{seconds(late)} late (p99) and {count(total.unsent)} were never sent."
        ),
        evidence=[
            Evidence(f"lateness p99 {seconds(late)}, at most {seconds(quantile(total.late, 1.0))}", "due times"),
            Evidence(f"{count(total.unsent)} of {count(due)} never sent", "due times"),
        ],
        confidence=CERTAIN if facts.cpu_share >= FULL_CORE else LIKELY,
    )


def _bounded(facts: Facts) -> Draft | None:
    """All connections that the open loop may hold were busy. Whether more would help is the target's secret."""
    total, plan = facts.total, facts.plan
    most = plan.concurrency
    if plan.rate is None or unsent_share(total) <= UNSENT or facts.run.peak_open < most:
        return None
    if not total.succeeded or total.failed > UNSENT * total.started or total.syn_slow > UNSENT * total.started:
        return None  # those that failed or waited kept the connections busy
    done = total.requests / total.seconds if total.seconds > 0 else 0.0
    remedy = []
    if done > 0:
        wanted = -(-most * (total.requests + total.unsent) // total.requests)
        text = f"each of {count(most)} carried {rate(done / most)}; so many carry it all at this pace"
        remedy.append(Remedy(f"-c {wanted}", text, "if the rate does not rise with it, the target is the limit"))
    late = seconds(quantile(total.late, 0.99))
    return Draft(
        summary=(
            f"The schedule of {asked(plan.rate.per_second)} was not kept: all {plural(most, 'connection')} it may "
            f"use were busy, and {count(total.unsent)} arrivals ({share(unsent_share(total), 1)}) were never sent."
        ),
        evidence=[
            Evidence(f"{count(facts.run.peak_open)} of {plural(most, 'connection')} open", "this client"),
            Evidence(f"{count(total.unsent)} never sent, lateness p99 {late}", "due times"),
        ],
        remedy=remedy,
        wrong=["reading the rate that was reached as the one that was asked for"],
        confidence=POSSIBLE,
    )


def _long_turns(facts: Facts) -> Draft | None:
    """Turns that make up much of the latency. With thousands of connections in the closed loop a turn is long because
    all of them are due: the figures are this machine's, but the load is the one that was asked for."""
    middle = median(facts.total.total)
    if not _turns_are_long(facts) or facts.total.lag_max < middle / 2:
        return None
    return Draft(
        summary=(
            f"This machine's own loops needed up to {seconds(facts.total.lag_max)} for one turn, second after "
            "second: every latency contains that wait."
        ),
        evidence=[
            Evidence(f"turns past {seconds(LONG_TURN)} in most seconds of the run", "timed by the workers"),
            Evidence(f"median latency {seconds(middle)}", "timed by this client"),
        ],
        confidence=LIKELY if facts.plan.rate is not None else POSSIBLE,
    )


def _turns_are_long(facts: Facts) -> bool:
    """Long turns in most seconds: one or two are the scheduler's, not a state of this machine."""
    ticks: list[Tick] = facts.run.ticks or [facts.total]
    return len(ticks) >= FEWEST and 2 * sum(tick.lag_max > LONG_TURN for tick in ticks) > len(ticks)


def _never_held(facts: Facts) -> Draft | None:
    """The closed loop never held what it was asked to hold, though nothing failed."""
    plan, total = facts.plan, facts.total
    wanted = plan.concurrency
    if plan.rate is not None or total.failed or (plan.requests is not None and plan.requests < 10 * wanted):
        return None
    if total.seconds < plan.ramp_up + 2 or not 0 < facts.run.peak_open < NEVER_HELD * wanted:
        return None
    return Draft(
        summary=f"{plural(wanted, 'connection')} were asked for, at most {count(facts.run.peak_open)} ever held.",
        evidence=[Evidence(f"asked {count(wanted)}, held {count(facts.run.peak_open)}", "this client")],
        confidence=LIKELY,
    )


def _more_machine(facts: Facts) -> list[Remedy]:
    found, plan = [], facts.plan
    if facts.workers < facts.host.cores:
        found.append(
            Remedy(
                f"--workers {facts.host.cores}",
                f"uses all {plural(facts.host.cores, 'core')} instead of {count(facts.workers)}",
                "takes them from a target on the same machine",
            )
        )
    if plan.rate is not None and facts.total.seconds > 0:
        most = 0.8 * facts.total.requests / facts.total.seconds
        if 1 <= most < plan.rate.per_second:
            unit = "cps" if plan.rate.unit == "connections" else ""
            found.append(Remedy(f"--rate {int(most)}{unit}", "80% of what this machine just did", "a smaller load"))
    found.append(Remedy("run the target on another machine, or the load from several", "no shared cores", "machines"))
    return found
