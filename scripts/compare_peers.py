"""Writes docs/peers.md: what wrk, hey, ab, h2load and siege say when connections fail, and what timewait says.

Every case runs in a namespace of its own, so neither the host nor another case shows through. Takes about three
minutes: `.venv/bin/python scripts/compare_peers.py [CASE ...]` (without arguments all, and the page is written).
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
sys.path[:1] = [str(TOP / "tests")]  # in place of this folder

from kit import behaviours  # noqa: E402
from kit.namespace import Namespace  # noqa: E402
from kit.run_timewait import SCRIPT  # noqa: E402
from kit.servers import Behaviour, Server  # noqa: E402

PATIENCE = 15.0  # seconds, then a tool is ended and the page says so
MOST_LINES = 16
RANGE_200 = (40000, 40199)


@dataclass(frozen=True)
class Said:
    """What one command said, and what the kernel held afterwards."""

    command: str
    lines: list[str]
    ending: str  # "exit 0" or "ended by us after 15 s"
    kernel: str = ""  # what ss and nstat counted


@dataclass(frozen=True)
class Case:
    """One situation, the commands tried in it and what to notice."""

    name: str
    title: str
    setting: str
    notice: str
    behaviour: Behaviour | None
    commands: Sequence[list[str]]  # "{url}" is replaced; each in a namespace of its own
    times: int = 1  # how often each command runs in its namespace
    backlog: int = 1024
    listening: bool = True
    port_range: tuple[int, int] | None = None
    sysctls: dict[str, str] = field(default_factory=dict)
    shows: Callable[[Namespace, Server], str] = lambda _namespace, _server: ""


def time_wait(namespace: Namespace, server: Server) -> str:
    """Where the TIME_WAIT went, by ss, beside the connections the server accepted."""
    ours, theirs = namespace.time_wait("dport", server.port), namespace.time_wait("sport", server.port)
    return f"server accepted {server.accepted:,}; TIME_WAIT at the client {ours:,}, at the server {theirs:,} (ss)"


def overflows(namespace: Namespace, _server: Server) -> str:
    return f"the kernel counted {namespace.counter('TcpExtListenOverflows')} ListenOverflows (nstat)"


def one_shot(tool: str, seconds: int = 3, requests: int = 2000) -> list[str]:
    """The usual command for one request per connection."""
    n = str(requests)
    return {
        "wrk": ["wrk", "-t1", "-c50", f"-d{seconds}s", "-H", "Connection: close", "{url}"],
        "hey": ["hey", "-n", n, "-c", "50", "-t", "3", "-disable-keepalive", "{url}"],
        "ab": ["ab", "-n", n, "-c", "50", "-s", "3", "{url}"],
        "ab -r": ["ab", "-r", "-n", n, "-c", "50", "-s", "3", "{url}"],
        "h2load": ["h2load", "--h1", "-n", n, "-c", str(min(500, requests)), "-H", "Connection: close", "{url}"],
        "siege": ["siege", "-b", "-c50", f"-t{seconds}S", "{url}"],
    }[tool]


def ours(*words: str) -> list[str]:
    return ["timewait", "stress", "{url}", *words]


CASES = [
    Case(
        name="range",
        title="Source ports run out: a range of 200, TIME_WAIT at the client",
        setting="`ip_local_port_range` 40000-40199, `tcp_tw_reuse` 0; the server announces `Connection: "
        "close` and lets the client close first. Each port stays in TIME_WAIT for 60 s, so 200 "
        "connections are possible.",
        notice="The peers count failures or print the errno's text; wrk goes on to its end with every "
        "connection dead. None names TIME_WAIT, the range, or a remedy, and none says so in its "
        "exit code.",
        behaviour=behaviours.announces_and_waits,
        port_range=RANGE_200,
        commands=[
            *map(one_shot, ["wrk", "hey", "ab", "h2load", "siege"]),
            ours("-n", "2000", "-c", "50", "--close", "client"),
        ],
        shows=time_wait,
    ),
    Case(
        name="queue",
        title="The accept queue overflows",
        setting="A server with `listen(1)` that never calls `accept()`: two connections are queued, every"
        " other SYN is dropped and sent again by the client's kernel after 1 s, 2 s, ...",
        notice="wrk reports zero requests and no error; siege zero failed transactions; h2load and ab "
        "say that time ran out or nothing at all.",
        behaviour=None,
        backlog=1,
        commands=[
            one_shot("wrk"),
            one_shot("hey", requests=100),
            *(one_shot(tool, requests=100) for tool in ("ab", "h2load", "siege")),
            ours("-d", "4s", "-c", "50", "--close", "server", "--connect-timeout", "3s", "--timeout", "3s"),
        ],
        shows=overflows,
    ),
    Case(
        name="refused",
        title="Nobody listens",
        setting="No listener on the target's port: each SYN is answered with RST.",
        notice="hey and `ab -r` headline thousands of requests per second, all of them failures; h2load "
        "never says `refused`. The rate that timewait headlines is that of successes.",
        behaviour=None,
        listening=False,
        commands=[
            *map(one_shot, ["wrk", "hey", "ab", "ab -r"]),
            one_shot("h2load", requests=100),
            one_shot("siege"),
            ours("-n", "2000", "-c", "50", "--close", "server"),
        ],
    ),
    Case(
        name="closer",
        title="Who closes first is a race that nobody reports",
        setting="A server that answers `Connection: close` and closes at once. Whoever sends the first "
        "FIN keeps the TIME_WAIT; the tools below did not choose and do not tell, `ss` does.",
        notice="Same server, same wish, different owner of the TIME_WAIT. timewait lets one choose "
        "(`--close`) and counts per connection who really was first.",
        behaviour=behaviours.well,
        commands=[
            one_shot("wrk", seconds=1),
            *(one_shot(tool, requests=500, seconds=1) for tool in ("hey", "ab", "h2load", "siege")),
            *(ours("-n", "500", "-c", "50", "--close", closing) for closing in ("server", "client", "reset")),
        ],
        shows=time_wait,
    ),
    Case(
        name="cliff",
        title="The port search turns slow at half the range",
        setting="A range of 10,000 ports, `tcp_tw_reuse` 0, the client closes first. The kernel looks for"
        " a free port among one parity first (`__inet_hash_connect()`): once that half is in "
        "TIME_WAIT, each `connect()` walks through thousands of busy ports. Each tool makes 4,800"
        " connections, and then 4,800 more in the same namespace.",
        notice="What grows is the time inside `connect()`, before the SYN leaves. hey calls it `DNS+dialup` and "
        "h2load `time for connect`; both look like the network or the server, and neither says why.",
        behaviour=behaviours.announces_and_waits,
        port_range=(20000, 29999),
        times=2,
        commands=[
            *(one_shot(tool, requests=4800) for tool in ("hey", "h2load")),
            ours("-n", "4800", "-c", "50", "--close", "client"),
            ours("-n", "4800", "-c", "50", "--close", "client", "--ports", "oldest"),
        ],
        shows=time_wait,
    ),
    Case(
        name="bind",
        title="Binding the port explicitly takes over TIME_WAIT",
        setting="A range of 200 ports, `tcp_tw_reuse` 0, timestamps negotiated, the client closes first; "
        "600 connections. A port bound before `connect()` replaces this host's TIME_WAIT of the "
        "same five-tuple (`tcp_twsk_unique()`).",
        notice="No peer can choose source ports, so there is nothing to show beside it. The failure "
        "moves to whoever else still remembers the old connection: a NAT, an IPVS balancer, the "
        "server when it closed first.",
        behaviour=behaviours.announces_and_waits,
        port_range=RANGE_200,
        commands=[
            ours("-n", "600", "-c", "20", "--close", "client"),
            ours("-n", "600", "-c", "20", "--close", "client", "--ports", "oldest"),
        ],
        shows=time_wait,
    ),
    Case(
        name="bind-no-timestamps",
        title="... but only where timestamps were negotiated",
        setting="The same with `tcp_timestamps` 0.",
        notice="Without timestamps the TIME_WAIT stays, and `connect()` on the bound port fails with EADDRNOTAVAIL.",
        behaviour=behaviours.announces_and_waits,
        port_range=RANGE_200,
        sysctls={"net.ipv4.tcp_timestamps": "0"},
        commands=[ours("-n", "600", "-c", "20", "--close", "client", "--ports", "oldest")],
        shows=time_wait,
    ),
    Case(
        name="errno",
        title="One cause, two errnos",
        setting="The range of 200 again. A tool that binds its address first (`ab -B`) gets EADDRINUSE "
        "from `bind()`, one that does not gets EADDRNOTAVAIL from `connect()`. The server closes "
        "connections only after the client.",
        notice="The words differ, the cause is the same: no source port is free. timewait reports one "
        "finding for both.",
        behaviour=behaviours.announces_and_waits,
        port_range=RANGE_200,
        commands=[
            ["ab", "-B", "127.0.0.1", "-n", "500", "-c", "250", "-s", "3", "{url}"],
            ["ab", "-n", "500", "-c", "250", "-s", "3", "{url}"],
            one_shot("hey", requests=500),
            ours("-n", "500", "-c", "50", "--close", "client", "--source", "127.0.0.1"),
            ours("-n", "500", "-c", "50", "--close", "client"),
        ],
        shows=time_wait,
    ),
]


@contextmanager
def stage(case: Case) -> Iterator[tuple[Namespace, Server]]:
    """The namespace and the server of a case."""
    with (
        Namespace(case.port_range, case.sysctls) as namespace,
        Server(case.behaviour, listener=namespace.listen(backlog=case.backlog)) as server,
    ):
        if not case.listening:
            server.stop_listening()
        yield namespace, server


def say(words: list[str], namespace: Namespace) -> tuple[list[str], str]:
    """Runs a command inside; its output, stdout and stderr together, and how it ended."""
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile("w+") as output:
        (Path(home) / ".siege").mkdir()  # siege complains about its own missing folder otherwise
        environment = ["env", f"HOME={home}", "NO_COLOR=1", "COLUMNS=110"]
        script = [str(SCRIPT) if word == "timewait" else word for word in words]
        process = subprocess.Popen(
            namespace.command([*environment, *script]), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            ending = f"exit {process.wait(PATIENCE)}"
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            ending = f"still running after {PATIENCE:.0f} s, ended by us"
        output.seek(0)
        return trimmed(output.read(), most=60 if words[0] == "timewait" else MOST_LINES), ending


_NOISE = re.compile(
    r"^\s*$|^This is ApacheBench|^Copyright|^Licensed to|^New configuration template|^Run siege -C|siege[.]conf"
    r"|^ERROR: Unable to open cookies|^\s+[0-9.]+ \[[0-9]+\]\s|^Response time hist|^Details"
    r"|^  (DNS-lookup|req write|resp)|^\s+[0-9.]+% in |^Latency distr"
    r"|^(Completed|Finished) [0-9]+ req|^Server (Software|Host|Port)|^progress:"
)


def trimmed(text: str, most: int) -> list[str]:
    """Lines worth showing: escapes and known noise out, lines that differ by numbers only counted, the middle cut."""
    kept: list[tuple[str, int]] = []
    for line in re.sub(r"\x1b\[[0-9;]*m", "", text).expandtabs(2).splitlines():
        if _NOISE.search(line):
            continue
        if kept and _shape(kept[-1][0]) == _shape(line):
            kept[-1] = kept[-1][0], kept[-1][1] + 1
        else:
            kept.append((line.rstrip(), 1))
    lines = [f"{line}   (and {count - 1:,} more like this)" if count > 1 else line for line, count in kept]
    if len(lines) <= most:
        return lines
    half = most // 2
    return [*lines[:half], f"... {len(lines) - 2 * half} lines left out ...", *lines[-half:]]


def _shape(line: str) -> str:
    return re.sub(r"[0-9]+", "0", line)


def play(case: Case) -> Iterator[Said]:
    """Runs every command of a case."""
    for template in case.commands:
        with stage(case) as (namespace, server):
            words = [word.replace("{url}", server.url) for word in template]
            shown = " ".join(f"'{word}'" if " " in word else word for word in words)
            for turn in range(1, case.times + 1):
                lines, ending = say(words, namespace)
                again = f"   # time {turn} of {case.times}" if case.times > 1 else ""
                yield Said(shown + again, lines, ending, case.shows(namespace, server))


def section(case: Case) -> str:
    """One case as Markdown."""
    parts = [f"## {case.title}", case.setting]
    for said in play(case):
        print(f"  {said.command}: {said.ending}", file=sys.stderr)
        closing = f"[{said.ending}]" + (f" [{said.kernel}]" if said.kernel else "")
        parts.append("\n".join(["```text", f"$ {said.command}", *said.lines, closing, "```"]))
    return "\n\n".join([*parts, f"**What to notice.** {case.notice}"])


HEAD = """# What peers say when connections fail, and what timewait says

Written by `scripts/compare_peers.py`: real output, trimmed (lines that differ by numbers only are counted). The lines
in brackets are not the tool's: how it ended, and what the kernel counted meanwhile. Every command ran in a network
namespace of its own. Figures differ from machine to machine; what the tools say does not."""


def main(names: list[str]) -> None:
    """Writes the page; with names of cases prints those only."""
    wanted = [case for case in CASES if not names or case.name in names]
    sections = []
    for case in wanted:
        print(case.name, file=sys.stderr)
        sections.append(section(case))
    if names:
        print("\n\n".join(sections))
    else:
        page = TOP / "docs" / "peers.md"
        page.parent.mkdir(exist_ok=True)
        page.write_text("\n\n".join([HEAD, *sections]) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
