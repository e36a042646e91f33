"""The kernel's nftables through its own library, libnftables(3): in this process, over one netlink socket.

Why not the program nft: a table with the flag `owner` belongs to the netlink socket that made it
(NFT_TABLE_F_OWNER, nf_tables_newtable() in net/netfilter/nf_tables_api.c, Linux 5.12). Nobody else can change or
flush it, and the kernel takes it away when that socket closes, also when we are killed by SIGKILL. So the socket must
be ours, and live as long as the rules; libnftables keeps one for good since the version that knows the flag (0.9.9).
A transaction takes some 100 us this way, too.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

from timewait.balancer.engine import BalancerError

PACKAGE = "nftables"  # Debian's; its library is libnftables1
_LIBRARY = "libnftables.so.1"
_CAP_NET_ADMIN = 12  # linux/capability.h
_NOT_PERMITTED = (
    "nftables: not permitted; it needs CAP_NET_ADMIN: start as root, or in a network namespace of your own "
    "(`unshare -Urn`)"
)
_JSON = 1 << 4  # NFT_CTX_OUTPUT_JSON, nftables/libnftables.h


class NftError(BalancerError):
    """The kernel or the library refused; the text has their own words."""


class Nft:
    """A netlink socket, in the network namespace of the thread that makes it. Tables it owns go with `close()`."""

    def __init__(self) -> None:
        self._library = _library()
        if not _may():  # asked before the library is, which would print its own words, too
            raise NftError(_NOT_PERMITTED)
        before = _sockets()
        self._context: int | None = self._library.nft_ctx_new(0)
        if not self._context:
            raise NftError("nftables: the kernel gives no netlink socket for it")
        for number in _sockets() - before:  # libmnl does not: a child that kept it would keep our rules alive
            os.set_inheritable(number, False)
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    def run(self, text: str, *, json: bool = False) -> str:
        """Carries out commands as one transaction: all of them or none. What they print. Raises NftError."""
        assert self._context is not None
        self._library.nft_ctx_output_set_flags(self._context, _JSON if json else 0)
        status = self._library.nft_run_cmd_from_buffer(self._context, text.encode())
        error = (self._library.nft_ctx_get_error_buffer(self._context) or b"").decode(errors="replace")
        output: bytes = self._library.nft_ctx_get_output_buffer(self._context) or b""
        if status:
            raise NftError(_sentence(error))
        return output.decode()

    def close(self) -> None:
        """Closes the socket; what it owns is gone with it."""
        if self._context is not None:
            self._library.nft_ctx_free(self._context)
            self._context = None


def _sentence(error: str) -> str:
    if "Operation not permitted" in error:
        return _NOT_PERMITTED
    lines = [line for line in error.splitlines() if line.strip(" ^~\t")]
    return "nftables refuses the rules: " + "; ".join(lines[:2] or ["it does not say why"])


def _may() -> bool:
    """Whether this thread has CAP_NET_ADMIN, in whichever user namespace it is (CapEff, proc(5))."""
    status = Path("/proc/thread-self/status").read_text()
    return bool(int(status.split("CapEff:")[1].split()[0], 16) >> _CAP_NET_ADMIN & 1)


def _library() -> Any:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        raise BalancerError(
            f"{_LIBRARY} is not installed: `sudo apt-get install {PACKAGE}` (or your system's package)"
        ) from None
    library.nft_ctx_new.restype = ctypes.c_void_p
    for name in ("nft_ctx_free", "nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
        getattr(library, name).restype = ctypes.c_char_p
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    return library


def _sockets() -> set[int]:
    """Descriptors of this process that are sockets."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if str(entry.readlink()).startswith("socket:"):
                found.add(int(entry.name))
        except OSError:  # the descriptor of the listing itself
            pass
    return found
