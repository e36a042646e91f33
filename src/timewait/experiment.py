"""One load test from wish to record: resolve, look at this host, start the crew, watch, add up.

The only place where the engine, the kernel's view and the record meet.
"""

from __future__ import annotations

import contextlib
import datetime
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import msgspec

from timewait import __version__
from timewait.observe.host import read_host
from timewait.observe.limits import raise_open_files
from timewait.observe.watcher import Watcher
from timewait.plan import Plan, PlanError, PortPolicy
from timewait.run import Cause, Host, Phase, Run, RunFile, Series, Snapshot, Step, Tick, error_key
from timewait.stress.crew import Crew
from timewait.stress.endpoints import (
    Endpoint,
    ResolveError,
    answering,
    check_sources,
    destination,
    endpoints,
    resolve,
)
from timewait.stress.opening import any_bindable, has_local_port_range
from timewait.stress.source_ports import parse_reserved
from timewait.stress.tls import context


@dataclass
class Listener:
    """What a caller wants to hear while it happens; every call is made in the parent process."""

    on_start: Callable[[Run], None] = lambda run: None  # host and first snapshot are known, no packet sent yet
    on_tick: Callable[[Tick, Snapshot, Tick], None] = lambda tick, snapshot, total: None
    on_step: Callable[[Step], None] = lambda step: None  # of --find-max, when it has been judged
    save: RunFile | None = None
    signals: bool = True  # SIGINT and SIGTERM end the run early, with its record


def stress(plan: Plan, listener: Listener | None = None) -> Run:
    """Runs the plan and returns its record, also when it was interrupted. Raises PlanError for what cannot be done
    on this host (a source that is not here, a range without a free port)."""
    listener = listener or Listener()
    raise_open_files()
    try:
        addresses = _resolve(plan)
    except ResolveError as error:
        return _unresolved(plan, str(error), listener)
    found = endpoints(plan, addresses)
    _check(plan, found)
    destinations = list(dict.fromkeys((endpoint.address, endpoint.port) for endpoint in found))
    host = read_host(destinations, plan.ports)
    for (name, _), numeric in addresses.items():
        host.addresses[name] = numeric
    span = (plan.ports.low or host.port_low, plan.ports.high or host.port_high)
    reserved = parse_reserved(host.sysctls.get("net.ipv4.ip_local_reserved_ports", ""))
    if plan.ports.low and plan.ports.policy is not PortPolicy.KERNEL:
        reserved = set()  # ports that the user named are meant
    _check_range(plan, host, span, reserved)
    watcher = Watcher(destinations, plan.sources, span[0], span[1], host.reserved_ports)
    try:
        return _drive(plan, host, found, span, reserved, watcher, listener)
    finally:
        watcher.close()


def _resolve(plan: Plan) -> dict[tuple[str, int], list[str]]:
    found: dict[tuple[str, int], list[str]] = {}
    for request in plan.requests_list:
        host, port = destination(plan, request)
        if (host, port) not in found:
            found[host, port] = answering(resolve(host, plan.family), port)
    return found


def _check(plan: Plan, found: list[Endpoint]) -> None:
    if plan.scheme == "https":
        context(plan.tls)
    if plan.sources:
        for endpoint in found:
            check_sources(plan.sources, endpoint.family)
    if plan.ports.policy is PortPolicy.KERNEL and plan.ports.low and not has_local_port_range():
        raise PlanError("--ports kernel:LOW-HIGH needs IP_LOCAL_PORT_RANGE (Linux 6.3); use --ports LOW-HIGH instead")


def _check_range(plan: Plan, host: Host, span: tuple[int, int], reserved: set[int]) -> None:
    if plan.ports.policy is PortPolicy.KERNEL and plan.ports.low:
        # inet_sk_get_local_port_range() (inet_connection_sock.c, 6.3+) narrows the sysctl's range, never widens it.
        low, high = (int(word) for word in host.sysctls["net.ipv4.ip_local_port_range"].split())
        if not low <= span[0] <= span[1] <= high:
            raise PlanError(
                f"--ports kernel:{span[0]}-{span[1]} is not inside net.ipv4.ip_local_port_range ({low}-{high}), and "
                f"the kernel would ignore it; choose within, or bind explicitly with --ports {span[0]}-{span[1]}"
            )
    if all(port in reserved for port in range(span[0], span[1] + 1)):
        raise PlanError(f"the port range {span[0]}-{span[1]} holds no free port; all are in ip_local_reserved_ports")
    if plan.ports.policy is not PortPolicy.KERNEL and not any_bindable(plan.sources, span, reserved):
        raise PlanError(
            f"the port range {span[0]}-{span[1]} holds no free port: every bind() meets EADDRINUSE; `ss -tan` shows "
            "who holds them, another --ports LOW-HIGH avoids them"
        )


def _new_run(plan: Plan, host: Host) -> Run:
    started = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    return Run(plan=plan, host=host, version=__version__, started_at=started)


def _unresolved(plan: Plan, sentence: str, listener: Listener) -> Run:
    """A name without an address fails before any connection; it is recorded like any other failure."""
    run = _new_run(plan, read_host([], plan.ports))
    run.total = Tick(failed=1, errors={error_key(Phase.RESOLVE, "", Cause.RESOLVE): 1}, details={sentence: 1})
    run.notes.append(sentence)
    if listener.save:
        listener.save.start(run)
        listener.save.end(run)
    return run


def _drive(
    plan: Plan,
    host: Host,
    found: list[Endpoint],
    span: tuple[int, int],
    reserved: set[int],
    watcher: Watcher,
    listener: Listener,
) -> Run:
    run = _new_run(plan, host)
    run.before = watcher.snapshot(0.0, fresh=True)
    if listener.save:
        listener.save.start(run)
    series = Series()
    began = 0.0

    def on_tick(tick: Tick) -> None:
        snapshot = watcher.snapshot(time.monotonic() - began, crew.pids)
        run.peak_open = max(run.peak_open, tick.open, tick.open_most)
        run.peak_open_files = max(run.peak_open_files, snapshot.open_files or 0)
        if tick.after(plan.warm_up):
            run.total.add(tick, side_by_side=False)
        if listener.save:
            listener.save.tick(tick, snapshot)
        series.append(msgspec.structs.replace(tick), snapshot)
        listener.on_tick(tick, snapshot, run.total)

    with _Signals(run) if listener.signals else contextlib.nullcontext() as signals:
        listener.on_start(run)
        crew = Crew(plan, found, span, reserved)
        try:
            if signals is not None:
                signals.end(crew)
            began = crew.begin()
            crew.drive(on_tick)
            run.after = watcher.snapshot(time.monotonic() - began, fresh=True)
        finally:
            crew.close()
    run.ticks, run.snapshots = series.ticks, series.snapshots
    run.notes += [*crew.deaths, *watcher.unreadable]
    run.lost_workers = len(crew.deaths)
    if listener.save:
        listener.save.end(run)
        if listener.save.error is not None:
            run.notes.append(f"the saved run is incomplete: {listener.save.error.strerror}")
    return run


class _Signals:
    """The first SIGINT or SIGTERM ends the load and keeps the report; the second does not wait for answers."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._crew: Crew | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> _Signals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def end(self, crew: Crew) -> None:
        """From here on it is this crew that a signal ends; one that has come already ends it at its start."""
        self._crew = crew
        if self._run.interrupted:
            crew.stop(hurry=True)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self._run.interrupted = bool(self._run.interrupted), signal.Signals(number).name
        if self._crew is not None:
            if again:
                self._crew.kill()
            self._crew.stop(hurry=True)
