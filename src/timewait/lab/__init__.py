"""A network on this machine: namespaces, links between them, and a server to aim at; gone with the process."""

from timewait.lab.links import add_address, join, set_sysctl, up
from timewait.lab.namespaces import ForbiddenError, Namespace, enter
from timewait.lab.server import Counts, Server

__all__ = ["Counts", "ForbiddenError", "Namespace", "Server", "add_address", "enter", "join", "set_sysctl", "up"]
