"""The engines, and scenes played on them: each in a process of its own, which enters namespaces.

A scene spends most of its time waiting (for a health check, for a port to come back), so those of all selected tests
are played at once, a few at a time, from the first test on; a test waits for its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

import peers
from kit.labs import python

LAYER_7 = ("embedded", "haproxy")
LAYER_4 = ("embedded", "haproxy", "nftables")
USUAL = (("embedded", "http"), ("haproxy", "http"), ("nftables", "tcp"))
EVERY = (("embedded", "http"), ("embedded", "tcp"), ("haproxy", "http"), ("haproxy", "tcp"), ("nftables", "tcp"))
AT_ONCE = 4
LONGEST = 300.0  # seconds for a scene on a busy machine; none takes a minute on a quiet one

_NEEDS = {"embedded": ("ss",), "haproxy": ("ss", "haproxy"), "nftables": ("ss", "nft")}


@dataclass(frozen=True)
class Scene:
    """A function of a module beside this one, called with the engine and these words; it prints what it saw."""

    name: str  # "closing.keeps_nothing"
    engine: str
    words: tuple[object, ...] = ()
    more: dict[str, object] = field(default_factory=dict, hash=False)

    @property
    def code(self) -> str:
        words = [*map(repr, (self.engine, *self.words)), *(f"{name}={value!r}" for name, value in self.more.items())]
        return f"from balancer.conformance import {self.name.partition('.')[0]}\n{self.name}({', '.join(words)})"

    @property
    def id(self) -> str:
        return "-".join([self.engine, *(word for word in self.words if isinstance(word, str) and word)])


def scene(name: str, engine: str, *words: object, **more: object) -> Scene:
    return Scene(name, engine, words, more)


def played(*scenes: Scene) -> pytest.MarkDecorator:
    """The test once for each scene: `engine`, and what the scene `told`."""
    rows = [pytest.param(one.engine, one, id=one.id) for one in scenes]
    return pytest.mark.parametrize(("engine", "told"), rows, indirect=["told"])


class Theatre:
    """Plays scenes; each once, whoever asks for it."""

    def __init__(self, scenes: Iterable[Scene]) -> None:
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._played = {
            one.code: self._pool.submit(python, one.code, timeout=LONGEST - 10) for one in scenes if _can(one)
        }

    def told(self, wanted: Scene) -> Any:
        for program in _NEEDS[wanted.engine]:
            peers.needs(program)
        future: Future[str] = self._played[wanted.code]
        return json.loads(future.result())

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def _can(one: Scene) -> bool:
    return all(peers.find(program) for program in _NEEDS[one.engine])
