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

HEALTH = {"enabled": True, "interval": "1s", "timeout": "500ms", "rise": 2, "fall": 2}
AT_ONCE = 16
PATIENT = {"connect_timeout": "500ms", "read_timeout": "1s", "send_timeout": "1s", "retries": 1, "reuse": "always"}


def slow_headers(engine: str, count: int) -> None:
    """`count` clients that never finish their head, and a load beside them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    text = file_of(engine, [http_listener(80, "app")], [pool("app", server(1), server(2))])
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


def target_fails(engine: str, protocol: str, how: str) -> None:
    """One of two targets is killed, or falls silent, under load: what was lost, and that health checks see it."""
    options: Any = {"upstream": PATIENT} if protocol == "http" else {}
    listener = http_listener(80, "app", **options) if protocol == "http" else tcp_listener(80, "app", **options)
    with balanced(servers=2, serve=()) as here:
        first = answering(here[1])
        answering(here[2])
        here.start(file_of(engine, [listener], [pool("app", server(1), server(2), health=HEALTH)]))
        wait_until(lambda: len(here.asked(8)) == 2, "both targets are healthy")
        closing = () if protocol == "http" else ("--close", "server")
        load = here.load("-d", "60", "-c", str(AT_ONCE), "--timeout", "4", "--connect-timeout", "2", *closing)
        wait_until(lambda: first.counts().requests > 50 or not load.runs, "the load is under way")
        if how == "killed":
            os.kill(first.pid, signal.SIGKILL)
        else:
            here[1].run(["nft", "-f", "-"], input=BLACKHOLE)
        wait_until(lambda: not here.healthy(server(1)), "the target is out of rotation")
        after = here.asked(8)
        time.sleep(0.5)  # what went toward it just before has its time to fail
        result = load.stopped()
        tell(totals=result["totals"], errors=result["errors"], after=after, how=how)


BLACKHOLE = """table inet blackhole {
  chain input { type filter hook input priority 0; iifname "eth0" drop; }
}"""
