"""Scenes in which targets leave, come back, fail, or the whole file changes, while clients go on."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
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


def _path(number: int, then: str = "", *, of: str = "app", port: int = 80) -> str:
    return f"/v1/pools/{of}/targets/{server(number, port)}{then}"


SLOW = 90  # the servers' port that answers after half a second


def targets(engine: str, protocol: str) -> None:
    """Targets are drained, get weight 0, come and go."""
    listeners = [_listener(protocol), tcp_listener(81, "drained")]
    pools = [pool("app", server(1), server(2)), pool("drained", server(1), server(2))]
    if protocol == "http":
        listeners.append(http_listener(82, "slow"))
        pools.append(pool("slow", server(1, SLOW), server(2, SLOW)))
    with balanced(file_of(engine, listeners, pools, workers=1), servers=3) as here:
        drained = _drained(here)
        calm = _drained_in_peace(here) if protocol == "http" else {}
        tell(drained=drained, calm=calm, **_changed(here))


def _drained(here: Balanced) -> Any:
    """A connection at layer 4 to a target that is drained: lives on, and is reset when the time is over."""
    talk = here.connect(81)
    place = talk.request().text
    path = _path(int(place[-1]), of="drained")
    said: dict[str, Any] = {}

    def drain() -> None:
        said.update(here.api("POST", f"{path}/drain", {"timeout": "5s", "then": "rst"}))

    thread = threading.Thread(target=drain)
    thread.start()
    wait_until(lambda: len(here.asked(4, 81)) == 1, "nothing new goes to the drained target")
    goes_on = said == {} and talk.request().text == place
    others = list(here.asked(6, 81))
    thread.join(20)
    ended = talk.ended()
    here.api("PUT", path, {"weight": 10})
    wait_until(lambda: len(here.asked(8, 81)) == 2, "both servers answer again")
    elsewhere = len(others) == 1 and others != [place]
    return {"goes_on": goes_on, "elsewhere": elsewhere, "ended": ended, "said": said["ended"], "cut": said["cut"]}


def _drained_in_peace(here: Balanced) -> Any:
    """Requests that are being answered by a target when that is drained: they are finished."""
    with ExitStack() as stack:
        one, other = (
            stack.enter_context(Server(after([0.5]), listener=listening(here[n], SLOW))) for n in (1, 2)
        )  # fmt: skip
        talks = [here.connect(82) for _ in range(4)]
        for talk in talks:
            talk.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: one.requests + other.requests >= 4, "all requests are at their targets")
        said = here.api("POST", _path(1, "/drain", of="slow", port=SLOW), {"timeout": "20s", "then": "rst"})
        statuses = [talk.answer().status for talk in talks]
        before = one.requests
        more = [here.ask(82).status for _ in range(4)]
        came = one.requests - before
    return {"statuses": statuses, "said": said["ended"], "cut": said["cut"], "more": more, "came": came}


def _changed(here: Balanced) -> Any:
    """Weight 0, a target more, one less; who answers then."""
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
    return {"found": found, "refused": _refused(here, "PUT", _path(1), {"weight": 101})}


LOADS = {
    80: ("http", ("--rate", "200rps")),
    81: ("http", ("--rate", "150cps", "--close", "server")),
    82: ("tcp", ("--rate", "150cps", "--close", "server")),
}


def reloads_under_load(engine: str, ports: Sequence[int], times: int) -> None:
    """`times` reloads and as many changes of a target while loads run: what they say of their requests."""

    def text(turn: int) -> str:
        """Another timeout in each, so that workers, or HAProxy, are replaced; and another weight."""
        client = {port: "keepalive" if LOADS[port][0] == "http" else "idle" for port in ports}
        listeners = [
            _listener(LOADS[port][0], port, client={client[port]: f"{600 + turn}s"}) for port in ports
        ]  # fmt: skip
        members = [{"addr": server(1), "weight": 10}, {"addr": server(2), "weight": 10 + turn}]
        return file_of(engine, listeners, [pool("app", *members)])

    with balanced(text(0), servers=3) as here:
        loads = {port: here.load(*LOADS[port][1], port=port) for port in ports}
        wait_until(lambda: _least_accepted(here) >= 10, "all loads are under way")
        for number in range(times):
            here.write(text(1 + number))
            here.api("POST", "/v1/reload", {})
            here.api("POST", "/v1/pools/app/targets", {"addr": server(3), "weight": 10})
            time.sleep(0.1)
            here.api("DELETE", _path(3))
        here.write("this is no TOML")
        os.kill(here.process.pid, signal.SIGHUP)
        refused = _refused(here, "POST", "/v1/reload", {})
        results = [load.stopped() for load in loads.values()]
        tell(
            failed=[result["totals"]["failed"] for result in results],
            succeeded=[result["totals"]["succeeded"] for result in results],
            errors=[result["errors"] for result in results],
            refused=refused,
            still=len(here.asked(8, ports[-1])),
            process=here.process.running,
        )


def _least_accepted(here: Balanced) -> int:
    listeners = here.api("GET", "/v1/stats")["listeners"].values()
    return min(int(one["requests"] + one["accepted"]) for one in listeners)


def _refused(here: Balanced, method: str, path: str, body: Any) -> str:
    try:
        here.api(method, path, body)
    except RuntimeError as error:
        return str(error)
    return ""


HEALTH = {"enabled": True, "interval": "1s", "timeout": "900ms", "rise": 2, "fall": 2}


def health(engine: str, protocol: str) -> None:
    """A target that stops listening, and comes back: how many checks each took, what they leave behind."""
    pools = [pool("app", server(1), {"addr": server(2), "weight": 10}, health=HEALTH)]
    with balanced(servers=2, serve=()) as here:
        first, second = answering(here[1]), answering(here[2])
        here.start(file_of(engine, [_listener(protocol)], pools))
        wait_until(lambda: len(here.asked(8)) == 2, "both targets are healthy")
        begun, at_first = time.monotonic(), _checks(here)
        here.api("PUT", _path(1), {"weight": 0})
        wait_until(lambda: list(here.asked(4)) == ["server-2"], "weight 0")
        passed = here.health(server(1))["passed"]
        wait_until(lambda: here.health(server(1))["passed"] > passed, "a target of weight 0 is still checked")
        here.api("PUT", _path(1), {"weight": 10})
        failed = _failed_until_one_passed(here, server(2))
        second.stop()
        wait_until(lambda: here.avoided(server(2)), "the second is unhealthy")
        down_after = here.health(server(2))["failed"] - failed
        after_that = here.asked(8)
        residue = [here.settled(here.balancer, to=server(n)) for n in (1, 2)] + [here.settled(here[1])]
        passed = here.health(server(2))["passed"]
        back = answering(here[2])
        wait_until(lambda: here.chosen(server(2)), "the second is healthy again")
        up_after = here.health(server(2))["passed"] - passed
        both = sorted(here.asked(8))
        too_many = _checks(here) - at_first > time.monotonic() - begun + 2  # one late, and one at either end
        all_down = _all_down(here, first, back)
        tell(down_after=down_after, after_that=after_that, residue=residue, up_after=up_after, both=both,
             too_many=too_many, all_down=all_down)  # fmt: skip


def _checks(here: Balanced) -> int:
    """How often the first target was checked."""
    row = here.health(server(1))
    return int(row["passed"] + row["failed"])


def _failed_until_one_passed(here: Balanced, address: str) -> int:
    """The failures before a check that has just passed: those that come now are the first in a row."""
    before = here.health(address)

    def passed() -> bool:
        nonlocal before
        last, before = before, here.health(address)
        return bool(before["passed"] > last["passed"] and before["failed"] == last["failed"])

    wait_until(passed, "a check passes")
    return int(before["failed"])


def _all_down(here: Balanced, *servers: LabServer) -> bool:
    """Both stop; once both are unhealthy one listens again and is asked at once: CLB sends traffic to all of them."""
    for one in servers:
        one.stop()
    wait_until(lambda: all(here.used_in_need(server(n)) for n in (1, 2)), "both are unhealthy")
    answering(here[1])
    return "server-1" in [_name(here) for _ in range(6)]


def _name(here: Balanced) -> str:
    try:
        return here.ask().text
    except (OSError, EOFError):
        return ""
