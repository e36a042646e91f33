"""No configuration that is accepted may be one that libnftables refuses, or at which it ends the whole process."""

from __future__ import annotations

import peers
from kit.labs import python
from kit.namespace import needs_namespaces

CODE = """
import random, sys
from timewait.balancer.config.read import ConfigError, configuration
from timewait.balancer.nft import Nft
from timewait.balancer.nftables.ruleset import table
from timewait.balancer.nftables.table import changes, rendered
from timewait.lab import enter

chance = random.Random(int(sys.argv[1]))

def maybe(text):
    return text if chance.random() < 0.4 else ""

def one_of(*texts):
    return chance.choice(texts)

def listener(number):
    protocol, six = one_of("tcp", "udp"), chance.random() < 0.4
    binds = chance.sample(["[::]:P", "[fd00::1]:P", "[fd00::2]:P"] if six else ["0.0.0.0:P", "10.0.0.1:P"], 1)
    port = str(chance.choice([1, 53, 80, 65535, 1000 + number]))
    sources = ["fd00::9", "[fd00::8]:1024-65535"] if six else ["10.9.0.1", "10.9.0.2:20000-20000", "10.9.0.3"]
    return "\\n".join([
        "[[listener]]",
        f"name = 'l{number}{one_of('', '-x', '_y', 'z' * 20)}'",
        f"protocol = '{protocol}'",
        f"bind = {[bind.replace('P', port) for bind in binds]}",
        f"pool = 'p{chance.randrange(3)}'",
        maybe(f"max_conn = {chance.choice([0, 1, 7, 1000000])}"),
        maybe(f"max_cps = {chance.choice([0, 1, 9, 100000])}"),
        maybe("timestamps = 'strip'") if protocol == "tcp" else "",
        maybe(f"client = {{ idle = '{one_of(10, 77, 900)}s' }}"),
        maybe(f"upstream = {{ source = {chance.sample(sources, chance.randint(1, len(sources)))} }}"),
    ])

def pool(number):
    every = [f"10.2.{i}.{j}:{p}" for i in (0, 255) for j in (1, 9) for p in (1, 65535)]
    every += [f"[fd00:{i:x}::{j:x}]:{p}" for i in (1, 65535) for j in (1, 65535) for p in (8080, 9)]
    targets = chance.sample(every, chance.randint(1, len(every)))
    session = maybe(f"session = {{ type = 'source_ip', ttl = '{one_of(30, 900, 3600)}s' }}")
    hashed = maybe("scheduler = 'ip_hash'") if not session else ""
    lines = ["[[pool]]", f"name = 'p{number}'", maybe("nat = 'dnat'"), session, hashed]
    for target in targets:
        lines += ["[[pool.target]]", f"addr = '{target}'", f"weight = {chance.choice([0, 1, 10, 60, 99, 100])}"]
    return "\\n".join(lines)

enter()
nft, before, taken = Nft(), None, 0
while taken < 40:
    parts = [listener(i) for i in range(chance.randint(1, 3))] + [pool(i) for i in range(3)]
    text = "\\n".join(["engine = 'nftables'", *parts])
    try:
        wanted = table(configuration(text, "random.toml"), closed=chance.random() < 0.1)
    except ConfigError as problem:
        continue
    print(text, file=sys.stderr, flush=True)
    fresh = rendered(wanted, "fresh", owner=True)
    nft.run(fresh)
    nft.run("delete table inet fresh")
    step = rendered(wanted, "kept", owner=True) if before is None else changes(before, wanted, "kept")
    nft.run(step or "list tables")
    before, taken = wanted, taken + 1
print(taken)
"""


def test_whatever_is_accepted_can_be_loaded_and_led_to() -> None:
    needs_namespaces()
    peers.needs("nft")
    for seed in ("1", "2"):
        assert python(CODE, seed) == "40"
