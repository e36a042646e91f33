"""What a reload would change: kept, restarted and drained listeners, pools and targets. Pure."""

from __future__ import annotations

import msgspec

from timewait.balancer.config.model import Configuration, Listener, Pool
from timewait.balancer.overlay import weights


class Changes(msgspec.Struct, kw_only=True):
    """The difference between two configurations, by name. Targets are "POOL ADDRESS"."""

    listeners_kept: list[str] = []
    listeners_restarted: list[str] = []  # other settings: connections that are open end under the old ones
    listeners_added: list[str] = []
    listeners_drained: list[str] = []  # gone: nothing new, what is open may end
    pools_added: list[str] = []
    pools_changed: list[str] = []  # settings other than targets
    pools_removed: list[str] = []
    targets_added: list[str] = []
    targets_removed: list[str] = []
    targets_weighed: list[str] = []  # "app 10.0.1.11:8080: 10 -> 0"
    read_again: list[str] = []  # files whose names did not change, though perhaps what is in them did
    later: list[str] = []  # what only another start can change
    by_hand: list[str] = []  # changes made at runtime that stay

    @property
    def nothing(self) -> bool:
        """Whether it would change nothing."""
        fields = msgspec.structs.asdict(self)
        return not any(value for name, value in fields.items() if name not in _NO_CHANGE)

    def lines(self) -> list[str]:
        """For people, a line per kind that has any."""
        shown = [
            ("listeners kept", self.listeners_kept),
            ("listeners restarted", self.listeners_restarted),
            ("listeners added", self.listeners_added),
            ("listeners drained", self.listeners_drained),
            ("pools added", self.pools_added),
            ("pools changed", self.pools_changed),
            ("pools removed", self.pools_removed),
            ("targets added", self.targets_added),
            ("targets removed", self.targets_removed),
            ("weights changed", self.targets_weighed),
            ("read again", self.read_again),
            ("only at the next start", self.later),
            ("kept from changes at runtime", self.by_hand),
        ]
        return [f"{name}: {', '.join(values)}" for name, values in shown if values]


_AT_START = ("admin", "user")
_NO_CHANGE = ("listeners_kept", "by_hand", "later")


def between(before: Configuration, after: Configuration) -> Changes:
    """What changes when `after` takes the place of `before`."""
    found = Changes()
    old = {listener.name: listener for listener in before.listener}
    for listener in after.listener:
        known = old.pop(listener.name, None)
        if known is None:
            found.listeners_added.append(listener.name)
        elif _same(before, known, after, listener):
            found.listeners_kept.append(listener.name)
        else:
            found.listeners_restarted.append(listener.name)
    found.listeners_drained = list(old)
    _pools(before, after, found)
    _targets(before, after, found)
    found.read_again = [f"certificates of {one.name}" for one in after.listener if one.tls.certificate]
    if after.access_log not in ("", "-"):
        found.read_again.append("the access log (opened anew)")
    found.later = [name for name in _AT_START if getattr(before, name) != getattr(after, name)]
    return found


def _same(before: Configuration, known: Listener, after: Configuration, listener: Listener) -> bool:
    """Whether a listener needs nothing new: its own record, its engine, and the processes that serve it."""
    return (
        known == listener
        and before.engine_of(known) == after.engine_of(listener)
        and before.workers == after.workers
        and before.access_log == after.access_log
    )


def _pools(before: Configuration, after: Configuration, found: Changes) -> None:
    old = {pool.name: _bare(pool) for pool in before.pool}
    for pool in after.pool:
        known = old.pop(pool.name, None)
        if known is None:
            found.pools_added.append(pool.name)
        elif known != _bare(pool):
            found.pools_changed.append(pool.name)
    found.pools_removed = list(old)


def _bare(pool: Pool) -> Pool:
    return msgspec.structs.replace(pool, target=())


def _targets(before: Configuration, after: Configuration, found: Changes) -> None:
    old, new = weights(before), weights(after)
    found.targets_added = [" ".join(key) for key in new if key not in old]
    found.targets_removed = [" ".join(key) for key in old if key not in new]
    found.targets_weighed = [
        f"{' '.join(key)}: {old[key]} -> {new[key]}" for key in new if key in old and old[key] != new[key]
    ]
