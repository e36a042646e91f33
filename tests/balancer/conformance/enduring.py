"""Scenes in which somebody misbehaves while a normal load goes on: slow clients, targets that die or fall silent."""

from __future__ import annotations

import os
import resource
import signal
import socket
import time
from typing import Any

from kit.balanced import answering, balanced, file_of, http_listener, pool, server, tcp_listener, tell
from kit.labs import wait_until

HEALTH = {"enabled": True, "interval": "1s", "timeout": "900ms", "rise": 2, "fall": 2}
AT_ONCE = 16
PATIENT = {"connect_timeout": "500ms", "read_timeout": "2s", "send_timeout": "2s", "retries": 1, "reuse": "always"}


def slow_headers(engine: str, count: int) -> None:
    """`count` clients that never finish their head, and a load beside them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    patient = {"header_timeout": "10m"}  # nobody is to lose the connection for the time the load takes
    text = file_of(engine, [http_listener(80, "app", client=patient)], [pool("app", server(1), server(2))])
    with balanced(text) as here:
        slow: list[socket.socket] = []
        for _ in range(count):
            talk = here.connect()
            talk.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-")
            slow.append(talk.socket)
        load = here.load("-c", str(AT_ONCE), "-n", "3000")
        while load.runs:
            for one in slow[:: max(1, count // 50)]:
                one.send(b"a")
            time.sleep(0.05)
        result = load.result()
        still = sum(1 for one in slow if not _ended(one))
        tell(totals=result["totals"], errors=result["errors"], still=still)


def _ended(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


def targets_fail(engine: str, protocol: str) -> None:
    """In two pools, of two targets each, under a load each, one is killed and one falls silent: what was lost."""
    options: Any = {"upstream": PATIENT} if protocol == "http" else {}
    listener = http_listener if protocol == "http" else tcp_listener
    ways = {"killed": (80, 1), "blackholed": (81, 2)}  # at which port of the balancer, which server
    listeners = [listener(port, how, **options) for how, (port, _) in ways.items()]
    pools = [pool(how, server(number), server(3), health=HEALTH) for how, (_, number) in ways.items()]
    closing = () if protocol == "http" else ("--close", "server")
    words = ("-c", str(AT_ONCE), "-d", "60", "--timeout", "8", "--connect-timeout", "2", *closing)
    with balanced(servers=3, serve=()) as here:
        first, second, _ = (answering(host) for host in here.servers)
        here.start(file_of(engine, listeners, pools))
        for port, _ in ways.values():
            wait_until(lambda port=port: len(here.asked(8, port)) == 2, "both targets are healthy")  # type: ignore[misc]
        loads = {how: here.load(*words, port=port) for how, (port, _) in ways.items()}
        wait_until(lambda: min(first.counts().requests, second.counts().requests) > 50, "the loads are under way")
        os.kill(first.pid, signal.SIGKILL)
        here[2].run(["nft", "-f", "-"], input=BLACKHOLE)
        wait_until(lambda: all(here.avoided(server(n)) for n in (1, 2)), "both are out of rotation")
        after = {how: here.asked(8, port) for how, (port, _) in ways.items()}
        time.sleep(2.5)  # what went toward them just before has its time to fail
        results = {how: load.stopped() for how, load in loads.items()}
        tell(
            after=after,
            failed={how: result["totals"]["failed"] for how, result in results.items()},
            succeeded={how: result["totals"]["succeeded"] for how, result in results.items()},
            errors={how: result["errors"] for how, result in results.items()},
        )


BLACKHOLE = """table inet blackhole {
  chain input { type filter hook input priority 0; iifname "eth0" drop; }
}"""
