"""Servers whose delays are known, so the percentiles are known: exact lower bounds, generous upper ones.

On a busy machine everything may stand still for seconds, now and then: that holds up what is in flight, so there is
less of it than it takes to move the percentile, or the next delay is further away than that.
"""

from __future__ import annotations

import random

import pytest

from kit import behaviours
from kit.namespace import Namespace
from kit.run_timewait import stress
from kit.servers import Peer, Server

RESOLUTION = 0.999  # three significant digits


def test_known_delays_give_the_known_percentiles(namespace: Namespace) -> None:
    """70 % of the answers take 20 ms, 27 % 500 ms, 3 % 3 s."""
    delays = [0.02] * 70 + [0.5] * 27 + [3.0] * 3
    random.Random(7).shuffle(delays)
    with Server(behaviours.after(delays), listener=namespace.listen()) as server:
        result = stress(server.url, "-n", "400", "-c", "20", namespace=namespace)
        assert (server.accepted, server.requests) == (20, 400)
    assert result.exit_code == 0
    for part in ("first_byte", "total"):
        latency = result.json["latency"][part]
        assert 0.02 * RESOLUTION <= latency["p50"] < 0.5
        assert 0.5 * RESOLUTION <= latency["p90"] < 3.0
        assert 3.0 * RESOLUTION <= latency["p99"] <= latency["p99_9"] <= latency["max"] < 15.0
    assert result.json["latency"]["connect"]["p50"] < 3.0


def test_time_to_the_first_byte_and_to_the_last(namespace: Namespace) -> None:
    def slow_body(peer: Peer) -> None:
        while True:
            peer.request()
            peer.wait(0.1)
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
            peer.wait(4.0)
            peer.send(b"cd")

    with Server(slow_body, listener=namespace.listen()) as server:
        latency = stress(server.url, "-n", "5", "-c", "5", namespace=namespace).json["latency"]
    assert 0.1 * RESOLUTION <= latency["first_byte"]["p50"] < 4.1
    assert 4.1 * RESOLUTION <= latency["total"]["p50"] < 20.0


@pytest.mark.parametrize("words", [("-c", "4"), ("--close", "server")], ids=["kept", "new"])
def test_a_stall_of_one_second_shows_in_the_open_loop(words: tuple[str, ...], namespace: Namespace) -> None:
    """Of 500 arrivals, 5 ms apart, the stall holds up 200, for 1 s down to nothing: p99 is the fifth longest wait.

    A tool that counts from the moment it gets round to sending (coordinated omission) would see four slow answers.
    """
    with Server(behaviours.StallsOnce(at=200, seconds=1.0), listener=namespace.listen()) as server:
        result = stress(server.url, "-R", "200/s", "-n", "500", *words, namespace=namespace)
    assert (result.totals["succeeded"], result.totals["failed"]) == (500, 0)
    latency = result.json["latency"]["total"]
    assert latency["max"] >= 0.995 * RESOLUTION
    assert latency["p99"] >= 0.95
    assert latency["p90"] >= 0.6


def test_the_same_stall_in_the_closed_loop_holds_up_only_what_is_in_flight(namespace: Namespace) -> None:
    """The control of the test above: four of 2000 answers are slow, so p99 cannot know."""
    with Server(behaviours.StallsOnce(at=200, seconds=1.0), listener=namespace.listen()) as server:
        latency = stress(server.url, "-n", "2000", "-c", "4", namespace=namespace).json["latency"]["total"]
    assert latency["max"] >= 1.0 * RESOLUTION
    assert latency["p99"] < 0.95


def test_byte_by_byte_is_one_answer(namespace: Namespace) -> None:
    with Server(behaviours.byte_by_byte, listener=namespace.listen()) as server:
        result = stress(server.url, "-n", "40", "-c", "4", namespace=namespace)
        assert server.requests == 40
    assert (result.totals["succeeded"], result.totals["failed"], result.exit_code) == (40, 0, 0)
