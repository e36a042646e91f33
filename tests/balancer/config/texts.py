"""Balancer files for tests: one that is good, with places where a test may write something else."""

from __future__ import annotations

import json
from typing import Any

RULE = """
[[listener.rule]]
pool = "app"
"""
TARGET = """
[[pool.target]]
addr = "10.0.1.11:8080"
"""
GOOD = """schema = 1
{top}
[[listener]]
name = "web"
bind = ["0.0.0.0:80"]
{listener}
{rules}
[[pool]]
name = "app"
{pool}
{target}
"""


def file(*, top: str = "", listener: str = "", rules: str = RULE, pool: str = "", target: str = TARGET) -> str:
    """A file of one listener and one pool, with these lines in them."""
    return GOOD.format(top=top, listener=listener, rules=rules, pool=pool, target=target)


def tcp(*, top: str = "", listener: str = "", pool: str = "", target: str = TARGET) -> str:
    """As file(), at layer 4."""
    return file(top=top, listener=f'protocol = "tcp"\npool = "app"\n{listener}', rules="", pool=pool, target=target)


def inline(value: Any) -> str:
    """Any plain value as TOML; tables stand in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {inline(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value).replace("\x7f", "\\u007f")
    return repr(value)


def document(table: dict[str, Any]) -> str:
    """A whole file of plain values."""
    return "".join(f"{json.dumps(key)} = {inline(value)}\n" for key, value in table.items())
