"""Sockets that cannot be had, and why: a sentence each."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from timewait.balancer.config.read import configuration
from timewait.balancer.engine import BalancerError
from timewait.balancer.listening import check_sources, listen

FILE = """
engine = "ENGINE"
[[listener]]
name = "raw"
bind = ["127.0.0.1:18999"]
protocol = "tcp"
pool = "app"
upstream.source = ["127.0.0.2", "203.0.113.1:20000-20010"]
[[pool]]
name = "app"
target = [{ addr = "127.0.0.1:7001" }]
"""


def test_what_stands_in_the_way_of_a_unix_socket_is_said(tmp_path: Path) -> None:
    taken, plain = tmp_path / "taken", tmp_path / "plain"
    plain.touch()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(taken))
        other.listen()
        said = {taken: "another process listens there", plain: "no socket; remove it, or choose another path"}
        said[tmp_path / "none" / "x"] = "its folder does not exist; create it"
        for path, words in said.items():
            with pytest.raises(BalancerError, match=words):
                listen(f"unix:{path}", 1)
    assert plain.exists() and taken.exists()


def test_the_file_of_a_dead_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "dead"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
    listen(f"unix:{path}", 1).close()


def test_a_source_that_is_not_this_machines_is_refused_before_anything_starts() -> None:
    for engine in ("embedded", "haproxy"):
        with pytest.raises(BalancerError, match=r"listener raw, source 203\.0\.113\.1:.*: this machine has no such"):
            check_sources(configuration(FILE.replace("ENGINE", engine), "clb.toml"))
    check_sources(configuration(FILE.replace("ENGINE", "nftables"), "clb.toml"))


def test_without_rights_nftables_is_refused_in_our_words_alone(capfd: pytest.CaptureFixture[str]) -> None:
    from timewait.balancer.nft import Nft, NftError

    child = os.fork()
    if child == 0:
        status = 1
        try:
            if os.geteuid() == 0:
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
            Nft()
        except NftError as problem:
            status = 0 if "CAP_NET_ADMIN" in str(problem) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert capfd.readouterr().err == ""
