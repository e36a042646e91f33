"""`timewait rules play`: a dialogue on the model or on the running kernel."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from timewait.cli import USAGE
from timewait.cli.pipes import quiet_pipe
from timewait.cli.rules import AsJson, rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from timewait.lab.dialogue import Played, Script

DIFFERS, NOT_PLAYED = 1, 3


class _RefusedError(Exception):
    """One sentence, and the exit code."""

    def __init__(self, text: str, code: int = USAGE) -> None:
        super().__init__(text)
        self.code = code


@rules.command()
def play(
    file: Annotated[str, typer.Argument(metavar="FILE", help="a dialogue; - for stdin")],
    kernel: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="by the rules of this kernel; again for more; those the script names"),
    ] = None,
    real: Annotated[bool, typer.Option("--real", help="on the running kernel, in namespaces of its own")] = False,
    json: AsJson = False,
) -> None:
    """Play a dialogue: what a peer sends to a host and what must come back, by the rules of any kernel or for real.

    `docs/dialogues.md` tells the language.

    Exit codes: 0 as the script says, 1 something differs, 2 bad usage or a script that cannot be read, 3 this machine
    cannot play it for real.
    """
    try:
        script = _read(file)
        played = _on_kernel(script, kernel) if real else _on_model(script, kernel)
    except _RefusedError as error:
        typer.echo(f"timewait: {error}", err=True)
        raise typer.Exit(error.code) from None
    with quiet_pipe():
        sys.stdout.write(_record(played) if json else _text(script, played))
    raise typer.Exit(DIFFERS if any(one.differs for one in played) else 0)


def _read(file: str) -> Script:
    from timewait.lab.dialogue import ScriptError, parse

    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
        return parse(text, "stdin" if file == "-" else file)
    except ScriptError as error:
        raise _RefusedError(str(error)) from None
    except UnicodeDecodeError:
        raise _RefusedError(f"{file} is no text") from None
    except OSError as error:
        raise _RefusedError(f"{file}: {error.strerror}") from None


def _on_model(script: Script, names: Sequence[str] | None) -> list[Played]:
    from timewait.lab.dialogue import play_on_model
    from timewait.tcp.kernels import UnknownKernelError
    from timewait.tcp.kernels import kernel as row

    try:
        wanted = [row(name).name for name in names or script.kernels]
    except UnknownKernelError as error:
        raise _RefusedError(str(error)) from None
    for name in wanted:
        if name not in script.kernels:
            raise _RefusedError(f"the script does not name {name}; it is for {' '.join(script.kernels)}")
    return [play_on_model(script, name) for name in dict.fromkeys(wanted)]


def _on_kernel(script: Script, names: Sequence[str] | None) -> list[Played]:
    from timewait.lab.dialogue import PlayError, nearest_profile, play_on_kernel
    from timewait.lab.namespaces import ForbiddenError

    if names:
        raise _RefusedError("--kernel and --real exclude each other: for real there is one kernel")
    if script.model:
        raise _RefusedError(f"this script is for the model only: {script.model}")
    name, _ = nearest_profile()
    if name not in script.kernels:
        raise _RefusedError(f"the script is not for this kernel ({name}), but for {' '.join(script.kernels)}")
    try:
        return list(play_on_kernel([script]))
    except ForbiddenError as error:
        raise _RefusedError(str(error), NOT_PLAYED) from None
    except PlayError as error:
        raise _RefusedError(str(error), NOT_PLAYED) from None


def _record(played: Sequence[Played]) -> str:
    import msgspec

    return msgspec.json.encode(played).decode() + "\n"


def _text(script: Script, played: Sequence[Played]) -> str:
    """The last kernel's dialogue in full, and any that differs; the others in one line."""
    from timewait.lab.dialogue import nearest_profile, transcript

    lines = [f"{script.why}  [{script.source}]"]
    silent = [one.kernel for one in played[:-1] if not one.differs]
    if silent:
        lines += ["", f"Linux {', '.join(silent)}, model: as expected"]
    for one in played:
        if one.kernel in silent:
            continue
        verdict = "differs" if one.differs else "as expected"
        if one.where == "model":
            lines += ["", f"Linux {one.kernel}, model: {verdict}"]
        else:
            lines += ["", f"Linux {one.where}, for real: {verdict}", *filter(None, [nearest_profile()[1]])]
        lines += transcript(one)
    return "\n".join(lines) + "\n"
