"""One row of the table of fields and engines, and the cases that a row may be about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from timewait.balancer.config import addresses
from timewait.balancer.config.model import Configuration, Engine, Listener, Nat, Pool, Protocol, RealIpMode

L7 = (Protocol.HTTP, Protocol.HTTPS)


class Case(NamedTuple):
    """What a field is looked at with: the engine in charge, and whose field it is."""

    configuration: Configuration
    engine: Engine
    listener: Listener | None = None  # None for fields of the whole file
    pool: Pool | None = None


class Refused(str):
    """Why an engine cannot do it: the rest of a sentence."""


Met = Callable[[Case, Any], bool]


class Row(NamedTuple):
    """One field, and what becomes of it on each engine."""

    field: str  # "listener.client.close"
    embedded: str
    haproxy: str
    nftables: str
    value: Any = None  # the row is about this value only
    when: Met | None = None  # or about the cases where this holds, called `label`
    label: str = ""
    protocols: tuple[Protocol, ...] = tuple(Protocol)  # in which it means something
    instead: str = ""  # what to write, where leaving it out is not the answer

    def does(self, engine: Engine) -> str:
        """How an engine honours it; a Refused where it does not."""
        return {Engine.EMBEDDED: self.embedded, Engine.HAPROXY: self.haproxy, Engine.NFTABLES: self.nftables}[engine]

    def met(self, case: Case, value: Any, default: Any) -> bool:
        """Whether a file that has this value wants what the row is about."""
        if self.when is not None:
            return self.when(case, value)
        return bool(value == self.value) if self.value is not None else bool(value != default)

    @property
    def shows_value(self) -> bool:
        return not self.label


def unix(case: Case, value: Any) -> bool:
    return any(text.startswith(addresses.UNIX) for text in value)


def other_timer(field: str) -> Met:
    """Whether a timer differs from the one HAProxy would use for it, too."""

    def met(case: Case, value: Any) -> bool:
        assert case.listener is not None
        table, _, name = field.partition(".")
        return bool(value != getattr(getattr(case.listener, table), name))

    return met


def another_limit(field: str) -> Met:
    """Whether a limit differs from that of the first HTTP listener on the same engine."""

    def met(case: Case, value: Any) -> bool:
        configuration = case.configuration
        limits = [
            one.limits
            for one in configuration.listener
            if one.protocol in L7 and configuration.engine_of(one) is case.engine
        ]
        return bool(limits and value != getattr(limits[0], field))

    return met


def full_nat(case: Case, value: Any) -> bool:
    return value is RealIpMode.TRANSPARENT and _uses(case, Nat.FULL)


def source_with_dnat(case: Case, value: Any) -> bool:
    return bool(value) and _uses(case, Nat.DNAT)


def _uses(case: Case, nat: Nat) -> bool:
    assert case.listener is not None
    names = {case.listener.pool, *(rule.pool for rule in case.listener.rule)}
    return any(pool.nat is nat for pool in case.configuration.pool if pool.name in names)


def other_family(case: Case, value: Any) -> bool:
    """A target that packets of this listener cannot be rewritten to."""
    assert case.listener is not None
    try:
        return addresses.place(value).address.version not in families(case.listener)
    except ValueError:
        return False  # said elsewhere


def families(listener: Listener) -> frozenset[int]:
    """The IP versions it is reached by; `[::]` by both."""
    found = set()
    for text in listener.bind:
        try:
            here = addresses.bound(text)
        except ValueError:
            continue
        if not isinstance(here, str):
            found.add(here.address.version)
            found |= {4} if here.address.version == 6 and here.address.is_unspecified else set()
    return frozenset(found)
