"""Scenes on a real wire between two hosts, each for a process of its own: `python -c "from kit import wired; ..."`.

The hosts are `client` (10.0.0.2, fd00::2), the wire's end a, and `balancer` (10.0.0.1, fd00::1), its end b. A scene
prints one JSON object, or raises.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kit.labs import wait_until
from timewait.lab import enter, frames
from timewait.lab.crafted import Crafted, Talk
from timewait.lab.network import LabHost, Network, build
from timewait.lab.recorder import Recorder
from timewait.lab.topologies import direct, nat
from timewait.lab.wire import ACKS_TO_SYNS, Drop, End, OldKernel, Wire, WireSpec
from timewait.tcp.segment import ACK, SYN, Segment

ADDRESSES = ("10.0.0.1", "fd00::1")
PORT = 80
TCP_ESTABLISHED = 1  # include/net/tcp_states.h: the first byte of struct tcp_info
TCP_INFO_TIMESTAMPS = 1  # linux/tcp.h: TCPI_OPT_TIMESTAMPS, in the sixth byte of struct tcp_info
RECYCLE = OldKernel("2.6.32", {"tcp_tw_recycle": 1})


def tell(**found: object) -> None:
    print(json.dumps(found))


@contextmanager
def pair(**spec: object) -> Iterator[tuple[Network, LabHost, LabHost, Wire]]:
    """The two hosts with a wire between them."""
    enter()
    with build(direct().wired("client", "balancer", WireSpec(**spec))) as network:  # type: ignore[arg-type]
        yield network, network["client"], network["balancer"], network.wires[0]


def listen(host: LabHost, address: str = ADDRESSES[0]) -> socket.socket:
    with host.entered():
        return socket.create_server((address, PORT), family=family(address), backlog=100)


def connected(client: LabHost, listener: socket.socket, timeout: float = 20) -> tuple[socket.socket, socket.socket]:
    """Both ends of a new connection."""
    address = listener.getsockname()[0]
    with client.entered():
        near = socket.socket(family(address))
    near.settimeout(timeout)
    near.connect((address, PORT))
    far, _ = listener.accept()
    far.settimeout(timeout)
    return near, far


def family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def moved(source: socket.socket, target: socket.socket, data: bytes) -> bool:
    """Sends data through a connection while the other end reads; whether the same arrived."""
    source.setblocking(False)
    sent, got, digest = 0, 0, hashlib.sha256()
    limit = time.monotonic() + 60
    while got < len(data):
        assert time.monotonic() < limit, f"{got} of {len(data)} bytes after a minute"
        try:
            sent += source.send(data[sent : sent + 65536])
        except BlockingIOError:
            pass
        try:
            part = target.recv(1 << 20, socket.MSG_DONTWAIT)
        except BlockingIOError:
            time.sleep(0.0005)
            continue
        digest.update(part)
        got += len(part)
    source.setblocking(True)
    return digest.digest() == hashlib.sha256(data).digest()


def captured(path: str, *, whole: bool = True) -> list[tuple[int, bytes]]:
    """The frames of a capture file, with their time in ns; raises when anything in it does not fit. Without `whole`
    its end may be half written: somebody is at it."""
    text = Path(path).read_bytes()
    magic, major, minor, _, _, snap, link = struct.unpack_from("<IHHiIII", text)
    assert (magic, major, minor, link) == (0xA1B23C4D, 2, 4, 1)
    found, place = [], 24
    while place < len(text) if whole else place + 16 <= len(text):
        seconds, rest, here, there = struct.unpack_from("<IIII", text, place)
        assert rest < 1_000_000_000 and here <= there and here <= snap
        place += 16 + here
        if place > len(text) and not whole:
            break
        assert place <= len(text)
        found.append((seconds * 1_000_000_000 + rest, text[place - here : place]))
    return found


def settle(wire: Wire, condition: Callable[[], bool]) -> None:
    wait_until(condition, f"{wire.counts()} {wire.events()}")


# -- scenes ---------------------------------------------------------------------------------------------------------


def transfer(**spec: object) -> None:
    """Data both ways over both families."""
    data = os.urandom(int(spec.pop("size", 3_000_000)))  # type: ignore[call-overload]
    with pair(**spec) as (network, client, balancer, wire):
        intact = []
        for address in ADDRESSES:
            with listen(balancer, address) as listener:
                near, far = connected(client, listener)
                intact += [moved(near, far, data), moved(far, near, data)]
                near.close()
                far.close()
        settle(wire, lambda: wire.counts().held == 0)
        counts = wire.counts()
        tell(
            intact=intact, passed=counts.passed, bytes=counts.bytes, dropped=counts.dropped, unread=counts.unread,
            overtaken=counts.overtaken, errors=[counts.send_errors, counts.overruns, counts.too_long],
            died=network.died(),
        )  # fmt: skip


def delay(seconds: float) -> None:
    """How long a connect takes: a round trip, neighbours known."""
    with pair(delay=seconds) as (_, client, balancer, wire):
        took = []
        for address in ADDRESSES:
            with listen(balancer, address) as listener:
                for _ in range(4):
                    began = time.perf_counter()
                    near, far = connected(client, listener)
                    took.append(time.perf_counter() - began)
                    near.close()
                    far.close()
        tell(shortest=min(took), overtaken=wire.counts().overtaken)


def clocks(shift: int) -> None:
    """What either host sees of the other's clock, by what is recorded at both."""
    folder = Path(sys.argv[1])
    with (
        pair(a=End(clock_shift=shift), b=End(clock_shift=-7)) as (_, client, balancer, _),
        Recorder(client.namespace, "eth0", folder / "client") as one,
        Recorder(balancer.namespace, "eth0", folder / "balancer") as other,
    ):
        intact = []
        for address in ADDRESSES:
            with listen(balancer, address) as listener:
                near, far = connected(client, listener)
                intact.append(moved(near, far, b"x" * 100_000) and moved(far, near, b"y" * 100_000))
                near.close()
                far.close()
        wait_until(lambda: min(one.frames, other.frames) > 20, "recorded")
    seen = [_timestamps(captured(str(folder / name))) for name in ("client", "balancer")]
    same = seen[0].keys() & seen[1].keys()
    first = [{key: found[key][0][0] for key in same} for found in seen]  # a segment sent again has another timestamp
    tell(
        intact=intact,
        segments=len(same),
        from_client=sorted({(first[1][key] - first[0][key]) % 2**32 for key in same if key[1] == PORT}),
        from_balancer=sorted({(first[0][key] - first[1][key]) % 2**32 for key in same if key[0] == PORT}),
        echoes=[_echoes(part) for part in seen],
        broken=[sum(not frames.intact(text) for _, text in captured(str(folder / name)) if frames.parse(text))
                for name in ("client", "balancer")],
    )  # fmt: skip


Segments = dict[tuple[int, int, int, int, int], list[tuple[int, int]]]


def _timestamps(recorded: list[tuple[int, bytes]]) -> Segments:
    """By segment: its timestamps, each time it was sent."""
    found: Segments = {}
    for _, text in recorded:
        packet = frames.parse(text)
        if packet and packet.has_ts:
            key = (packet.source_port, packet.target_port, packet.seq, packet.ack, packet.flags)
            found.setdefault(key, []).append((packet.tsval, packet.tsecr))
    return found


def _echoes(seen: Segments) -> int:
    """Echoes of timestamps that the other end has never sent."""
    said = {(key[0] == PORT, tsval) for key, times in seen.items() for tsval, _ in times}
    heard = [(key[0] != PORT, tsecr) for key, times in seen.items() for _, tsecr in times if tsecr]
    return sum(one not in said for one in heard)


def strip(strip: bool) -> None:
    """Whether the connection has timestamps, as both kernels say."""
    with pair(strip_timestamps=strip) as (_, client, balancer, _), listen(balancer) as listener:
        near, far = connected(client, listener)
        data = b"x" * 200_000
        tell(
            has=[
                end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[5] & TCP_INFO_TIMESTAMPS for end in (near, far)
            ],
            intact=moved(near, far, data) and moved(far, near, data),
        )


def drop_first_syn() -> None:
    """The kernel sends its SYN again after a second."""
    with (
        pair(drop=(Drop(name="the first SYN", flags=("SYN",), without=("ACK",), first=1),)) as (
            _,
            client,
            balancer,
            wire,
        ),
        listen(balancer) as listener,
    ):
        began = time.monotonic()
        connected(client, listener)
        took = time.monotonic() - began
        settle(wire, lambda: bool(wire.events()))
        [event] = wire.events()
        tell(took=took, reason=event.reason, toward=event.toward, target=event.target, port=event.target_port,
             rule=event.rule)  # fmt: skip


def closed_by_host(peer: Crafted, listener: socket.socket, port: int, tsval: int) -> None:
    """A connection of a made-up peer that the host closes first: it leaves a record with this timestamp."""
    talk = peer.connect(to=PORT, port=port, tsval=tsval)
    finish(peer, listener.accept()[0], talk)


def finish(peer: Crafted, accepted: socket.socket, talk: Talk) -> None:
    accepted.close()
    peer.close_by_other(talk)


def answered(peer: Crafted, port: int, tsval: int | None, isn: int = 70_000) -> bool:
    """Whether a SYN with this timestamp gets a SYN-ACK."""
    syn = Segment(isn, 0, SYN, 0, tsval is not None, tsval or 0, 0)
    peer.send(syn, port=port, to=PORT)
    return any(seen.port == port and seen.segment.flags == SYN | ACK for seen in peer.settled())


def record(kernel: str, address: str, target: str) -> None:
    """SYNs with chosen timestamps against the record of a connection that the host closed with 100000."""
    with (
        pair(b=End(kernel=OldKernel(kernel, {"tcp_tw_recycle": 1}))) as (_, client, balancer, wire),
        listen(balancer, target) as listener,
        Crafted(client.namespace, "eth0", address=address, target=target) as peer,
    ):
        before = answered(peer, 50000, 5)  # nobody has left a record yet
        early = peer.connect(to=PORT, port=40001, tsval=50_000)  # open before there is a record; closed after
        [accepted] = [one for one in (listener.accept()[0],) if one.getpeername()[1] == 40001]
        closed_by_host(peer, listener, 40000, 100_000)
        clocks = (99_998, 99_999, 100_000, 200_000, 100_000 - 2**31 + 1, None)
        tried = {str(tsval): answered(peer, 50001 + place, tsval) for place, tsval in enumerate(clocks)}
        finish(peer, accepted, early)
        again = {str(tsval): answered(peer, 51000 + place, tsval) for place, tsval in enumerate((99_998, 99_999))}
        silent = [*tried.values(), *again.values()].count(False)
        settle(wire, lambda: len(wire.events()) >= silent)  # told after the counts they are in
        events = [[event.source, event.tsval, event.record_ts, event.counters] for event in wire.events()]
        counts = wire.counts()
        tell(before=before, tried=tried, again=again, counters=counts.counters, records=counts.records, events=events)


def time_wait() -> None:
    """A SYN that meets a TIME_WAIT reaches the host, however old its timestamp; a second tuple's does not."""
    with (
        pair(b=End(kernel=RECYCLE)) as (_, client, balancer, wire),
        listen(balancer) as listener,
        Crafted(client.namespace, "eth0", address="10.0.0.9", target=ADDRESSES[0]) as peer,
    ):
        closed_by_host(peer, listener, 40000, 100_000)
        peer.settled()
        peer.send(Segment(90_000, 0, SYN, 0, True, 99_000, 0), port=40000, to=PORT)
        meets = [seen.segment.flags for seen in peer.settled() if seen.port == 40000]
        other = answered(peer, 40001, 99_000)
        settle(wire, lambda: bool(wire.events()))
        tell(meets=meets, other=other, counters=wire.counts().counters[1])


def passive() -> None:
    """The host closes second: it remembers nothing, and any timestamp passes."""
    with (
        pair(b=End(kernel=RECYCLE)) as (_, client, balancer, wire),
        listen(balancer) as listener,
    ):
        near, far = connected(client, listener)
        near.close()
        assert far.recv(1) == b""
        far.close()
        with Crafted(client.namespace, "eth0", address="10.0.0.9", target=ADDRESSES[0]) as peer:
            tell(passes=answered(peer, 50000, 1), records=wire.counts().records)


def behind_nat() -> None:
    """Two clients with different clocks behind one address; the slower one's SYNs, and when they pass again."""
    enter()
    steady = {"net.ipv4.tcp_timestamps": "2"}  # no offset by address or tuple: the clock of the machine itself
    wish = nat().changed("client-1", sysctls=steady).changed("client-2", sysctls=steady)
    wish = wish.wired("client-2", "gateway", WireSpec(a=End(clock_shift=-1_000_000)))
    wish = wish.wired("gateway", "balancer", WireSpec(b=End(kernel=RECYCLE)))
    with build(wish) as network, listen(network["balancer"]) as listener:
        wire = network.wires[-1]
        near, far = connected(network["client-1"], listener)
        far.close()  # first
        assert near.recv(1) == b""
        near.close()
        settle(wire, lambda: wire.counts().records[1] > 0)
        passes = []
        for one in connected(network["client-1"], listener):
            one.close()
        passes.append("client-1")
        with network["client-2"].entered(), socket.socket() as late:
            late.setblocking(False)
            late.connect_ex((ADDRESSES[0], PORT))
            settle(wire, lambda: len(wire.events()) >= 2)  # its SYN, and the one after a second
            if late.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_ESTABLISHED:
                passes.append("client-2")
        settle(wire, lambda: wire.counts().counters[1]["PAWSPassive"] == len(wire.events()))  # told after the counts
        tell(passes=passes, counters=wire.counts().counters[1], events=[event.source for event in wire.events()],
             died=network.died())  # fmt: skip


def killed() -> None:
    """The wire's process is killed: both hosts lose their interface, and the network says why."""
    with pair() as (network, client, balancer, wire), listen(balancer) as listener:
        connected(client, listener)
        settle(wire, lambda: min(wire.counts().passed) > 1)
        os.kill(wire.pid, signal.SIGKILL)
        wait_until(lambda: not wire.alive, "its end")
        for host in (client, balancer):
            wait_until(lambda host=host: "eth0" not in host.run(["cat", "/proc/net/dev"]), "the interface is gone")  # type: ignore[misc]
        tell(died=network.died(), passed=min(wire.counts().passed))


def waiting() -> None:
    """Prints the process of a wire, and stays until it is killed."""
    with pair() as (_, _, _, wire):
        print(wire.pid, flush=True)
        time.sleep(100)


def unplugged() -> None:
    """A host's interface is deleted: the wire ends by itself."""
    with pair() as (network, client, balancer, wire):
        with client.entered():
            from pyroute2 import IPRoute

            with IPRoute() as netlink:
                netlink.link("del", index=socket.if_nametoindex("eth0"))
        wait_until(lambda: not wire.alive, "its end")
        wait_until(lambda: "eth0" not in balancer.run(["cat", "/proc/net/dev"]), "the other interface is gone")
        tell(died=network.died())


def recorded(limit: int = 0) -> None:
    """A wire that records; with `limit` no file may grow beyond so many bytes."""
    path = sys.argv[1]
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with pair(pcap=path, loss=0.01, seed=3) as (_, client, balancer, wire):
        intact = []
        for address in ADDRESSES:
            with listen(balancer, address) as listener:
                near, far = connected(client, listener)
                intact.append(moved(near, far, b"x" * 300_000))
                near.close()
                far.close()
        wire.stop()
        counts = wire.counts()
        tell(intact=intact, recorded=counts.recorded, error=counts.record_error, arrived=sum(counts.arrived),
             died=wire.died())  # fmt: skip


def acks_to_syns() -> None:
    """The answer of a TIME_WAIT to an old SYN is filtered: the opener hears nothing."""
    with (
        pair(drop=(ACKS_TO_SYNS,)) as (_, client, balancer, wire),
        listen(balancer) as listener,
        Crafted(client.namespace, "eth0", address="10.0.0.9", target=ADDRESSES[0]) as peer,
    ):
        closed_by_host(peer, listener, 40000, 100_000)
        peer.settled()
        peer.send(Segment(90_000, 0, SYN, 0, True, 99_000, 0), port=40000, to=PORT)
        heard = len(peer.settled())
        settle(wire, lambda: wire.counts().dropped[ACKS_TO_SYNS.name] == 1)
        tell(heard=heard)


def other_protocols() -> None:
    """UDP and ICMP pass too, also in fragments and with IPv6 extension headers."""
    with pair(b=End(kernel=RECYCLE), a=End(clock_shift=5)) as (_, client, balancer, wire):
        arrived = []
        for address in ADDRESSES:
            kind = family(address)
            with balancer.entered():
                far = socket.socket(kind, socket.SOCK_DGRAM)
            far.bind((address, 9000))
            far.settimeout(20)
            with client.entered():
                near = socket.socket(kind, socket.SOCK_DGRAM)
            if kind == socket.AF_INET6:
                near.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, bytes([0, 0, 1, 4, 0, 0, 0, 0]))
            for size in (10, 8000):
                near.sendto(b"z" * size, (address, 9000))
                arrived.append(len(far.recv(65536)))
        settle(wire, lambda: wire.counts().unread > 12)
        tell(arrived=arrived, errors=wire.counts().send_errors)


def beside(limit: int = 0) -> None:
    """A plain link, recorded at both ends."""
    folder = Path(sys.argv[1])
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    enter()
    with build(direct()) as network:
        client, balancer = network["client"], network["balancer"]
        recorders = [Recorder(host.namespace, "eth0", folder / host.name) for host in (client, balancer)]
        for address in ADDRESSES:
            with listen(balancer, address) as listener:
                near, far = connected(client, listener)
                assert moved(near, far, b"x" * 300_000)
                near.close()
                far.close()
        for recorder in recorders:
            recorder.stop()
        tell(errors=[one.error for one in recorders], frames=[one.frames for one in recorders])


def echoes() -> None:
    """What the wire remembers of a real client against what the host's last segment to it echoed.

    After each connection two SYNs of the same address, 2^31 ticks apart: one of them is older than the record.
    """
    path = sys.argv[1]
    with (
        pair(b=End(kernel=RECYCLE), a=End(clock_shift=-500_000), pcap=path) as (_, client, balancer, wire),
        listen(balancer) as listener,
    ):
        client.set_sysctl("net.ipv4.tcp_timestamps", "2")  # one clock for all connections
        with client.entered():
            door = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        door.bind(("eth0", 0))
        for number, size in enumerate(range(10_000, 20_000, 1000)):
            near, far = connected(client, listener)
            assert moved(near, far, b"x" * size) and moved(far, near, b"y" * size)
            far.close()
            assert near.recv(1) == b""
            near.close()
            settle(wire, lambda number=number: wire.counts().records[1] > number)  # type: ignore[misc]
            [syn, *_] = [text for _, text in captured(path, whole=False) if _flags(text) == SYN]
            for half in (0, 2**31):
                door.send(_other_syn(syn, 20_000 + number, half))
            settle(wire, lambda number=number: len(wire.events()) > number)  # type: ignore[misc]
        heard = [packet.tsecr for packet in _last(captured(path, whole=False)).values()]
        tell(remembered=[event.record_ts for event in wire.events()], heard=heard)


def _flags(text: bytes) -> int:
    packet = frames.parse(text)
    return packet.flags if packet else 0


def _other_syn(syn: bytes, port: int, tsval: int) -> bytearray:
    """The same SYN from another port and with another timestamp."""
    text = bytearray(syn)
    packet = frames.parse(text)
    assert packet is not None
    text[packet.tcp : packet.tcp + 2] = port.to_bytes(2, "big")
    frames.set_timestamps(text, packet, tsval, 0)
    frames.seal(text, packet)
    return text


def _last(recorded: list[tuple[int, bytes]]) -> dict[int, frames.Packet]:
    """The host's last segment with timestamps to each port, its answers to SYNs left out."""
    found = {}
    for _, text in recorded:
        packet = frames.parse(text)
        if packet and packet.source_port == PORT and not packet.flags & SYN and packet.has_ts:
            found[packet.target_port] = packet
    return found
