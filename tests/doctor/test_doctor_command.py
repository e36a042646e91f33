"""`timewait doctor` from the outside: what it says, its JSON and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit import behaviours
from kit.certificates import Certificates
from kit.labs import wait_until
from kit.namespace import Namespace, needs_namespaces
from kit.nginx import Nginx
from kit.ports import free_port
from kit.run_timewait import Result, timewait
from kit.servers import Server


def doctor(*words: str, **options: Any) -> Result:
    return timewait("doctor", *words, **options)


def test_the_host_alone() -> None:
    said = doctor()
    assert said.exit_code == 0, said.stderr
    assert "port budget" in said.stdout
    assert "net.ipv4.tcp_tw_reuse = " + Path("/proc/sys/net/ipv4/tcp_tw_reuse").read_text().strip() in said.stdout
    assert "Target" not in said.stdout


def test_json_of_the_host_alone() -> None:
    found = doctor("--json").json
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert (found["host"]["port_low"], found["host"]["port_high"]) == (low, high)
    assert found["ports"][0]["capacity"] == high - low + 1 - found["host"]["reserved_ports"]
    assert found["target"] is None
    assert found["exit_code"] == 0


def test_sources_multiply_the_budget() -> None:
    one, three = (doctor("--json", *words).json for words in ((), ("--source", "127.0.0.1-127.0.0.3")))
    assert three["ports"][0]["capacity"] == 3 * one["ports"][0]["capacity"]


def test_nginx(needs: Callable[[str], str]) -> None:
    needs("nginx")
    with Nginx() as nginx:
        said = doctor(nginx.url, "--idle", "200ms")
        found = doctor(nginx.url, "--idle", "200ms", "--json").json
    assert said.exit_code == found["exit_code"] == 0
    seen = found["target"]["behaviours"][0]
    assert (seen["reachable"], seen["status"], seen["keep_alive"]) == (True, 200, True)
    assert seen["on_close"]["how"] == seen["on_http10"]["how"] == "peer"
    assert seen["on_idle"]["how"] == "open"
    rates = {row["flags"]: row for row in found["rates"]}
    assert rates["--close server"]["closes_first"] == "peer"
    assert found["ports"][0]["destination"] == f"127.0.0.1:{nginx.port}"
    assert said.stdout.count("the target closes first") == 2
    assert "still open after" in said.stdout


def test_the_probe_is_not_in_its_own_figures() -> None:
    with Server(behaviours.echo) as server:
        found = doctor(server.tcp_url, "--idle", "100ms", "--json").json
    assert (found["ports"][0]["in_use"], found["ports"][0]["time_wait"]) == (0, 0)


def test_ipv6_and_https(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    with Server(behaviours.well, host="::1", tls=certificates.good.context()) as server:
        wrong = doctor(server.url, "--json")
        found = doctor(server.url, "-k", "--idle", "100ms", "--json").json
    assert wrong.exit_code == 1
    assert "certificate" in wrong.json["target"]["error"] or "issuer" in wrong.json["target"]["error"]
    assert found["target"]["behaviours"][0]["tls"] == "TLSv1.3"
    assert found["ports"][0]["destination"] == f"[::1]:{server.port}"


def test_a_name_with_a_dead_address(tmp_path: Path) -> None:
    """localhost is ::1 and 127.0.0.1 on most hosts, and served on one of them here."""
    with Server(behaviours.well) as server:
        said = doctor(f"http://localhost:{server.port}/", "--idle", "100ms", "--json")
    assert said.exit_code == 0
    target = said.json["target"]
    assert target["addresses"] and target["behaviours"][-1]["address"] == "127.0.0.1"
    assert all(not seen["reachable"] for seen in target["behaviours"][:-1])


def test_connect_to() -> None:
    with Server(behaviours.well) as server:
        said = doctor(
            "http://balancer.invalid/", "--connect-to", f"::127.0.0.1:{server.port}", "--json", "--idle", "1ms"
        )
    assert said.exit_code == 0
    assert said.json["target"]["addresses"] == ["127.0.0.1"]


def test_a_target_that_is_down() -> None:
    said = doctor(f"http://127.0.0.1:{free_port()}/")
    assert said.exit_code == 1
    assert "refused" in said.stdout
    assert "--close client" not in said.stdout


def test_a_name_that_does_not_resolve() -> None:
    said = doctor("http://no-such-host.invalid/", "--json")
    assert said.exit_code == 1
    assert "no-such-host.invalid" in said.json["target"]["error"]


def test_no_source_port_is_this_machines_fault() -> None:
    needs_namespaces()
    with Namespace((40000, 40000)) as namespace, Server(behaviours.echo, listener=namespace.listen()) as server:
        first = doctor(server.tcp_url, "--idle", "50ms", "--json", namespace=namespace)
        wait_until(lambda: namespace.time_wait("dport", server.port) == 1, "the server has closed, too")
        again = doctor(server.tcp_url, "--idle", "50ms", "--json", namespace=namespace)
    # We end the probe's connection to a tcp:// target first, so its only port is in TIME_WAIT for the next one.
    assert first.exit_code == 0
    assert "no free source port" in first.json["target"]["behaviours"][0]["problems"][0]
    assert again.exit_code == again.json["exit_code"] == 3
    assert again.json["target"]["errno"] == "EADDRNOTAVAIL"
    assert again.json["ports"][0]["time_wait"] == 1


def test_settings_that_harm_are_found() -> None:
    needs_namespaces()
    harmful = {"net.ipv4.tcp_max_tw_buckets": "100", "net.ipv4.tcp_timestamps": "0"}
    with Namespace(sysctls=harmful) as namespace, Server(behaviours.well, listener=namespace.listen()) as server:
        found = doctor(server.url, "--idle", "50ms", "--json", namespace=namespace).json
    verdicts = {setting["name"]: setting["verdict"] for setting in found["settings"]}
    assert verdicts["net.ipv4.tcp_max_tw_buckets"] == verdicts["net.ipv4.tcp_timestamps"] == "bad"
    assert found["target"]["behaviours"][0]["timestamps"] is False
    assert "harmful-sysctl" in [finding["id"] for finding in found["findings"]]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["ftp://127.0.0.1/"], "ftp"),
        (["http://127.0.0.1:0/"], "port 0"),
        (["127.0.0.1"], "no scheme"),
        (["--source", "192.0.2.77"], "192.0.2.77"),
        (["--source", "nowhere"], "nowhere"),
        (["--idle", "soon"], "--idle"),
        (["-4", "-6", "http://127.0.0.1/"], "-4 and -6"),
        (["https://127.0.0.1/", "--cacert", "/nonexistent.pem"], "/nonexistent.pem"),
        (["http://127.0.0.1/", "--connect-to", "x"], "--connect-to"),
    ],
)
def test_bad_usage_gets_one_sentence(words: list[str], part: str) -> None:
    said = doctor(*words)
    assert said.exit_code == 2
    assert said.stdout == ""
    assert len(said.stderr.strip().splitlines()) == 1
    assert part in said.stderr


def test_json_is_one_line() -> None:
    lines = doctor("--json").stdout.splitlines()
    assert len(lines) == 1
    json.loads(lines[0])


def test_a_narrow_terminal_breaks_nothing() -> None:
    # 80 columns is what a pipe gets.
    assert max(map(len, doctor().stdout.splitlines())) <= 80
