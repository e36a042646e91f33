"""The parser of dialogues; the language is told in `timewait.lab.dialogue`. Knows no socket, reads no file."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from timewait.lab.dialogue import given, values
from timewait.lab.dialogue.script import (
    CONNECTION,
    GONE,
    LISTENER,
    STATES,
    Call,
    Count,
    Expect,
    Given,
    Nothing,
    Script,
    Send,
    SetKnobs,
    State,
    Step,
    Wait,
)
from timewait.tcp import counters
from timewait.tcp.kernels import KERNELS, Kernel, UnknownKnobError, has_knob, knobs
from timewait.tcp.knobs import SPANS
from timewait.tcp.segment import ACK, FIN, PSH, RST, SYN

MOST_BYTES = 100_000  # of a script; the longest of ours has two thousand
FLAGS = {"SYN": SYN, "ACK": ACK, "FIN": FIN, "RST": RST, "PSH": PSH}
VERBS = ("listen", "accept", "connect", "send", "recv", "shutdown", "close", "linger")
_NUMBERED = {"send": (1, 100_000), "recv": (0, 100_000), "linger": (0, 0)}
"""Of how much. SO_LINGER with more than 0 s would hold up close() on a real kernel."""
_NO_KERNELS = "the script names no kernels; first write `kernels all` or, for example, `kernels 2.6.32 4.19..`"
_HEADERS = ("why", "kernels", "model", "over")
_ERRNOS = frozenset(errno.errorcode.values())
_SOCKET = re.compile(r"[a-z][a-z0-9_]{0,15}")


class ScriptError(ValueError):
    """A script that cannot be read: the line it is about, counted from 1, and what to write there."""

    def __init__(self, line: int, problem: str, name: str = "") -> None:
        super().__init__(f"{name}{', ' if name else ''}line {line}: {problem}")
        self.line = line
        self.problem = problem


def parse(text: str, name: str = "") -> Script:
    """The script in `text`; `name` is what to call it. Raises ScriptError."""
    reader = _Reader()
    line = 1
    try:
        if len(text) > MOST_BYTES:
            raise ValueError(f"a script has at most {MOST_BYTES} characters")
        for line, written in enumerate(text.split("\n"), 1):
            reader.read(line, written.partition("#")[0].strip())
        return reader.script(name)
    except ValueError as error:
        raise ScriptError(line, str(error), name) from None


def _fail(problem: str) -> NoReturn:
    raise ValueError(problem)


class _Reader:
    """Collects a script line by line. Raises ValueError; the caller knows the line."""

    def __init__(self) -> None:
        self._why = self._source = self._model = ""
        self._kernels: tuple[str, ...] = ()
        self._ipv6 = False
        self._steps: list[Step] = []
        self._sockets: list[str] = []
        self._implied = False
        self._role = ""  # "listen" or "connect"
        self._directives: dict[str, Callable[[str, dict[str, Any]], None]] = {
            "why": self._read_why,
            "kernels": self._read_kernels,
            "model": self._read_model,
            "over": self._read_over,
            "knobs": self._read_knobs,
            "given": self._read_given,
            "host": self._read_host,
            ">": self._read_send,
            "<": self._read_expect,
            "wait": self._read_wait,
            "count": self._read_count,
            "state": self._read_state,
        }

    def script(self, name: str) -> Script:
        if not self._why:
            _fail("the script does not say why it is there; begin it with `why TEXT [KERNEL FUNCTION]`")
        if not self._kernels:
            _fail(_NO_KERNELS)
        if not self._steps:
            _fail("the script has no steps")
        steps = tuple(self._steps)
        return Script(name, self._why, self._source, self._kernels, self._ipv6, self._model, steps)

    def read(self, line: int, text: str) -> None:
        """One line without its comment."""
        only: tuple[str, ...] = ()
        rest = text
        if text.startswith("["):
            inside, closed, rest = text[1:].partition("]")
            if not closed:
                _fail("the [ of the kernels this line is for is not closed")
            only = self._condition(inside.split())
        word, _, rest = rest.strip().partition(" ")
        if not word:
            return None if not text else _fail("no step after the kernels in [ ]")
        if word not in self._directives:
            _fail(f"unknown word {word!r}{values.nearest(word, self._directives)}")
        if word not in _HEADERS and not self._kernels:
            _fail(_NO_KERNELS)
        if word in _HEADERS and (self._steps or only):
            _fail(f"`{word}` stands in front of the first step" + (", and holds for all kernels" if only else ""))
        where = {"line": line, "text": text, "only": only, "implied": self._implied}
        return self._directives[word](rest.strip(), where)

    def _condition(self, words: Sequence[str]) -> tuple[str, ...]:
        if not self._kernels:
            _fail(_NO_KERNELS)
        only = tuple(name for name in values.kernels(words) if name in self._kernels)
        return only or _fail("none of the script's kernels is among these")

    # One function per directive, in the order of the documentation.

    def _read_why(self, rest: str, where: Mapping[str, Any]) -> None:
        match = re.fullmatch(r"(.+?)\s*\[([^\[\]]+)\]", rest)
        if not match:
            _fail("write `why TEXT [KERNEL FUNCTION]`: one sentence, then the function of the kernel that decides")
        if self._why:
            _fail("a second `why`")
        self._why, self._source = match[1], match[2].strip()

    def _read_kernels(self, rest: str, where: Mapping[str, Any]) -> None:
        self._kernels = values.kernels(rest.split())
        if not self._kernels:
            _fail("which kernels? write `kernels all` or, for example, `kernels 2.6.32 4.19..`")

    def _read_model(self, rest: str, where: Mapping[str, Any]) -> None:
        self._model = rest or _fail("say why it can be played on the model only: `model a minute passes`")

    def _read_over(self, rest: str, where: Mapping[str, Any]) -> None:
        if rest not in ("ipv4", "ipv6"):
            _fail(f"{rest!r}: write `over ipv6`, or `over ipv4`, which is the default")
        self._ipv6 = rest == "ipv6"

    def _read_knobs(self, rest: str, where: Mapping[str, Any]) -> None:
        pairs: list[tuple[str, str]] = []
        for word in rest.split():
            name, equals, value = word.partition("=")
            if name not in SPANS:
                _fail(f"unknown knob {name!r}{values.nearest(name, SPANS)}")
            if not equals:
                _fail(f"{name}: write {name}=VALUE")
            if name in dict(pairs):
                _fail(f"{name} stands twice")
            pairs.append((name, value))
        if not pairs:
            _fail("write `knobs NAME=VALUE`")
        for row in KERNELS:
            if row.name in (where["only"] or self._kernels):
                _check_knobs(row, pairs)
        self._steps.append(SetKnobs(values=tuple(pairs), **where))

    def _read_given(self, rest: str, where: Mapping[str, Any]) -> None:
        state, *words = rest.split() or [""]
        if state not in given.WAYS:
            _fail(f"`given` knows no state {state!r}{values.nearest(state, given.WAYS)}")
        fields, flags = _fields(words, ("seq", "ts"), ("connected", "bound"))
        if where["only"] or self._sockets:
            _fail("`given` comes before any call, and holds for all kernels")
        seq = values.number(fields.get("seq", "5000"))
        ts = values.number(fields["ts"]) if "ts" in fields else None
        self._implied = True
        for text in given.lines(state, seq, ts, connected="connected" in flags, bound="bound" in flags):
            self.read(where["line"], text)
        self._implied = False
        self._steps.append(Given(**where))

    def _read_host(self, rest: str, where: Mapping[str, Any]) -> None:
        verb, *words = rest.split() or [""]
        if verb not in VERBS:
            _fail(f"unknown call {verb!r}{values.nearest(verb, VERBS)}")
        error = ""
        if "fails" in words:
            at = words.index("fails")
            error = words[at + 1] if len(words) == at + 2 else ""
            if error not in _ERRNOS:
                _fail(f"`fails` is followed by the name of an error{values.nearest(error, _COMMON_ERRORS)}")
            del words[at:]
        amount = 0
        if verb in _NUMBERED:
            if not words:
                _fail(f"{verb} how much? write `host {verb} {_NUMBERED[verb][1] // 10}`")
            amount = values.bounded(words.pop(0), *_NUMBERED[verb])
        names = [word for word in words if "=" not in word and word != "reuse"]
        known = {"listen": ("backlog",), "connect": ("port",)}.get(verb, ())
        bare = ("reuse",) if verb == "connect" else ()
        fields, flags = _fields([word for word in words if word not in names], known, bare)
        if verb == "listen":
            amount = values.bounded(fields.get("backlog", "128"), 0, 65535)
        call = Call(
            verb=verb,
            number=amount,
            socket=self._socket(verb, names),
            port=values.bounded(fields["port"], 1, 65535) if "port" in fields else 0,
            reuse="reuse" in flags,
            errno=error,
            **where,
        )
        self._steps.append(call)

    def _socket(self, verb: str, names: Sequence[str]) -> str:
        if len(names) > 1:
            _fail(f"one socket at most, not {' and '.join(names)}")
        name = names[0] if names else LISTENER if verb == "listen" else CONNECTION
        if not _SOCKET.fullmatch(name):
            _fail(f"{name!r} is no name of a socket; write small letters")
        if verb in ("listen", "accept", "connect"):
            if verb == "accept" and LISTENER not in self._sockets:
                _fail("nobody listens; `host listen` comes first")
            if (verb == "listen") != (name == LISTENER):
                _fail(f"the socket that listens is called {LISTENER}, and no other")
            if verb == {"listen": "connect", "connect": "listen"}.get(self._role):
                _fail("a host either listens or connects; write two scripts")
            self._role = verb if verb != "accept" else self._role
            self._sockets.append(name)
        elif name not in self._sockets:
            _fail(f"no socket {name!r} yet; there is {' and '.join(self._sockets) or 'none'}")
        return name

    def _read_send(self, rest: str, where: Mapping[str, Any]) -> None:
        flags, fields, _ = _segment(rest, ("seq", "ack", "len", "ts", "ecr", "port"), ())
        if "seq" not in fields:
            _fail("what the peer sends needs its sequence number, seq=")
        if "ecr" in fields and "ts" not in fields:
            _fail("ecr= without ts=; a segment has both or none")
        step = Send(
            flags=flags,
            seq=values.number(fields["seq"]),
            ack=values.number(fields.get("ack", "0")),
            length=values.bounded(fields.get("len", "0"), 0, 1400),
            tsval=values.number(fields["ts"]) if "ts" in fields else None,
            tsecr=values.number(fields["ecr"]) if "ecr" in fields else None,
            port=_port(fields),
            **where,
        )
        self._steps.append(step)

    def _read_expect(self, rest: str, where: Mapping[str, Any]) -> None:
        if rest == "nothing":
            self._steps.append(Nothing(**where))
            return
        flags, fields, found = _segment(rest, ("seq", "ack", "len", "ts", "ecr", "port"), ("ts",))
        if fields.get("ts", "any") != "any":
            _fail("the host's own clock cannot be foretold; write `ts`, or ts=any where there may be none")
        seq = fields.get("seq")
        step = Expect(
            flags=flags,
            seq=None if seq in (None, "new") else values.number(seq or ""),
            ack=values.number(fields["ack"]) if "ack" in fields else None,
            length=values.bounded(fields.get("len", "0"), 0, 100_000),
            timestamps=None if "ts" in fields else "ts" in found or "ecr" in fields,
            tsecr=values.number(fields["ecr"]) if "ecr" in fields else None,
            port=_port(fields),
            fresh=seq == "new",
            **where,
        )
        self._steps.append(step)

    def _read_wait(self, rest: str, where: Mapping[str, Any]) -> None:
        self._steps.append(Wait(seconds=values.duration(rest), **where))

    def _read_count(self, rest: str, where: Mapping[str, Any]) -> None:
        moved = []
        known = tuple(counters.NAMES.values())
        for word in [] if rest == "nothing" else rest.split() or [""]:
            name, plus, number = word.partition("+")
            if name not in known:
                _fail(f"unknown counter {name!r}{values.nearest(name, known)}")
            if not plus:
                _fail(f"by how much? write {name}+1")
            moved.append((name, values.bounded(number, 1, 10_000)))
        self._steps.append(Count(moved=tuple(moved), **where))

    def _read_state(self, rest: str, where: Mapping[str, Any]) -> None:
        name, *words = rest.split() or [""]
        if name not in (*STATES, GONE):
            _fail(f"unknown state {name!r}{values.nearest(name, (*STATES, GONE))}")
        ports = [word for word in words if word.startswith("port=")]
        words = [word for word in words if word not in ports]
        timer, age = None, 0.0
        if words:
            timer = values.duration(words.pop(0))
        if words:
            if len(words) != 3 or (words[0], words[2]) != ("armed", "ago"):
                _fail(f"{' '.join(words)!r}: write for example `state TIME_WAIT 60s armed 0.3s ago`")
            age = values.duration(words[1])
        port = _port(_fields(ports, ("port",), ())[0])
        self._steps.append(State(name=name, timer=timer, age=age, port=port, **where))


_COMMON_ERRORS = ("EADDRNOTAVAIL", "EADDRINUSE", "ECONNREFUSED", "ECONNRESET", "EPIPE", "EAGAIN", "ENOTCONN")


def _check_knobs(row: Kernel, pairs: Sequence[tuple[str, str]]) -> None:
    for name, _ in pairs:
        if not has_knob(row, name):
            _fail(f"Linux {row.version} has no {name}; give the line its kernels, for example `[6.14..] knobs ...`")
    try:
        knobs(row, dict(pairs))
    except UnknownKnobError as error:
        _fail(str(error))


def _segment(rest: str, known: Sequence[str], bare: Sequence[str]) -> tuple[int, dict[str, str], set[str]]:
    """Flags, fields and bare words of a segment."""
    flags, others = 0, []
    for word in rest.split():
        if word in FLAGS:
            flags |= FLAGS[word]
        elif "=" not in word and word not in bare:
            _fail(f"unknown word {word!r} in a segment{values.nearest(word, (*FLAGS, *known))}")
        else:
            others.append(word)
    if not flags:
        _fail("a segment has at least one of the flags SYN ACK FIN RST")
    return (flags, *_fields(others, known, bare))


def _fields(words: Sequence[str], known: Sequence[str], bare: Sequence[str]) -> tuple[dict[str, str], set[str]]:
    """`name=value` words and bare ones, each at most once."""
    fields: dict[str, str] = {}
    found: set[str] = set()
    for word in words:
        name, equals, value = word.partition("=")
        if name in fields or name in found:
            _fail(f"{name} is given twice")
        if equals and name in known:
            fields[name] = value
        elif not equals and name in bare:
            found.add(name)
        else:
            _fail(f"unknown word {word!r}{values.nearest(name, (*known, *bare)) if known or bare else ''}")
    return fields, found


def _port(fields: Mapping[str, str]) -> int | None:
    return values.bounded(fields["port"], 1, 65535) if "port" in fields else None
