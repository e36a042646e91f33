"""Rich's console, except that a reader who has gone (`| head`) is told to the caller; the program goes on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich import console


class Console(console.Console):
    def on_broken_pipe(self) -> None:
        """Rich calls this while it handles the BrokenPipeError; files are still to be written, so it goes on up."""
        raise BrokenPipeError


@contextmanager
def quiet_pipe() -> Iterator[None]:
    """A gone reader ends the printing, silently, and nothing else."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the last flush at exit is silent too
