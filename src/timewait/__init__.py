"""Stress a load balancer, watch the kernel while it happens, and say why connections fail."""

__version__ = "0.1.0"
