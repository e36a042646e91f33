"""The ends of a connection, and who really came first.

After our shutdown(SHUT_WR) the kernel's state tells whether the peer's FIN was there before ours: FIN_WAIT1,
FIN_WAIT2 and CLOSING are reached only by the first closer, LAST_ACK only by the second (RFC 9293 section 3.6). CLOSE
can be either by then: a fast peer's FIN turns our socket into a TIME_WAIT of its own (`tcp_time_wait`), its ACK ends
a LAST_ACK. There the state from just before decides.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

# include/net/tcp_states.h
TCP_CLOSE, TCP_CLOSE_WAIT, TCP_LAST_ACK = 7, 8, 9

RESET_NOW = struct.pack("ii", 1, 0)  # struct linger{l_onoff, l_linger}: close() sends RST, tcp_disconnect() follows

US, PEER, RESET = "us", "peer", "reset"


def shut(sock: socket.SocketType) -> str:
    """Sends our FIN; returns who closed first: US, PEER, or RESET when the connection was already reset."""
    try:
        before = _state(sock)
        sock.shutdown(socket.SHUT_WR)
        after = _state(sock)
    except OSError:
        return RESET  # ENOTCONN: a RST has been here
    if after == TCP_LAST_ACK or (after == TCP_CLOSE and before == TCP_CLOSE_WAIT):
        return PEER
    if after == TCP_CLOSE and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        return RESET
    return US


def _state(sock: socket.SocketType) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]  # tcpi_state


def abort(sock: socket.SocketType) -> None:
    """Makes the close() that follows send RST and leave no TIME_WAIT (tcp(7), socket(7) SO_LINGER)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_NOW)


class Info(NamedTuple):
    timestamps: bool  # negotiated
    rtt: float  # smoothed, seconds
    retrans: int  # segments sent again since the connection began


def tcp_info(sock: socket.SocketType) -> Info:
    """The few fields of struct tcp_info (include/uapi/linux/tcp.h) that the report uses. Raises OSError."""
    raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    rtt_us, total_retrans = struct.unpack_from("I", raw, 68)[0], struct.unpack_from("I", raw, 100)[0]
    return Info(bool(raw[5] & 1), rtt_us / 1e6, total_retrans)  # tcpi_options & TCPI_OPT_TIMESTAMPS
