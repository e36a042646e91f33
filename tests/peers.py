"""Programs and rights that tests need from the machine: `needs("nginx")` gives the path, or leaves the test out.

Under CI=true nothing may be left out: there a missing peer fails the test. `scripts/peers` installs them; keep its
list and this one alike (test_foundation.py does).
"""

from __future__ import annotations

import os
import shutil

import pytest

PACKAGES = {
    "nginx": "nginx",
    "haproxy": "haproxy",
    "nft": "nftables",
    "chromium": "chromium",
    "wrk": "wrk",
    "ab": "apache2-utils",
    "h2load": "nghttp2-client",
    "hey": "hey",
    "siege": "siege",
    "ss": "iproute2",
    "ip": "iproute2",
    "openssl": "openssl",
    "tmux": "tmux",
}
_OTHER_NAMES = {"chromium": ("chromium-browser", "google-chrome")}
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])

left_out: dict[str, int] = {}
"""What was missing -> how many tests asked for it; the closing summary tells."""


def find(program: str) -> str | None:
    """Path of a peer, also where Debian keeps daemons (/usr/sbin, not on an ordinary user's PATH)."""
    for name in (program, *_OTHER_NAMES.get(program, ())):
        path: str | None = shutil.which(name, path=_PATH)
        if path is not None:
            return path
    return None


def needs(program: str) -> str:
    """The path of `program`. Not installed: the test is left out, with what to install; under CI=true it fails."""
    path = find(program)
    if path is None:
        leave_out(program, f"{program} is not installed: apt-get install {PACKAGES[program]}")
    assert path is not None
    return path


def leave_out(what: str, reason: str) -> None:
    """Ends the test that runs: skipped with `reason` and counted under `what`; failed under CI=true."""
    left_out[what] = left_out.get(what, 0) + 1
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{reason} (under CI=true no test may be left out)", pytrace=False)
    pytest.skip(reason)
