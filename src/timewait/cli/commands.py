"""Every command, in the order of `timewait --help`."""

from __future__ import annotations

from timewait.cli import stress  # noqa: F401
from timewait.cli import watch  # noqa: F401
from timewait.cli import demo  # noqa: F401
from timewait.cli import doctor  # noqa: F401
from timewait.cli import report  # noqa: F401
