"""Writes what the docs say about the program from the program itself: docs/*.md, README's output.

`make docs` runs it. `--check` writes nothing and fails when a page differs; `--no-demo` leaves the README's output as
it is (the demo takes a quarter of a minute, and its figures differ from machine to machine).
"""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

import balance_page as balance
from timewait.cli import app, commands
from timewait.diagnose import catalogue, exit_codes
from timewait.diagnose.upstream import MEANINGS
from timewait.lab import dialogue
from timewait.lab.dialogue import Script, parse, play_on_model, transcript
from timewait.tcp import Linux, Record
from timewait.tcp.kernels import KERNELS
from timewait.tcp.tables import Table, tables

TOP = Path(__file__).resolve().parent.parent
TIMEWAIT = str(Path(sys.executable).with_name("timewait"))
BEGIN, END = "<!-- written by make docs -->", "<!-- end -->"
PLAIN = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "LANG": "C.UTF-8"}


def main(words: list[str]) -> int:
    pages = {"docs/cli.md": cli_page(), "docs/findings.md": findings_page(), "docs/rules.md": rules_page()}
    pages["docs/dialogues.md"] = dialogues_page()
    pages["docs/balance.md"] = balance_page()
    if "--check" in words:
        stale = [name for name, text in pages.items() if _now(name) != text]
        for name in stale:
            print(f"{name} differs from what the program says; run `make docs`", file=sys.stderr)
        return 1 if stale else 0
    if "--no-demo" not in words:
        pages["README.md"] = between(_now("README.md"), "```console\n$ make demo\n" + output("demo") + "\n```")
    for name, text in pages.items():
        (TOP / name).write_text(text)
    return 0


def _now(name: str) -> str:
    path = TOP / name
    return path.read_text() if path.exists() else ""


def output(*words: str) -> str:
    """What a command prints, without colour, 100 columns wide. Raises CalledProcessError when it fails."""
    done = subprocess.run(
        [TIMEWAIT, *words], capture_output=True, text=True, check=True, env={**os.environ, **PLAIN}, cwd=TOP
    )
    return "\n".join(line.rstrip() for line in done.stdout.strip("\n").split("\n"))


def between(page: str, text: str, marker: str = BEGIN) -> str:
    """The page with `text` between its markers. Raises ValueError when it has none."""
    head, begin, rest = page.partition(marker)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks its markers {marker} and {END}")
    return f"{head}{begin}\n{text}\n{end}{tail}"


def balance_page() -> str:
    """Written by hand, but for what the program knows better."""
    page = _now("docs/balance.md")
    for name, text in balance.parts().items():
        page = between(page, text, f"<!-- {name}, written by make docs -->")
    return page


def cli_page() -> str:
    """The help of every command."""
    assert commands
    parts = ["# Commands", "Written by `make docs`: what `timewait COMMAND --help` prints."]
    parts.append(f"```console\n{output('--help')}\n```")
    for words in command_names(app):
        parts += [f"#{'#' * len(words)} timewait {' '.join(words)}", f"```console\n{output(*words, '--help')}\n```"]
    return "\n\n".join(parts) + "\n"


def command_names(group: typer.Typer, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """`("stress",)`, ...; a group of commands, then each of its own: `("lab",)`, `("lab", "up")`, ..."""
    for command in group.registered_commands:
        yield (*before, str(command.name or getattr(command.callback, "__name__", "")))
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        name = (*before, str(inner.name))
        yield name
        yield from command_names(inner.typer_instance, name)


def findings_page() -> str:
    """The closed list of findings, and the exit codes."""
    rows = ["| id | what happened | where the cause lies |", "|---|---|---|"]
    rows += [f"| `{id}` | {meaning} | {WHERE[blame]} |" for id, meaning, blame in catalogue()]
    own = ["| id | what happened |", "|---|---|", *(f"| `{id}` | {meaning} |" for id, meaning in MEANINGS.items())]
    codes = inspect.cleandoc(exit_codes.__doc__ or "").partition("\n\n")[2]
    parts = ["# Findings", FINDINGS, "\n".join(rows), "## Of a balancer", OF_A_BALANCER, "\n".join(own)]
    return "\n\n".join([*parts, "## Exit codes", EXIT_CODES, codes]) + "\n"


WHERE = {"machine": "this machine", "target": "the target", "network": "the network", "setting": "a setting here"}
FINDINGS = """Written by `make docs`. A finding names one cause of failed or slowed connections: in one sentence, with
its evidence, the remedies and what each would bring on this host, and what people wrongly try. The list is closed and
the ids are a contract: they appear in `--json`, in saved runs and in scripts. A healthy run has none. What another
finding already explains is left out."""
OF_A_BALANCER = """Toward its targets `timewait balance` is a client, too. What it finds about its own ports stands in
`timewait balance ctl stats`, in `top` and in its log; docs/balance-running.md tells more."""
EXIT_CODES = "A script can tell from the exit code whose fault a failure was."


def rules_page() -> str:
    """What kernels decide, one table per decision."""
    example = "\n".join(f">>> {line}" for line in EXAMPLE)
    answer = Linux("2.6.32", tcp_tw_recycle=1).syn(tsval=99_998, record=Record(100_000, 1000), now=1059)
    # The blank line ends what doctest expects; tests/tcp/test_tcp_tables.py runs the page.
    parts = ["# Rules", RULES, f"```pycon\n{example}\n{answer}\n\n```", RULES_COMMAND]
    for table in tables():
        parts += [f"## {table.title}", table.intro, _markdown(table)]
        parts += [f"Read in {table.source}."] if table.source else []
    return "\n\n".join(parts) + "\n"


def _markdown(table: Table) -> str:
    rows = [table.headings, tuple("---" for _ in table.headings), *table.rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


EXAMPLE = (
    "from timewait.tcp import Linux, Record",
    'server = Linux("2.6.32", tcp_tw_recycle=1)',
    "print(server.syn(tsval=99_998, record=Record(ts=100_000, stamp=1000), now=1059))",
)
RULES = """Written by `make docs` from the functions in `src/timewait/tcp`, which decide for the lab, the diagnosis
and these tables alike. What a version does was read in the sources of exactly that version; those that decide alike
share a column. A version in between decides as one of its neighbours, or partly as each. Three lines ask one:"""
RULES_COMMAND = """The command line asks the same: `timewait rules syn --kernel 2.6.32 --set tcp_tw_recycle=1 --record
ts=100000,stamp=1000 --now 1059 --tsval 99998`; `timewait rules --help` names the other questions."""


def dialogues_page() -> str:
    """The language of dialogues, one as it is played, and what the project's own scripts show."""
    scripts = {path.stem: path.read_text() for path in sorted((TOP / DIALOGUES).glob("*.txt"))}
    parsed = {name: parse(text, name) for name, text in scripts.items()}
    _, *paragraphs = inspect.cleandoc(dialogue.__doc__ or "").split("\n\n")
    example = parsed[DIALOGUE]
    newest = example.kernels[-1]
    shown = "\n".join(transcript(play_on_model(example, newest)))
    parts = ["# Dialogues", DIALOGUES_INTRO, DIALOGUES_PLAYED, "## The language", *map(_entries, paragraphs)]
    parts += ["## One as it is played", example.why + "."]
    parts += [f"On the model of Linux {newest}, on the right what came:", f"```text\n{shown}\n```"]
    real = sum(not script.model for script in parsed.values())
    parts += ["## What there is", f"{len(parsed)} scripts in `{DIALOGUES}`, {real} of them for a real kernel too."]
    parts.append("\n".join([*DIALOGUES_TABLE, *_scripts(parsed)]))
    return "\n\n".join(parts) + "\n"


def _entries(paragraph: str) -> str:
    """A paragraph of the docstring: code that is indented, entries whose text is, or plain text."""
    lines = paragraph.split("\n")
    if all(line.startswith("    ") for line in lines):
        return f"```text\n{inspect.cleandoc(paragraph)}\n```"
    if not lines[0].startswith("`") or len(lines) < 2 or not lines[1].startswith("    "):
        return paragraph
    entries = re.split(r"\n(?=`)", paragraph)
    return "\n".join(f"- {head}  \n{_indented(text)}" for head, _, text in (one.partition("\n") for one in entries))


def _indented(text: str) -> str:
    return "\n".join(f"  {line.strip()}" for line in text.split("\n"))


def _scripts(scripts: dict[str, Script]) -> Iterator[str]:
    for name, script in scripts.items():
        kernels = _span(script) + (", model only" if script.model else "")
        yield f"| {name} | {script.why} | `{script.source}()` | {kernels} |"


def _span(script: Script) -> str:
    """ "all", "4.19 and later", "up to 4.12", "6.14, 6.18"."""
    names = [row.name for row in KERNELS]
    first, last = names.index(script.kernels[0]), names.index(script.kernels[-1])
    if len(script.kernels) != last - first + 1:
        return ", ".join(script.kernels)
    if last == len(names) - 1:
        return "all" if first == 0 else f"{script.kernels[0]} and later"
    return f"up to {script.kernels[-1]}" if first == 0 else f"{script.kernels[0]} to {script.kernels[-1]}"


DIALOGUES = "tests/dialogue/scripts"
DIALOGUE = "syn-older-timestamp"
DIALOGUES_TABLE = ("| script | shows | kernel function | kernels |", "|---|---|---|---|")
DIALOGUES_INTRO = """Written by `make docs`. A dialogue is a short script of segments and socket calls. It is how the
rules in `src/timewait/tcp` and the kernel that runs here check each other: the same script is played on the model, by
the rules of every kernel it names, and on the real TCP of the running one, where every segment, counter and state
must be as it says and nothing else may be sent. Where the two differ a test fails, and shows the line."""
DIALOGUES_PLAYED = """`timewait rules play FILE` plays one on the model, `--real` on the running kernel, in namespaces
and without root; the exit code is 1 where something differs. `tests/dialogue` plays all of them on both."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
