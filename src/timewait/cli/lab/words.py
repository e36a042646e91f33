"""What is particular about a host or a wire, in words."""

from __future__ import annotations

from collections.abc import Iterator

from timewait.lab.topology import Forward, Host, Link, Nat, PortChoice
from timewait.lab.wire.spec import End, WireSpec


def notes(host: Host) -> list[str]:
    """What is particular about a host, a line each."""
    lines = [*_nat_notes(host.nat)] if host.nat else []
    lines += _forward_notes(host.forward) if host.forward else []
    if host.ports:
        lines.append(f"ports {host.ports[0]}-{host.ports[1]}")
    return lines + [f"{name.removeprefix('net.ipv4.')}={value}" for name, value in host.sysctls.items()]


def _nat_notes(nat: Nat) -> list[str]:
    ports = f" ports {nat.ports[0]}-{nat.ports[1]}" if nat.ports else ""
    choice = "" if nat.choice is PortChoice.KEEP else f" {nat.choice}"
    first = f"NAT to {' '.join(nat.pool)}{ports}{choice}" + (" persistent" if nat.persistent else "")
    times = [f"{name} {seconds} s" for name, seconds in nat.timeouts.items()]
    lines = [first, *(["forgets after: " + ", ".join(times)] if times else [])]
    lines += ["drops what conntrack calls invalid"] * nat.drop_invalid
    return lines + ["drops ACKs to SYNs"] * nat.drop_acks_to_syns


def _forward_notes(forward: Forward) -> list[str]:
    targets = ", ".join(
        target.address + (f" (weight {target.weight})" if target.weight != 1 else "") for target in forward.targets
    )
    kind = "full NAT" if forward.full else "servers see the client's address"
    strip = ["takes timestamps out of SYNs"] if forward.strip_timestamps else []
    return [f"port {forward.port} to {targets} in turn; {kind}", *strip]


def wire_words(link: Link) -> str:
    """`wire client - balancer: 20 ms each way, client's clock +5,000 ticks`."""
    a, b = (end.host for end in link.ends)
    spec = link.wire or WireSpec()
    said = [*_way(spec), *_end(a, spec.a), *_end(b, spec.b)]
    said += [f"drops {', '.join(drop.name for drop in spec.drop)}"] if spec.drop else []
    said += ["takes timestamps out of SYNs"] if spec.strip_timestamps else []
    said += [f"records to {spec.pcap}"] if spec.pcap else []
    return f"wire {a} - {b}: {'; '.join(said) or 'passes everything on'}"


def _way(spec: WireSpec) -> Iterator[str]:
    if spec.delay or spec.jitter:
        more = f" and up to {spec.jitter * 1000:g} ms more" if spec.jitter else ""
        yield f"{spec.delay * 1000:g} ms{more} each way"
    if spec.loss:
        yield f"loses {spec.loss:.2%}"
    if spec.reorder:
        yield f"holds {spec.reorder:.2%} back by {spec.reorder_by * 1000:g} ms"


def _end(host: str, end: End) -> Iterator[str]:
    if end.clock_shift:
        yield f"clock of {host} {end.clock_shift:+,} ticks"
    if end.kernel:
        knobs = ", ".join(f"{name}={value}" for name, value in end.kernel.knobs.items())
        yield f"{host} drops SYNs as {end.kernel.name} does" + (f" with {knobs}" if knobs else "")
