"""How long it takes to count 100,000 TIME_WAIT sockets by destination. Prints one JSON object.

    python bench/bench_sock_diag.py [--sockets 100000] [--rounds 7]

Makes the sockets itself, in a new user and network namespace, so it needs no root and leaves nothing behind. Half
the question is the answer: each round's counts must be exact, else the benchmark fails. Toward the destination go
`--sockets` connections from several source addresses; a tenth as many go to another port, as decoys to leave out.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from timewait.observe.netlink import NetlinkError
from timewait.observe.overview import Lookout
from timewait.observe.sock_diag import SockDiag, toward
from timewait.observe.watcher import Watcher
from timewait.tcp.states import State

HOST = "127.0.0.1"
PORT, DECOY = 80, 81
FIRST, PER_SOURCE = 2000, 20_000  # source ports used of each source address
INSIDE = "TIMEWAIT_BENCH_INSIDE"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sockets", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    if args.sockets < 1 or args.rounds < 1:
        parser.error("--sockets and --rounds are at least 1")
    if INSIDE not in os.environ:
        command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, *sys.argv]
        return subprocess.run(command, env={**os.environ, INSIDE: "1"}).returncode
    prepare(args.sockets)
    sources = make(args.sockets, PORT) + make(args.sockets // 10, DECOY)
    print(json.dumps(measure(args.sockets, args.rounds, sources), indent=2))
    return 0


def prepare(sockets: int) -> None:
    """Inside the namespace: loopback up, room for the TIME_WAIT."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    Path("/proc/sys/net/ipv4/tcp_max_tw_buckets").write_text(str(2 * sockets + 1000))


def make(sockets: int, port: int) -> list[str]:
    """So many connections closed by the client, their source ports bound explicitly. Returns the source addresses."""
    sources = [f"127.0.1.{number + 1}" for number in range(-(-sockets // PER_SOURCE))]
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(64)
        for number in range(sockets):
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                client.bind((sources[number // PER_SOURCE], FIRST + number % PER_SOURCE))
                client.connect((HOST, port))
                server, _ = listener.accept()
            server.close()
    return sources


def measure(sockets: int, rounds: int, sources: list[str]) -> dict[str, object]:
    where = toward(ipaddress.ip_address(HOST), PORT)
    count, snapshot, census = [], [], []
    low, high = FIRST, FIRST + PER_SOURCE - 1
    with SockDiag() as diag, Watcher([(HOST, PORT)], sorted(set(sources)), low, high, 0) as watcher:
        lookout = Lookout()
        lookout.look()
        for _ in range(rounds):
            begun = time.perf_counter()
            found = diag.count(where)
            count.append(time.perf_counter() - begun)
            if found != {State.TIME_WAIT: sockets}:
                raise SystemExit(
                    f"counted {found} of {sockets} in TIME_WAIT; if making them took longer than the 60 s they live, "
                    "ask for fewer"
                )
            seen = watcher.snapshot(0.0, fresh=True)
            snapshot.append(seen.cost)
            if seen.ports[0].time_wait != sockets:
                raise SystemExit(f"the watcher counted {seen.ports[0]}")
            census.append(lookout.look().cost)
        lookout.close()
    return {
        "what": "count sockets in TIME_WAIT by destination",
        "sockets": sockets,
        "decoys": sockets // 10,
        "rounds": rounds,
        "median_ms": ms(statistics.median(count)),
        "slowest_ms": ms(max(count)),
        "asked_ms_per_100k": 100,
        "snapshot_median_ms": ms(statistics.median(snapshot)),
        "watch_median_ms": ms(statistics.median(census)),
        "values_ms": [ms(one) for one in count],
        "snapshot_values_ms": [ms(one) for one in snapshot],
        "watch_values_ms": [ms(one) for one in census],
        "kernel": os.uname().release,
    }


def ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NetlinkError as problem:
        sys.exit(str(problem))
