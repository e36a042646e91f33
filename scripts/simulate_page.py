"""Writes docs/simulate.md: the ready-made scenarios, and simulations held against the lab. `make docs-simulate`.

The lab's experiments take two minutes; `--json FILE` takes the results of `timewait lab run ... --json` instead.
"""

from __future__ import annotations

import datetime
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from timewait.simulate.proof import REPLICATIONS, Proof, claims, prove, rows
from timewait.simulate.scenario_file import find, names
from timewait.verdict import Result

TOP = Path(__file__).resolve().parent.parent
PAGE = TOP / "docs" / "simulate.md"
HEAD = """# Simulations

`timewait simulate NAME` asks what kernels decide for more clients than any lab can hold. Every SYN meets the rules
that `timewait rules` tells, compiled; nothing is sent. The same scenario and seed give the same figures, in one
process, on all cores, or on a dask cluster.

    timewait simulate list                                   # the ready-made scenarios
    timewait simulate nat-recycle --check                    # all settings of one, with every default
    timewait simulate nat --clients 2M --kernel 2.6.32 --recycle --timestamps on
    timewait simulate nat-ports --sweep nat.ports=8k,16k,32k --replications 5 --html ports.html
    timewait simulate --from run.jsonl --set tcp_tw_reuse=1  # what a measured run would have met

## Scenarios

{scenarios}

A file of your own says what differs from the defaults; `--check` prints the rest:

    title = "Does our balancer hold ten times as many users?"
    duration = "10m"
    [clients]
    count = "500k"
    [arrivals]
    rate = "20k/s"
    [nat]
    addresses = 32
    [server]
    kernel = "el7"
    sysctls.tcp_max_tw_buckets = "262144"
    [ask]
    figure = "failed"
    sweep = ["nat.addresses=8,16,32"]

## What it leaves out

- **More than one kernel among the clients**: they differ by clock, offset and address.
  `--sweep clients.kernel=3.10,6.12` tells how much the kernel matters.
- **SYN queue and SYN cookies.** A connection stands in the SYN queue for one round trip, so none fills it;
  `timewait rules syn` and the lab tell what happens in one that is full. The accept queue is simulated
  (`server.accepts`, `server.backlog`), and what comes of its overflows too.
- **Loss of segments of an open connection**, and congestion: an exchange takes round trips and the server's time.
  SYNs, answers to them and the RST that answers a TIME_WAIT can be lost.
- **IPv6.** Addresses are numbers without a family; rules that depend on it are those of IPv4.

Memory is estimated first, and what would not fit is refused: 64 octets for every five-tuple behind a NAT, 8 for a
client, 136 for an open connection. A client with an address of its own takes memory for the ports it uses, a page for
each at most. The first simulation on a machine compiles the engine, half a minute, into `~/.cache/timewait` (or under
`$XDG_CACHE_HOME`).

## Held against the lab

Written by `make docs-simulate`; {date}, Linux {kernel}. The same experiment once in the lab
(`timewait lab run`, network namespaces on a real kernel) and {replications} times simulated with different seeds.
*95%* is where nineteen of twenty single simulations lie; a measured figure belongs inside. Where both count exactly,
that is one value.

{proofs}
"""


def main(words: list[str]) -> int:
    chosen = rows()
    results = {one.claim: one for one in msgspec.json.decode(_text(words, claims(chosen)), type=list[Result])}
    proofs = list(prove(chosen, results))
    PAGE.write_text(page(proofs, datetime.date.today().isoformat()))
    return 0 if all(one.inside for one in proofs) else 1


def _text(words: list[str], needed: list[str]) -> bytes:
    if words[:1] == ["--json"]:
        return Path(words[1]).read_bytes()
    command = [str(Path(sys.executable).with_name("timewait")), "lab", "run", *needed, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE)
    if not done.stdout:
        sys.exit(done.returncode or 1)
    return done.stdout


def page(proofs: Sequence[Proof], date: str) -> str:
    """The page as text."""
    kernel = proofs[0].kernel if proofs else ""
    return HEAD.format(
        scenarios=scenarios(), date=date, kernel=kernel, replications=REPLICATIONS, proofs=table(proofs)
    )


def scenarios() -> str:
    lines = ["| name | question |", "|---|---|"]
    lines += [f"| `{name}` | {find(name).scenario.title} |" for name in names()]
    return "\n".join(lines)


def table(proofs: Sequence[Proof]) -> str:
    lines = ["| what | claim | lab | simulated, mean | 95% | inside |", "|---|---|---|---|---|---|"]
    for one in proofs:
        span = _number(one.low) if one.low == one.high else f"{_number(one.low)} to {_number(one.high)}"
        cells = (
            one.name, f"[{one.claim}](claims.md#{one.claim})", _number(one.measured), _number(one.mean), span,
            "yes" if one.inside else "**no**",
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value - round(value)) < 1e-9 or value >= 1000 else f"{value:,.3g}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
