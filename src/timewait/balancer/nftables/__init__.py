"""The kernel forwards: weighted DNAT or full NAT by nftables, drains and counts by conntrack."""

from timewait.balancer.nftables.ruleset import text

__all__ = ["text"]
