"""A scenario as a TOML file: a question, the world it is asked of, and which figure answers it.

    title = "What share of users cannot connect?"
    [server]
    kernel = "2.6.32"
    recycle = true          # the same as [server.sysctls] tcp_tw_recycle = 1
    [ask]
    figure = "never"

What is left out has its default; a key that does not exist is refused with its line and the nearest name.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from timewait.simulate import limits
from timewait.simulate.answers import FIGURES
from timewait.simulate.settings import ScenarioError, applied, fields, parse_setting, spellings
from timewait.simulate.toml_text import written
from timewait.simulate.world import Process, Scenario
from timewait.toml_lines import line_of, lines_of


class Ask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a scenario is asked."""

    figure: str = "failed"  # what answers the question: one of answers.FIGURES
    sweep: tuple[str, ...] = ()  # "nat.addresses=16,32,64": the question is about these values
    replications: int = 1
    seed: int = 1
    trace: str = ""  # a file of moments to open connections at, one a line


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A scenario file, read."""

    scenario: Scenario
    ask: Ask = Ask()


MOST_SEED = 2**63 - 1
SCENARIOS = "scenarios"
SUFFIX = ".toml"


def names() -> list[str]:
    """The ready-made scenarios."""
    folder = resources.files("timewait.simulate") / SCENARIOS
    return sorted(entry.name.removesuffix(SUFFIX) for entry in folder.iterdir() if entry.name.endswith(SUFFIX))


def find(word: str) -> Asked:
    """A ready-made scenario by its name, or a file. Raises ScenarioError naming the nearest."""
    if word in (known := names()):
        text = (resources.files("timewait.simulate") / SCENARIOS / (word + SUFFIX)).read_text(encoding="utf-8")
        return parse(text, word + SUFFIX, word)
    path = Path(word)
    if path.suffix == SUFFIX or path.exists() or "/" in word:
        try:
            return parse(path.read_text(encoding="utf-8"), word, path.stem, path.parent)
        except OSError as error:
            raise ScenarioError(f"{word}: cannot be read ({error.strerror})") from None
        except UnicodeDecodeError:
            raise ScenarioError(f"{word} is no text in UTF-8") from None
    near = difflib.get_close_matches(word, known, 3, 0.4)
    hint = (
        f"did you mean {' or '.join(near)}?" if near else "`timewait simulate list` shows all, or name a .toml file"
    )
    raise ScenarioError(f"no scenario {word!r}; {hint}")


def parse(text: str, where: str, name: str, folder: Path = Path()) -> Asked:
    """A scenario from the text of a file; `where` names it in messages. Raises ScenarioError with the line."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"{where}: not TOML: {error}") from None
    lines = lines_of(text)
    try:
        asked = _asked(raw)
        ask = asked.ask
        if "name" not in raw:
            asked = msgspec.structs.replace(asked, scenario=msgspec.structs.replace(asked.scenario, name=name))
        if ask.trace:
            times = read_trace(folder / ask.trace)
            asked = msgspec.structs.replace(asked, scenario=with_trace(asked.scenario, times))
        limits.check(asked.scenario)
    except ScenarioError as error:
        line = line_of(lines, error.path)
        raise ScenarioError(f"{where}{f' line {line}' if line else ''}: {error}", error.path) from None
    except limits.WorldError as error:
        paths = _mentioned(str(error))
        line = next((lines[path] for path in paths if path in lines), None) or line_of(lines, paths[0])
        raise ScenarioError(f"{where}{f' line {line}' if line else ''}: {error}") from None
    return asked


def _mentioned(sentence: str) -> list[tuple[str, ...]]:
    """The setting that a sentence begins with, as it may be written, the most exact first: `nat.low = 7 is above`,
    `server.sysctls: tcp_tw_recycle: ...`; numbers that contradict each other are looked for at the first of them."""
    first, *rest = re.split(r"[\s:=]+", sentence)
    path = tuple(first.split("."))
    if path[-1] == "sysctls" and rest:
        return [(*path, rest[0]), *[(path[0], name) for name in spellings(rest[0])]]
    named = [tuple(word.split(".")) for word in re.findall(r"\b[a-z]+\.[a-z_]+", sentence)]
    return [path, *named]


def _asked(raw: Mapping[str, Any]) -> Asked:
    plain: dict[str, Any] = {}
    for words, value in _leaves(raw):
        if words[0] == "ask":
            _known_ask(words)
            plain.setdefault("ask", {})[words[1]] = value
        else:
            applied(plain, words, value)
    ask = plain.pop("ask", {})
    return Asked(scenario=_made(plain, Scenario, ()), ask=checked_ask(_made(ask, Ask, ("ask",))))


def _leaves(raw: Mapping[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every key with a value, its tables in front; an empty table too, since `[nat]` alone means one."""
    for key, value in raw.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*before, key))
        else:
            yield (*before, key), value


def _known_ask(words: tuple[str, ...]) -> None:
    known = list(fields(Ask))
    if len(words) == 2 and words[1] in known:
        return
    near = difflib.get_close_matches(words[-1], known, 1, 0.4) or known
    raise ScenarioError(f"there is no setting {words[-1]!r} in ask; did you mean ask.{near[0]}?", words)


def checked_ask(ask: Ask) -> Ask:
    if ask.figure not in FIGURES:
        near = difflib.get_close_matches(ask.figure, FIGURES, 1, 0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ScenarioError(f"ask.figure={ask.figure}: {hint}write one of {', '.join(FIGURES)}", ("ask", "figure"))
    if not 1 <= ask.replications <= 10_000:
        raise ScenarioError(
            f"ask.replications={ask.replications}: write a number from 1 to 10,000", ("ask", "replications")
        )
    if not 0 <= ask.seed <= MOST_SEED:
        raise ScenarioError(f"ask.seed={ask.seed}: write a whole number from 0 to {MOST_SEED}", ("ask", "seed"))
    return ask


def _made(plain: Mapping[str, Any], kind: Any, path: tuple[str, ...]) -> Any:
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        sentence, _, place = str(error).partition(" - at `$.")
        inside = tuple(place.rstrip("`").split("[")[0].split(".")) if place else ()
        where = ".".join((*path, *inside))
        raise ScenarioError(f"{where}: {sentence[0].lower()}{sentence[1:]}", (*path, *inside)) from None


def with_settings(scenario: Scenario, settings: Mapping[str, str]) -> Scenario:
    """The scenario with these settings over it, as a command line writes them. Raises ScenarioError, WorldError."""
    plain = msgspec.to_builtins(scenario)
    for name, value in settings.items():
        applied(plain, tuple(name.split(".")), value)
    made: Scenario = _made(plain, Scenario, ())
    limits.check(made)
    return made


def settings_of(words: list[str], flag: str = "--set") -> dict[str, str]:
    """`["nat.ports=256", ...]` -> {"nat.ports": "256"}. Raises ScenarioError."""
    return dict(parse_setting(word, flag) for word in words)


def read_trace(path: Path) -> tuple[float, ...]:
    """Moments in seconds, one a line, ascending; blank lines and `#` comments pass. Raises ScenarioError with the
    line that is out of order or no number."""
    found: list[float] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ScenarioError(f"{path} is no text in UTF-8") from None
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            value = float(text)
        except ValueError:
            raise ScenarioError(f"{path} line {number}: {text!r} is no number of seconds") from None
        if not 0 <= value <= limits.MOST_SECONDS:
            most = f"{limits.MOST_SECONDS:,.0f}"
            raise ScenarioError(f"{path} line {number}: {text} is no moment from 0 to {most} s")
        if found and value < found[-1]:
            raise ScenarioError(f"{path} line {number}: {value:g} is before {found[-1]:g} in the line above; sort it")
        found.append(value)
    if not found:
        raise ScenarioError(f"{path} holds no moments; write one number of seconds a line")
    return tuple(found)


def with_trace(scenario: Scenario, times: tuple[float, ...]) -> Scenario:
    """The scenario with connections opened at these moments."""
    arrivals = msgspec.structs.replace(scenario.arrivals, process=Process.TRACE, times=times)
    return msgspec.structs.replace(scenario, arrivals=arrivals)


def effective(asked: Asked) -> str:
    """The whole scenario as TOML, every default spelled out; reading it gives the same scenario."""
    return written(asked.scenario, {"ask": asked.ask})
