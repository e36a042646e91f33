"""`timewait --version`: what a bug report begins with."""

from __future__ import annotations

import subprocess
import sys

import timewait


def test_the_version_is_told() -> None:
    done = subprocess.run([sys.executable, "-m", "timewait", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"timewait {timewait.__version__}\n"
