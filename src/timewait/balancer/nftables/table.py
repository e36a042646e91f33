"""A table of nftables as data: what it is made of, its text, and the commands that lead from one to another. Pure.

Only what differs is touched, in one transaction: counters go on counting, maps of sessions keep their elements, and
`ct count` its connections, while other chains get other rules.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

FAMILY = "inet"


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Objects are what rules name: counters, maps, timeouts. A chain's first line may be its hook (`type ...;`)."""

    objects: dict[str, tuple[str, ...]] = {}  # "map keep-app" -> the lines in its braces; none: {}
    elements: dict[str, tuple[str, ...]] = {}  # "set at-app" -> elements written by us
    chains: dict[str, tuple[str, ...]] = {}


def rendered(table: Table, name: str, *, owner: bool) -> str:
    """The whole table, for nft(8)."""
    lines = [f"table {FAMILY} {name} {{", *(["\tflags owner"] if owner else [])]
    for title, body in table.objects.items():
        elements = table.elements.get(title, ())
        lines += _block(title, [*body, *([f"elements = {{ {', '.join(elements)} }}"] if elements else [])])
    for title, rules in table.chains.items():
        lines += _block(f"chain {title}", rules)
    return "\n".join([*lines, "}", ""])


def _block(title: str, body: list[str] | tuple[str, ...]) -> list[str]:
    if not body:
        return [f"\t{title} {{", "\t}"]
    return [f"\t{title} {{", *(f"\t\t{line}" for line in body), "\t}"]


def changes(before: Table, after: Table, name: str) -> str:
    """Commands, one transaction, that make `after` of `before`; empty where they are the same.

    Two objects of one name are the same object: what cannot be changed in place (a timeout, the ttl of a map) has its
    value in its name.
    """
    return "".join(f"{line}\n" for line in _commands(before, after, f"{FAMILY} {name}"))


def _commands(before: Table, after: Table, name: str) -> Iterator[str]:
    for title, body in after.objects.items():
        if title not in before.objects:
            kind, _, rest = title.rpartition(" ")
            yield f"add {kind} {name} {rest} {{ {' '.join(body)} }}"
    for title, wanted in after.elements.items():
        known = before.elements.get(title, ())
        yield from _elements("add", name, title, [one for one in wanted if one not in known])
    for chain, rules in after.chains.items():
        if chain not in before.chains:
            head = f" {{ {rules[0]} }}" if _is_hook(rules) else ""
            yield f"add chain {name} {chain}{head}"
    changed = [chain for chain, rules in after.chains.items() if before.chains.get(chain) != rules]
    gone = [chain for chain in before.chains if chain not in after.chains]
    for chain in [*(chain for chain in changed if chain in before.chains), *gone]:
        yield f"flush chain {name} {chain}"
    for chain in changed:
        rules = after.chains[chain]
        yield from (f"add rule {name} {chain} {rule}" for rule in (rules[1:] if _is_hook(rules) else rules))
    yield from (f"delete chain {name} {chain}" for chain in gone)
    for title, known in before.elements.items():
        if title in after.objects:
            wanted = after.elements.get(title, ())
            yield from _elements("delete", name, title, [one for one in known if one not in wanted])
    for title in before.objects:
        if title not in after.objects:
            kind, _, rest = title.rpartition(" ")
            yield f"delete {kind} {name} {rest}"


def _elements(verb: str, name: str, title: str, which: list[str]) -> Iterator[str]:
    if which:
        yield f"{verb} element {name} {title.split()[-1]} {{ {', '.join(which)} }}"


def _is_hook(rules: tuple[str, ...]) -> bool:
    return bool(rules) and rules[0].startswith("type ")
