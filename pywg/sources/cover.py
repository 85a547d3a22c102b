"""Whether what a peer may have leads into the interface: no route is added for peers of a store.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from pywg.config import Config, IPNetwork


class Cover:
    """Networks that are routed into an interface."""

    def __init__(self, networks: Iterable[IPNetwork]) -> None:
        # Version and length -> the beginnings that are covered: few lengths, however many networks.
        self._beginnings: dict[tuple[int, int], set[int]] = {}
        for network in networks:
            place = (network.version, network.prefixlen)
            self._beginnings.setdefault(place, set()).add(_beginning(network, network.prefixlen))

    @classmethod
    def of(cls, config: Config) -> Cover | None:
        """The interface's own networks, and those of the peers of its file. None for ``Table =
        off``: routes are somebody else's there."""
        section = config.interface
        if section.table == "off":
            return None
        own = (address.network for address in section.addresses)
        return cls([*own, *(network for peer in config.peers for network in peer.networks)])

    def has(self, network: IPNetwork) -> bool:
        return any(
            version == network.version
            and length <= network.prefixlen
            and _beginning(network, length) in beginnings
            for (version, length), beginnings in self._beginnings.items()
        )


def _beginning(network: IPNetwork, length: int) -> int:
    return int(network.network_address) >> (network.max_prefixlen - length)
