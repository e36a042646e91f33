"""`timewait lab list, show, up, shell` and `--in`, as somebody at a terminal uses them."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import peers
from kit.labs import ENVIRONMENT, MAIN, USERS, processes_of_session, wait_until
from kit.namespace import needs_namespaces
from kit.run_timewait import BAD_USAGE, MACHINE, SCRIPT, timewait
from timewait.cli.lab.draw import draw
from timewait.lab import registry, topologies
from timewait.lab.wire.spec import RESETS, End, OldKernel, WireSpec


@contextmanager
def up(*words: str, user: str = "") -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """`timewait lab up WORDS --json`: the process and how it describes itself. It is ended at the end."""
    needs_namespaces()
    peers.needs("nft")
    command = [sys.executable, "-c", user + MAIN] if user else [str(SCRIPT)]
    with subprocess.Popen(
        [*command, "lab", "up", *words, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        try:
            assert line, process.stderr.read()
            yield process, json.loads(line)
        finally:
            process.kill()
            wait_until(lambda: not processes_of_session(process.pid), "the end of the lab")


def at_terminal(words: list[str], columns: int, *, type: str = "", until: str = "") -> str:
    """What a command shows on a terminal of this width; `type` is typed once `until` is shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(COLUMNS=str(columns), TERM="xterm", SHELL="/bin/sh")
        os.execv(words[0], words)
    shown, limit = b"", time.monotonic() + 60
    while time.monotonic() < limit:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                data = os.read(terminal, 65536)
            except OSError:  # EIO: nobody has the other end open any more
                break
            if not data:
                break
            shown += data
        if type and until.encode() in shown:  # the end of what has come may be half a character
            os.write(terminal, type.encode())
            type = ""
    os.close(terminal)
    os.waitpid(pid, 0)
    return shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("name", topologies.TOPOLOGIES)
def test_a_drawing_keeps_to_its_width_and_shows_every_address(name: str) -> None:
    topology = topologies.topology(name)
    addresses = {
        address.partition("/")[0] for link in topology.links for end in link.ends for address in end.addresses
    }
    for width in (50, 60, 80, 100, 200):
        drawn = draw(topology, width)
        assert max(map(len, drawn.splitlines())) <= width
        assert {word for line in drawn.splitlines() for word in line.split()} >= addresses


def test_show_draws_boxes_joined_by_lines_where_there_is_room_and_a_list_where_not() -> None:
    wide, narrow = (at_terminal([str(SCRIPT), "lab", "show", "two-gateways"], width) for width in (80, 50))
    assert "╭" in wide and "┴" in wide
    assert "╭" not in narrow and "  eth0 10.1.1.2 fd00:1:1::2 to gateway-1" in narrow
    plain = subprocess.run(
        [str(SCRIPT), "lab", "show", "nat"],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "80"},
    ).stdout
    assert plain.isascii() and b"+------" in plain


def test_a_drawing_says_what_wires_do() -> None:
    old = WireSpec(b=End(kernel=OldKernel("2.6.32", {"tcp_tw_recycle": 1})), loss=0.01, drop=(RESETS,))
    for ascii_only, sign in ((False, "◇"), (True, "*")):
        drawn = draw(topologies.direct().wired("client", "balancer", old), 200, ascii_only=ascii_only)
        assert f"{sign} wire client - balancer: loses 1.00%; balancer drops SYNs as 2.6.32 does with " in drawn
        assert "tcp_tw_recycle=1; drops resets" in drawn
        assert drawn.count(sign) == 2  # on the link, and beside its words


def test_where_namespaces_are_forbidden_the_setting_and_sudo_are_named() -> None:
    """A real refusal: no further namespace is allowed below a user namespace of our own."""
    needs_namespaces()
    forbid = 'for kind in user net; do echo 0 > /proc/sys/user/max_${kind}_namespaces; done; exec "$@"'
    for words in (["up", "direct"], ["run", "wrap"]):
        command = ["unshare", "-Ur", "sh", "-c", forbid, "sh", str(SCRIPT), "lab", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == MACHINE
        assert "max_net_namespaces=0" in done.stderr or "max_user_namespaces=0" in done.stderr
        assert done.stderr.count("\n") == 1


def test_what_show_writes_up_can_read(tmp_path: Any) -> None:
    shown = timewait("lab", "show", "direct", "--json")
    file = tmp_path / "own.json"
    file.write_text(shown.stdout.replace('"wire": null', '"wire": {"delay": 0.03}'))
    assert "wire client - balancer: 30 ms each way" in timewait("lab", "show", file).stdout
    with up(str(file), "--balancer", "own") as (process, lab):
        assert lab["name"] == f"direct-{process.pid}"
        asked = "import socket, time\nbefore = time.monotonic()\nsocket.create_connection(('balancer', 80))\n"
        asked += "print(time.monotonic() - before)"
        took = timewait("lab", "shell", "--lab", lab["name"], "client", sys.executable, "-c", asked)
        assert float(took.stdout) >= 0.06


def test_the_only_lab_needs_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a real one: this machine may have others, of which no test can know."""
    lab = registry.Lab("direct-1", 1, topologies.direct(), {})
    monkeypatch.setattr(registry, "running", lambda: [lab])
    assert registry.choose("") is lab


def test_list_shows_topologies_and_what_runs() -> None:
    with up("direct", "--balancer", "none") as (process, lab):
        told = timewait("lab", "list").stdout
        assert "two-gateways" in told and f"direct-{process.pid}" in told
        found = json.loads(timewait("lab", "list", "--json").stdout)
        assert {"name": lab["name"], "pid": process.pid, "hosts": ["balancer", "client"]} in found["running"]


def test_inside_of_a_lab_as_a_user_does() -> None:
    """Settings, names, shell, stress, watch; the lab's own server plays the balancer."""
    words = ["--set", "client.ip_local_port_range=20000 20099", "--set", "client.net.ipv4.tcp_timestamps=0"]
    with up("direct", "--balancer", "own", *words) as (process, lab):
        name = lab["name"]
        inside = ["--in", "client", "--lab", name]
        assert (
            timewait("lab", "shell", "--lab", name, "client", "cat", "/proc/sys/net/ipv4/tcp_timestamps").stdout
            == "0\n"
        )
        assert timewait("lab", "shell", "--lab", name, "client", "sh", "-c", "exit 9").exit_code == 9
        assert timewait("lab", "shell", "--lab", name, "client", "no-such-program").exit_code == 127
        run = timewait("stress", "http://balancer/", *inside, "-n", "150", "--rate", "500cps", "--close", "client",
                       "--requests-per-connection", "1", "--workers", "1", "--json")  # fmt: skip
        found = json.loads(run.stdout)
        assert found["totals"]["succeeded"] == 100
        assert found["findings"][0]["id"] == "ports-exhausted"
        seen = timewait("watch", "--once", *inside).stdout
        assert "to 10.0.0.1:80" in seen and "TIME_WAIT 100" in seen
        wrong = timewait("watch", "--once", "--in", "clinet", "--lab", name)
        assert wrong.exit_code == BAD_USAGE
        assert wrong.stderr == f"timewait: lab {name}: no host 'clinet'; did you mean client?\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(45) == 0


def test_a_shell_at_a_terminal_says_where_it_is() -> None:
    with up("direct", "--balancer", "none") as (_, lab):
        words = [str(SCRIPT), "lab", "shell", "--lab", lab["name"], "client"]
        shown = at_terminal(words, 80, type="echo $((6*7)) $TIMEWAIT_HOST; exit\n", until="client $ ")
    assert "You are at client" in shown
    assert "42 client" in shown


def test_ctrl_c_ends_a_lab_that_told_how_to_use_it() -> None:
    needs_namespaces()
    shown = at_terminal(
        [str(SCRIPT), "lab", "up", "direct", "--balancer", "own"], 80, type="\x03", until="Ctrl-C ends it"
    )
    assert "timewait lab shell client" in shown and "--in client http://balancer/" in shown
    name = re.findall(r"^(direct-\d+) is up", shown, re.MULTILINE)[0]
    assert name not in timewait("lab", "list").stdout
    assert "Traceback" not in shown


def test_several_labs_and_a_death_in_one_of_them() -> None:
    with up("direct", "--balancer", "own") as (one, first), up("direct", "--balancer", "own") as (_, second):
        unclear = timewait("lab", "shell", "client", "true")
        assert unclear.exit_code == BAD_USAGE and "several labs" in unclear.stderr and "--lab" in unclear.stderr
        assert (
            "several labs are named 'direct'" in timewait("lab", "shell", "--lab", "direct", "client", "true").stderr
        )
        for lab in (first, second):
            assert timewait("lab", "shell", "--lab", str(lab["pid"]), "client", "true").exit_code == 0
        served = [pid for pid in processes_of_session(one.pid) if pid != one.pid]
        os.kill(served[0], signal.SIGKILL)
        assert one.stderr is not None
        assert (
            one.stderr.readline() == "timewait: the server on balancer was ended by SIGKILL; the network stays up\n"
        )


@pytest.mark.parametrize("user", USERS.values(), ids=list(USERS))
def test_a_lab_is_entered_by_whoever_started_it_and_by_root(user: str) -> None:
    peers.needs("nginx")
    with up("nat", "--balancer", "nginx", user=user) as (_, lab):
        shell = ["lab", "shell", "--lab", lab["name"], "client-1"]
        ask = "import socket; s = socket.create_connection(('balancer', 80)); s.send(b'GET / HTTP/1.0\\r\\n\\r\\n'); "
        ask += "print(s.recv(15).decode(), __import__('os').getuid())"
        by_us = timewait(*shell, "/usr/bin/env", sys.executable, "-c", ask)
        assert by_us.stdout == "HTTP/1.1 200 OK 0\n", by_us.stderr
        words = [sys.executable, "-c", user + MAIN, *shell, "sh", "-c", "id -u; cat /proc/sys/net/ipv4/ip_forward"]
        by_starter = subprocess.run(words, capture_output=True, text=True, timeout=60)
        assert by_starter.stdout == "0\n0\n", by_starter.stderr


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["up", "natt"], BAD_USAGE, "no topology 'natt'; did you mean nat?"),
        (["show", "w"], BAD_USAGE, "no topology 'w'; there is direct, proxy, nat, layer4, two-gateways"),
        (["up", "direct", "--set", "tcp_tw_reuse=1"], BAD_USAGE, "it is HOST.SYSCTL=VALUE, such as"),
        (["up", "direct", "--set", "clint.tcp_tw_reuse=1"], BAD_USAGE, "no host 'clint'; did you mean client?"),
        (["up", "direct", "--set", "client.tcp_tw_resue=1"], BAD_USAGE, "did you mean tcp_tw_reuse"),
        (["up", "direct", "--balancer", "ngnix"], BAD_USAGE, "no balancer 'ngnix'; did you mean nginx?"),
        (["up", "layer4", "--balancer", "nginx"], BAD_USAGE, "is the kernel itself"),
        (["shell", "--lab", "nowhere", "client"], BAD_USAGE, "no lab"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(words: list[str], code: int, told: str) -> None:
    needs_namespaces()
    done = timewait("lab", *words)
    assert done.exit_code == code
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_empty_word_is_no_host_and_never_this_machine() -> None:
    """`--in "$HOST"` with nothing in HOST."""
    with up("direct") as (_, lab):
        for words in (
            ["lab", "shell", "--lab", lab["name"], "", "echo", "here"],
            ["watch", "--once", "--lab", lab["name"], "--in", ""],
            ["stress", "--lab", lab["name"], "--in", "", "http://127.0.0.1:1/"],
        ):
            done = timewait(*words)
            assert (done.exit_code, done.stdout) == (BAD_USAGE, "")
            assert "no host ''; there is client, balancer" in done.stderr
    done = timewait("watch", "--once", "--lab", "direct")
    assert (done.exit_code, done.stdout) == (BAD_USAGE, "")
    assert "--lab direct needs --in HOST" in done.stderr


def test_a_missing_program_is_the_machines_lack() -> None:
    """nft and nginx are looked for on PATH and in the folders of daemons."""
    needs_namespaces()
    hide = "from timewait.lab import processes; processes.PATH = '/nowhere'\n"
    for words, package in ((["up", "nat"], "nftables"), (["up", "direct", "--balancer", "haproxy"], "haproxy")):
        done = subprocess.run(
            [sys.executable, "-c", hide + MAIN, "lab", *words], capture_output=True, text=True, timeout=30
        )
        assert done.returncode == MACHINE
        assert f"sudo apt-get install {package}" in done.stderr
