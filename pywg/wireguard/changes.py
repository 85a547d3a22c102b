"""What is to change on a running interface: the one desired state, whoever serves the interface.

``pywg up`` and ``reload``, ``Device.set``, and the verbs of `wg` all make Changes; uapi.py and
netlink.py write them, and write nothing else. Plain values: no text, no socket. None means "leave
it as it is"; a key of zeros, the mark 0, the interval 0, the device "" and no addresses mean "none
from now on". Endpoints are numeric.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from pywg.config import Config, Endpoint, IPAddress, IPNetwork, PeerSection
from pywg.keys import LENGTH, PresharedKey, PrivateKey, PublicKey
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
    """One request: applied in order, device first.

    What the UDP sockets are bound to is pywg's own; no other implementation knows it, nor does the
    kernel.
    """

    private_key: PrivateKey | None = None
    listen_port: int | None = None
    fwmark: int | None = None
    replace_peers: bool = False
    peers: tuple[PeerChange, ...] = ()
    bind_device: str | None = None
    bind_addresses: tuple[IPAddress, ...] | None = None


def of_config(config: Config) -> Changes:
    """All that a file says of the device, for a new interface: all peers are made anew.

    A peer in two sections is two changes of one peer: the second adds to what the first has said,
    but its allowed IPs replace those of the first.
    """
    interface = config.interface
    peers = (_all_of(peer, peer.networks) for peer in config.peers)
    return Changes(
        private_key=interface.private_key,
        listen_port=interface.listen_port,
        fwmark=interface.fwmark,
        replace_peers=True,
        peers=tuple(peers),
        bind_device=interface.bind_device,
        bind_addresses=interface.bind_addresses or None,
    )


def of_peer(peer: PeerSection) -> Changes:
    """All that a section says of one peer, new or not; what it leaves out is reset, but for the
    endpoint."""
    return Changes(
        peers=(
            replace(
                _all_of(peer, peer.networks),
                preshared_key=peer.preshared_key or NO_PRESHARED_KEY,
                persistent_keepalive=peer.persistent_keepalive or 0,
            ),
        )
    )


def removing(public_key: PublicKey) -> Changes:
    """One peer less."""
    return Changes(peers=(PeerChange(public_key, remove=True),))


def of_status(status: InterfaceStatus) -> Changes:
    """What makes a device be as this one was."""
    peers = (_all_of(peer, peer.allowed_ips) for peer in status.peers)
    return Changes(
        private_key=status.private_key or NO_PRIVATE_KEY,
        listen_port=status.listen_port,
        fwmark=status.fwmark,
        replace_peers=True,
        peers=tuple(peers),
        bind_device=status.bind_device,
        bind_addresses=status.bind_addresses or None,
    )


def _all_of(peer: PeerSection | PeerStatus, networks: Iterable[IPNetwork]) -> PeerChange:
    return PeerChange(
        peer.public_key,
        preshared_key=peer.preshared_key,
        endpoint=peer.endpoint,
        persistent_keepalive=peer.persistent_keepalive,
        replace_allowed_ips=True,
        allowed_ips=tuple(map(AllowedIPChange, networks)),
    )


def synchronizing(changes: Changes, present: InterfaceStatus) -> Changes:
    """The same end for a device that runs, but peers that stay are changed in place and keep their
    sessions, and what is as it is to be is left out.

    What a file leaves out is reset where it is set: the preshared key, the keepalive, and what the
    sockets are bound to. An endpoint is not, since one that was learned is better than none.
    """
    if changes.bind_device is None and present.bind_device is not None:
        changes = replace(changes, bind_device="")
    if changes.bind_addresses is None and present.bind_addresses:
        changes = replace(changes, bind_addresses=())
    if not changes.peers or not present.peers:
        return changes
    wanted = {peer.public_key for peer in changes.peers}
    gone = (
        PeerChange(peer.public_key, remove=True)
        for peer in present.peers
        if peer.public_key not in wanted
    )
    running = {peer.public_key: peer for peer in present.peers}
    kept = _with_resets(changes.peers, dict(running))
    if _each_has_its_own(changes.peers):
        kept = (peer for peer in kept if not _is_so(peer, running.get(peer.public_key)))
    return replace(changes, replace_peers=False, peers=(*gone, *kept))


def _each_has_its_own(peers: tuple[PeerChange, ...]) -> bool:
    """Whether no peer comes twice and no network is two peers': else the last of them has it, and
    none may be left out."""
    networks = [change.network for peer in peers for change in peer.allowed_ips]
    return len({peer.public_key for peer in peers}) == len(peers) and len(set(networks)) == len(
        networks
    )


def _is_so(peer: PeerChange, status: PeerStatus | None) -> bool:
    """Whether nothing would be another one."""
    return (
        status is not None
        and peer.preshared_key in (None, status.preshared_key)
        and peer.endpoint in (None, status.endpoint)
        and peer.persistent_keepalive in (None, status.persistent_keepalive)
        and peer.replace_allowed_ips
        and not any(change.remove for change in peer.allowed_ips)
        and {change.network for change in peer.allowed_ips} == set(status.allowed_ips)
    )


def _with_resets(
    peers: tuple[PeerChange, ...], running: dict[PublicKey, PeerStatus]
) -> Iterator[PeerChange]:
    """A peer in two sections is reset once, and only of what neither says."""
    with_psk = {peer.public_key for peer in peers if peer.preshared_key is not None}
    with_keepalive = {peer.public_key for peer in peers if peer.persistent_keepalive is not None}
    for peer in peers:
        status = running.pop(peer.public_key, PeerStatus(peer.public_key))
        changed = peer
        if status.preshared_key is not None and peer.public_key not in with_psk:
            changed = replace(changed, preshared_key=NO_PRESHARED_KEY)
        if status.persistent_keepalive and peer.public_key not in with_keepalive:
            changed = replace(changed, persistent_keepalive=0)
        yield changed
