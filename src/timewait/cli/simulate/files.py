"""Files that `timewait simulate` reads and leaves behind."""

from __future__ import annotations

from pathlib import Path

from timewait import __version__
from timewait.cli.simulate.wishes import Wishes, count, seed_of
from timewait.report.simulated import Comparison, Grid, Simulation
from timewait.run import Run, RunFile, RunFileError, load
from timewait.simulate.scenario_file import Ask, checked_ask
from timewait.simulate.sweep import Done, Plan, SweepFile, read

RESCUED = "timewait-sweep.jsonl"


class FileError(ValueError):
    """A file that cannot be read or written: one sentence."""


def writable(wishes: Wishes) -> None:
    """Finds out before the work, not after it, that something cannot be written. Raises FileError."""
    for flag in ("html", "save"):
        name = getattr(wishes, flag)
        if name is None:
            continue
        path = Path(name)
        new = not path.exists()
        try:
            with path.open("ab"):
                pass
            if new:  # a simulation that is refused leaves no empty file
                path.unlink()
        except OSError as error:
            raise FileError(f"--{flag} {name}: cannot be written ({error.strerror})") from None


def read_run(name: str) -> Run:
    """A saved run. Raises FileError."""
    try:
        with Path(name).open("rb") as stream:
            return load(stream, name)
    except OSError as error:
        raise FileError(f"--from {name}: cannot be read ({error.strerror})") from None
    except RunFileError as error:
        raise FileError(f"--from {error}") from None


def read_sweep(name: str) -> tuple[Plan, list[Done]]:
    """A saved sweep and what of it is done. Raises FileError, SweepFileError."""
    try:
        return read(Path(name), __version__)
    except OSError as error:
        raise FileError(f"--resume {name}: cannot be read ({error.strerror})") from None


def ask_of(wishes: Wishes) -> Ask:
    """How a measured run is asked."""
    return checked_ask(
        Ask(
            figure=wishes.figure or "failed",
            seed=1 if wishes.seed is None else seed_of(wishes.seed),
            replications=1 if wishes.replications is None else count(wishes.replications, "--replications"),
        )
    )


def save_run(name: str, run: Run) -> None:
    """As `timewait stress --save` does, so that `timewait report` reads it. Raises FileError."""
    with Path(name).open("wb") as stream:
        file = RunFile(stream)
        file.start(run)
        for tick, snapshot in zip(run.ticks, run.snapshots, strict=True):
            file.tick(tick, snapshot)
        file.end(run)
    if file.error is not None:
        raise FileError(f"--save {name}: {file.error.strerror}")


def save_page(name: str, made: Simulation | Grid | Comparison) -> None:
    """Raises FileError."""
    from timewait.report.simulation_page import write_html

    try:
        write_html(made, name, __version__)
    except OSError as error:
        raise FileError(f"--html {name}: {error.strerror}") from None


class Kept:
    """The file of a sweep: the one asked for, the one it goes on with, or none until it must be rescued."""

    def __init__(self, wishes: Wishes, plan: Plan, done: list[Done]) -> None:
        self.plan, self.name, self.error = plan, wishes.resume or wishes.save or "", ""
        self._file: SweepFile | None = None
        try:
            if wishes.resume:
                self._file = SweepFile.go_on(Path(wishes.resume))
            elif wishes.save:
                self._file = SweepFile.create(Path(wishes.save), plan, __version__)
        except OSError as error:
            raise FileError(f"{self.name}: cannot be written ({error.strerror})") from None

    def add(self, one: Done) -> None:
        """Where the disk is full, the sweep goes on: what it says is shown all the same."""
        try:
            if self._file is not None and not self.error:
                self._file.add(one)
        except OSError as error:
            self.error = f"{self.name}: {error.strerror}; not all of the sweep is in that file"

    def rescue(self, done: list[Done]) -> str:
        """The name of a file that holds all that is done."""
        if self._file is None:
            self.name = next(name for name in _names() if not Path(name).exists())
            try:
                self._file = SweepFile.create(Path(self.name), self.plan, __version__)
                for one in done:
                    self._file.add(one)
            except OSError as error:
                self.error = f"{self.name}: what was done cannot be kept ({error.strerror})"
        return self.name

    def close(self) -> None:
        """Raises FileError where something of the sweep could not be written, now or before."""
        try:
            if self._file is not None:
                self._file.close()
        except OSError as error:
            self.error = self.error or f"{self.name}: {error.strerror}"
        if self.error:
            raise FileError(self.error)


def _names() -> list[str]:
    stem, _, suffix = RESCUED.partition(".")
    return [RESCUED, *(f"{stem}-{number}.{suffix}" for number in range(2, 10_000))]
