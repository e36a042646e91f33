"""Three balancers in front of one target: this one, HAProxy and nginx, each as strict as it is by default."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import peers
from kit.one_worker import OneWorker, listener, pool
from kit.ports import free_port

FRONTS = ("timewait", "HAProxy", "nginx")

HAPROXY = """
defaults
    mode http
    timeout client 20s
    timeout server 20s
    timeout connect 5s
    option forwardfor
    http-reuse never
listen web
    bind 127.0.0.1:{port}
    server app 127.0.0.1:{target}
"""
NGINX_HEAD = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
"""
NGINX = (
    NGINX_HEAD
    + """
    proxy_http_version 1.1;
    proxy_ignore_client_abort on;
    proxy_request_buffering off;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $remote_addr;
    server {{
        listen 127.0.0.1:{port};
        server_name app;
        location / {{ proxy_pass http://127.0.0.1:{target}; }}
    }}
}}
"""
)


@contextmanager
def program(words: list[str], port: int) -> Iterator[None]:
    """Runs a balancer until the block ends; ready once it accepts."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                said = process.stderr.read().decode() if process.poll() is not None and process.stderr else ""
                assert process.poll() is None and time.monotonic() < deadline, said
                time.sleep(0.02)
        yield
    finally:
        process.kill()
        process.communicate()


@contextmanager
def haproxy(target: int, folder: Path) -> Iterator[int]:
    """HAProxy's port."""
    port = free_port()
    config = folder / "haproxy.cfg"
    config.write_text(HAPROXY.format(port=port, target=target))
    with program([peers.needs("haproxy"), "-db", "-q", "-f", str(config)], port):
        yield port


@contextmanager
def nginx(target: int, folder: Path, text: str = NGINX) -> Iterator[int]:
    """nginx's port; `text` is its configuration, which names {port}, {target} and {folder}."""
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(text.format(port=port, folder=folder, target=target))
    with program([peers.needs("nginx"), "-e", f"{folder}/start.log", "-c", str(config)], port):
        yield port


@contextmanager
def ours(target: int, folder: Path) -> Iterator[int]:
    """The port of one worker of the embedded engine."""
    with OneWorker(listener(), pool(f"127.0.0.1:{target}")) as worker:
        yield worker.address[1]


@contextmanager
def fronts(targets: Sequence[int], folder: Path) -> Iterator[dict[str, int]]:
    """All three, each with a target of its own: name -> port."""
    with ExitStack() as stack:
        ports = {}
        for name, start, target in zip(FRONTS, (ours, haproxy, nginx), targets, strict=True):
            (folder / name).mkdir()
            ports[name] = stack.enter_context(start(target, folder / name))
        yield ports


def versions() -> dict[str, str]:
    """What the table was made with: "2.6", "1.22"."""
    said = {
        "HAProxy": subprocess.run([peers.needs("haproxy"), "-v"], capture_output=True, text=True, check=True).stdout,
        "nginx": subprocess.run([peers.needs("nginx"), "-v"], capture_output=True, text=True, check=True).stderr,
    }
    words = {"HAProxy": said["HAProxy"].split()[2], "nginx": said["nginx"].rpartition("/")[2]}
    return {name: ".".join(word.split(".")[:2]) for name, word in words.items()}
