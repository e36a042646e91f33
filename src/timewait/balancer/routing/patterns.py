"""Regular expressions of rules, matched in time linear in the subject.

Whoever sends a request chooses the subject, and an engine that backtracks, as Python's and nginx's do, takes hours
for `^/(a+)+$` and the right path. So an expression is read by Python's parser, which keeps its syntax Python's, and
then run as an automaton: all ways to match at once, a set of them being a state, made when first needed and kept.
What no automaton can do (back-references, looking around, word boundaries, atomic groups) is refused. `$` is the very
end, not before a line feed at the end: a path may have one (%0a).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import import_module
from typing import Any

LONGEST = 1000  # characters of an expression; CLB takes 200
MOST_NODES = 1000  # of an automaton; a{1000} has as many
MOST_STATES = 1000  # kept; then all are forgotten

_sre: Any = import_module("re._parser")  # not public, but in every Python since 2.0, once as sre_parse
_op: Any = import_module("re._constants")

_REFUSED = {
    "AT": "a word boundary",
    "ASSERT": "a look ahead or behind",
    "ASSERT_NOT": "a look ahead or behind",
    "GROUPREF": "a back-reference",
    "GROUPREF_EXISTS": "a condition",
    "POSSESSIVE_REPEAT": "a possessive quantifier",
    "ATOMIC_GROUP": "an atomic group",
}
_BYTES = range(256)
_MATCH = 0  # node 0: found


def _category(escape: bytes) -> frozenset[int]:
    compiled = re.compile(escape)
    return frozenset(byte for byte in _BYTES if compiled.match(bytes((byte,))))


_CATEGORIES: dict[Any, frozenset[int]] = {
    _op.CATEGORY_DIGIT: _category(rb"\d"),
    _op.CATEGORY_NOT_DIGIT: _category(rb"\D"),
    _op.CATEGORY_SPACE: _category(rb"\s"),
    _op.CATEGORY_NOT_SPACE: _category(rb"\S"),
    _op.CATEGORY_WORD: _category(rb"\w"),
    _op.CATEGORY_NOT_WORD: _category(rb"\W"),
}
_BEGIN = (_op.AT_BEGINNING, _op.AT_BEGINNING_STRING)
_END = (_op.AT_END, _op.AT_END_STRING)


class _Automaton:
    """The nodes of one expression: each takes a byte, or leads on without one, or only at the begin or the end."""

    def __init__(self, text: bytes, nocase: bool) -> None:
        self.takes: list[tuple[frozenset[int], int] | None] = [None]
        self.leads: list[list[int]] = [[]]
        self.at: list[Any] = [None]
        tree = _sre.parse(text, re.IGNORECASE if nocase else 0)
        self.first = self._sequence(tree, _MATCH, self._nocase(tree.state.flags))

    @staticmethod
    def _nocase(flags: int) -> bool:
        if flags & ~(re.IGNORECASE | re.DOTALL):
            raise ValueError("has flags other than (?i)")
        if flags & re.DOTALL:
            raise ValueError("has the flag (?s)")
        return bool(flags & re.IGNORECASE)

    def _add(self, takes: tuple[frozenset[int], int] | None, leads: list[int], at: Any = None) -> int:
        if len(self.takes) >= MOST_NODES:
            raise ValueError("is too large: write it with fewer or smaller repetitions")
        self.takes.append(takes)
        self.leads.append(leads)
        self.at.append(at)
        return len(self.takes) - 1

    def _sequence(self, items: Iterable[Any], then: int, nocase: bool) -> int:
        for operator, argument in reversed(list(items)):
            then = self._item(operator, argument, then, nocase)
        return then

    def _item(self, operator: Any, argument: Any, then: int, nocase: bool) -> int:
        """Adds the nodes of one item that leads on to `then`; its first node."""
        if operator in (_op.LITERAL, _op.NOT_LITERAL, _op.ANY, _op.IN):
            return self._add((_bytes(operator, argument, nocase), then), [])
        if operator is _op.BRANCH:
            return self._add(None, [self._sequence(branch, then, nocase) for branch in argument[1]])
        if operator is _op.SUBPATTERN:
            _, added, removed, items = argument
            return self._sequence(items, then, (nocase or self._nocase(added)) and not self._nocase(removed))
        if operator in (_op.MAX_REPEAT, _op.MIN_REPEAT):
            least, most, items = argument
            return self._repeat(least, most, items, then, nocase)
        if operator is _op.AT and argument in (*_BEGIN, *_END):
            return self._add(None, [then], argument)
        name = _REFUSED.get(str(operator), f"what Python calls {operator}")
        raise ValueError(f"has {name}, which cannot be matched in bounded time")

    def _repeat(self, least: int, most: Any, items: Any, then: int, nocase: bool) -> int:
        if most is _op.MAXREPEAT:
            loop = self._add(None, [])
            self.leads[loop] += [self._sequence(items, loop, nocase), then]
            first = loop
        else:
            first = then
            for _ in range(most - least):
                before = self._sequence(items, first, nocase)
                if before == first:
                    break  # nothing repeated is nothing
                first = self._add(None, [before, then])
        for _ in range(least):
            before = self._sequence(items, first, nocase)
            if before == first:
                break
            first = before
        return first

    def closure(self, nodes: Iterable[int], begin: bool, end: bool) -> frozenset[int]:
        """All nodes that are reached from `nodes` without a byte."""
        found: set[int] = set()
        todo = list(nodes)
        while todo:
            node = todo.pop()
            if node in found:
                continue
            found.add(node)
            at = self.at[node]
            if at is None or (begin and at in _BEGIN) or (end and at in _END):
                todo += self.leads[node]
        return frozenset(found)


def _bytes(operator: Any, argument: Any, nocase: bool) -> frozenset[int]:
    """The bytes that one item of an expression takes."""
    found: set[int] = set()
    negated = operator is _op.NOT_LITERAL
    if operator is _op.ANY:
        return frozenset(_BYTES) - {ord("\n")}
    for kind, value in argument if operator is _op.IN else [(_op.LITERAL, argument)]:
        if kind is _op.NEGATE:
            negated = True
        elif kind is _op.LITERAL:
            found.add(value)
        elif kind is _op.RANGE:
            found |= set(range(value[0], value[1] + 1))
        else:
            found |= _CATEGORIES[value]
    if nocase:
        found |= {byte for each in found for byte in (*bytes((each,)).lower(), *bytes((each,)).upper())}
    return frozenset(_BYTES) - found if negated else frozenset(found)


class _State:
    """All nodes at which the ways to match are now."""

    __slots__ = ("hit", "hit_at_end", "next", "nodes")

    def __init__(self, nodes: frozenset[int], hit_at_end: bool) -> None:
        self.nodes = nodes
        self.hit = _MATCH in nodes
        self.hit_at_end = self.hit or hit_at_end
        self.next: dict[int, _State] = {}


class Pattern:
    """An expression that may match anywhere in a host or path, unless it is anchored. ValueError: what is wrong."""

    def __init__(self, text: str, *, nocase: bool = False) -> None:
        self.text = text
        if len(text) > LONGEST:
            raise ValueError(f"a regular expression of {len(text)} characters is too long: {LONGEST} is the most")
        try:
            self._automaton = _Automaton(text.encode(), nocase)
        except RecursionError:
            raise ValueError(f"the regular expression {text!r} is nested too deeply") from None
        except (re.error, OverflowError) as error:
            raise ValueError(f"the regular expression {text!r} is wrong: {error}") from None
        except ValueError as error:
            raise ValueError(f"the regular expression {text!r} {error}") from None
        self._states: dict[frozenset[int], _State] = {}
        self._start = self._state(self._automaton.closure([self._automaton.first], begin=True, end=False), begin=True)

    def matches(self, subject: bytes) -> bool:
        """Whether it is found in `subject`."""
        state = self._start
        for byte in subject:
            if state.hit:
                return True
            following = state.next.get(byte)
            state = following if following is not None else self._step(state, byte)
        return state.hit_at_end

    def _step(self, state: _State, byte: int) -> _State:
        automaton = self._automaton
        reached = [automaton.first]  # a match may begin at every byte
        for node in state.nodes:
            takes = automaton.takes[node]
            if takes is not None and byte in takes[0]:
                reached.append(takes[1])
        nodes = automaton.closure(reached, begin=False, end=False)
        following = self._states.get(nodes)
        if following is None:
            following = self._state(nodes, begin=False)
        state.next[byte] = following
        return following

    def _state(self, nodes: frozenset[int], begin: bool) -> _State:
        if len(self._states) >= MOST_STATES:
            for state in self._states.values():
                state.next.clear()
            self._states.clear()
            self._start.next.clear()
        at_end = self._automaton.closure(nodes, begin=begin, end=True)
        state = _State(nodes, _MATCH in at_end)
        if not begin:
            self._states[nodes] = state
        return state
