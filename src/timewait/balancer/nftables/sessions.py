"""Clients tied to a target by their address: those of a target that gets nothing new are set free."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from timewait.balancer.config.addresses import place
from timewait.balancer.config.model import Configuration, Pool, Protocol, SessionType
from timewait.balancer.engine import Rotation
from timewait.balancer.nft import Nft, NftError
from timewait.balancer.nftables.ruleset import FAMILIES, keep, listeners_of, weights_of

_BATCH = 1000  # elements of one command


def release(nft: Nft, name: str, configuration: Configuration, rotations: Mapping[str, Rotation]) -> None:
    """Takes out of the maps who is tied to a target without weight. The rules no longer tie anybody to it, so what is
    found here is all there will be. Raises NftError."""
    for pool, protocol in _pools(configuration):
        live = {_pair(address) for address, weight in weights_of(pool, rotations) if weight}
        for version in FAMILIES:
            kept = keep(pool, protocol, version)
            gone = [client for client, target in _elements(nft, name, kept) if target not in live]
            for start in range(0, len(gone), _BATCH):
                _delete(nft, name, kept, gone[start : start + _BATCH])


def _pools(configuration: Configuration) -> list[tuple[Pool, Protocol]]:
    pools = ((configuration.pool_named(one.pool), one.protocol) for one in listeners_of(configuration))
    return list(dict.fromkeys(pair for pair in pools if pair[0].session.type is SessionType.SOURCE_IP))


def _elements(nft: Nft, name: str, kept: str) -> Iterator[tuple[str, tuple[str, int]]]:
    try:
        listed = json.loads(nft.run(f"list map inet {name} {kept}", json=True))
    except NftError:  # there is none for that family
        return
    for one in listed["nftables"]:
        for key, value in one.get("map", {}).get("elem", ()):
            address, port = value["concat"]
            yield key["elem"]["val"], (address, port)


def _delete(nft: Nft, name: str, kept: str, clients: list[str]) -> None:
    try:
        nft.run(f"delete element inet {name} {kept} {{ {', '.join(clients)} }}")
    except NftError:  # one of them ended by itself meanwhile, and then the kernel deletes none
        for client in clients if len(clients) > 1 else ():
            _delete(nft, name, kept, [client])


def _pair(address: str) -> tuple[str, int]:
    at = place(address)
    return str(at.address), at.port
