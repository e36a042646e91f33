"""The wire on the real kernel: what two hosts see of it, and what is left when it ends."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import peers
from kit.labs import ENVIRONMENT, USERS, python
from kit.namespace import needs_namespaces
from kit.wired import captured
from timewait.lab import frames


def scene(call: str, *words: str, user: str = "as we are") -> Any:
    """Plays a scene of kit/wired.py in a process of its own."""
    needs_namespaces()
    told = python(f"from kit import wired\n{USERS[user]}\nwired.{call}", *words, timeout=100)
    return json.loads(told)


@pytest.mark.parametrize("user", USERS)
def test_big_transfers_arrive_intact_over_both_families(user: str) -> None:
    told = scene("transfer()", user=user)
    assert told["intact"] == [True] * 4
    assert told["errors"] == [0, 0, 0] and told["died"] == []
    assert sum(told["dropped"].values()) == 0
    # Frames no longer than the MTU: 12 MB do not fit into fewer.
    assert min(told["passed"]) > 4000 and sum(told["bytes"]) / sum(told["passed"]) < 1514


def test_transfers_survive_loss_and_overtaking() -> None:
    told = scene("transfer(size=300_000, loss=0.02, reorder=0.05, delay=0.001, jitter=0.001, seed=5)")
    assert told["intact"] == [True] * 4
    assert told["dropped"]["loss"] > 5 and told["overtaken"] > 20


def test_transfers_pass_with_every_rule_at_work() -> None:
    told = scene(
        "transfer(a=wired.End(clock_shift=77, kernel=wired.RECYCLE),"
        " b=wired.End(clock_shift=-9, kernel=wired.RECYCLE), drop=(wired.ACKS_TO_SYNS,))"
    )
    assert told["intact"] == [True] * 4
    assert told["errors"] == [0, 0, 0]
    assert sum(told["dropped"].values()) == 0


def test_delay_is_at_least_what_was_asked_for_each_way() -> None:
    told = scene("delay(0.03)")
    assert told["shortest"] >= 0.06


@pytest.mark.parametrize("shift", [-1_000_000, 2**31])
def test_a_shifted_clock_is_seen_at_the_far_end_only(shift: int, tmp_path: Path) -> None:
    told = scene(f"clocks({shift})", str(tmp_path))
    assert told["intact"] == [True, True]
    assert told["segments"] > 40
    assert told["from_client"] == [shift % 2**32]
    assert told["from_balancer"] == [-7 % 2**32]
    assert told["echoes"] == [0, 0], "a host was told of a timestamp that nobody had sent"
    assert told["broken"] == [0, 0]


@pytest.mark.parametrize("strip", [True, False])
def test_stripped_syns_make_connections_without_timestamps(strip: bool) -> None:
    told = scene(f"strip({strip})")
    assert told == {"has": [0, 0] if strip else [1, 1], "intact": True}


def test_a_dropped_syn_is_told_of_and_sent_again() -> None:
    told = scene("drop_first_syn()")
    assert told.pop("took") >= 0.9
    assert told == {"reason": "the first SYN", "toward": "b", "target": "10.0.0.1", "port": 80, "rule": ""}


@pytest.mark.parametrize("user", USERS)
def test_2_6_32_drops_what_lies_more_than_one_tick_behind_its_record(user: str) -> None:
    told = scene("record('2.6.32', '10.0.0.9', '10.0.0.1')", user=user)
    assert told["before"] is True
    assert told["tried"] == {
        "99998": False,
        "99999": True,
        "100000": True,
        "200000": True,
        str(100_000 - 2**31 + 1): False,
        "None": True,
    }
    # A connection of 50000 that the host closed meanwhile has not moved the record back.
    assert told["again"] == {"99998": False, "99999": True}
    assert told["counters"][1]["PAWSPassive"] == 3
    assert "ListenDrops" not in told["counters"][1]
    assert told["events"] == [
        ["10.0.0.9", tsval % 2**32, 100_000, ["PAWSPassive"]] for tsval in (99_998, 100_000 - 2**31 + 1, 99_998)
    ]


def test_4_9_drops_a_syn_without_timestamps_too_and_counts_it_twice() -> None:
    told = scene("record('4.9', '10.0.0.9', '10.0.0.1')")
    assert told["tried"]["99998"] is False and told["tried"]["99999"] is True and told["tried"]["None"] is False
    assert told["counters"][1]["PAWSPassive"] == told["counters"][1]["ListenDrops"] == 4


@pytest.mark.parametrize(("kernel", "drops"), [("2.6.32", 0), ("3.10", 3)])
def test_ipv6_has_records_since_3_10(kernel: str, drops: int) -> None:
    told = scene(f"record({kernel!r}, 'fd00::9', 'fd00::1')")
    assert len(told["events"]) == drops
    assert (told["records"][1] > 0) == (drops > 0)


def test_a_syn_that_meets_a_time_wait_is_left_to_it() -> None:
    told = scene("time_wait()")
    assert told["meets"] == [16], "the host's own TIME_WAIT answers with an ACK"
    assert told["other"] is False
    assert told["counters"] == {"PAWSEstab": 1, "PAWSPassive": 1}


def test_what_it_remembers_is_what_the_host_itself_echoed_last(tmp_path: Path) -> None:
    told = scene("echoes()", str(tmp_path / "wire.pcap"))
    assert len(told["remembered"]) == 10
    assert set(told["remembered"]) <= set(told["heard"])


def test_a_host_that_closes_second_remembers_nothing() -> None:
    assert scene("passive()") == {"passes": True, "records": [0, 0]}


def test_of_two_clients_behind_one_address_the_slower_clock_is_locked_out() -> None:
    peers.needs("nft")
    told = scene("behind_nat()")
    assert told["passes"] == ["client-1"]
    assert told["counters"]["PAWSPassive"] == len(told["events"]) >= 2  # the SYN, and the one after a second
    assert set(told["events"]) == {"10.0.0.2"}  # the gateway's address: that is all the host knows
    assert told["died"] == []


def test_the_answer_of_a_time_wait_can_be_filtered() -> None:
    assert scene("acks_to_syns()") == {"heard": 0}


def test_other_protocols_fragments_and_extension_headers_pass() -> None:
    assert scene("other_protocols()") == {"arrived": [10, 8000, 10, 8000], "errors": 0}


def test_killed_it_takes_both_interfaces_along_and_the_network_says_so() -> None:
    told = scene("killed()")
    assert told["passed"] > 1
    assert told["died"] == ["the wire between client and balancer was ended by SIGKILL"]


def test_it_dies_with_its_parent_also_by_kill_9() -> None:
    needs_namespaces()
    code = "from kit import wired\nwired.waiting()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as parent:
        assert parent.stdout is not None
        wire = os.pidfd_open(int(parent.stdout.readline()))
        assert not select.select([wire], [], [], 0)[0]
        parent.kill()
    assert select.select([wire], [], [], 20)[0]
    os.close(wire)


def test_an_unplugged_host_ends_it() -> None:
    assert scene("unplugged()")["died"] == ["the wire between client and balancer ended: an interface is gone"]


def test_the_capture_is_whole_and_its_checksums_are_right(tmp_path: Path) -> None:
    path = str(tmp_path / "wire.pcap")
    told = scene("recorded()", path)
    assert told["intact"] == [True, True]
    assert (told["error"], told["died"]) == ("", None)
    found = captured(path)
    assert len(found) == told["recorded"] == told["arrived"]
    segments = [text for _, text in found if frames.parse(text)]
    assert len(segments) > 400
    assert all(frames.intact(text) for text in segments)
    assert [at for at, _ in found] == sorted(at for at, _ in found)


def test_on_a_full_disk_it_stops_recording_and_says_so_but_goes_on(tmp_path: Path) -> None:
    path = str(tmp_path / "wire.pcap")
    told = scene("recorded(limit=100_000)", path)
    assert told["intact"] == [True, True]
    assert told["error"] == "EFBIG: File too large"
    found = captured(path)
    assert 0 < len(found) == told["recorded"] < told["arrived"]


def test_a_recorder_beside_a_plain_link_finishes_the_checksums(tmp_path: Path) -> None:
    """On a veth without a wire the hosts leave them to each other."""
    told = scene("beside()", str(tmp_path))
    assert told["errors"] == ["", ""]
    files = [captured(str(tmp_path / name)) for name in ("client", "balancer")]
    assert [len(found) for found in files] == told["frames"]
    for found in files:
        small = [text for _, text in found if frames.parse(text)]
        flags = [frames.parse(text) for text in small]
        assert sum(bool(packet and packet.flags & 2) for packet in flags) == 4  # SYN and SYN-ACK, both families
        assert all(frames.intact(text) for text in small)


def test_a_recorder_says_why_its_file_is_not_complete(tmp_path: Path) -> None:
    told = scene("beside(limit=20_000)", str(tmp_path))
    assert all("recording stopped after" in error and "EFBIG" in error for error in told["errors"])
    files = [captured(str(tmp_path / name)) for name in ("client", "balancer")]
    assert [len(found) for found in files] == told["frames"]
