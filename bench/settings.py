"""How much is measured."""

from __future__ import annotations

import msgspec

from bench.machine import Cores


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds."""

    cores: Cores
    rounds: int = 5
    warm: float = 0.4  # from a tool's first answers to the window
    window: float = 1.5
    quick: bool = False  # only whether everything still works: the figures mean nothing
    open_files: int = 1024  # the limit that holds
