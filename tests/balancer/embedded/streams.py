"""Clients and targets at layer 4 that tests of the relay share."""

from __future__ import annotations

import socket

from kit.one_worker import OneWorker
from kit.servers import RST, Peer

PATIENCE = 30.0


def client_of(worker: OneWorker, *, receive_buffer: int = 0) -> socket.socket:
    near = socket.socket()
    if receive_buffer:
        near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    near.settimeout(PATIENCE)
    near.connect(worker.address)
    return near


def read_to_end(sock: socket.socket) -> bytes:
    found = b""
    while data := sock.recv(1 << 16):
        found += data
    return found


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    sock.close()


def echo(peer: Peer) -> None:
    """Sends back what comes, and after the client's FIN a last word: half-close in use."""
    total = 0
    while data := peer.sock.recv(1 << 16):
        peer.send(data)
        total += len(data)
    peer.send(b"%d bytes" % total)


def speaks_first(peer: Peer) -> None:
    """Says everything, ends its direction, and goes on listening."""
    peer.send(b"hello")
    peer.sock.shutdown(socket.SHUT_WR)
    peer.server.heard = peer.sock.recv(1 << 16)  # type: ignore[attr-defined]
    peer.sock.recv(1)


def says_hello(peer: Peer) -> None:
    """Says hello and ends."""
    peer.send(b"hello")


def hello_and_wait(peer: Peer) -> None:
    peer.send(b"hello")
    peer.read_to_end()
