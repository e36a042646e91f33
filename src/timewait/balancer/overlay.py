"""What was changed by hand while the balancer runs, laid over its file. Pure.

A reload keeps it: who took a target out of service must not find it back in traffic because somebody edited another
line. It ends, target by target, where the file itself says something else about that target, or where the reload is
told to forget it.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from timewait.balancer.config.model import Configuration, Pool, Target

Key = tuple[str, str]  # pool, address


class Hand(msgspec.Struct, frozen=True):
    """What was done to one target."""

    weight: int | None  # None: removed
    added: bool = False  # it does not stand in the file


Overlay = Mapping[Key, Hand]


def effective(file: Configuration, overlay: Overlay, leaving: Mapping[Key, Pool] | None = None) -> Configuration:
    """The file with what was done by hand.

    Targets that are `leaving` stay, with weight 0, until they are drained; so does their pool (as it was given),
    where the file has it no longer.
    """
    leaving = leaving or {}
    names = {pool.name for pool in file.pool}
    gone = {pool.name: msgspec.structs.replace(pool, target=()) for pool in leaving.values()}
    pools = [*file.pool, *(pool for name, pool in gone.items() if name not in names)]
    return msgspec.structs.replace(file, pool=tuple(_pool(pool, overlay, leaving) for pool in pools))


def _pool(pool: Pool, overlay: Overlay, leaving: Mapping[Key, Pool]) -> Pool:
    targets = {}
    for target in pool.target:
        hand = overlay.get((pool.name, target.addr), Hand(target.weight))
        if hand.weight is not None:
            targets[target.addr] = Target(addr=target.addr, weight=hand.weight)
    for (name, address), hand in overlay.items():
        if name == pool.name and hand.added and hand.weight is not None:
            targets[address] = Target(addr=address, weight=hand.weight)
    for name, address in sorted(leaving):
        if name == pool.name:
            targets.setdefault(address, Target(addr=address, weight=0))
    return msgspec.structs.replace(pool, target=tuple(targets.values()))


def weighed(overlay: Overlay, file: Configuration, key: Key, weight: int) -> dict[Key, Hand]:
    """With another weight for a target that is there."""
    inside = key in weights(file)
    if inside and weights(file)[key] == weight:
        return {other: hand for other, hand in overlay.items() if other != key}
    return {**overlay, key: Hand(weight, added=not inside)}


def removed(overlay: Overlay, file: Configuration, key: Key) -> dict[Key, Hand]:
    """Without a target."""
    rest = {other: hand for other, hand in overlay.items() if other != key}
    return {**rest, key: Hand(None)} if key in weights(file) else rest


def merged(overlay: Overlay, before: Configuration, after: Configuration) -> dict[Key, Hand]:
    """What is left of it when the file changes from `before` to `after`."""
    old, new = weights(before), weights(after)
    pools = {pool.name for pool in after.pool}
    kept = {}
    for key, hand in overlay.items():
        if key[0] not in pools:
            continue
        if (hand.added and key not in new) or (not hand.added and key in new and old.get(key) == new[key]):
            kept[key] = hand
    return kept


def weights(file: Configuration) -> dict[Key, int]:
    """Every target of a file, and its weight there."""
    return {(pool.name, target.addr): target.weight for pool in file.pool for target in pool.target}


def told(overlay: Overlay) -> list[str]:
    """A line each, for people: `app 10.0.1.11:8080: weight 0`."""
    lines = []
    for (pool, address), hand in sorted(overlay.items()):
        what = "removed" if hand.weight is None else f"weight {hand.weight}"
        lines.append(f"{pool} {address}: {'added, ' if hand.added else ''}{what}")
    return lines
