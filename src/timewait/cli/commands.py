"""Every command, in the order of `timewait --help`."""

from __future__ import annotations

# The order is that of the help, not of the alphabet.
# isort: off
from timewait.cli import stress  # noqa: F401
from timewait.cli import doctor  # noqa: F401
from timewait.cli import watch  # noqa: F401
from timewait.cli import report  # noqa: F401
from timewait.cli import demo  # noqa: F401
from timewait.cli import simulate  # noqa: F401
from timewait.cli.balance import run as balance_run, ctl, top  # noqa: F401
from timewait.cli.lab import list, show, up, shell, run  # noqa: F401
from timewait.cli.rules import kernels, length, play, reuse, syn  # noqa: F401
