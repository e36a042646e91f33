"""timewait, nginx and HAProxy in a host: who closes what, where TIME_WAIT stands; what each says when it fails."""

from __future__ import annotations

import pytest

import peers
from kit.labs import USERS, python
from kit.namespace import needs_namespaces

PREPARE = """
import os, signal, socket, time
from pathlib import Path
from timewait.lab import enter
from timewait.lab.network import build
from kit.labs import wait_until
from timewait.lab import processes, topologies
from timewait.lab.programs import BALANCERS, Settings, Upstream

def ask(keep=False, address="10.0.0.1"):
    with socket.create_connection((address, 80), 20) as connection:
        ending = b"" if keep else b"Connection: close\\r\\n"
        connection.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n" + ending + b"\\r\\n")
        return b"".join(iter(lambda: connection.recv(4096), b""))

def ends(host, state, words):
    lines = host.run(["ss", "-Htan", "state", state, *words]).splitlines()
    return [line.split()[2].rpartition(":")[0] for line in lines]

def closed(*hosts):
    \"\"\"Waits until no connection is halfway through its end, for want of a program's turn.\"\"\"
    half = ["fin-wait-1", "fin-wait-2", "close-wait", "closing", "last-ack"]
    words = [word for state in half for word in ("state", state)]
    for host in hosts:
        wait_until(lambda: not host.run(["ss", "-Htan", *words]).strip(), "connections are closed at both ends")
"""


def lab(program: str, code: str, user: str = "") -> list[str]:
    needs_namespaces()
    if program != "timewait":
        peers.needs(program)
    peers.needs("ss")
    return python(f"{PREPARE}{user}\nstart = BALANCERS[{program!r}]\nenter()\n{code}").splitlines()


@pytest.mark.parametrize("user", USERS.values(), ids=list(USERS))
@pytest.mark.parametrize(
    ("program", "upstream", "balancer", "server", "kept"),
    [
        ("nginx", "SERVER", 0, 50, False),
        ("nginx", "FIN", 50, 0, False),
        ("nginx", "POOL", 0, 0, True),
        ("haproxy", "SERVER", 0, 50, False),
        ("haproxy", "RESET", 0, 0, False),
        ("haproxy", "POOL", 0, 0, True),
        ("timewait", "SERVER", 0, 50, False),
        ("timewait", "FIN", 50, 0, False),
        ("timewait", "RESET", 0, 0, False),
        ("timewait", "POOL", 0, 0, True),
    ],
)
def test_toward_the_server_whoever_was_asked_to_closes(
    program: str, upstream: str, balancer: int, server: int, kept: bool, user: str
) -> None:
    told = lab(
        program,
        f"""
with build(topologies.proxy()) as network:
    network["server"].serve(sized=False)
    start(network["balancer"], Settings(servers=("10.2.1.2:80",), upstream=Upstream.{upstream}))
    with network["client"].entered():
        answers = [ask() for _ in range(50)]
    print(sum(answer.startswith(b"HTTP/1.1 200") and b"hello" in answer for answer in answers))
    closed(network["balancer"], network["server"])
    print(len(ends(network["balancer"], "time-wait", ["dport", "=", ":80"])))
    print(len(ends(network["server"], "time-wait", ["sport", "=", ":80"])))
    print(len(ends(network["balancer"], "established", ["dport", "=", ":80"])) > 0)
    print(len(ends(network["client"], "time-wait", [])), network.died())
""",
        user,
    )
    assert told == ["50", str(balancer), str(server), str(kept), "0 []"]


@pytest.mark.parametrize("program", ["nginx", "haproxy", "timewait"])
def test_source_addresses_are_used_in_turn(program: str) -> None:
    told = lab(
        program,
        """
with build(topologies.proxy(sources=3)) as network:
    network["server"].serve(sized=False)
    sources = ("10.2.1.1", "10.2.1.11", "10.2.1.12")
    start(network["balancer"], Settings(servers=("10.2.1.2:80",), sources=sources))
    with network["client"].entered():
        for _ in range(60):
            ask()
    closed(network["balancer"], network["server"])
    seen = [line.split()[3].rpartition(":")[0] for line in
            network["server"].run(["ss", "-Htan", "state", "time-wait"]).splitlines()]
    print(sorted(set(seen)), min(seen.count(source) for source in sources) >= 8)
""",
    )
    assert told == ["['10.2.1.1', '10.2.1.11', '10.2.1.12'] True"]


@pytest.mark.parametrize("program", ["nginx", "haproxy"])
def test_a_balancer_answers_itself_over_both_families_and_closes_when_told(program: str) -> None:
    told = lab(
        program,
        """
with build(topologies.direct()) as network:
    balancer = network["balancer"]
    process = start(balancer, Settings(keepalive=0, body="own words\\n", backlog=77))
    print(sorted({line.split()[2] for line in balancer.run(["ss", "-Hltn"]).splitlines()}))
    with network["client"].entered():
        answers = [ask(keep=True, address=address) for address in ("10.0.0.1", "fd00::1")]
    print(all(answer.endswith(b"own words\\n") for answer in answers), len(ends(balancer, "time-wait", [])))
    os.kill(process.pid, signal.SIGKILL)
    process.wait(20)
    print(network.died())
""",
    )
    assert told == ["['77']", "True 2", f"['{program} on balancer was ended by SIGKILL']"]


def test_timewaits_balancer_answers_by_a_server_of_the_lab_and_leaves_with_it() -> None:
    told = lab(
        "timewait",
        """
with build(topologies.direct()) as network:
    balancer = network["balancer"]
    process = start(balancer, Settings(keepalive=0, body="own words\\n", backlog=77))
    print([line.split()[2] for line in balancer.run(["ss", "-Hltn", "sport", "=", ":80"]).splitlines()])
    with network["client"].entered():
        answers = [ask(keep=True, address=address) for address in ("10.0.0.1", "fd00::1")]
    print(all(answer.endswith(b"own words\\n") for answer in answers))
    print(len(ends(balancer, "time-wait", [])), Path("/mnt/admin.sock").exists())
print(process.running)
""",
    )
    assert told == ["['77']", "True", "2 False", "False"]


def test_haproxy_resets_clients_where_that_is_wanted() -> None:
    told = lab(
        "haproxy",
        """
for resets in (False, True):
    with build(topologies.direct()) as network:
        start(network["balancer"], Settings(reset_clients=resets))
        with network["client"].entered():
            for _ in range(20):
                assert ask().startswith(b"HTTP/1.1 200")
        closed(network["balancer"])
        print(len(ends(network["balancer"], "time-wait", [])))
""",
    )
    plain, resetting = map(int, told)
    assert plain == 20
    assert resetting < 20  # a client that answers the FIN before the RST goes out is in time for TIME_WAIT


@pytest.mark.parametrize(
    ("program", "settings", "told"),
    [
        ("nginx", 'servers=("10.2.1.2:80",), upstream=Upstream.RESET', "nginx cannot end a server's connection by R"),
        ("nginx", "reset_clients=True", "nginx cannot end a client's connection by RST; HAProxy can"),
        ("haproxy", 'servers=("10.2.1.2:80",), upstream=Upstream.FIN', "never by FIN first; nginx can"),
        ("nginx", 'servers=("no such server",)', 'nginx on balancer ended: '),
        ("haproxy", 'servers=("no such server",)', "haproxy on balancer ended: "),
        ("timewait", 'servers=("no such server",)', "timewait on balancer ended: "),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said(program: str, settings: str, told: str) -> None:
    (found,) = lab(
        program,
        f"""
with build(topologies.proxy()) as network:
    try:
        start(network["balancer"], Settings({settings}))
    except processes.ProgramError as error:
        print(str(error).replace("\\n", " | "))
""",
    )
    assert told in found


@pytest.mark.parametrize("program", ["nginx", "haproxy", "timewait"])
def test_a_port_that_is_taken_is_the_programs_own_words(program: str) -> None:
    (found,) = lab(
        program,
        """
with build(topologies.direct()) as network:
    network["balancer"].serve()
    try:
        start(network["balancer"], Settings())
    except processes.ProgramError as error:
        print(str(error).replace("\\n", " | "))
""",
    )
    assert f"{program} on balancer ended: " in found
    assert "in use" in found


@pytest.mark.parametrize("program", ["nginx", "haproxy"])
def test_a_missing_program_is_named_with_its_package(program: str) -> None:
    needs_namespaces()
    found = python(
        f"""{PREPARE}
processes.PATH = "/nowhere"
try:
    BALANCERS[{program!r}](None, Settings())
except processes.MissingProgramError as error:
    print(error)
"""
    )
    assert found == f"{program} is not installed: `sudo apt-get install {program}` (or your system's package)"
