"""The options of `timewait simulate` as typed, and what they ask for. All text is parsed here."""

from __future__ import annotations

from pathlib import Path

import msgspec

from timewait.plan import PlanError, parse_count
from timewait.simulate.measured import full_name
from timewait.simulate.scenario_file import (
    MOST_SEED,
    Ask,
    Asked,
    checked_ask,
    find,
    read_trace,
    settings_of,
    with_settings,
    with_trace,
)
from timewait.simulate.settings import ScenarioError
from timewait.simulate.world import Scenario

MOST_WORKERS = 1024


class Wishes(msgspec.Struct, kw_only=True, frozen=True):
    """Options by name; None where nothing was given."""

    scenario: str | None = None
    clients: str | None = None
    addresses: str | None = None
    ports: str | None = None
    rate: str | None = None
    close: str | None = None
    trace: str | None = None
    kernel: str | None = None
    recycle: bool | None = None
    timestamps: str | None = None
    duration: str | None = None
    settings: list[str] | None = None
    run: str | None = None
    sweep: list[str] | None = None
    figure: str | None = None
    replications: str | None = None
    seed: str | None = None
    workers: str | None = None
    scheduler: str | None = None
    resume: str | None = None
    check: bool = False
    json: bool = False
    save: str | None = None
    html: str | None = None
    quiet: bool = False


_FLAGS = {
    "clients": "clients.count",
    "addresses": "nat.addresses",
    "rate": "arrivals.rate",
    "close": "clients.closing",
    "kernel": "server.kernel",
    "timestamps": "server.timestamps",
    "duration": "duration",
}
TIMESTAMPS = ("on", "off", "0", "1", "2")  # 2: without a random offset
_WORLD = (*_FLAGS, "ports", "recycle", "trace", "settings")


def refuse_contradictions(wishes: Wishes) -> None:
    """Raises ScenarioError for options that exclude each other."""
    sources = [name for name in ("scenario", "run", "resume") if getattr(wishes, name) is not None]
    told = {"scenario": "a scenario", "run": "--from", "resume": "--resume"}
    if len(sources) > 1:
        raise ScenarioError(f"{told[sources[0]]} and {told[sources[1]]} exclude each other; give one of them")
    if not sources or wishes.scenario == "":
        raise ScenarioError("which scenario? `timewait simulate list` shows the ready-made ones; or name a TOML file")
    given = [name for name in (*_WORLD, "sweep", "seed", "replications", "save") if _given(getattr(wishes, name))]
    if wishes.resume is not None and given:
        raise ScenarioError("--resume goes on with the sweep as it was begun; only where it runs may change")
    if wishes.run is not None and wishes.sweep:
        raise ScenarioError("--from compares one change with what was; leave --sweep out, or give --set each value")
    if wishes.run is not None and wishes.save is not None:
        raise ScenarioError("--from makes a comparison, which --json and --html keep; leave --save out")
    for name in ("trace", "run", "resume", "save", "html"):
        if getattr(wishes, name) == "":
            raise ScenarioError(f"--{'from' if name == 'run' else name} '': name a file")
    if (
        wishes.save is not None
        and wishes.html is not None
        and Path(wishes.save).resolve() == Path(wishes.html).resolve()
    ):
        raise ScenarioError(f"--save and --html both write {wishes.html}; give them two names")
    if wishes.timestamps is not None and wishes.timestamps not in TIMESTAMPS:
        raise ScenarioError(f"--timestamps {wishes.timestamps!r}: write one of {', '.join(TIMESTAMPS)}")
    if wishes.scheduler is not None and wishes.workers is not None:
        raise ScenarioError("--scheduler runs on the workers of the cluster; leave --workers out")


def _given(value: object) -> bool:
    """Whether an option was written; a repeatable one that was not is empty."""
    return value is not None and value != [] and value != ()


def changes(wishes: Wishes, scenario: Scenario | None) -> dict[str, str]:
    """Setting -> value: flags first, then --set, which may say more. `scenario` tells whose --ports are meant."""
    found = {name: str(value) for flag, name in _FLAGS.items() if (value := getattr(wishes, flag)) is not None}
    if wishes.recycle is not None:
        found["server.recycle"] = "on" if wishes.recycle else "off"
    if wishes.ports is not None:
        nat = scenario is not None and (scenario.nat is not None or wishes.addresses is not None)
        found["nat.ports" if nat else "clients.ports"] = wishes.ports
    return found | settings_of(wishes.settings or [])


def asked(wishes: Wishes) -> Asked:
    """The scenario that is meant, every option over it. Raises ScenarioError, WorldError."""
    base = find(wishes.scenario or "")
    scenario, ask = base.scenario, base.ask
    found = changes(wishes, scenario)
    # A flag that names what the scenario sweeps means this one value; --sweep replaces the scenario's own.
    kept = tuple(axis for axis in ask.sweep if axis.partition("=")[0].strip() not in found)
    if wishes.trace is not None:
        times = read_trace(Path(wishes.trace))
        scenario = with_trace(scenario, times)
    if found:
        scenario = with_settings(scenario, found)
    return Asked(scenario=scenario, ask=_ask(wishes, ask, kept))


def _ask(wishes: Wishes, ask: Ask, kept: tuple[str, ...]) -> Ask:
    sweep = tuple(wishes.sweep) if wishes.sweep else kept
    seed = ask.seed if wishes.seed is None else seed_of(wishes.seed)
    replications = ask.replications
    if wishes.replications is not None:
        replications = count(wishes.replications, "--replications")
    figure = wishes.figure if wishes.figure is not None else ask.figure
    return checked_ask(msgspec.structs.replace(ask, sweep=sweep, seed=seed, replications=replications, figure=figure))


def seed_of(text: str) -> int:
    if not text.isdecimal() or int(text) > MOST_SEED:
        raise ScenarioError(f"--seed {text!r}: write a whole number from 0 to {MOST_SEED}")
    return int(text)


def count(text: str, flag: str) -> int:
    try:
        return parse_count(text, flag)
    except PlanError as error:
        raise ScenarioError(str(error)) from None


def workers(wishes: Wishes, cores: int) -> int:
    if wishes.workers is None:
        return cores
    asked = count(wishes.workers, "--workers")
    if asked > MOST_WORKERS:
        raise ScenarioError(f"--workers {asked}: {MOST_WORKERS} are the most")
    return asked


def what_if(wishes: Wishes) -> dict[str, str]:
    """The changes to a measured run: sysctls without an owner are its own host's. Raises ScenarioError."""
    found = {full_name(name): value for name, value in changes(wishes, None).items()}
    if "nat.addresses" in found:
        raise ScenarioError("--addresses: a measured run had no NAT in front of it; use --set clients.count=N")
    return found
