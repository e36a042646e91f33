"""Rich's console, except that a reader who has gone (`| head`) is told to the caller; the program goes on."""

from __future__ import annotations

from rich import console

from timewait.cli.pipes import quiet_pipe

__all__ = ["Console", "quiet_pipe"]


class Console(console.Console):
    def on_broken_pipe(self) -> None:
        """Rich calls this while it handles the BrokenPipeError; files are still to be written, so it goes on up."""
        raise BrokenPipeError
