"""Rules chosen by chance, as HAProxy's ACLs and as our own router: both choose the same."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from contextlib import ExitStack

import peers
from balancer.differential.test_locations import HOSTS, NAMES, PATHS, rules_of, we_say
from balancer.engines.web import Asking, Web
from timewait.balancer.config.model import Rule
from timewait.balancer.config.read import configuration
from timewait.balancer.haproxy.engine import HaproxyEngine
from timewait.balancer.routing.router import Router

SETS = 16
# Whom no rule should tell apart: HAProxy ends a path at a byte 0, and at a question mark that came as %3f. What is no
# path at all (%zz, beyond the root) it passes on, and we refuse it.
LEFT_OUT = {"/%00", "/a%3fb", "/%zz", "/c/../../a"}


def text(port: int, rules: list[Rule], servers: list[Web]) -> str:
    lines = [f'engine = "haproxy"\nworkers = 1\n[[listener]]\nname = "web"\nbind = ["127.0.0.1:{port}"]']
    for rule in rules:
        values = {"pool": f"p{rule.pool}", "domain": rule.domain, "path": rule.path}
        lines += ["[[listener.rule]]", *(f"{name} = {json.dumps(value)}" for name, value in values.items())]
    for server in servers:
        lines.append(f'[[pool]]\nname = "{server.name}"\n[[pool.target]]\naddr = "{server.address}"')
    return "\n".join(lines)


def haproxy_says(port: int, requests: list[tuple[str, str]]) -> list[str]:
    said = []
    with ExitStack() as ended:
        asking = ended.enter_context(Asking(port))
        for host, path in requests:
            status, head, body = asking.ask(path, host=host)
            place = next((line[10:] for line in head.split("\r\n") if line.lower().startswith("location: ")), "")
            said.append({200: body.partition("\n")[0][1:], 301: f"to {place}"}.get(status, str(status)))
            if status >= 400:
                asking = ended.enter_context(Asking(port))
    return said


def test_haproxy_chooses_what_our_router_chooses(free_port: Callable[..., int]) -> None:
    peers.needs("haproxy")
    chance = random.Random(5)
    sets = [[rule for rule in rules_of(chance) if "a b" not in rule] for _ in range(SETS)]  # no space in a path
    requests = [(f"set{number}.q", path) for number in range(SETS) for path in PATHS if path not in LEFT_OUT]
    rules = [
        Rule(pool=str(index), domain=f"set{number}.q", path=path)
        for number, paths in enumerate(sets)
        for index, path in enumerate(paths)
    ]
    requests += [(host, "/") for host in HOSTS]
    rules += [Rule(pool=str(index), domain=name) for index, name in enumerate(NAMES)]
    rules.append(Rule(pool="0"))
    port = free_port()

    async def story(content: str) -> list[str]:
        engine = HaproxyEngine()
        await engine.start(configuration(content, "a.toml"), {})
        try:
            return await asyncio.to_thread(haproxy_says, port, requests)
        finally:
            await engine.stop()

    with ExitStack() as ended:
        most = max(int(rule.pool) for rule in rules) + 1
        servers = [ended.enter_context(Web(f"p{number}")) for number in range(most)]
        said = asyncio.run(story(text(port, rules, servers)))
    router = Router(rules)
    differing = {
        (host, path): (theirs, ours)
        for (host, path), theirs in zip(requests, said, strict=True)
        if theirs != (ours := we_say(router, host, path))
    }
    assert differing == {}, sets
