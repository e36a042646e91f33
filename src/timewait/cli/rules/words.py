"""Words of the command line as numbers: times, and lists such as `ts=100000,stamp=1000`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from timewait.cli.rules import WordsError
from timewait.tcp import Record, TimeWait
from timewait.tcp.segment import ACK, FIN, MASK, PSH, RST, SYN

FLAGS = {"FIN": FIN, "SYN": SYN, "RST": RST, "PSH": PSH, "ACK": ACK}


def seconds(text: str, flag: str) -> float:
    """A time in seconds to the millisecond: "1059", "5001.001", "1.5s", "5001001ms"."""
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*(s|ms)?", text.strip())
    if not found:
        raise WordsError(f"{flag} {text}: write seconds, such as 1059 or 1059.25, or milliseconds, such as 5001001ms")
    return float(found[1]) / (1000 if found[2] == "ms" else 1)


def number(value: str | int, name: str) -> int:
    """A number of 32 bits without sign, decimal or hexadecimal."""
    text = str(value).strip().lower()
    if not re.fullmatch(r"[0-9]{1,10}|0x[0-9a-f]{1,8}", text) or int(text, 0 if "x" in text else 10) > MASK:
        raise WordsError(f"{name} {value}: write a whole number from 0 to {MASK}")
    return int(text, 0 if "x" in text else 10)


def flags(text: str) -> int:
    """ "SYN", "RST,ACK", "fin+ack" as bits."""
    bits = 0
    for word in re.split(r"[,+|\s]+", text.strip().upper()):
        if word not in FLAGS:
            raise WordsError(f"--flags {text}: {word or 'nothing'!s} is none of {', '.join(FLAGS)}")
        bits |= FLAGS[word]
    return bits


def flag_names(bits: int) -> str:
    """ "SYN", "FIN+ACK"; "segment without flags"."""
    return "+".join(name for name, bit in FLAGS.items() if bits & bit) or "segment without flags"


def _pairs(text: str, flag: str, known: tuple[str, ...], aliases: Mapping[str, str] | None = None) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in filter(None, re.split(r"[,\s]+", text.strip())):
        key, equals, value = word.partition("=")
        key = (aliases or {}).get(key.strip(), key.strip())
        if not equals or not value:
            raise WordsError(f"{flag} {word}: write NAME=NUMBER, with a name of {', '.join(known)}")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=2, cutoff=0.5) or known
            raise WordsError(f"{flag} {word}: no such field; nearest: {', '.join(near)}")
        if key in found:
            raise WordsError(f"{flag}: {key} stands there twice")
        found[key] = value
    return found


def record(text: str) -> Record:
    """ "ts=100000,stamp=1000"."""
    found = _pairs(text, "--record", ("ts", "stamp"))
    missing = [name for name in ("ts", "stamp") if name not in found]
    if missing:
        raise WordsError(f"--record {text}: {missing[0]} is missing; write ts=NUMBER,stamp=SECONDS")
    stamp = number(found["stamp"], "--record stamp")
    if stamp == 0:
        raise WordsError("--record stamp=0: stands for no record at all; leave --record out")
    return Record(number(found["ts"], "--record ts"), stamp)


_TIME_WAIT = ("rcv_nxt", "snd_nxt", "ts", "stamp", "substate", "entered_ms", "last_ack_ms", "rcv_wnd", "timeout_ms")
_ALIASES = {"entry_ms": "entered_ms", "entered": "entered_ms", "entry": "entered_ms"}


def time_wait(
    text: str, needs: tuple[str, ...], *, loopback: bool = False, ipv6: bool = False, timestamps: bool = True
) -> TimeWait:
    """ "rcv_nxt=5000,snd_nxt=9000,ts=100000,stamp=1000"; what the question `needs` must be there, the rest may.

    `stamp`: the second of the peer's last timestamp; without it the connection had none. `entered_ms`: when TIME_WAIT
    began, in ms on the same clock (6.14 and later ask for it); by default at `stamp`.
    """
    found = _pairs(text, "--time-wait", _TIME_WAIT, _ALIASES)
    substate = found.pop("substate", "TIME_WAIT").upper()
    if substate not in ("TIME_WAIT", "FIN_WAIT2"):
        raise WordsError(f"--time-wait substate={substate}: write TIME_WAIT or FIN_WAIT2")
    values: dict[str, Any] = {}
    for name, value in found.items():
        values[name] = _milliseconds(value) if name == "entered_ms" else number(value, f"--time-wait {name}")
    if not timestamps:
        values["stamp"] = 0
    missing = [name for name in needs if name not in values]
    if missing:
        raise WordsError(
            f"--time-wait {text}: {missing[0]} is missing; write {','.join(f'{one}=NUMBER' for one in needs)}"
        )
    if "ts" in values and values.get("stamp", 0) == 0 and timestamps:
        raise WordsError("--time-wait ts without stamp: say in which second it was stored, as stamp=SECONDS")
    values.setdefault("entered_ms", values.get("stamp", 0) * 1000)
    return TimeWait(**values)._replace(fin_wait2=substate == "FIN_WAIT2", loopback=loopback, ipv6=ipv6)


def _milliseconds(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise WordsError(f"--time-wait entered_ms={text}: write whole milliseconds")
    return int(text)
