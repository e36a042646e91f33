"""What HAProxy is told, by HAProxy's own check."""

from __future__ import annotations

import subprocess

import pytest

import peers
from balancer.engines.texts import HAPROXY, haproxy
from timewait.balancer.config.read import configuration
from timewait.balancer.engine import Rotation
from timewait.balancer.haproxy import text, words
from timewait.balancer.haproxy.text import written


def cfg(content: str) -> str:
    return text(configuration(content, "a.toml"))


@pytest.mark.parametrize("name", HAPROXY)
def test_haproxy_takes_it_without_a_warning(name: str) -> None:
    words = [peers.needs("haproxy"), "-c", "-q", "-f", "/dev/stdin"]
    done = subprocess.run(words, input=cfg(HAPROXY[name]), capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_is_written_that_nobody_asked_for() -> None:
    """A default file: this text is what the benchmark compares with a hand-written one."""
    long = 'content-type text/plain string "414 URI Too Long\\n" hdr connection close'
    assert cfg(haproxy()) == PLAIN.replace("LONG", long)


PLAIN = """global
  nbthread 1
  close-spread-time infinite
  tune.bufsize 33792
  tune.maxrewrite 1024
  tune.http.maxhdr 101

frontend web
  mode http
  bind 127.0.0.1:8080 backlog 4096
  timeout client 60s
  timeout http-request 60s
  timeout http-keep-alive 75s
  http-after-response set-header connection close if { stopping }
  http-request deny deny_status 405 if METH_CONNECT
  http-request return status 414 LONG if { url_len gt 8179 }
  http-request deny deny_status 413 if { req.body_size gt 62914560 }
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Proto http
  default_backend web:app

backend web:app
  mode http
  balance roundrobin
  timeout connect 4s
  timeout server 60s
  timeout tunnel 900s
  http-reuse safe
  retries 1
  option redispatch 1
  server 10.2.1.2:8080 10.2.1.2:8080 weight 60 pool-max-conn 256 pool-purge-delay 4s
  server 10.2.2.2:8080 10.2.2.2:8080 weight 20 pool-max-conn 256 pool-purge-delay 4s
"""


def test_who_is_not_in_rotation_is_in_maintenance() -> None:
    read = configuration(HAPROXY["plain"], "a.toml")
    found = written(read, {"app": Rotation("app", (("10.2.1.2:8080", 0), ("10.2.2.2:8080", 5)))}, None)
    assert "10.2.1.2:8080 weight 60 disabled" in found
    assert "10.2.2.2:8080 weight 5 pool" in found


@pytest.mark.parametrize(
    ("seconds", "written"), [(4, "4s"), (0.25, "250ms"), (1.5, "1500ms"), (0.0001, "1ms"), (3600, "3600s")]
)
def test_times(seconds: float, written: str) -> None:
    assert words.time(seconds) == written


def test_a_word_stays_one_word() -> None:
    assert words.quoted("/plain-path_1.html") == "/plain-path_1.html"
    assert words.quoted('it\'s # a "word" $HOME') == "'it'\\''s # a \"word\" $HOME'"
