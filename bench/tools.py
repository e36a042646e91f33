"""The commands compared: every tool asked for the same, one core, the same number of connections at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.machine import path
from bench.place import TIMEWAIT, Place

CONNECTIONS = 64
ENDLESS = "600"  # seconds; the window ends every run long before

_SIEGE = """verbose = false
quiet = true
color = off
show-logfile = false
logging = false
protocol = HTTP/1.1
connection = {connection}
limit = 1000
parser = false
benchmark = true
"""

Command = Callable[[Place], list[str]]


def timewait(*words: str, tls: bool = False) -> Command:
    """`timewait stress` as anybody would start it in a script: everything measured, a line a second."""

    def command(place: Place) -> list[str]:
        url = place.tls_url if tls else place.url
        return [
            TIMEWAIT, "stress", url, "-c", str(CONNECTIONS), "-d", ENDLESS, "--workers", "1", "--no-tui",
            *(["--insecure"] if tls else []), *words,
        ]  # fmt: skip

    return command


def wrk(*, keep: bool, tls: bool = False) -> Command:
    def command(place: Place) -> list[str]:
        close = [] if keep else ["-H", "Connection: close"]
        url = place.tls_url if tls else place.url
        return [path("wrk"), "-t1", f"-c{CONNECTIONS}", f"-d{ENDLESS}s", *close, url]

    return command


def ab(*, keep: bool) -> Command:
    def command(place: Place) -> list[str]:
        # -t implies -n 50000 unless -n follows it; ab takes 40 bytes for each.
        limits = ["-t", ENDLESS, "-n", "2000000", "-c", str(CONNECTIONS)]
        return [path("ab"), "-q", "-r", *limits, *(["-k"] if keep else []), place.url]

    return command


def h2load(*, keep: bool) -> Command:
    def command(place: Place) -> list[str]:
        close = [] if keep else ["-H", "Connection: close"]
        return [path("h2load"), "--h1", "-n", "100000000", "-c", str(CONNECTIONS), "-t1", *close, place.url]

    return command


def hey(*, keep: bool) -> Command:
    def command(place: Place) -> list[str]:
        close = [] if keep else ["-disable-keepalive"]
        return [path("hey"), "-z", f"{ENDLESS}s", "-c", str(CONNECTIONS), "-cpus", "1", *close, place.url]

    return command


def siege(*, keep: bool) -> Command:
    def command(place: Place) -> list[str]:
        settings = Path(place.folder) / "siegerc"
        settings.write_text(_SIEGE.format(connection="keep-alive" if keep else "close"))
        words = [path("siege"), f"--rc={settings}", "-b", f"-c{CONNECTIONS}", f"-t{ENDLESS}S", place.url]
        return ["env", f"HOME={place.folder}", *words]  # it writes a .siege into the home directory

    return command
