"""A host made of frames against the kernel's TCP; and its ARP and neighbour discovery on bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.labs import USERS, Inside, python
from kit.namespace import needs_namespaces
from timewait.lab import neighbours
from timewait.lab.frames import packed
from timewait.lab.neighbours import Said

MAC, OTHER_MAC = b"\x02abcde", b"\x02fghij"
PAIRS = [("10.0.0.9", "10.0.0.2"), ("fd00::9", "fd00::2")]

PREPARE = """
import socket
from timewait.lab import Namespace, add_address, crafted, enter, join
from timewait.lab.crafted import Crafted, CraftedError, stay_on_one_cpu
from timewait.tcp.segment import ACK, FIN, RST, SYN, Segment
"""
SCENE = """
enter()
stay_on_one_cpu()
host, far = Namespace("host"), Namespace("far")
join(host, "eth0", far, "eth0")
with host.entered():
    add_address("eth0", "10.0.0.2/24")
    add_address("eth0", "fd00::2/64")
PAIRS = [("10.0.0.9", "10.0.0.2"), ("fd00::9", "fd00::2")]
def listen(address):
    with host.entered():
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return socket.create_server((address, 80), family=family)
"""


@pytest.fixture(params=USERS)
def inside(request: pytest.FixtureRequest) -> Inside:
    """Runs code in that scene, in a fresh process, and returns what it prints; as root also as an ordinary user."""
    needs_namespaces()
    return lambda code: python(PREPARE + USERS[request.param] + SCENE + code)


@pytest.mark.parametrize(("asker", "asked"), PAIRS)
def test_a_question_and_its_answer(asker: str, asked: str) -> None:
    source, target = packed(asker), packed(asked)
    question = neighbours.parse(neighbours.ask(MAC, source, target))
    assert question == Said(True, source, target, MAC)
    answer = neighbours.answer(OTHER_MAC, target, question)
    assert neighbours.parse(answer) == Said(False, target, target, OTHER_MAC)
    assert answer[:6] == MAC


@given(st.binary(max_size=100), st.sampled_from([b"\x08\x06", b"\x86\xdd", b""]))
def test_frames_of_anything_are_no_trouble(frame: bytes, kind: bytes) -> None:
    neighbours.parse(frame[:12] + kind + frame[12:])


def test_time_wait_is_met_by_segments_of_any_kind(inside: Inside) -> None:
    """The answers of a TIME_WAIT, seen segment by segment over IPv4 and IPv6."""
    told = inside(
        """
for address, target in PAIRS:
    with listen(target) as server, Crafted(far, "eth0", address=address, target=target) as peer:
        talk = peer.connect(to=80, isn=1000, tsval=5000)
        accepted, _ = server.accept()
        accepted.sendall(b"hello")
        accepted.close()
        peer.close_by_other(talk)
        print(talk.snd_nxt)
        peer.send(Segment(seq=talk.snd_nxt + 9, flags=SYN, has_ts=True, tsval=4999), port=talk.port, to=80)
        (old,) = peer.settled()
        print(old.segment.flags == ACK, old.segment.ack, old.segment.tsecr, old.port, old.other_port)
        peer.send(Segment(seq=7, flags=SYN, has_ts=True, tsval=5001), port=talk.port, to=80)
        answer = peer.receive(20)
        print(answer.segment.flags == SYN | ACK, answer.segment.seq == (talk.rcv_nxt + 65537) % 2**32)
        print(peer.receive(0), peer.settled())
"""
    )
    assert told.splitlines() == ["1002", "True 1002 5000 40000 80", "True True", "None []"] * 2


def test_no_kernel_of_ours_interferes(inside: Inside) -> None:
    """A SYN-ACK left alone is sent again: a kernel that owned the address would have reset it."""
    told = inside(
        """
for address, target in PAIRS:
    with listen(target), Crafted(far, "eth0", address=address, target=target) as peer:
        peer.send(Segment(seq=1, flags=SYN), port=40000, to=80)
        first, again = peer.receive(20), peer.receive(20)
        print(first.segment == again.segment, first.segment.flags == SYN | ACK)
"""
    )
    assert told.splitlines() == ["True True"] * 2


def test_a_host_that_does_not_answer_is_named(inside: Inside) -> None:
    told = inside(
        """
long, short = crafted._PATIENCE, 0.2  # short only where it is about what does not come
crafted._PATIENCE = short
try:
    Crafted(far, "eth0", address="10.0.0.9", target="10.0.0.77")
except CraftedError as error:
    print(error)
crafted._PATIENCE = long
with Crafted(far, "eth0", address="10.0.0.9", target="10.0.0.2") as peer:
    try:
        peer.connect(to=81)
    except CraftedError as error:
        print(error)
with listen("10.0.0.2") as server, Crafted(far, "eth0", address="10.0.0.9", target="10.0.0.2") as peer:
    talk = peer.connect(to=80)
    crafted._PATIENCE = short
    try:
        peer.close_by_other(talk)
    except CraftedError as error:
        print(error)
"""
    )
    assert told.splitlines() == [
        "nobody on the link of 10.0.0.9 has 10.0.0.77",
        "10.0.0.2 port 81 answered with a RST, not with a SYN-ACK",
        "10.0.0.2 port 80 sent no FIN",
    ]
