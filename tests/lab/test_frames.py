"""The codec of frames: what it reads, what it builds, and that no bytes make it raise."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timewait.lab import frames
from timewait.lab.frames import Options, Packet

MACS = (b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02")
PAIRS = {
    4: (frames.packed("10.0.0.1"), frames.packed("10.0.0.2")),
    6: (frames.packed("fd00::1"), frames.packed("fd00::2")),
}

u32 = st.integers(0, 2**32 - 1)
u16 = st.integers(0, 2**16 - 1)
families = st.sampled_from([4, 6])
other_options = st.lists(st.sampled_from([b"\1", b"\2\4\5\xb4", b"\4\2", b"\3\3\7"]), max_size=4)

# Two segments between two Linux hosts over veth, checksums in software, as the kernel (6.18) wrote them.
SYN_4 = bytes.fromhex(
    "6efdb62dd8f21605c46f0f8608004500003cdc41400040064a780a0000010a000002"
    "d5520050084ef65a00000000a002faf0dfa40000020405b40402080a0fed752c000000000103030a"
)
ANSWER_6 = bytes.fromhex(
    "1605c46f0f866efdb62dd8f286dd6009b1fe00280640fd000000000000000000000000000002fd000000000000000000000000000001"
    "0050890e28fc6f3b4d846f8ba012fb0447720000020405a00402080ab24db277515076ca0103030a"
)
ARP = bytes.fromhex("ffffffffffff1605c46f0f86080600010800060400011605c46f0f860a0000010000000000000a000002")
NEIGHBOUR = bytes.fromhex(
    "3333ff0000021605c46f0f8686dd6000000000203afffd000000000000000000000000000001ff0200000000000000000001ff000002"
    "8700959d00000000fd00000000000000000000000000000201011605c46f0f86"
)


def built(family: int = 4, options: bytes = b"", payload: bytes = b"", **fields: int) -> bytearray:
    source, target = PAIRS[family]
    body = frames.segment(source, target, 40000, 80, options=options, payload=payload, **fields)
    return bytearray(frames.ethernet(*MACS, frames.packet(source, target, body)))


def read(frame: bytes | bytearray) -> Packet:
    found = frames.parse(frame)
    assert found is not None
    return found


def with_timestamps(before: list[bytes], tsval: int, tsecr: int) -> bytes:
    """Options in which the timestamps may begin at an odd place."""
    text = b"".join(before) + bytes((frames.TIMESTAMPS, 10)) + struct.pack("!II", tsval, tsecr)
    return text + b"\0" * (-len(text) % 4)


def test_what_a_kernel_wrote_is_read() -> None:
    found = read(SYN_4)
    assert (found.source, found.target) == PAIRS[4]
    assert (found.source_port, found.target_port, found.seq, found.ack) == (54610, 80, 139392602, 0)
    assert (found.flags, found.window, found.length, found.payload) == (2, 64240, 0, 74)
    assert (found.has_ts, found.tsval, found.tsecr) == (True, 267220268, 0)
    assert frames.options_of(SYN_4, found) == Options(1460, 10, True, (267220268, 0))
    assert frames.intact(SYN_4)
    found = read(ANSWER_6)
    assert (found.source, found.target) == PAIRS[6][::-1]
    assert (found.flags, found.tsval, found.tsecr) == (18, 2991436407, 1364227786)
    assert frames.intact(ANSWER_6)


def test_what_is_built_is_byte_for_byte_what_the_kernel_wrote() -> None:
    for frame in (SYN_4, ANSWER_6):
        found = read(frame)
        body = frames.segment(
            found.source,
            found.target,
            found.source_port,
            found.target_port,
            seq=found.seq,
            ack=found.ack,
            flags=found.flags,
            window=found.window,
            options=frames.options(frames.options_of(frame, found)),
        )
        assert body == frame[found.tcp :]
        packet = frames.packet(found.source, found.target, body)
        again = frames.ethernet(frame[6:12], frame[:6], packet)
        assert read(again) == found
        assert frames.intact(again)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        ARP,
        NEIGHBOUR,
        SYN_4[:-1],  # shorter than its IP length says
        SYN_4[:40],
        SYN_4[:23] + b"\x11" + SYN_4[24:],  # UDP
        SYN_4[:20] + b"\x20\x00" + SYN_4[22:],  # a first fragment: the checksum is over more than we have
        SYN_4[:20] + b"\x00\x10" + SYN_4[22:],  # a later one
        SYN_4[:14] + b"\x44" + SYN_4[15:],  # IP header shorter than possible
        SYN_4[:46] + b"\x40" + SYN_4[47:],  # TCP header shorter than possible
        SYN_4[:46] + b"\xf0" + SYN_4[47:],  # ... longer than the packet
        SYN_4[:12] + b"\x81\x00" + SYN_4[14:],  # a VLAN tag
        ANSWER_6[:20] + b"\x00" + ANSWER_6[21:],  # hop-by-hop options
        ANSWER_6[:14] + b"\x40" + ANSWER_6[15:],  # no IPv6
    ],
)
def test_what_is_no_whole_segment_is_none(frame: bytes) -> None:
    assert frames.parse(frame) is None
    assert not frames.intact(frame)


def test_bytes_after_the_packet_are_not_payload() -> None:
    """Ethernet fills short frames up to 60 bytes."""
    frame = built(payload=b"")
    assert read(frame + b"\0" * 6).length == 0
    assert frames.intact(frame + b"\xff" * 6)


@given(families, u32, u32, st.integers(0, 255), u16, st.binary(max_size=100))
def test_what_is_built_is_read_again(
    family: int, seq: int, ack: int, flags: int, window: int, payload: bytes
) -> None:
    wanted = Options(mss=1460, scale=7, sack=True, timestamps=(ack, seq))
    frame = built(family, frames.options(wanted), payload, seq=seq, ack=ack, flags=flags, window=window)
    found = read(frame)
    assert (found.source, found.target) == PAIRS[family]
    assert (found.source_port, found.target_port, found.seq, found.ack) == (40000, 80, seq, ack)
    assert (found.flags, found.window, found.length) == (flags, window, len(payload))
    assert (found.has_ts, found.tsval, found.tsecr) == (True, ack, seq)
    assert frame[found.payload :] == payload
    assert frames.options_of(frame, found) == wanted
    assert frames.intact(frame)


@pytest.mark.parametrize(
    "wanted",
    [Options(), Options(mss=536), Options(sack=True), Options(scale=0), Options(timestamps=(1, 2), sack=True)],
)
def test_options_come_back(wanted: Options) -> None:
    text = frames.options(wanted)
    frame = built(options=text)
    assert len(text) % 4 == 0
    assert frames.options_of(frame, read(frame)) == wanted


@given(families, other_options, u32, u32, u32, u32, st.binary(max_size=9))
def test_new_timestamps_keep_the_checksum(
    family: int, before: list[bytes], tsval: int, tsecr: int, new_val: int, new_ecr: int, payload: bytes
) -> None:
    frame = built(family, with_timestamps(before, tsval, tsecr), payload, flags=16)
    frames.set_timestamps(frame, read(frame), new_val, new_ecr)
    found = read(frame)
    assert (found.tsval, found.tsecr) == (new_val, new_ecr)
    assert frames.intact(frame)
    assert frame == built(family, with_timestamps(before, new_val, new_ecr), payload, flags=16)


@given(families, other_options, u32, u32, st.binary(max_size=9))
def test_erased_timestamps_keep_checksum_and_the_other_options(
    family: int, before: list[bytes], tsval: int, tsecr: int, payload: bytes
) -> None:
    frame = built(family, with_timestamps(before, tsval, tsecr), payload, flags=2)
    others = frames.options_of(frame, read(frame))._replace(timestamps=None)
    frames.erase_timestamps(frame, read(frame))
    found = read(frame)
    assert not found.has_ts
    assert frames.options_of(frame, found) == others
    assert frames.intact(frame)
    sealed = bytearray(frame)
    frames.seal(sealed, found)
    assert sealed == frame


@given(families, st.binary(max_size=40))
def test_seal_makes_any_checksum_right(family: int, payload: bytes) -> None:
    frame = built(family, payload=payload, flags=24)
    wanted = bytes(frame)
    place = read(frame).tcp + 16
    frame[place : place + 2] = b"\x12\x34"
    assert not frames.intact(frame) or wanted[place : place + 2] == b"\x12\x34"
    frames.seal(frame, read(frame))
    assert frame == wanted


def test_a_sum_of_ffff_is_written_as_zero() -> None:
    """RFC 1624: 0 and 0xffff are both zero in ones' complement; only one of them is what a kernel computes."""
    frame = built(payload=b"\0\0", flags=16)
    place = read(frame).tcp + 16
    (checksum,) = struct.unpack_from("!H", frame, place)
    frame = built(payload=checksum.to_bytes(2, "big"), flags=16)
    assert frame[place : place + 2] == b"\0\0"
    assert frames.intact(frame)


@pytest.mark.parametrize("text", [b"\1", b"\1" * 44])
def test_options_that_fill_no_words_are_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="whole words"):
        frames.segment(*PAIRS[4], 1, 2, options=text)


@given(st.binary(max_size=200))
def test_no_bytes_make_it_raise(data: bytes) -> None:
    found = frames.parse(data)
    frames.intact(data)
    if found:
        frames.options_of(data, found)


@given(st.sampled_from([SYN_4, ANSWER_6, ARP, NEIGHBOUR]), st.data())
def test_no_damage_to_a_frame_makes_it_raise(frame: bytes, data: st.DataObject) -> None:
    damaged = bytearray(frame[: data.draw(st.integers(0, len(frame)))])
    for place in data.draw(st.lists(st.integers(0, len(frame) - 1), max_size=6)):
        if place < len(damaged):
            damaged[place] = data.draw(st.integers(0, 255))
    found = frames.parse(damaged)
    frames.intact(damaged)
    if found:
        frames.options_of(damaged, found)
        assert found.payload + found.length <= len(damaged)
        size = len(damaged)
        if found.has_ts:
            frames.set_timestamps(damaged, found, 1, 2)
            frames.erase_timestamps(damaged, found)
        frames.seal(damaged, found)
        assert len(damaged) == size
