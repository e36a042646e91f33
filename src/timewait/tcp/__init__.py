"""The rules of TCP on Linux, pure: plain numbers in, plain numbers out; nothing of ours is imported here.

What people ask for is listed here: `Linux("2.6.32", tcp_tw_recycle=1)` answers questions about one kernel with its
sysctls. The modules hold the decisions themselves, functions on integers that numba compiles as they are.
"""

from __future__ import annotations

from timewait.tcp.kernels import KERNELS, Kernel, Knobs, UnknownKernelError, UnknownKnobError
from timewait.tcp.linux import Lasts, Linux, Told
from timewait.tcp.listener import Listener
from timewait.tcp.recycle import Record
from timewait.tcp.segment import ACK, FIN, PSH, RST, SYN, Segment
from timewait.tcp.timewait import TimeWait

__all__ = [
    "ACK",
    "FIN",
    "KERNELS",
    "PSH",
    "RST",
    "SYN",
    "Kernel",
    "Knobs",
    "Lasts",
    "Linux",
    "Listener",
    "Record",
    "Segment",
    "TimeWait",
    "Told",
    "UnknownKernelError",
    "UnknownKnobError",
]
