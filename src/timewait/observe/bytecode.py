"""Socket filters that run in the kernel: INET_DIAG_REQ_BYTECODE.

A filter is an alternative of conjunctions of `Match`. It is compiled to the little program that inet_diag_bc_run()
interprets per socket (net/ipv4/inet_diag.c, the same from 3.x to 6.18):

    op = code u8, yes u8, no u16     jump `yes` or `no` bytes ahead; a socket passes if it lands exactly on the end,
                                     and is refused by landing four bytes past it

inet_diag_bc_audit() wants every jump to land on an instruction reached by following `yes` alone, so here `yes` is
always the instruction's own length, and an alternative is left by an INET_DIAG_BC_JMP, whose way is `no`.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

_JMP, _S_GE, _S_LE, _D_GE, _D_LE, _S_COND, _D_COND = 1, 2, 3, 4, 5, 7, 8
_OP = struct.Struct("=BBH")
_HOST = struct.Struct("=BBxxi")  # inet_diag_hostcond: family, prefix length, port or -1; the address follows
MOST_BYTES = 60_000  # `no` and a netlink attribute's length are 16 bits wide


class Side(Enum):
    LOCAL = "local"
    REMOTE = "remote"


@dataclass(frozen=True, slots=True)
class Match:
    """One end of a socket: address (all if None), and a port range (inclusive).

    An IPv4 address also matches the IPv4-mapped IPv6 sockets (::ffff:a.b.c.d), as in the kernel.
    """

    side: Side
    address: ipaddress.IPv4Address | ipaddress.IPv6Address | None = None
    low: int = 0
    high: int = 65535

    @property
    def one_port(self) -> bool:
        return self.low == self.high


Filter = Sequence[Sequence[Match]]  # any of (all of ...); empty: every socket


def compile_filter(where: Filter) -> bytes:
    """The program for INET_DIAG_REQ_BYTECODE; empty where every socket passes.

    Raises ValueError if it grows past what a request can carry (some two thousand alternatives).
    """
    clauses = [[op for match in clause for op in _ops(match)] for clause in where]
    if not clauses or not all(clauses):
        return b""  # no filter, or an alternative without a condition
    lengths = [sum(len(body) + _OP.size for _, body in clause) for clause in clauses]
    left = sum(lengths) + _OP.size * (len(clauses) - 1)  # every clause but the last ends in a jump
    if left > MOST_BYTES:
        raise ValueError(f"a socket filter of {len(clauses)} alternatives is larger than the kernel takes")
    program = bytearray()
    for number, clause in enumerate(clauses):
        last = number == len(clauses) - 1
        next_clause = lengths[number] + _OP.size  # for the last one: four bytes past the end, which refuses
        for code, body in clause:
            program += _OP.pack(code, _OP.size + len(body), next_clause) + body
            next_clause -= _OP.size + len(body)
        left -= lengths[number]
        if not last:
            program += _OP.pack(_JMP, _OP.size, left)
            left -= _OP.size
    return bytes(program)


def _ops(match: Match) -> list[tuple[int, bytes]]:
    """Instructions as (code, what follows the op)."""
    local = match.side is Side.LOCAL
    ops = []
    if match.address is not None or match.one_port:
        packed = match.address.packed if match.address is not None else b""
        family = {0: socket.AF_UNSPEC, 4: socket.AF_INET, 16: socket.AF_INET6}[len(packed)]
        port = match.low if match.one_port else -1
        ops.append((_S_COND if local else _D_COND, _HOST.pack(family, len(packed) * 8, port) + packed))
    if not match.one_port:
        if match.low > 0:
            ops.append((_S_GE if local else _D_GE, _OP.pack(0, 0, match.low)))
        if match.high < 65535:
            ops.append((_S_LE if local else _D_LE, _OP.pack(0, 0, match.high)))
    return ops
