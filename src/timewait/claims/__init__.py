"""The claims about TIME_WAIT, each an experiment on the kernel that runs here."""

from __future__ import annotations

from timewait.claims.claim import Claim, UnknownClaimError, find, registered


def claims() -> dict[str, Claim]:
    """All of them by id, in the order in which they explain each other."""
    # isort: off
    from timewait.claims import source_ports, search, closing, recycle, nat, wrap, behind  # noqa: F401  each registers its own
    # isort: on

    return registered()


__all__ = ["Claim", "UnknownClaimError", "claims", "find"]
