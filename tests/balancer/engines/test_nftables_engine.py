"""Traffic through the kernel's rules: a client, a balancer and two servers in namespaces."""

from __future__ import annotations

import peers
from kit.labs import python
from kit.namespace import needs_namespaces

PREPARE = """
import asyncio, os, signal, socket, struct, sys, time
from contextlib import ExitStack
from balancer.engines.net import *
from balancer.engines.texts import NFTABLES, SIX, nft
from timewait.lab import enter, topologies
from timewait.lab.network import build
from timewait.balancer.config.model import Then
from timewait.balancer.config.read import configuration
from timewait.balancer.engine import BalancerError
from timewait.balancer.haproxy.engine import HaproxyEngine
from timewait.balancer.nftables import conntrack
from timewait.balancer.nftables.census import Way, census
from timewait.balancer.nftables.engine import NftablesEngine

def options(connection):
    '''tcpi_options: 1 is TCPI_OPT_TIMESTAMPS (linux/tcp.h).'''
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[5]

def spoken(connection):
    '''What an echo is answered with: the echo, or how the connection ended.'''
    try:
        connection.sendall(b"x")
        return connection.recv(10).decode() or "fin"
    except ConnectionResetError:
        return "reset"
    except TimeoutError:
        return "nothing"

async def becomes(wanted, ask, *words):
    '''What is answered once it is what is wanted, or at last: the far end of what was closed may be slow to close.'''
    limit = time.monotonic() + 20
    while (found := await ask(*words)) != wanted and time.monotonic() < limit:
        await asyncio.sleep(0.05)
    return found

def tables(host):
    return host.run(["nft", "list", "tables"]).strip()

async def reload(engine, text, **weights):
    await engine.reload(configuration(text, "b.toml"), rotations(text, **weights))

FIRST, SECOND = "10.2.1.2:8080", "10.2.2.2:8080"
enter()
network = build(topologies.proxy(servers=2))
net = network.__enter__()
client, balancer = net["client"], net["balancer"]
servers = [net["server-1"], net["server-2"]]
for server in servers:
    serve(server, 8080)

def forwarding(state):
    balancer.set_sysctl("net.ipv4.ip_forward", state)
    balancer.set_sysctl("net.ipv6.conf.all.forwarding", state)
"""


def lab(code: str) -> list[str]:
    needs_namespaces()
    peers.needs("nft")
    return python(PREPARE + code + "\nnetwork.__exit__(None, None, None)\n", timeout=90).splitlines()


def test_shares_counts_changes_drains_and_cuts() -> None:
    said = lab(
        """
forwarding("1")
text = nft(bind='"0.0.0.0:80", "[fd00::1]:80"', more=SIX)

async def story(engine):
    print(sorted((await aside(asked, client, 40)).items()))
    print(dict(await aside(asked, client, 3, address="fd00::1")), dict(await aside(asked, balancer, 4)))
    print(servers[0].run(["ss", "-Htan", "state", "time-wait"]).count("10.0.0.2"), "clients seen")
    with ExitStack() as held:
        kept = [held.enter_context(connect(client)) for _ in range(4)]
        names = [one.recv(20).decode() for one in kept]
        await becomes(4, engine.remaining)
        found = await engine.statistics()
        print(found.listeners["web"].accepted, found.listeners["web"].active, found.targets["app/" + FIRST].connects)
        print(await engine.active("app", FIRST), await engine.active("app", SECOND))
        one_by_one = Counter(Way(f.protocol, f.service, f.target, f.open) for f in conntrack.flows({"tcp", "udp"}))
        print(census({"tcp", "udp"}) == one_by_one, {len(way.target[0]) for way in one_by_one})
        await reload(engine, text, app={FIRST: 0})
        print(dict(await aside(asked, client, 6)), [spoken(one) for one in kept])
        print(await engine.cut("app", FIRST, Then.LEAVE), await engine.cut("app", FIRST, Then.RST))
        print(sorted(zip(names, [spoken(one) for one in kept])))
        async def left():
            return servers[0].run(["ss", "-Htan", "state", "established"]).count(":8080")

        print(await becomes(0, left), "left at the server")
        await engine.rotate(rotations(text, app={FIRST: 0, SECOND: 0}))
        print(dict(await aside(asked, client, 2)))
        await engine.rotate(rotations(text))
        await engine.drain()
        print(dict(await aside(asked, client, 2)), await becomes(1, engine.remaining))

play(balancer, NftablesEngine(), text, story)
print("tables:", tables(balancer))
"""
    )
    assert said == [
        "[('server-1', 30), ('server-2', 10)]",
        "{'server-1': 3} {'server-1': 3, 'server-2': 1}",
        "0 clients seen",
        "51 4 36",
        "3 1",
        "True {16, 4}",
        "{'server-2': 6} ['x', 'x', 'x', 'x']",
        "0 3",
        "[('server-1', 'reset'), ('server-1', 'reset'), ('server-1', 'reset'), ('server-2', 'x')]",
        "0 left at the server",
        "{'ConnectionRefusedError': 2}",
        "{'ConnectionRefusedError': 2} 1",
        "tables:",
    ]


def test_sources_sessions_hashes_and_udp() -> None:
    said = lab(
        """
forwarding("1")

def seen(server):
    found = server.run(["ss", "-Htan", "( sport = :8080 )"]).split()
    ends = {word.rpartition(":")[0].replace("[::ffff:", "").strip("]") for word in found if "10." in word}
    return sorted(ends - {server.address})

async def dnat(engine):
    with connect(client) as one:
        print(one.recv(20).decode(), seen(servers[0]))

async def pool(engine):
    with ExitStack() as held:
        kept = [held.enter_context(connect(client)) for _ in range(12)]
        print(sorted(set(sum(map(seen, servers), []))))

async def sticky(engine):
    first = await aside(asked, client, 5)
    print(len(first), len(await aside(asked, client, 3, address="fd00::1")))
    (name,) = first
    lost = FIRST if name == "server-1" else SECOND
    await reload(engine, NFTABLES["sessions"].replace("60s", "60s"), app={FIRST: 7, SECOND: 7})
    print(await aside(asked, client, 5) == first)
    await engine.rotate(rotations(NFTABLES["sessions"], app={lost: 0}))
    second = await aside(asked, client, 5)
    await engine.rotate(rotations(NFTABLES["sessions"]))
    print(len(second), second.keys() & first.keys(), await aside(asked, client, 5) == second)

async def hashed(engine):
    with client.entered():
        for number in range(2, 62):
            client.run(["ip", "address", "add", f"10.0.0.{number + 100}/24", "dev", "eth0"])
    found = [sorted(await aside(asked, client, 2, source=f"10.0.0.{number + 100}")) for number in range(2, 62)]
    print({len(one) for one in found}, 30 < sum(one == ["server-1"] for one in found) < 60)

async def udp(engine):
    print(sorted((await aside(told, client, 8, port=80)).items()))
    await engine.rotate(rotations(NFTABLES["udp"], app={FIRST: 0, SECOND: 0}))
    print(dict(await aside(told, client, 1, port=80)))

for name, story in (("dnat", dnat), ("sources", pool), ("sessions", sticky), ("hashed", hashed), ("udp", udp)):
    play(balancer, NftablesEngine(), NFTABLES[name], story)
"""
    )
    assert said == [
        "server-1 ['10.0.0.2']",
        "['10.0.0.1', '10.2.1.1', '10.2.2.1']",
        "1 1",
        "True",
        "1 set() True",
        "{1} True",
        "[('server-1 ::ffff:10.2.1.1', 6), ('server-2 ::ffff:10.2.2.1', 2)]",
        "{'ConnectionRefusedError': 1}",
    ]


def test_ports_of_full_nat_are_counted_and_run_out_as_the_rules_say() -> None:
    """Of 20 ports 15 go to connections that have ended and 5 to open ones; who comes then gets a port that rests, or,
    before Linux 6.5, none. Where 5 of 5 are open, nobody gets one."""
    said = lab(
        """
from timewait.balance import Lookout
from timewait.tcp.ports import conntrack_rest
from timewait.tcp.release import parse_release
forwarding("1")

def ports(low, high):
    source = 'upstream = { source = ["10.2.1.1:%d-%d"] }' % (low, high)
    return nft(source).replace("weight = 20", "weight = 0")

def hold(count):
    return [held.enter_context(connect(client)) for _ in range(count)]

async def look(engine, text):
    found = Lookout()(configuration(text, "b.toml"), await engine.statistics(), 0.0)
    print([one.id for one in found.findings])
    return found.ports[FIRST]

async def ended(engine):
    print(dict(await aside(asked, client, 15)))
    await aside(hold, 5)
    use = await look(engine, ports(30000, 30019))
    print(use.capacity, use.in_use, 1 <= use.time_wait <= 15, use.time_wait + use.free)
    print(dict(await aside(asked, client, 3, timeout=1.5)))

async def opened(engine):
    await aside(hold, 5)
    use = await look(engine, ports(31000, 31004))
    print(use.capacity, use.in_use, use.time_wait, use.free)
    print(dict(await aside(asked, client, 1, timeout=1.5)))

print("taken over" if conntrack_rest(parse_release(os.uname().release)) == 0 else "kept")
for story, low, high in ((ended, 30000, 30019), (opened, 31000, 31004)):
    with ExitStack() as held:
        play(balancer, NftablesEngine(), ports(low, high), story)
"""
    )
    taken_over = said[0] == "taken over"
    assert said[1:] == [
        "{'server-1': 15}",
        "[]" if taken_over else "['upstream-ports-exhausted']",
        "20 5 True 15",
        "{'server-1': 3}" if taken_over else "{'TimeoutError': 3}",
        "['upstream-ports-held-open']",
        "5 5 0 0",
        "{'TimeoutError': 1}",
    ]


def test_limits_idle_time_and_timestamps() -> None:
    peers.needs("haproxy")
    said = lab(
        """
forwarding("1")

async def limits(engine):
    begun = time.monotonic()
    with ExitStack() as held:
        came = [held.enter_context(connect(client)) for _ in range(5)]
        refused = (await aside(asked, client, 20))["ConnectionRefusedError"]
        print(10 <= 25 - refused <= 11 + 10 * (time.monotonic() - begun))  # burst 10, then one each 100 ms
        found = (await engine.statistics()).listeners["web"]
        print(found.over_max_cps == refused, found.over_max_conn)
        await asyncio.sleep(1.1)
        await reload(engine, nft("max_conn = 5\\nmax_cps = 10"))
        more = [held.enter_context(connect(client)) for _ in range(5)]
        print(dict(await aside(asked, client, 2)), (await engine.statistics()).listeners["web"].over_max_conn)

async def idle(engine):
    with connect(client) as one:
        print(one.recv(20).decode(), spoken(one))
        await becomes(0, engine.remaining)
        print(spoken(one))

async def timestamps(engine):
    port = 80
    for end in (client, balancer):
        with connect(end) as one:
            one.recv(20)
            print(options(one) & 1, end=" ")

play(balancer, NftablesEngine(), NFTABLES["limits"], limits)
play(balancer, NftablesEngine(), nft('client = { idle = "2s" }'), idle)
web = nft('timestamps = "strip"').replace("nftables", "haproxy")
for engine, text in ((NftablesEngine, NFTABLES["plain"]), (NftablesEngine, NFTABLES["strip"]), (HaproxyEngine, web)):
    play(balancer, engine(), text, timestamps)
print()
print("tables:", tables(balancer))
"""
    )
    assert said == [
        "True",
        "True 0",
        "{'ConnectionRefusedError': 2} 2",
        "server-1 x",
        "reset",
        "1 1 0 0 0 0 ",
        "tables:",
    ]


def test_what_stands_in_the_way_is_said_and_a_kill_leaves_nothing() -> None:
    said = lab(
        """
async def never(engine):
    print("started")

def refused(text):
    try:
        play(balancer, NftablesEngine(), text, never)
    except BalancerError as error:
        print(error)

refused(NFTABLES["plain"])
forwarding("1")
with balancer.entered():
    other = socket.create_server(("0.0.0.0", 80))
refused(NFTABLES["plain"])
other.close()

async def off(engine):
    watching = asyncio.create_task(engine.failed())
    await asyncio.sleep(0)
    forwarding("0")
    print(await watching)
    forwarding("1")

play(balancer, NftablesEngine(), NFTABLES["plain"], off)
child = os.fork()
if not child:
    async def wait(engine):
        os.kill(os.getpid(), signal.SIGKILL)
    play(balancer, NftablesEngine(), NFTABLES["strip"], wait)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), "tables:" + tables(balancer))

async def nobody(engine):
    nft = ["nft", "flush", "ruleset"]
    balancer.run(nft)
    print(dict(await aside(asked, client, 2)))

play(balancer, NftablesEngine(), NFTABLES["plain"], nobody)
"""
    )
    assert "target 10.2.1.2:8080 is another machine, and the kernel forwards nothing" in said[0]
    assert "`sudo sysctl net.ipv4.ip_forward=1`" in said[0]
    assert "0.0.0.0:80" in said[1] and "port 80 is in use by python" in said[1]
    assert said[2] == said[0]
    assert said[3:] == ["-9 tables:", "{'server-1': 2}"]


def test_without_the_right_it_says_what_to_do() -> None:
    """In a process without any capability; the same sentence an ordinary user gets."""
    needs_namespaces()
    said = python(
        """
import asyncio, ctypes, os
from timewait.lab import enter
enter()
libc = ctypes.CDLL(None, use_errno=True)
for capability in (12, 13, 21):  # CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN (linux/capability.h)
    libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP; counts from the next exec on
import sys
os.execv(sys.executable, [sys.executable, "-c", '''
import asyncio
from balancer.engines.texts import haproxy
from timewait.balancer.timestamps import Stripped
from timewait.balancer.config.read import configuration
from timewait.balancer.engine import BalancerError
read = configuration(haproxy('timestamps = "strip"'), "a.toml")
try:
    Stripped("haproxy").apply(read.listener)
except BalancerError as error:
    print(error)
'''])
"""
    )
    assert "not permitted; it needs CAP_NET_ADMIN: start as root" in said
