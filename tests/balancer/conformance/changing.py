"""Scenes in which targets leave, come back, fail, or the whole file changes, while clients go on."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

from kit.balanced import (
    Balanced,
    answering,
    balanced,
    file_of,
    http_listener,
    listening,
    pool,
    server,
    tcp_listener,
    tell,
)
from kit.behaviours import after
from kit.labs import wait_until
from kit.servers import Server
from timewait.lab.server import Server as LabServer


def _listener(protocol: str, port: int = 80, **more: Any) -> Any:
    return http_listener(port, "app", **more) if protocol == "http" else tcp_listener(port, "app", **more)


def _path(number: int, then: str = "") -> str:
    return f"/v1/pools/app/targets/{server(number)}{then}"


def _both(here: Balanced) -> None:
    """Waits until both servers answer again."""
    wait_until(lambda: len(here.asked(8)) == 2, "both servers answer")


def drains(engine: str) -> None:
    """A connection at layer 4 to a target that is drained: lives on, and is reset when the time is over."""
    text = file_of(engine, [_listener("tcp")], [pool("app", server(1), server(2))])
    with balanced(text) as here:
        talk = here.connect()
        place = talk.request().text
        number = int(place[-1])
        said: dict[str, Any] = {}

        def drain() -> None:
            said.update(here.api("POST", _path(number, "/drain"), {"timeout": "1s", "then": "rst"}))

        thread = threading.Thread(target=drain)
        thread.start()
        wait_until(lambda: len(here.asked(4)) == 1, "nothing new goes to the drained target")
        goes_on = said == {} and talk.request().text == place
        others = here.asked(6)
        thread.join(20)
        ended = talk.ended()
        here.api("PUT", _path(number), {"weight": 10})
        _both(here)
        tell(goes_on=goes_on, others=list(others) != [place] and len(others) == 1, ended=ended, said=said["ended"],
             cut=said["cut"])  # fmt: skip


def drains_in_peace(engine: str) -> None:
    """A request that is being answered by a target when that is drained: it is finished."""
    text = file_of(engine, [_listener("http")], [pool("app", server(1), server(2))], workers=1)
    with balanced(servers=2, serve=()) as here, _slow(here, 1) as one, _slow(here, 2) as other:
        here.start(text)
        talks = [here.connect() for _ in range(4)]
        for talk in talks:
            talk.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: one.requests + other.requests >= 4, "all requests are at their targets")
        said = here.api("POST", _path(1, "/drain"), {"timeout": "20s", "then": "rst"})
        statuses = [talk.answer().status for talk in talks]
        before = one.requests
        more = [here.ask().status for _ in range(4)]
        tell(statuses=statuses, said=said["ended"], cut=said["cut"], more=more, came=one.requests - before)


def _slow(here: Balanced, number: int) -> Server:
    return Server(after([0.5]), listener=listening(here[number], 80))


def targets_change(engine: str, protocol: str) -> None:
    """Weight 0, a target more, one less; who answers then."""
    text = file_of(engine, [_listener(protocol)], [pool("app", server(1), server(2))])
    with balanced(text, servers=3) as here:
        found = [sorted(here.asked(12))]
        here.api("PUT", _path(1), {"weight": 0})
        wait_until(lambda: len(here.asked(4)) == 1, "one server answers")
        found.append(sorted(here.asked(12)))
        here.api("POST", "/v1/pools/app/targets", {"addr": server(3), "weight": 10})
        wait_until(lambda: len(here.asked(8)) == 2, "the new server answers")
        found.append(sorted(here.asked(12)))
        here.api("DELETE", _path(2))
        wait_until(lambda: len(here.asked(8)) == 1, "the old server is gone")
        found.append(sorted(here.asked(12)))
        refused = ""
        try:
            here.api("PUT", _path(1), {"weight": 101})
        except RuntimeError as error:
            refused = str(error)
        tell(found=found, refused=refused)


def reloads_under_load(engine: str, protocol: str, closing: str, times: int) -> None:
    """`times` reloads and as many changes of a target while a load runs: what it says of its requests."""

    def text(weight: int) -> str:
        targets = [{"addr": server(1), "weight": 10}, {"addr": server(2), "weight": weight}]
        return file_of(engine, [_listener(protocol)], [pool("app", *targets)])

    words = ("--rate", "300cps", "--close", closing) if closing else ("--rate", "400rps")
    with balanced(text(10), servers=3) as here:
        load = here.load(*words)
        wait_until(lambda: _taken(here) > 20, "the load is under way")
        for number in range(times):
            here.write(text(11 + number))
            here.api("POST", "/v1/reload", {})
            here.api("POST", "/v1/pools/app/targets", {"addr": server(3), "weight": 10})
            time.sleep(0.1)
            here.api("DELETE", _path(3))
        here.write("this is no TOML")
        os.kill(here.process.pid, signal.SIGHUP)
        refused = _refused(here)
        result = load.stopped()
        tell(
            totals=result["totals"],
            errors=result["errors"],
            refused=refused,
            still=len(here.asked(8)),
            process=here.process.running,
        )


def _taken(here: Balanced) -> int:
    listeners = here.api("GET", "/v1/stats")["listeners"].values()
    return sum(int(one["requests"] + one["accepted"]) for one in listeners)


def _refused(here: Balanced) -> str:
    try:
        here.api("POST", "/v1/reload", {})
    except RuntimeError as error:
        return str(error)
    return ""


HEALTH = {"enabled": True, "interval": "1s", "timeout": "500ms", "rise": 2, "fall": 2}


def health(engine: str, protocol: str) -> None:
    """A target that stops listening, and comes back: how long each took at least, what checks leave behind."""
    pools = [pool("app", server(1), {"addr": server(2), "weight": 10}, health=HEALTH)]
    with balanced(servers=2, serve=()) as here:
        first, second = answering(here[1]), answering(here[2])
        here.start(file_of(engine, [_listener(protocol)], pools))
        wait_until(lambda: len(here.asked(8)) == 2, "both targets are healthy")
        here.api("PUT", _path(1), {"weight": 0})
        wait_until(lambda: list(here.asked(4)) == ["server-2"], "weight 0")
        passed = here.health(server(1))["passed"]
        wait_until(lambda: here.health(server(1))["passed"] > passed, "a target of weight 0 is still checked")
        here.api("PUT", _path(1), {"weight": 10})
        second.stop()
        stopped = time.monotonic()
        wait_until(lambda: not here.healthy(server(2)), "the second is unhealthy")
        down_after = time.monotonic() - stopped
        after_that = here.asked(8)
        residue = [here.settled(here.balancer, to=server(n)) for n in (1, 2)] + [here.settled(here[1])]
        back = answering(here[2])
        came = time.monotonic()
        wait_until(lambda: here.healthy(server(2)), "the second is healthy again")
        up_after = time.monotonic() - came
        both = sorted(here.asked(8))
        all_down = _all_down(here, first, back)
        tell(down_after=down_after, after_that=after_that, residue=residue, up_after=up_after, both=both,
             all_down=all_down)  # fmt: skip


def _all_down(here: Balanced, *servers: LabServer) -> bool:
    """Both stop; once both are unhealthy one listens again and is asked at once: CLB sends traffic to all of them."""
    for one in servers:
        one.stop()
    wait_until(lambda: not here.healthy(server(1)) and not here.healthy(server(2)), "both are unhealthy")
    answering(here[1])
    try:
        names = [here.ask().text for _ in range(4)]
    except (OSError, EOFError):
        names = []
        for _ in range(4):
            try:
                names.append(here.ask().text)
            except (OSError, EOFError):
                names.append("")
    return "server-1" in names
