"""`make bench`, or `python -m bench [BENCHMARK ...]`: measures, writes results/*.json and README.md."""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from bench import machine, table
from bench.figures import Figure, Result, Values
from bench.settings import Settings
from timewait.lab.namespaces import ForbiddenError, enter

PROGRAMS = ("nginx", "haproxy", "nft", "taskset", "wrk", "ab", "h2load", "hey", "siege")
OPEN_FILES = 120_000


def main() -> int:
    args = parse()
    missing = [program for program in PROGRAMS if not installed(program)]
    if missing:
        print(f"bench: not installed: {' '.join(missing)}; `scripts/peers` installs them", file=sys.stderr)
        return 1
    limit = machine.raise_open_files(OPEN_FILES)
    facts = machine.facts()
    where = machine.cores()
    try:
        enter()
    except ForbiddenError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    os.sched_setaffinity(0, {where.driver})
    settings = Settings(cores=where, rounds=args.rounds, window=args.window, open_files=limit)
    if args.quick:
        settings = Settings(cores=where, rounds=1, warm=0.05, window=0.2, quick=True, open_files=limit)
    began = time.monotonic()
    chosen = benchmarks()
    for name in args.benchmarks or table.ORDER:
        result = run(name, chosen[name], settings, facts)
        save(result, args.out / "results")
    page = table.write(args.out)
    print(f"{page} written after {time.monotonic() - began:.0f} s")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("benchmarks", nargs="*", metavar="BENCHMARK", help=f"of {', '.join(table.ORDER)}; all")
    parser.add_argument("--rounds", type=int, default=5, help="of each comparison (5)")
    parser.add_argument("--window", type=float, default=1.5, help="seconds measured of each run (1.5)")
    parser.add_argument(
        "--quick", action="store_true", help="whether everything still works; the figures mean nothing"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for results/ and README.md")
    args = parser.parse_args()
    for name in args.benchmarks:
        if name not in table.ORDER:
            parser.error(f"{name!r} is none of {', '.join(table.ORDER)}")
    if args.rounds < 1 or args.window <= 0:
        parser.error("--rounds is at least 1 and --window longer than nothing")
    if args.quick and args.out == Path(__file__).parent:
        parser.error("--quick needs --out: its figures must not stand where real ones do")
    return args


def installed(program: str) -> bool:
    try:
        machine.path(program)
    except FileNotFoundError:
        return False
    return True


def benchmarks() -> dict[str, Callable[[Settings], Result]]:
    """All of them by name; imported late, since NumPy starts threads and those may not change their namespace."""
    from bench.balancer import changing, holding, speed
    from bench.balancer.latency import latency
    from bench.claims import claims
    from bench.lab import lab
    from bench.memory import memory
    from bench.ports import ports
    from bench.rules import rules
    from bench.schedule import schedule
    from bench.simulation import simulation
    from bench.small import counting, start
    from bench.speed import connections, https, kept
    from bench.sweeping import sweeping
    from bench.watching import watching
    from bench.wire import wire

    found = (
        connections, ports, kept, https, memory, watching, schedule, counting, start, wire, lab, rules, claims,
        sweeping, simulation, speed.kept, speed.new, speed.relay, speed.engines, latency, holding.idle, holding.body,
        changing.changes, changing.failing, changing.slow,
    )  # fmt: skip
    return dict(zip(table.ORDER, found, strict=True))


def run(name: str, measure: Callable[[Settings], Result], settings: Settings, facts: dict[str, str]) -> Result:
    print(f"{name} ...", flush=True)
    began = time.monotonic()
    load = {"load before": " ".join(f"{value:.2f}" for value in os.getloadavg())}
    result = measure(settings)
    result.machine = {**facts, **load}
    result.measured_at = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    for figure in result.figures:
        what, asked, value, spread, verdict = table.line(figure)
        print(f"  {what:78} {value:>10}  ({spread})  asked {asked} {verdict.strip('*')}")
    print(f"  {time.monotonic() - began:.0f} s", flush=True)
    return result


def save(result: Result, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    plain = msgspec.json.format(msgspec.json.encode(rounded(result)), indent=2)
    (folder / f"{result.name}.json").write_bytes(plain + b"\n")


def rounded(result: Result) -> Result:
    """Six significant digits are more than any of these has."""
    rows: list[Figure | Values] = [*result.figures, *result.details]
    for row in rows:
        row.values = [float(f"{value:.6g}") for value in row.values]
    return result


if __name__ == "__main__":
    sys.exit(main())
