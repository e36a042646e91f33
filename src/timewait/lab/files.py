"""Topologies by name, and from files in the form that `timewait lab show --json` writes."""

from __future__ import annotations

from pathlib import Path

import msgspec

from timewait.lab.topologies import topology
from timewait.lab.topology import Topology, TopologyError


def load(name: str) -> Topology:
    """A ready-made topology, or one from a file (a name with a slash, or one that ends in .json). Raises
    TopologyError: no such topology, the file cannot be read, or what is wrong in it and where."""
    if "/" not in name and not name.endswith(".json"):
        return topology(name)
    try:
        return msgspec.json.decode(Path(name).read_bytes(), type=Topology)
    except OSError as error:
        raise TopologyError(f"{name}: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise TopologyError(f"{name}: {error}") from None
