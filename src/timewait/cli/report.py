"""`timewait report FILE...`: renders and diagnoses saved runs again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO

import typer

from timewait.cli import app

if TYPE_CHECKING:
    from timewait.diagnose import Finding
    from timewait.run import Run

    Read = list[tuple[str, Run, list[Finding]]]

BAD_USAGE = 2


@app.command()
def report(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="runs saved with --save; - for stdin")],
    html: Annotated[str | None, typer.Option(metavar="FILE", help="write one self-contained page instead")] = None,
    json: Annotated[bool, typer.Option("--json", help="one JSON object a line for each file, on stdout")] = False,
    csv: Annotated[str | None, typer.Option(metavar="FILE", help="a row a second; - for stdout")] = None,
) -> None:
    """Render and diagnose saved runs again; several files stand side by side.

    Exit codes: 0 rendered, whatever the runs were like; 2 a file that cannot be read or written.
    """
    if json and csv == "-":
        _refuse("--json and --csv - both want stdout; give --csv a file")
    if files.count("-") > 1:
        _refuse("stdin can be read once; give - once")
    runs = _read(files)
    if html is not None:
        _write_html(runs, html)
    if csv is not None and csv != "-":
        _write_csv(runs, csv)
    from timewait.cli.consoles import quiet_pipe

    with quiet_pipe():
        if json:
            _print_json(runs)
        elif csv == "-":
            _csv(runs, sys.stdout)
        elif csv is None and html is None:
            _print_text(runs)


def _refuse(sentence: str) -> NoReturn:
    """One sentence on stderr and the exit code for bad usage."""
    from timewait.report.words import clean

    typer.echo(f"timewait: {clean(sentence)}", err=True)
    raise typer.Exit(BAD_USAGE)


def _read(files: list[str]) -> Read:
    from timewait.diagnose import diagnose
    from timewait.run import RunFileError, load

    runs: Read = []
    for name in files:
        try:
            if name == "-":
                run = load(sys.stdin.buffer, "stdin")
            else:
                with Path(name).open("rb") as stream:
                    run = load(stream, name)
        except OSError as error:
            _refuse(f"{name}: {error.strerror}")
        except RunFileError as error:
            _refuse(str(error))
        runs.append((name, run, diagnose(run)))
    return runs


def _named(runs: Read) -> Read:
    """The runs under the names of their files without the folders, where those names tell them apart."""
    short = [Path(name).name for name, _, _ in runs]
    if len(set(short)) < len(runs):
        return runs
    return [(name, run, findings) for name, (_, run, findings) in zip(short, runs, strict=True)]


def _print_text(runs: Read) -> None:
    from timewait.cli.consoles import Console
    from timewait.report.terminal import side_by_side, summary

    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal without our characters
    console = Console(highlight=False)
    if len(runs) == 1:
        _, run, findings = runs[0]
        console.print(summary(run, findings))
        return
    console.print(side_by_side(_named(runs)))
    _print_why(console, _named(runs))


def _print_why(console: Any, runs: Read) -> None:
    from rich.text import Text

    from timewait.report.why import why

    for name, _, findings in runs:
        if findings:
            console.print(Text(f"\n{name}", style="bold"))
            console.print(why(findings))


def _print_json(runs: Read) -> None:
    import msgspec

    from timewait.diagnose import exit_code
    from timewait.report.record import as_json

    for name, run, findings in runs:
        found = as_json(run, findings, exit_code(run, findings))
        sys.stdout.write(msgspec.json.encode({"file": name, **found}).decode() + "\n")


def _csv(runs: Read, stream: TextIO) -> None:
    from timewait.report.table import write_csv

    for number, (name, run, _) in enumerate(runs):
        write_csv(run, stream, name if len(runs) > 1 else None, heading=number == 0)


def _write_csv(runs: Read, path: str) -> None:
    try:
        with Path(path).open("w", encoding="utf-8", newline="") as stream:
            _csv(runs, stream)
    except OSError as error:
        _refuse(f"--csv {path}: {error.strerror}")


def _write_html(runs: Read, path: str) -> None:
    from timewait.report.page import write_html

    try:
        write_html(_named(runs), path)
    except OSError as error:
        _refuse(f"--html {path}: {error.strerror}")
