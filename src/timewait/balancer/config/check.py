"""What the fields of a configuration say together: rules that no single value breaks. Pure.

Where CLB has a rule it is CLB's ("only with WRR", the mandatory default domain); its quotas are warnings, since what
runs here has none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from timewait.balancer.config import addresses, check_listener, check_pool
from timewait.balancer.config.addresses import Place
from timewait.balancer.config.model import Configuration, Listener, Pool, Protocol
from timewait.balancer.config.problem import Problem, nearest, quoted
from timewait.toml_lines import Path

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)
HTTP = (Protocol.HTTP, Protocol.HTTPS)


def problems(configuration: Configuration) -> list[Problem]:
    """Why it cannot be run; nothing where it can."""
    found = [problem for look in _LOOKS for problem in look(configuration)]
    for index, listener in enumerate(configuration.listener):
        found += check_listener.problems(listener, ("listener", index))
    for index, pool in enumerate(configuration.pool):
        found += check_pool.problems(pool, ("pool", index))
    return found


def _file(configuration: Configuration) -> Iterator[Problem]:
    if configuration.schema != 1:
        yield Problem(
            ("schema",), f"schema = {configuration.schema} is not known here; this program reads schema = 1"
        )
    socket = configuration.admin.socket
    if len(socket.encode()) > addresses.LONGEST_PATH:
        what = f"admin.socket = {quoted(socket)} is too long for a unix socket"
        yield Problem(("admin", "socket"), f"{what}; at most {addresses.LONGEST_PATH} bytes (unix(7))")
    for kind in ("listener", "pool"):
        if not getattr(configuration, kind):
            yield Problem((kind,), f"there is no {kind}; write [[{kind}]] with its settings")


def _names(configuration: Configuration) -> Iterator[Problem]:
    for kind in ("listener", "pool"):
        seen: set[str] = set()
        for index, one in enumerate(getattr(configuration, kind)):
            path: Path = (kind, index, "name")
            if not NAME.fullmatch(one.name):
                how = "write letters, digits, dots, _ and -, at most 64"
                yield Problem(path, f"{kind}.name = {quoted(one.name)} is no usable name; {how}")
            elif one.name in seen:
                yield Problem(path, f"two of the {kind}s are called {one.name}; give this one a name of its own")
            seen.add(one.name)


def _pools_exist(configuration: Configuration) -> Iterator[Problem]:
    known = [pool.name for pool in configuration.pool]
    for path, name, _ in uses(configuration):
        if name not in known:
            hint = nearest(name, known) or f"the file has {', '.join(known) or 'none'}; "
            yield Problem(path, f"pool = {quoted(name)} is not in the file; {hint}write one of them or add [[pool]]")


def uses(configuration: Configuration) -> Iterator[tuple[Path, str, Listener]]:
    """Every mention of a pool: where, which, by which listener."""
    for index, listener in enumerate(configuration.listener):
        if listener.pool:
            yield ("listener", index, "pool"), listener.pool, listener
        for number, rule in enumerate(listener.rule):
            yield ("listener", index, "rule", number, "pool"), rule.pool, listener


def _overlaps(configuration: Configuration) -> Iterator[Problem]:
    """Binds that the kernel would refuse beside each other (EADDRINUSE)."""
    taken: list[tuple[int, str, bool, Place | str]] = []  # listener, text, udp, place
    for index, listener in enumerate(configuration.listener):
        for number, text in enumerate(listener.bind):
            try:
                here = addresses.bound(text)
            except ValueError:
                continue  # said where the listener is looked at
            udp = listener.protocol is Protocol.UDP
            for owning, other, is_udp, there in taken:
                if udp == is_udp and _same(here, there):
                    owner = (
                        "the same listener" if owning == index else f"listener {configuration.listener[owning].name}"
                    )
                    also = "; [::] takes IPv4 too" if _both_families(here, there) else ""
                    what = f"bind {quoted(text)} overlaps {quoted(other)} of {owner}{also}"
                    yield Problem(("listener", index, "bind", number), f"{what}; keep one of them")
            taken.append((index, text, udp, here))
    for index, listener in enumerate(configuration.listener):
        if f"{addresses.UNIX}{configuration.admin.socket}" in listener.bind and configuration.admin.socket:
            yield Problem(
                ("listener", index, "bind"), f"bind of {listener.name} is admin.socket, too; choose another"
            )


def _same(one: Place | str, other: Place | str) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return addresses.overlap(one, other)


def _both_families(one: Place | str, other: Place | str) -> bool:
    return isinstance(one, Place) and isinstance(other, Place) and one.address.version != other.address.version


def _sessions(configuration: Configuration) -> Iterator[Problem]:
    """Cookies need HTTP, and a health check of UDP is another than one of TCP."""
    pools = {pool.name: (index, pool) for index, pool in enumerate(configuration.pool)}
    for path, name, listener in uses(configuration):
        if name not in pools:
            continue
        _, pool = pools[name]
        if pool.session.type == "cookie_insert" and listener.protocol not in HTTP:
            what = f"pool {name} keeps sessions by cookie, which {listener.protocol} has not"
            yield Problem(path, f'{what}; write session type "source_ip" there, or use another pool')
    for name, (index, pool) in pools.items():
        kinds = {listener.protocol is Protocol.UDP for _, used, listener in uses(configuration) if used == name}
        if len(kinds) == 2 and pool.health.enabled:
            what = f"pool {name} serves UDP and TCP listeners, whose health is not the same"
            yield Problem(("pool", index), f"{what}; write two pools")


def _metrics(configuration: Configuration) -> Iterator[Problem]:
    text, at = configuration.admin.metrics, ("admin", "metrics")
    if not text:
        return
    try:
        here = addresses.place(text, 'as "127.0.0.1:9100"')
    except ValueError as error:
        yield Problem(at, f"admin.metrics = {quoted(text)} {error}")
        return
    for listener in configuration.listener:
        if listener.protocol is not Protocol.UDP and any(_same(here, there) for there in _bound(listener)):
            yield Problem(
                at, f"admin.metrics = {quoted(text)} overlaps a bind of listener {listener.name}; choose another"
            )


def _bound(listener: Listener) -> list[Place]:
    """Its places that are written well; what is not is said elsewhere."""
    found = []
    for text in listener.bind:
        try:
            place = addresses.bound(text)
        except ValueError:
            continue
        found += [place] if isinstance(place, Place) else []
    return found


def _reached(configuration: Configuration) -> Iterator[tuple[int, Listener, str, list[tuple[Path, Place]]]]:
    """Every listener with every pool it uses: its number, itself, the pool's name, where targets are written."""
    places = {pool.name: _places(pool, ("pool", index)) for index, pool in enumerate(configuration.pool)}
    for number, listener in enumerate(configuration.listener):
        names = dict.fromkeys([listener.pool, *(rule.pool for rule in listener.rule)])
        for name in names:
            if name in places:
                yield number, listener, name, places[name]


def _places(pool: Pool, at: Path) -> list[tuple[Path, Place]]:
    """Its targets that are written well; what is not is said elsewhere."""
    found = []
    for number, target in enumerate(pool.target):
        try:
            found.append(((*at, "target", number, "addr"), addresses.place(target.addr)))
        except ValueError:
            continue
    return found


def _loops(configuration: Configuration) -> Iterator[Problem]:
    """A target that is the listener itself: every request would come back for ever."""
    binds = [_bound(listener) for listener in configuration.listener]
    for number, listener, pool, places in _reached(configuration):
        for path, place in places:
            near = place.address.is_loopback  # what is bound to every address is there, too
            if any(bind == place or (near and addresses.overlap(bind, place)) for bind in binds[number]):
                what = f"target {place} of pool {pool} is listener {listener.name} itself"
                yield Problem(path, f"{what}; write the address of a server")


def _sources(configuration: Configuration) -> Iterator[Problem]:
    """Source addresses, but none of a target's IP version."""
    for number, listener, pool, places in _reached(configuration):
        try:
            versions = {addresses.source(text).address.version for text in listener.upstream.source}
        except ValueError:
            continue  # said where the listener is looked at
        lacking = [place for _, place in places if versions and place.address.version not in versions]
        for place in lacking[:1]:
            what = f"listener {listener.name} has no upstream.source for target {place} of pool {pool}"
            yield Problem(
                ("listener", number, "upstream", "source"), f"{what}; add one of IPv{place.address.version}"
            )


_LOOKS: tuple[Callable[[Configuration], Iterator[Problem]], ...] = (
    _file,
    _names,
    _pools_exist,
    _overlaps,
    _metrics,
    _loops,
    _sources,
    _sessions,
)
