"""Settings by name: `nat.ports=256`, `server.tcp_tw_recycle=on`, `duration=5m`. A scenario file and the command line
use the same names, the same values and the same words when one is wrong.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from enum import StrEnum
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec

from timewait import durations
from timewait.simulate import world
from timewait.simulate.world import Scenario
from timewait.tcp.knobs import SPANS, Knobs

Path = tuple[str, ...]  # ("nat", "addresses"); ("server", "sysctls", "tcp_timestamps")


class ScenarioError(ValueError):
    """Something that is no scenario: one sentence saying what is wrong, where, and what to write."""

    def __init__(self, sentence: str, path: Path = ()) -> None:
        super().__init__(sentence)
        self.path = path  # of the setting, so that who reads a file can name the line


DURATIONS = frozenset({
    "duration", "tick", "clients.uptime_low", "clients.uptime_high", "clients.pause", "clients.connect_timeout",
    "arrivals.period", "arrivals.peak_at", "arrivals.think", "nat.rest", "network.access", "network.delay",
    "server.answer",
})  # fmt: skip
RATES = frozenset({"arrivals.rate", "server.accepts"})
SHARES = frozenset({"arrivals.swing", "network.loss", "network.eats_ack"})

# What people call it -> the sysctl.
_SHORT = {
    "timestamps": "tcp_timestamps",
    "recycle": "tcp_tw_recycle",
    "tw_reuse": "tcp_tw_reuse",
    "max_tw_buckets": "tcp_max_tw_buckets",
    "rfc1337": "tcp_rfc1337",
}
_LOCAL_PORTS = "ip_local_port_range"
_COUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kKmMgG]?)")
_FACTORS = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}
_WORDS = {"on": 1, "true": 1, "yes": 1, "off": 0, "false": 0, "no": 0}
NONE = "none"  # leaves out a part that need not be there


def spellings(sysctl: str) -> list[str]:
    """How a sysctl may be written: `tcp_tw_recycle`, `recycle`."""
    return [sysctl, *(short for short, full in _SHORT.items() if full == sysctl)]


def is_sysctl(name: str) -> bool:
    """Whether a setting is a sysctl by itself, without saying whose."""
    return _SHORT.get(name, name.removeprefix("net.ipv4.")) in SPANS


def fields(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The fields of a part and their types."""
    return {field.name: field.type for field in msgspec.structs.fields(kind)}


def part_of(kind: Any) -> type[msgspec.Struct] | None:
    """The part of a scenario that a field of this type holds; None where it holds a value."""
    for one in get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,):
        if isinstance(one, type) and issubclass(one, msgspec.Struct):
            return one
    return None


def resolve(words: Path) -> Path:
    """The full path of a setting, short names spelled out. Raises ScenarioError naming the nearest."""
    kind: type[msgspec.Struct] = Scenario
    for depth, word in enumerate(words):
        known = fields(kind)
        if word not in known:
            return _short(words, depth, known)
        inner = part_of(known[word])
        if inner is None:
            _end(words, depth)
            return words
        kind = inner
    return words


def _short(words: Path, depth: int, known: Mapping[str, Any]) -> Path:
    """`server.recycle` -> `server.sysctls.tcp_tw_recycle`. Raises ScenarioError."""
    word, last = words[depth], depth == len(words) - 1
    if last and "sysctls" in known:
        sysctl = _SHORT.get(word, word.removeprefix("net.ipv4."))
        if sysctl in SPANS:
            return (*words[:depth], "sysctls", sysctl)
        if word == "ports":
            return (*words[:depth], "sysctls", _LOCAL_PORTS)
    if last and words == ("nat", "ports"):
        return words
    if depth == 0 and is_sysctl(word):
        raise ScenarioError(f"whose {word}? Write clients.{word} or server.{word}", words)
    names = [*known, *(list(_SHORT) + list(SPANS) if "sysctls" in known else [])]
    names += ["ports"] if words[:1] == ("nat",) else []
    near = difflib.get_close_matches(word, names, 3, 0.5) or list(known)
    place = f"in {'.'.join(words[:depth])} " if depth else ""
    full = [".".join((*words[:depth], name)) for name in near]
    raise ScenarioError(f"there is no setting {word!r} {place}; did you mean {_or(full)}?".replace(" ;", ";"), words)


def _end(words: Path, depth: int) -> None:
    more = words[depth + 1 :]
    if not more or (words[depth] == "sysctls" and len(more) == 1):
        return
    raise ScenarioError(f"{'.'.join(words[: depth + 1])} is a value; nothing is inside it", words)


def applied(raw: dict[str, Any], words: Path, value: Any) -> None:
    """Writes one setting into the plain dicts of a scenario. `value`: text of a command line, or what TOML gave.

    Raises ScenarioError.
    """
    path = resolve(words)
    if path == ("nat", "ports"):
        _nat_ports(raw, value)
        return
    if path[-1] == _LOCAL_PORTS and re.fullmatch(r"[0-9][0-9_.]*[kK]?", str(value)):
        value = _range_of(raw, path, value)
    place = raw
    for word in path[:-1]:
        inner = place.get(word)
        place[word] = dict(inner) if isinstance(inner, dict) else {}
        place = place[word]
    place[path[-1]] = value_of(path, value)


def _nat_ports(raw: dict[str, Any], value: Any) -> None:
    """A number of ports, or first and last: `256`, `1024-65535`."""
    nat = raw["nat"] = dict(raw.get("nat") or {})
    span = re.fullmatch(r"\s*([0-9]+)\s*-\s*([0-9]+)\s*", str(value))
    if span:
        nat["low"], nat["high"] = int(span[1]), int(span[2])
        return
    low = int(nat.get("low", world.Nat().low))
    nat["low"], nat["high"] = low, low + _whole(("nat", "ports"), value) - 1


def _range_of(raw: Mapping[str, Any], path: Path, value: Any) -> str:
    """So many ports from the first on that there was."""
    place: Any = raw
    for word in path:
        place = place.get(word) if isinstance(place, Mapping) else None
    first = re.match(r"[0-9]+", str(place or ""))
    low, number = int(first[0]) if first else Knobs().ip_local_port_range[0], _whole(path, value)
    if not 1 <= number <= 65536 - low:
        raise ScenarioError(
            f"{'.'.join(path)}={value}: write a number of ports from 1 to {65536 - low:,}, or LOW-HIGH", path
        )
    return f"{low}-{low + number - 1}"


def value_of(path: Path, value: Any) -> Any:
    """A value of the right type for this setting. Raises ScenarioError."""
    kind: Any = Scenario
    for word in path:
        if kind is world.Settings or get_origin(kind) is dict:
            return _sysctl(value)
        kind = fields(part_of(kind) or Scenario)[word]
    inner = part_of(kind)
    if inner is not None:
        return _part(path, kind, value)
    return _plain(path, kind, value)


def _part(path: Path, kind: Any, value: Any) -> Any:
    if isinstance(value, dict):
        return value
    if value in (None, NONE, False) and type(None) in get_args(kind):
        return None
    optional = f" or {NONE}" if type(None) in get_args(kind) else ""
    raise ScenarioError(
        f"{'.'.join(path)} has parts; set one of them, as {'.'.join(path)}.NAME=VALUE{optional}", path
    )


def _plain(path: Path, kind: Any, value: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return _choice(path, value, [str(one) for one in kind])
    if kind is bool:
        if isinstance(value, str) and value.lower() in _WORDS:
            return bool(_WORDS[value.lower()])
        if not isinstance(value, bool):
            raise ScenarioError(f"{'.'.join(path)}={value}: write on or off", path)
        return value
    if kind is int:
        return _whole(path, value)
    if kind is float:
        return _number(path, value)
    if kind is str:
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            raise ScenarioError(f"{'.'.join(path)}: write text in quotes", path)
        return str(value)
    if isinstance(value, str):
        raise ScenarioError(
            f"{'.'.join(path)}={value}: that is a list; write it in a scenario file, or --trace FILE", path
        )
    return value  # lists and tables: msgspec checks what is inside


def _choice(path: Path, value: Any, known: list[str]) -> str:
    if value in known:
        return str(value)
    near = difflib.get_close_matches(str(value), known, 1, 0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ScenarioError(f"{'.'.join(path)}={value}: {hint}write one of {', '.join(known)}", path)


def _sysctl(value: Any) -> int | str:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value
    text = str(value).strip()
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    count = re.fullmatch(r"([0-9]+)([kKmMgG]?)", text)
    return int(count[1]) * _FACTORS[count[2].lower()] if count else text


def _whole(path: Path, value: Any) -> int:
    match = _COUNT.fullmatch(str(value).replace("_", "").strip()) if not isinstance(value, bool) else None
    number = float(match[1]) * _FACTORS[match[2].lower()] if match else 0.5
    if number != int(number):
        raise ScenarioError(f"{'.'.join(path)}={value}: write a whole number, as 500, 10k or 2M", path)
    return int(number)


_PER = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def _number(path: Path, value: Any) -> float:
    """Seconds, a rate, a share, or any other number."""
    name = ".".join(path)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = str(value).replace(" ", "")
    if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE]-?[0-9]+)?", text):
        return float(text)
    if name in DURATIONS:
        if (seconds := durations.seconds(text)) is not None:
            return seconds
        raise ScenarioError(f"{name}={value}: write a duration, as 500ms, 30s, 5m, 1h30m or 20d", path)
    if name in RATES:
        number, _, per = text.partition("/")
        match = _COUNT.fullmatch(number)
        if match and per in _PER:
            return float(match[1]) * _FACTORS[match[2].lower()] / _PER[per]
        raise ScenarioError(f"{name}={value}: write a rate, as 500, 50k/s or 300/m", path)
    if name in SHARES:
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?%", text):
            return float(text[:-1]) / 100
        raise ScenarioError(f"{name}={value}: write a share, as 5% or 0.05", path)
    raise ScenarioError(f"{name}={value}: write a number", path)


def parse_setting(text: str, flag: str) -> tuple[str, str]:
    """`nat.ports=256` -> ("nat.ports", "256"). Raises ScenarioError."""
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals or not name or not value.strip():
        raise ScenarioError(f"{flag} {text!r}: write NAME=VALUE, for example nat.ports=256")
    return name, value.strip()


def _or(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
