"""Networks built on the real kernel: packets pass, programs are noticed when they end, nothing is left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import peers
from kit.labs import ENVIRONMENT, USERS, Inside, python
from kit.namespace import needs_namespaces

TOP = Path(__file__).resolve().parents[2]

PREPARE = """
import json, os, socket, sys, time
from timewait.lab import enter
from timewait.lab.network import build
from timewait.lab import topologies
from timewait.lab.furnish import furnish
from timewait.lab.topology import Route
from timewait.lab.wire import WireSpec

def ask(address, port=80):
    with socket.create_connection((address, port), 20) as connection:
        connection.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        return connection.recv(12).decode(), connection.getsockname()
"""


@pytest.fixture(params=USERS)
def inside(request: pytest.FixtureRequest) -> Inside:
    needs_namespaces()
    return lambda code: python(PREPARE + USERS[request.param] + code)


@pytest.mark.parametrize("name", ["direct", "proxy", "nat", "layer4", "two-gateways"])
def test_every_client_reaches_the_balancer_over_both_families(inside: Inside, name: str) -> None:
    peers.needs("nft")
    told = inside(
        f"""
enter()
with build(topologies.topology({name!r})) as network:
    furnish(network, "" if {name!r} == "layer4" else "own")
    for host in network.hosts.values():
        if host.host.role == "client":
            with host.entered():
                print(*[ask(address)[0] for address in ("10.0.0.1", "fd00::1")], host.name)
    print(network.died())
"""
    )
    lines = told.splitlines()
    clients = {"nat": 3, "two-gateways": 4}.get(name, 1)
    assert [line.rpartition(" ")[0] for line in lines[:-1]] == ["HTTP/1.1 200 HTTP/1.1 200"] * clients
    assert lines[-1] == "[]"


def test_a_host_has_what_its_topology_says(inside: Inside) -> None:
    told = inside(
        """
enter()
wish = topologies.direct().changed("client", ports=(20000, 20009), sysctls={"net.ipv4.tcp_timestamps": "0"})
with build(wish) as network:
    client, balancer = network["client"], network["balancer"]
    balancer.serve(port=8080, body=b"x")
    print(client.addresses, client.address, client.address6)
    print(client.sysctl("net.ipv4.tcp_timestamps"), balancer.sysctl("net.ipv4.tcp_timestamps"))
    with client.entered():
        print(20000 <= ask("10.0.0.1", 8080)[1][1] <= 20009)
    print(client.run(["cat", "/proc/sys/net/ipv4/ip_local_port_range"]).split())
    print(client.run(["cat"], input="word"))
"""
    )
    assert told.splitlines() == [
        "['10.0.0.2', 'fd00::2'] 10.0.0.2 fd00::2",
        "0 1",
        "True",
        "['20000', '20009']",
        "word",
    ]


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        (
            '.changed("client", sysctls={"net.ipv4.tcp_tw_resue": "1"})',
            "has no sysctl net.ipv4.tcp_tw_resue; did you mean",
        ),
        (
            '.changed("client", sysctls={"net.ipv4.tcp_timestamps": "many"})',
            "'client': the kernel refuses net.ipv4.tcp_timestamps=many: Invalid argument",
        ),
        (
            '.changed("client", routes=(Route("default", "10.0.0.1"),) * 2)',
            "the kernel refuses the way of 'client' to default by 10.0.0.1: File exists",
        ),
        (
            '.wired("client", "balancer", WireSpec(pcap="/nowhere/x.pcap"))',
            "between 'client' and 'balancer' cannot record to /nowhere/x.pcap: No such file or directory",
        ),
    ],
)
def test_what_cannot_be_built_is_named(wish: str, told: str) -> None:
    needs_namespaces()
    found = python(
        f"""{PREPARE}
enter()
try:
    with build(topologies.direct(){wish}):
        pass
except ValueError as error:
    print(error)
"""
    )
    assert told in found and "\n" not in found


def test_without_nft_the_package_is_named() -> None:
    needs_namespaces()
    found = python(
        f"""{PREPARE}
from timewait.lab import processes
processes.PATH = "/nowhere"
enter()
try:
    with build(topologies.nat()):
        pass
except processes.MissingProgramError as error:
    print(error, error.package)
"""
    )
    assert found == "nft is not installed: `sudo apt-get install nftables` (or your system's package) nftables"


def test_commands_that_fail_hang_or_do_not_exist_say_so(inside: Inside) -> None:
    told = inside(
        """
enter()
from timewait.lab.processes import ProgramError
with build(topologies.direct()) as network:
    for words, timeout in ((["cat", "/nowhere"], 30), (["sleep", "60"], 0.1), (["no-such-program"], 30)):
        try:
            network["client"].run(words, timeout=timeout)
        except ProgramError as error:
            print(error)
"""
    )
    failed, late, missing = told.splitlines()
    assert failed.startswith("cat /nowhere on client: ") and "No such file" in failed
    assert late == "sleep 60 takes longer than 0.1 s"
    assert missing == "there is no program 'no-such-program'"


def test_what_dies_is_told_and_what_is_stopped_is_not(inside: Inside) -> None:
    told = inside(
        """
import signal
enter()
with build(topologies.direct()) as network:
    client, balancer = network["client"], network["balancer"]
    killed = client.start(["sleep", "60"])
    failed = client.start(["sh", "-c", "echo a reason >&2; exit 3"], name="script")
    stopped = client.start(["sleep", "60"])
    server, _ = balancer.serve()
    print(network.died() in ([], ["script on client ended with exit status 3: a reason"]))
    for pid in (killed.pid, server.pid):
        os.kill(pid, signal.SIGKILL)
    stopped.stop()
    for process in (killed, failed):
        process.wait(20)
    limit = time.monotonic() + 20
    while len(network.died()) < 3 and time.monotonic() < limit:
        time.sleep(0.01)
    print(*network.died(), sep="\\n")
"""
    )
    assert told.splitlines() == [
        "True",
        "sleep on client was ended by SIGKILL",
        "script on client ended with exit status 3: a reason",
        "the server on balancer was ended by SIGKILL",
    ]


def test_two_labs_at_once_do_not_meet(inside: Inside) -> None:
    """The same names, addresses and ports twice, in two processes; each server sees its own client only."""
    told = inside(
        """
pipes = []
for body in (b"one", b"two"):
    reading, writing = os.pipe()
    pipes.append(reading)
    if os.fork() == 0:
        enter()
        with build(topologies.direct()) as network:
            servers = network["balancer"].serve(body=body)
            with network["client"].entered():
                for _ in range(50):
                    with socket.create_connection(("10.0.0.1", 80), 20) as connection:
                        connection.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
                        answer = b"".join(iter(lambda: connection.recv(4096), b""))
                        assert answer.endswith(body)
            limit = time.monotonic() + 20  # its counts are those of the last turn of its loop
            while servers[0].counts().accepted < 50 and time.monotonic() < limit:
                time.sleep(0.01)
            os.write(writing, str(servers[0].counts().accepted).encode())
        os._exit(0)
    os.close(writing)
for reading in pipes:
    print(os.read(reading, 100).decode())
"""
    )
    assert told.split() == ["50", "50"]


LEAVES = (
    PREPARE
    + """
import random, subprocess
from pathlib import Path
from kit.labs import processes_of_session, wait_until
from timewait.lab import mounts

def around():
    folders = ["/tmp", "/run", "/dev/shm", "/mnt", ".", "/var/log/nginx", "/var/lib/nginx", "/var/log"]
    files = [sorted(map(str, Path(folder).glob("*"))) for folder in folders]
    devices = [name for _, name in socket.if_nameindex()]
    return files, devices, Path("/proc/self/mountinfo").read_text(), len(os.listdir("/proc/self/fd"))

def lab(end, name="nat"):
    \"\"\"In a child that leads a session of its own, so that its descendants can be told.\"\"\"
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        enter()
        with build(topologies.topology(name)) as network:
            furnish(network)
            end()
    finally:
        os._exit(0)
"""
)


@pytest.fixture
def own_files() -> list[str]:
    """A command in front that gives a process users, mounts and /tmp of its own: whatever appears there is ours.

    Where this very checkout lies in one of them, it is laid in again.
    """
    needs_namespaces()
    mount = """
        mount --rbind "$0" /mnt
        for d in /tmp /run /dev/shm; do mount -t tmpfs none $d; done
        [ -e "$0" ] || { mkdir -p "$0" && mount --rbind /mnt "$0"; }
        umount -l /mnt
        exec "$@"
    """
    return ["unshare", "-Urm", "sh", "-ec", mount, str(TOP), sys.executable, "-c"]


@pytest.mark.timeout(300)
def test_twenty_networks_leave_nothing_and_neither_do_killed_ones(own_files: list[str]) -> None:
    """Half of them end by themselves, half are killed at a moment chosen by chance, also while they are built."""
    peers.needs("nft")
    code = """
random.seed(7)
before, moments, needed = around(), [], 0.0
for turn in range(20):
    began = time.monotonic()
    if turn % 2:
        child = lab(lambda: time.sleep(60))
        time.sleep(random.uniform(0.0, needed))
        moments.append(len(processes_of_session(child)))
        os.kill(child, 9)
    else:
        child = lab(lambda: None)
    os.waitpid(child, 0)
    if turn % 2 == 0:
        needed = time.monotonic() - began  # by a whole network on this machine, as busy as it is
    wait_until(lambda: not processes_of_session(child), "the end of its processes")
print(json.dumps([around() == before, moments]))
"""
    done = subprocess.run([*own_files, LEAVES + code], capture_output=True, text=True, timeout=280, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    nothing_left, moments = json.loads(done.stdout)
    assert nothing_left
    assert min(moments) < max(moments)  # they were at different points of their building


@pytest.mark.timeout(300)
def test_the_kernel_takes_the_namespaces_back(own_files: list[str]) -> None:
    """With at most ten network namespaces allowed at once, twenty networks need theirs back each time."""
    peers.needs("nft")
    code = """
limit = Path("/proc/sys/user/max_net_namespaces")
limit.write_text("10")
enter()
for turn in range(20):
    patience = time.monotonic() + 20
    while True:
        try:
            with build(topologies.nat(clients=2)):
                break
        except OSError as error:  # the kernel clears away in the background
            assert error.errno == 28 and time.monotonic() < patience, error
            time.sleep(0.01)
print("done")
"""
    done = subprocess.run([*own_files, LEAVES + code], capture_output=True, text=True, timeout=280, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"


def test_a_killed_lab_of_an_ordinary_user_takes_its_programs_along(inside: Inside) -> None:
    """The balancer is the one that could stay: it is a program with processes of its own."""
    peers.needs("nft")
    told = inside(
        LEAVES
        + """
reading, writing = os.pipe()
child = lab(lambda: (os.write(writing, b"x"), time.sleep(60)))
os.close(writing)
assert os.read(reading, 1) == b"x"
programs = len(processes_of_session(child))
os.kill(child, 9)
os.waitpid(child, 0)
wait_until(lambda: not processes_of_session(child), "the end of its processes")
print(programs)
"""
    )
    # the lab, the balancer and its worker, and a server for each family on each of two hosts
    assert int(told) == 7
