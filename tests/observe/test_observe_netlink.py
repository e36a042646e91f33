"""Netlink against a scripted kernel: how dumps end, fail, and are interrupted."""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence

import pytest

from timewait.observe import netlink
from timewait.observe.netlink import HEADER, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, Netlink, NetlinkError
from timewait.observe.sock_diag import CONNECTED, SockDiag
from timewait.tcp.states import State

Datagram = bytes | OSError


class ScriptedKernel:
    """Answers each request with the next list of datagrams."""

    def __init__(self, *answers: Sequence[Datagram]) -> None:
        self.answers = list(answers)
        self.ready: list[Datagram] = []
        self.requests: list[bytes] = []
        self.closed = False

    def send(self, data: bytes, /) -> int:
        assert not self.ready, "a request while the last dump is unread (EBUSY)"
        self.requests.append(data)
        self.ready = list(self.answers.pop(0))
        return len(data)

    def recv_into(self, buffer: memoryview, /) -> int:
        datagram = self.ready.pop(0)
        if isinstance(datagram, OSError):
            raise datagram
        buffer[: len(datagram)] = datagram
        return len(datagram)

    def close(self) -> None:
        self.closed = True


def message(kind: int, body: bytes, sequence: int = 1, flags: int = 2) -> bytes:
    return HEADER.pack(16 + len(body), kind, flags, sequence, 0) + body


def sock(state: State, extra: bytes = b"", sequence: int = 1, port: int = 40000) -> bytes:
    """struct inet_diag_msg of a socket 127.0.0.1:port -> 127.0.0.1:80."""
    ends = struct.pack(">HH4s12x4s12x", port, 80, b"\x7f\0\0\1", b"\x7f\0\0\1")
    body = struct.pack("=BBBB", 2, state, 0, 0) + ends + bytes(72 - 4 - len(ends))
    return message(20, body + extra, sequence)


def done(sequence: int = 1, status: int = 0, flags: int = 2) -> bytes:
    return message(NLMSG_DONE, struct.pack("=i", status), sequence, flags)


def batches(kernel: ScriptedKernel) -> bytes:
    return b"".join(bytes(batch) for batch in Netlink(kernel).dump(20, b""))


@pytest.mark.parametrize(
    "datagrams",
    [
        [sock(State.TIME_WAIT) * 2, done()],
        [sock(State.TIME_WAIT) * 2 + done()],
        [sock(State.TIME_WAIT), sock(State.TIME_WAIT) + done()],
    ],
    ids=["done alone", "done behind the data", "two datagrams"],
)
def test_a_dump_is_its_messages_without_the_end(datagrams: list[Datagram]) -> None:
    assert batches(ScriptedKernel(datagrams)) == sock(State.TIME_WAIT) * 2


def test_an_empty_dump_has_no_batches() -> None:
    assert batches(ScriptedKernel([done()])) == b""


def test_a_dump_larger_than_the_buffer_comes_in_batches_of_whole_messages() -> None:
    datagram = sock(State.TIME_WAIT) * 370  # 32 KiB, as the kernel sends them
    found = [len(batch) for batch in Netlink(ScriptedKernel([datagram] * 100 + [done()])).dump(20, b"")]
    assert sum(found) == 100 * len(datagram) and len(found) > 1
    assert all(length % 88 == 0 for length in found)


@pytest.mark.parametrize(
    ("answer", "kind", "number"),
    [
        ([message(NLMSG_ERROR, struct.pack("=i", -errno.ENOENT))], "missing", errno.ENOENT),
        ([message(NLMSG_ERROR, struct.pack("=i", -errno.EPERM))], "denied", errno.EPERM),
        ([message(NLMSG_ERROR, struct.pack("=i", -errno.EINVAL))], "refused", errno.EINVAL),
        ([sock(State.TIME_WAIT), done(status=-errno.ENOMEM)], "refused", errno.ENOMEM),
        ([OSError(errno.EAGAIN, "")], "silent", errno.EAGAIN),
        ([sock(State.TIME_WAIT, sequence=7)], "garbled", 0),
        ([b"\0" * 5], "garbled", 0),
        ([message(NLMSG_ERROR, struct.pack("=i", 0))], "garbled", 0),
    ],
)
def test_what_goes_wrong_is_one_typed_error(answer: list[Datagram], kind: str, number: int) -> None:
    kernel = ScriptedKernel(answer)
    with pytest.raises(NetlinkError) as caught:
        batches(kernel)
    assert (caught.value.kind, caught.value.errno) == (kind, number)
    assert kernel.closed
    assert "socket table cannot be read" in str(caught.value)


def test_a_missing_module_names_the_remedy() -> None:
    assert "modprobe tcp_diag" in str(netlink.error(errno.ENOENT))


def test_a_dump_left_early_closes_the_socket() -> None:
    kernel = ScriptedKernel([sock(State.TIME_WAIT) * 370] * 40 + [done()])
    dump = Netlink(kernel).dump(20, b"")
    next(dump)
    dump.close()
    assert kernel.closed


def test_a_folder_that_raises_leaves_no_dump_behind() -> None:
    kernel = ScriptedKernel([sock(State.TIME_WAIT) * 370] * 40 + [done()])
    with pytest.raises(ZeroDivisionError):
        SockDiag(kernel).fold(CONNECTED, (), Raises)
    assert kernel.closed


class Raises:
    def add(self, rows: object, /) -> None:
        raise ZeroDivisionError


def family_answers(rounds: int, interrupted: int) -> list[list[Datagram]]:
    """AF_INET, then AF_INET6, for each attempt; the first attempts are marked as interrupted, with a wrong count."""
    answers: list[list[Datagram]] = []
    for attempt in range(rounds):
        broken = attempt < interrupted
        number = 2 * attempt + 1
        socks = sock(State.TIME_WAIT, sequence=number) * (9 if broken else 3)
        answers.append([socks, done(number, flags=2 | (NLM_F_DUMP_INTR if broken else 0))])
        answers.append([done(number + 1)])
    return answers


@pytest.mark.parametrize(("interrupted", "attempts", "count"), [(0, 1, 3), (1, 2, 3), (2, 3, 3), (9, 3, 9)])
def test_an_interrupted_dump_is_begun_again_three_times_at_most(interrupted: int, attempts: int, count: int) -> None:
    kernel = ScriptedKernel(*family_answers(attempts, interrupted))
    assert SockDiag(kernel).count() == {State.TIME_WAIT: count}
    assert len(kernel.requests) == 2 * attempts


def test_a_message_marked_as_interrupted_counts_too() -> None:
    body = sock(State.TIME_WAIT)[16:]
    marked = message(20, body, flags=2 | NLM_F_DUMP_INTR)
    again = [[sock(State.TIME_WAIT, sequence=3), done(3)], [done(4)]]
    kernel = ScriptedKernel([marked, done()], [done(2)], *again)
    assert SockDiag(kernel).count() == {State.TIME_WAIT: 1}
    assert not kernel.answers
