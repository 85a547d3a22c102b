"""What is to change on a running interface, as `wg set` and `wg setconf` say it.

Plain values: no text, no socket. None means "leave it as it is"; a key of zeros, the mark 0 and the
interval 0 mean "none from now on". Endpoints are numeric.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pywg.config import Endpoint, IPNetwork
from pywg.keys import LENGTH, PresharedKey, PrivateKey, PublicKey

if TYPE_CHECKING:
    from pywg.wireguard.status import InterfaceStatus, PeerStatus

NO_PRIVATE_KEY = PrivateKey(bytes(LENGTH))
NO_PRESHARED_KEY = PresharedKey(bytes(LENGTH))


@dataclass(frozen=True, slots=True)
class AllowedIPChange:
    """A network to add to a peer, or to take from it."""

    network: IPNetwork
    remove: bool = False


@dataclass(frozen=True, slots=True)
class PeerChange:
    """A peer to change, to make if it is not there, or to remove."""

    public_key: PublicKey
    remove: bool = False
    preshared_key: PresharedKey | None = None
    endpoint: Endpoint | None = None
    persistent_keepalive: int | None = None
    replace_allowed_ips: bool = False
    allowed_ips: tuple[AllowedIPChange, ...] = ()


@dataclass(frozen=True, slots=True)
class Changes:
    """One request: applied in order, device first."""

    private_key: PrivateKey | None = None
    listen_port: int | None = None
    fwmark: int | None = None
    replace_peers: bool = False
    peers: tuple[PeerChange, ...] = ()


def synchronizing(changes: Changes, present: InterfaceStatus) -> Changes:
    """The same end for a device that runs, but peers that stay are changed in place and keep their
    sessions.

    What a file leaves out is reset where it is set: the preshared key and the keepalive. An
    endpoint is not, since one that was learned is better than none.
    """
    if not changes.peers or not present.peers:
        return changes
    wanted = {peer.public_key for peer in changes.peers}
    gone = (
        PeerChange(peer.public_key, remove=True)
        for peer in present.peers
        if peer.public_key not in wanted
    )
    kept = _with_resets(changes.peers, {peer.public_key: peer for peer in present.peers})
    return replace(changes, replace_peers=False, peers=(*gone, *kept))


def _with_resets(
    peers: tuple[PeerChange, ...], running: dict[PublicKey, PeerStatus]
) -> Iterator[PeerChange]:
    for peer in peers:
        # A file may have a peer twice; the second time it adds to what the first has said.
        status = running.pop(peer.public_key, None)
        yield peer if status is None else _with_reset(peer, status)


def _with_reset(peer: PeerChange, status: PeerStatus) -> PeerChange:
    if peer.preshared_key is None and status.preshared_key is not None:
        peer = replace(peer, preshared_key=NO_PRESHARED_KEY)
    if peer.persistent_keepalive is None and status.persistent_keepalive:
        peer = replace(peer, persistent_keepalive=0)
    return peer
