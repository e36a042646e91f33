"""Runs a stress plan for the command line: live view or lines, report, files, exit code.

stdout carries the result; progress and warnings go to stderr, so `--json` and `--csv -` can be piped.
"""

from __future__ import annotations

import contextlib
import sys
from io import BufferedWriter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from timewait.cli.wishes import Wishes, plan
from timewait.plan import Plan, PlanError

if TYPE_CHECKING:
    from rich.console import Console

    from timewait.diagnose import Finding
    from timewait.run import Run, Snapshot, Step, Tick

USAGE, INTERNAL = 2, 70


def drive(wishes: Wishes) -> int:
    """The whole command; returns the exit code."""
    try:
        wanted = plan(wishes)
        outputs = Outputs(wishes, wanted)
        return outputs.run()
    except PlanError as error:
        print(f"timewait: {error}", file=sys.stderr)
        return USAGE


def _openable(name: str | None, flag: str) -> None:
    """Finds out before the run, not after it, that a file cannot be written. Raises PlanError."""
    if name in (None, "-"):
        return
    try:
        with Path(str(name)).open("ab"):
            pass
    except OSError as error:
        raise PlanError(f"{flag} {name}: cannot be written ({error.strerror})") from None


class Outputs:
    """Everything a run shows and leaves behind."""

    def __init__(self, wishes: Wishes, wanted: Plan) -> None:
        from timewait.cli.consoles import Console

        self.wishes, self.plan = wishes, wanted
        for flag in ("csv", "html", "save"):
            _openable(getattr(wishes, flag), f"--{flag}")
        self.piped = wishes.json or wishes.csv == "-"
        self.out = Console(highlight=False, soft_wrap=False)
        self.err = Console(stderr=True, highlight=False)
        # The live view belongs to whoever watches a terminal; progress of a piped run goes to stderr.
        self.progress: Console = self.err if self.piped else self.out
        self.live = self.progress.is_terminal and not wishes.no_tui and not wishes.quiet
        self._view: Any = None
        self._stack = contextlib.ExitStack()

    def run(self) -> int:
        from timewait.diagnose import diagnose, exit_code
        from timewait.experiment import Listener, stress
        from timewait.find_max import find_max
        from timewait.run import RunFile

        save = RunFile(self._save_stream()) if self.wishes.save else None
        listener = Listener(on_start=self._start, on_tick=self._tick, on_step=self._step, save=save)
        with self._stack:
            run = find_max(self.plan, listener) if self.wishes.find_max else stress(self.plan, listener)
        findings = diagnose(run)
        code = exit_code(run, findings)
        return self._report(run, findings, code)

    def _save_stream(self) -> BufferedWriter:
        try:
            return Path(str(self.wishes.save)).open("wb")
        except OSError as error:
            raise PlanError(f"--save {self.wishes.save}: cannot be written ({error.strerror})") from None

    def _start(self, run: Run) -> None:
        """Before the first packet: what this is, and what will happen."""
        from timewait.diagnose import forecast
        from timewait.report.live import LiveView
        from timewait.report.words import target, wish

        if self.wishes.quiet or self._view is not None:
            return
        self.progress.print(f"timewait {target(run.plan)}: {', '.join(wish(run.plan))}", markup=False)
        sentence = forecast(run.plan, run.host, run.before)
        if sentence:
            self.progress.print(f"forecast: {sentence}", markup=False)
        if self.live:
            self._view = self._stack.enter_context(LiveView(run.plan, run.host, self.progress))

    def _tick(self, tick: Tick, snapshot: Snapshot, total: Tick) -> None:
        from timewait.cli.consoles import quiet_pipe
        from timewait.report.line import line

        if self._view is not None:
            self._view.update(tick, snapshot, total)
        elif not self.wishes.quiet:
            with quiet_pipe():
                print(line(tick, snapshot, self.plan), file=self.progress.file, flush=True)

    def _step(self, step: Step) -> None:
        if not self.wishes.quiet:
            verdict = "held" if step.held else f"stopped by {step.stopped_by}"
            self.progress.print(f"step {step.rate:,.0f}/s: {verdict}", markup=False)

    def _report(self, run: Run, findings: list[Finding], code: int) -> int:
        from timewait.cli.consoles import quiet_pipe

        with quiet_pipe():
            if self.wishes.json:
                from timewait.report.record import as_json

                sys.stdout.write(msgspec.json.encode(as_json(run, findings, code)).decode() + "\n")
                sys.stdout.flush()
            elif self.wishes.csv != "-":
                from timewait.report.terminal import summary

                self.out.print(summary(run, findings))
        problems = [self._csv(run), self._html(run, findings)]
        for problem in filter(None, problems):
            print(f"timewait: {problem}", file=sys.stderr)
        for note in run.notes if self.piped else ():
            print(f"timewait: {note}", file=sys.stderr)
        return code or (INTERNAL if any(problems) or run.lost_workers else 0)

    def _csv(self, run: Run) -> str:
        from timewait.report.table import write_csv

        if not self.wishes.csv:
            return ""
        try:
            if self.wishes.csv == "-":
                from timewait.cli.consoles import quiet_pipe

                with quiet_pipe():
                    write_csv(run, sys.stdout)
            else:
                with Path(self.wishes.csv).open("w", encoding="utf-8", newline="") as stream:
                    write_csv(run, stream)
        except OSError as error:
            return f"--csv {self.wishes.csv}: {error.strerror}"
        return ""

    def _html(self, run: Run, findings: list[Finding]) -> str:
        if not self.wishes.html:
            return ""
        from timewait.report.page import write_html

        try:
            write_html([("", run, findings)], self.wishes.html)
        except OSError as error:
            return f"--html {self.wishes.html}: {error.strerror}"
        return ""
