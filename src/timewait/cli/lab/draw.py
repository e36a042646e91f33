"""A topology as text: clients on top, servers at the bottom, boxes joined by lines; a list where that is too wide."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from timewait.cli.lab.canvas import Canvas
from timewait.cli.lab.words import notes, wire_words
from timewait.lab.topology import Host, Role, Topology

_FRAME = 4  # columns of a box that are not text


def draw(topology: Topology, width: int, *, ascii_only: bool = False) -> str:
    """At most `width` columns wide, if names and addresses allow that."""
    head = textwrap.fill(f"{topology.name}: {topology.title}", width)
    body = _drawn(topology, width, ascii_only=ascii_only) or _listed(topology, width)
    return "\n".join([head, "", *body, *_wires(topology, width, ascii_only=ascii_only)])


def _text(topology: Topology, host: Host) -> list[str]:
    """The lines inside a box. A host with one link has room for a column; others need a table."""
    ends = topology.ends(host.name)
    if len(ends) == 1:
        return [ends[0].interface, *map(_bare, ends[0].addresses), *notes(host)]
    wide = max((len(end.interface) for end in ends), default=0)
    lines = []
    for end in ends:
        four = [_bare(address) for address in end.addresses if ":" not in address]
        six = [_bare(address) for address in end.addresses if ":" in address]
        lines += [f"{end.interface:<{wide}}  " + _few(four) + ("  " + _few(six) if six else "")]
    return lines + notes(host)


def _few(addresses: list[str]) -> str:
    return addresses[0] + (f" +{len(addresses) - 1}" if len(addresses) > 1 else "") if addresses else ""


def _bare(address: str) -> str:
    return address.partition("/")[0]


@dataclass
class _Box:
    """A host on the canvas."""

    name: str
    lines: list[str]
    centre: int
    top: int = 0
    bottom: int = 0

    def draw(self, canvas: Canvas) -> None:
        half = (max(map(len, self.lines)) + _FRAME) // 2
        left, right = self.centre - half, self.centre + half
        canvas.frame(left, self.top, right, self.bottom)
        for number, line in enumerate(self.lines):
            canvas.write(left + 2, self.top + 1 + number, line)


def _drawn(topology: Topology, width: int, *, ascii_only: bool) -> list[str]:
    """Empty where the boxes do not fit, or where lines would cross."""
    rows = [row for role in Role if (row := [host for host in topology.hosts if host.role == role])]
    boxes = _placed(topology, rows, width)
    if not boxes or not _plain(topology, boxes):
        return []
    canvas = Canvas()
    for box in boxes.values():
        box.draw(canvas)
    for link in topology.links:
        upper, lower = sorted((boxes[end.host] for end in link.ends), key=lambda box: box.top)
        middle = lower.top - 1
        canvas.line(upper.centre, upper.bottom, upper.centre, middle)
        canvas.line(upper.centre, middle, lower.centre, middle)
        canvas.line(lower.centre, middle, lower.centre, lower.top)
    for link in topology.links:
        if link.wire is not None:
            leaf = min((boxes[end.host] for end in link.ends), key=lambda box: len(topology.ends(box.name)))
            other = next(boxes[end.host] for end in link.ends if end.host != leaf.name)
            canvas.write(leaf.centre, leaf.bottom if leaf.top < other.top else leaf.top, _wire_sign(ascii_only))
    return canvas.lines(ascii_only=ascii_only)


def _placed(topology: Topology, rows: list[list[Host]], width: int) -> dict[str, _Box]:
    """Every row evenly over the same width; empty where a row does not fit into `width`."""
    texts = {host.name: [host.name, *_text(topology, host)] for host in topology.hosts}
    canvas = min(width + 1, max(len(row) * (max(map(len, texts[h.name])) + _FRAME + 2) for row in rows for h in row))
    boxes: dict[str, _Box] = {}
    top = 0
    for row in rows:
        slot = canvas // len(row)
        room = slot - _FRAME - 2  # an even number of columns lies around the centre, and one between two boxes
        if max(len(word) for host in row for line in texts[host.name] for word in line.split()) > room:
            return {}
        wrapped = {host.name: [part for line in texts[host.name] for part in _wrap(line, room)] for host in row}
        bottom = top + 1 + max(map(len, wrapped.values()))
        for number, host in enumerate(row):
            centre = slot * number + slot // 2
            boxes[host.name] = _Box(host.name, wrapped[host.name], centre, top, bottom)
        top = bottom + 2
    return boxes


def _wrap(line: str, room: int) -> list[str]:
    return textwrap.wrap(line, room, subsequent_indent="  ", break_long_words=False) or [""]


def _plain(topology: Topology, boxes: dict[str, _Box]) -> bool:
    """Whether all links join neighbouring rows, and lines meet only at a box they share."""
    spans = []
    for link in topology.links:
        upper, lower = sorted((boxes[end.host] for end in link.ends), key=lambda box: box.top)
        if lower.top != upper.bottom + 2:
            return False
        low, high = sorted((upper.centre, lower.centre))
        spans.append((upper.bottom, low, high, {upper.name, lower.name}))
    return not any(
        one[0] == other[0] and one[1] <= other[2] and other[1] <= one[2] and not one[3] & other[3]
        for number, one in enumerate(spans)
        for other in spans[:number]
    )


def _listed(topology: Topology, width: int) -> list[str]:
    """A host after the other, each with its links."""
    lines: list[str] = []
    for host in topology.hosts:
        lines.append(host.name)
        for end in topology.ends(host.name):
            link = next(link for link in topology.links if end in link.ends)
            other = link.ends[1] if link.ends[0] is end else link.ends[0]
            what = f"{end.interface} {' '.join(map(_bare, end.addresses))} to {other.host}"
            lines += textwrap.wrap(what, width, initial_indent="  ", subsequent_indent="    ")
        for note in notes(host):
            lines += textwrap.wrap(note, width, initial_indent="  ", subsequent_indent="    ")
    return lines


def _wires(topology: Topology, width: int, *, ascii_only: bool) -> list[str]:
    """What the wires do, a paragraph each."""
    lines = []
    for link in topology.links:
        if link.wire is not None:
            text = f"{_wire_sign(ascii_only)} {wire_words(link)}"
            lines += textwrap.wrap(text, width, subsequent_indent="  ")
    return ["", *lines] if lines else []


def _wire_sign(ascii_only: bool) -> str:
    return "*" if ascii_only else "◇"
