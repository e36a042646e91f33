"""Namespaces without root: what is inside, what stays outside, and that nothing is left behind."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kit.labs import USERS, Inside, python
from kit.namespace import needs_namespaces
from timewait.lab import children, links
from timewait.lab.namespaces import explain, read_settings


@pytest.fixture(params=USERS)
def inside(request: pytest.FixtureRequest) -> Inside:
    """Runs Python code in a fresh process and returns what it prints; as root also as an ordinary user."""
    needs_namespaces()
    return lambda code: python(USERS[request.param] + code)


def test_enter_gives_a_network_of_its_own_with_loopback(inside: Inside) -> None:
    before = str(Path("/proc/self/ns/net").readlink())
    told = inside(
        """
import os, socket
from timewait.lab import enter
enter()
with socket.create_server(("127.0.0.1", 80)) as server:   # port 80: we may do everything in here
    socket.create_connection(server.getsockname()).close()
print(os.readlink("/proc/self/ns/net"), [name for _, name in socket.if_nameindex()])
"""
    )
    assert before not in told
    assert "['lo']" in told


def test_two_namespaces_talk_over_a_link_and_have_their_own_sysctls(inside: Inside) -> None:
    told = inside(
        """
import socket
from pathlib import Path
from timewait.lab import Namespace, Server, add_address, enter, join, set_sysctl
from timewait.lab.links import add_route
enter()
client, balancer = Namespace("client"), Namespace("balancer")
join(client, "eth0", balancer, "eth0")
for end, v4, v6 in ((client, "10.0.0.1/24", "fd00::1/64"), (balancer, "10.0.0.2/24", "fd00::2/64")):
    with end.entered():
        add_address("eth0", v4)
        add_address("eth0", v6)
with balancer.entered():
    add_address("lo", "10.9.0.1/32")
    servers = [Server(address, 80) for address in ("10.0.0.2", "fd00::2", "10.9.0.1")]
with client.entered():
    add_route("10.9.0.0/16", "10.0.0.2")
    set_sysctl("net.ipv4.ip_local_port_range", "20000 20009")
    for server in servers:
        with socket.create_connection((server.address, 80), 20) as connection:
            connection.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            answer = connection.recv(100)
            print(answer.split(b"\\r")[0].decode(), 20000 <= connection.getsockname()[1] <= 20009)
for end in (client, balancer):
    with end.entered():
        print(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
"""
    )
    assert told.splitlines()[:3] == ["HTTP/1.1 200 OK True"] * 3
    own, other = told.splitlines()[3:]
    assert own == "['20000', '20009']"
    assert other != own


def test_a_thread_comes_back_also_after_an_error(inside: Inside) -> None:
    told = inside(
        """
import os
from timewait.lab import Namespace, enter
enter()
home = os.readlink("/proc/thread-self/ns/net")
room = Namespace("room")
try:
    with room.entered():
        assert os.readlink("/proc/thread-self/ns/net") != home
        raise KeyError
except KeyError:
    print(os.readlink("/proc/thread-self/ns/net") == home)
open_files = len(os.listdir("/proc/self/fd"))
for _ in range(3):
    with Namespace("short") as short, short.entered():
        pass
print(len(os.listdir("/proc/self/fd")) - open_files, repr(short))
"""
    )
    assert told.splitlines() == ["True", "0 <Namespace short closed>"]


def test_nothing_survives_kill_9() -> None:
    """The server lives in a namespace of the process that is killed; its end must take both along."""
    needs_namespaces()
    code = """
import os, time
from timewait.lab import Namespace, Server, enter
enter()
room = Namespace("room")
with room.entered():
    server = Server()
print(server.pid, os.getpid(), flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as lab:
        assert lab.stdout is not None
        server, _ = map(int, lab.stdout.readline().split())
        handle = os.pidfd_open(server)
        assert not select.select([handle], [], [], 0)[0], "the server ended before anybody was killed"
        lab.kill()
    ended, _, _ = select.select([handle], [], [], 20)
    os.close(handle)
    assert ended


def test_where_namespaces_are_forbidden_the_setting_is_named_and_nothing_has_changed(inside: Inside) -> None:
    """A real refusal: the limits of a user namespace we own are set to 0 for everything below it."""
    told = inside(
        """
import os
from pathlib import Path
from timewait.lab import ForbiddenError, enter
outside = os.readlink("/proc/self/ns/user")
enter()
limits = {name: Path("/proc/sys/user", name) for name in ("max_user_namespaces", "max_net_namespaces")}
here = [os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "user")]
if os.readlink("/proc/self/ns/user") == outside:
    import ctypes  # root entered without a user namespace: never touch the machine's own limits
    uid, gid = os.geteuid(), os.getegid()
    assert ctypes.CDLL(None).unshare(0x10000000) == 0
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    here = [os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "user")]
for limit in limits.values():
    limit.write_text("0")
try:
    enter()
except ForbiddenError as error:
    print(error)
print(here == [os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "user")])
"""
    )
    reason, unchanged = told.splitlines()
    assert "user.max_" in reason and "_namespaces=0" in reason and "sysctl" in reason
    assert unchanged == "True"


@pytest.mark.parametrize(
    ("number", "settings", "told"),
    [
        (errno.ENOSPC, {"user.max_user_namespaces": "0"}, "user.max_user_namespaces=0"),
        (errno.ENOSPC, {"user.max_net_namespaces": "0"}, "user.max_net_namespaces=0"),
        (
            errno.ENOSPC,
            {"user.max_user_namespaces": "7"},
            "limit of namespaces is reached (user.max_user_namespaces=7)",
        ),
        (errno.EPERM, {"kernel.unprivileged_userns_clone": "0"}, "sudo sysctl kernel.unprivileged_userns_clone=1"),
        (
            errno.EACCES,
            {"kernel.apparmor_restrict_unprivileged_userns": "1", "user.max_user_namespaces": "9"},
            "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (errno.EPERM, {"kernel.apparmor_restrict_unprivileged_userns": "0", "seccomp": "2"}, "seccomp=unconfined"),
        (errno.EINVAL, {}, "CONFIG_USER_NS"),
        (errno.EOPNOTSUPP, {}, "sudo modprobe veth"),
        (errno.EPERM, {}, "EPERM"),
        (250, {}, "250"),
    ],
)
def test_the_reason_names_setting_and_way_out(number: int, settings: dict[str, str], told: str) -> None:
    error = explain(number, settings, root=False)
    assert told in str(error)
    assert "sudo" in str(error) or "container" in str(error)
    assert "or run this command with sudo" not in str(explain(number, settings, root=True))


def test_the_settings_are_read_as_this_kernel_has_them() -> None:
    settings = read_settings()
    assert settings["user.max_user_namespaces"].isdigit()
    assert settings["seccomp"] in ("0", "1", "2")


def test_enter_refuses_a_process_with_threads() -> None:
    told = python(
        """
import threading
from timewait.lab import enter
gate = threading.Event()
threading.Thread(target=gate.wait).start()
try:
    enter()
except RuntimeError as error:
    print(error)
gate.set()
"""
    )
    assert "2 threads" in told


def test_a_child_that_will_not_end_is_killed_and_one_that_fails_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    def stubborn() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(ready, b"x")
        while True:
            signal.pause()

    seen, ready = os.pipe()
    child = children.start(stubborn, keep=[ready])
    assert os.read(seen, 1) == b"x"
    assert child.wait(0) is None
    assert child.stop(0.05) == -signal.SIGKILL
    os.close(seen)
    os.close(ready)

    def broken() -> None:
        raise ValueError("a reason")

    assert children.start(broken).wait(20) == 1
    assert "ValueError: a reason" in capfd.readouterr().err


def test_a_child_stopped_at_once_never_runs_a_handler_of_its_parent(capfd: pytest.CaptureFixture[str]) -> None:
    """`up` and others turn SIGTERM into an exception; a child that was just forked still had that handler."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        ended = {children.start(signal.pause).stop(20) for _ in range(100)}
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended == {-signal.SIGTERM}
    assert capfd.readouterr().err == ""


def test_an_interface_that_does_not_exist_is_named() -> None:
    with pytest.raises(LookupError, match="no-such0"):
        links.up("no-such0")
