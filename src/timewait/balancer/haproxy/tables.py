"""Sessions by source address, carried over from one HAProxy to the next. Parsing is pure."""

from __future__ import annotations

import re

from timewait.balancer.config.model import Configuration, SessionType
from timewait.balancer.haproxy.generation import Generation
from timewait.balancer.haproxy.text import listeners_of, pools_of
from timewait.balancer.haproxy.words import backend

# 0x55d0c0b7a3c8: key=10.0.0.2 use=0 exp=59990 shard=0 server_id=1 server_key=10.0.1.11:5432
_ENTRY = re.compile(r"^0x[0-9a-f]+: key=(\S+) .*\bserver_id=(\d+)", re.MULTILINE)
# 3 web:app 1 10.0.1.11:8080 10.0.1.11 2 0 ...
_SERVER = re.compile(r"^\d+ \S+ (\d+) (\S+) ", re.MULTILINE)
_BATCH = 1000  # commands sent at once


async def copy(old: Generation, new: Generation) -> None:
    """Every client that `old` tied to a target that `new` still has. Its time begins anew. Raises GoneError."""
    for name in _tables(old.configuration) & _tables(new.configuration):
        entries = await old.process.commands.ask(f"show table {name}")
        before = await old.process.commands.ask(f"show servers state {name}")
        after = await new.process.commands.ask(f"show servers state {name}")
        commands = translated(name, entries, before, after)
        for start in range(0, len(commands), _BATCH):
            await new.process.commands.ask_all(commands[start : start + _BATCH])


def translated(name: str, entries: str, before: str, after: str) -> list[str]:
    """`set table` commands, of what `show table` and both ends' `show servers state` answered: a server has another
    number where others came before it."""
    names: dict[str, str] = dict(_SERVER.findall(before))
    numbers = {server: number for number, server in _SERVER.findall(after)}
    return [
        f"set table {name} key {key} data.server_id {numbers[names[number]]}"
        for key, number in _ENTRY.findall(entries)
        if names.get(number) in numbers
    ]


def _tables(configuration: Configuration) -> set[str]:
    """The backends that have a table."""
    return {
        backend(listener, pool)
        for listener in listeners_of(configuration)
        for pool in pools_of(listener)
        if configuration.pool_named(pool).session.type is SessionType.SOURCE_IP
    }
