"""What the kernel's NAT really does with the lab's rules: measured with connections, not read from the rules."""

from __future__ import annotations

import pytest

import peers
from kit.labs import python
from kit.namespace import needs_namespaces

PREPARE = """
import msgspec, socket, time
from kit.labs import wait_until
from timewait.lab import enter
from timewait.lab.network import build
from timewait.lab import topologies
from timewait.lab.topology import PortChoice, Target
from timewait.lab.wire.spec import End, WireSpec

def gateway(topology, **fields):
    return topology.changed("gateway", nat=msgspec.structs.replace(topology.host("gateway").nat, **fields))

def connect(host, port=0, timeout=20.0, address="10.0.0.1"):
    with host.entered():
        connection = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        connection.settimeout(timeout)
        if port:
            connection.bind(("", port))
        connection.connect((address, 80))
        return connection

def answered(connection):
    \"\"\"The server closes first.\"\"\"
    connection.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
    answer = b"".join(iter(lambda: connection.recv(4096), b""))
    connection.close()
    return answer

def seen(host, state="established"):
    lines = host.run(["ss", "-Htan", "state", state]).splitlines()
    return sorted(line.split()[3].replace("[", "").replace("]", "") for line in lines)

def counter(host, name):
    words = host.run(["nstat", "-asz", name]).split()
    return int(words[words.index(name) + 1])

two = topologies.nat(clients=2, servers=1)
"""


def lab(code: str) -> list[str]:
    needs_namespaces()
    peers.needs("nft")
    peers.needs("ss")
    return python(PREPARE + "enter()\n" + code).splitlines()


def test_ports_are_kept_where_they_are_free_and_in_the_range() -> None:
    kept, other, family6 = lab(
        """
with build(gateway(two, ports=(20000, 20063))) as network:
    one, other, balancer = network["client-1"], network["client-2"], network["balancer"]
    balancer.serve()
    held = [connect(one, port) for port in range(20000, 20004)]
    print(seen(balancer))
    held += [connect(other, 20000), connect(one, 40000)]
    more = [int(end.rpartition(":")[2]) for end in seen(balancer)][4:]
    print(all(20003 < port <= 20063 for port in more), len(more))
    held = [connect(one, 20010, address="fd00::1")]
    print(seen(balancer)[-1])
"""
    )
    assert kept == str([f"10.0.0.2:{port}" for port in range(20000, 20004)])
    assert other == "True 2"
    assert family6 == "fd00::2:20010"


@pytest.mark.parametrize("choice", ["RANDOM", "FULLY_RANDOM"])
def test_ports_are_chosen_at_random_where_that_is_wanted(choice: str) -> None:
    told = lab(
        f"""
with build(gateway(two, ports=(20000, 20999), choice=PortChoice.{choice})) as network:
    network["balancer"].serve()
    held = [connect(network["client-1"], port) for port in range(20000, 20008)]
    ports = [int(end.rpartition(":")[2]) for end in seen(network["balancer"])]
    print(len(set(ports)), all(20000 <= port <= 20999 for port in ports), ports == list(range(20000, 20008)))
"""
    )
    assert told == ["8 True False"]


def test_a_pool_of_addresses_is_used() -> None:
    told = lab(
        """
with build(topologies.nat(clients=12, servers=1, pool=4)) as network:
    network["balancer"].serve()
    held = [connect(network[f"client-{n}"]) for n in range(1, 13) for _ in range(2)]
    addresses = [end.rpartition(":")[0] for end in seen(network["balancer"])]
    print(set(addresses) <= {f"10.0.0.{n}" for n in range(2, 6)}, len(set(addresses)) > 1)
"""
    )
    assert told == ["True True"]  # twelve clients on one of four addresses by chance: once in four million machines


def test_ports_run_out_at_the_gateway_and_a_tuple_comes_back_into_time_wait() -> None:
    """The server closes first and keeps TIME_WAIT for 60 s; conntrack forgets after two, and another client gets the
    tuple."""
    told = lab(
        """
with build(gateway(two, ports=(20000, 20001))) as network:
    one, other, balancer = network["client-1"], network["client-2"], network["balancer"]
    balancer.serve()
    for client in (one, other):  # one clock without offsets: the second client's SYN is newer, and accepted
        client.set_sysctl("net.ipv4.tcp_timestamps", "2")
    held = [connect(one), connect(one)]
    try:
        connect(other, timeout=0.5)
    except TimeoutError:
        print("no port left")
    for connection in held:
        answered(connection)
    wait_until(lambda: len(seen(balancer, "time-wait")) == 2, "both are closed at the balancer, too")
    print(seen(balancer, "time-wait"), network["gateway"].sysctl("net.netfilter.nf_conntrack_tcp_timeout_time_wait"))
    again = connect(other, timeout=20)  # one attempt, whose SYNs go on until the gateway has a port again
    print(seen(balancer)[0] in ("10.0.0.2:20000", "10.0.0.2:20001"), len(seen(balancer, "time-wait")))
"""
    )
    assert told == ["no port left", "['10.0.0.2:20000', '10.0.0.2:20001'] 2", "True 1"]


@pytest.mark.parametrize(("drops", "told"), [(False, ["True", "1"]), (True, ["False", "1"])])
def test_the_ack_of_a_time_wait_passes_conntrack_unless_it_is_dropped(drops: bool, told: list[str]) -> None:
    """Conntrack finds nothing invalid in it. The client answers with RST, which ends TIME_WAIT, and tries again.

    It has long for that; where nothing will come of it, as long as a second SYN needs, and some more.
    """
    found = lab(
        f"""
plain = {{"net.ipv4.tcp_timestamps": "2"}}  # one clock for all, no offsets
late = two.changed("client-1", sysctls=plain).changed("client-2", sysctls=plain)
late = late.wired("client-2", "gateway", WireSpec(a=End(clock_shift=-1_000_000)))
times = {{"syn_sent": 1, "time_wait": 1}}
strict = {{"drop_invalid": True, "drop_acks_to_syns": {drops}}}
with build(gateway(late, ports=(20000, 20000), timeouts=times, **strict)) as network:
    one, other, balancer = network["client-1"], network["client-2"], network["balancer"]
    balancer.serve()
    answered(connect(one))
    time.sleep(1.5)
    try:
        connect(other, timeout={3 if drops else 30})
        print(True)
    except TimeoutError:
        print(False)
    print(min(1, counter(balancer, "TcpExtPAWSTimewait")))
"""
    )
    assert found == told


def test_what_conntrack_calls_invalid_is_dropped() -> None:
    told = lab(
        """
for drops in (False, True):
    with build(gateway(two, drop_invalid=drops)) as network:
        one, balancer = network["client-1"], network["balancer"]
        before = counter(balancer, "IpInReceives")
        with one.entered(), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
            for _ in range(5):
                raw.sendto(bytes([0, 9, 0, 80]) + bytes(8) + bytes([0x50, 4]) + bytes(6), ("10.0.0.1", 0))  # RST
        connect(one).close()
        rules = network["gateway"].run(["nft", "list", "ruleset"])
        print("packets 5 bytes" in rules)
""".replace("connect(one).close()", "balancer.serve(); connect(one).close()")
    )
    assert told == ["False", "True"]


def test_a_layer_4_balancer_shares_by_weight_and_shows_or_hides_the_client() -> None:
    shares, hidden, shown = lab(
        """
plain = topologies.layer4()
def forward(**fields):
    return plain.changed("balancer", forward=msgspec.structs.replace(plain.host("balancer").forward, **fields))

with build(forward(targets=(Target("10.2.1.2", weight=3), Target("10.2.2.2")))) as network:
    servers = [network[name].serve()[0] for name in ("server-1", "server-2")]
    for _ in range(40):
        answered(connect(network["client"]))
    told = lambda: sum(server.counts().accepted for server in servers)
    wait_until(lambda: told() >= 40, "what the servers did in the last turn of their loops is in their counts")
    print([server.counts().accepted for server in servers])
for full in (True, False):
    with build(forward(full=full, targets=(Target("10.2.1.2"),))) as network:
        network["server-1"].serve()
        held = connect(network["client"])
        print(seen(network["server-1"])[0].rpartition(":")[0])
"""
    )
    assert shares == "[30, 10]"
    assert hidden == "10.2.1.1"
    assert shown == "10.0.0.2"


def test_timestamps_pass_a_layer_4_balancer_unless_it_takes_them_out() -> None:
    told = lab(
        """
plain = topologies.layer4()
for strips in (False, True):
    forward = msgspec.structs.replace(plain.host("balancer").forward, strip_timestamps=strips)
    with build(plain.changed("balancer", forward=forward)) as network:
        for name in ("server-1", "server-2"):
            network[name].serve()
        for address in ("10.0.0.1", "fd00::1"):
            info = connect(network["client"], address=address).getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            print(info[5] & 1)  # tcpi_options, TCPI_OPT_TIMESTAMPS
"""
    )
    assert told == ["1", "1", "0", "0"]
