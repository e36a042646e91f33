"""Offloads of an interface: what a host leaves to its network card to do, in words of ethtool(8).

veth passes frames on as a card would get them: checksums not yet computed, and up to 64 KB in one. A wire between two
hosts stands where real cables are, where checksums are right and no frame is longer than the MTU; so the hosts at its
ends do that work themselves.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import socket
from struct import pack

_SIOCETHTOOL = 0x8946  # linux/sockios.h
# linux/ethtool.h: ETHTOOL_STXCSUM, _SSG (without it no segmentation either), _STSO, _SGSO, _SGRO. What has no switch
# of its own here, UDP segmentation, needs scatter-gather and checksums, so it goes with them.
_SWITCHES = (0x17, 0x19, 0x1F, 0x24, 0x2C)


def switch_off(name: str) -> None:
    """Checksums in software and frames no longer than the MTU, for an interface of the calling thread's namespace.

    Raises OSError: EPERM without CAP_NET_ADMIN there, ENODEV without such an interface.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        for switch in _SWITCHES:
            value = ctypes.create_string_buffer(pack("II", switch, 0), 8)
            request = pack("16sP16x", name.encode(), ctypes.addressof(value))  # struct ifreq
            try:
                fcntl.ioctl(door, _SIOCETHTOOL, request)
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:  # it cannot be switched because it is not there
                    raise
