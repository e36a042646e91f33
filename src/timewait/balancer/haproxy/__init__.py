"""HAProxy forwards: its configuration written, its process started, fed through its command line, and replaced."""

from timewait.balancer.haproxy.text import text

__all__ = ["text"]
