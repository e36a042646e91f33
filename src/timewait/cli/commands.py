"""Every command, in the order of `timewait --help`."""

from __future__ import annotations
