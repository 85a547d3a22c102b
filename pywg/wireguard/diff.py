"""What Changes really change on a device that runs: names of fields, never a value of one.

Pure. Knows Changes and InterfaceStatus, not who carries them out.
"""

from __future__ import annotations

from dataclasses import dataclass

from pywg.keys import PresharedKey, PublicKey
from pywg.wireguard.changes import Changes, PeerChange
from pywg.wireguard.status import InterfaceStatus, PeerStatus


@dataclass(frozen=True, slots=True)
class PeerDiff:
    """A peer that stays, and what of it became another: ``fields`` has names of ``preshared_key``,
    ``endpoint``, ``persistent_keepalive``, ``allowed_ips``."""

    public_key: PublicKey
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Diff:
    """What became another. It holds public keys and names of fields, so it may be logged; an empty
    one is false.

    ``interface`` has names of ``private_key``, ``listen_port``, ``fwmark``, ``bind_device`` and
    ``bind_addresses``; ``added`` and ``removed`` are peers, ``changed`` those that stay.
    """

    interface: tuple[str, ...] = ()
    added: tuple[PublicKey, ...] = ()
    removed: tuple[PublicKey, ...] = ()
    changed: tuple[PeerDiff, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.interface or self.added or self.removed or self.changed)


def diff(changes: Changes, present: InterfaceStatus) -> Diff:
    """Of ``changes.synchronizing(...)``, seen from the device as it was before them."""
    running = {peer.public_key: peer for peer in present.peers}
    removed = [peer.public_key for peer in changes.peers if peer.remove]
    wanted: dict[PublicKey, set[str]] = {}
    for peer in changes.peers:
        if not peer.remove:  # in two sections: what either of them changes
            wanted.setdefault(peer.public_key, set()).update(
                _fields(peer, running.get(peer.public_key))
            )
    if changes.replace_peers:
        removed += [key for key in running if key not in wanted]
    return Diff(
        interface=_interface_fields(changes, present),
        added=tuple(key for key in wanted if key not in running),
        removed=tuple(key for key in removed if key in running),
        changed=tuple(
            PeerDiff(key, tuple(sorted(fields)))
            for key, fields in wanted.items()
            if fields and key in running
        ),
    )


def _interface_fields(changes: Changes, present: InterfaceStatus) -> tuple[str, ...]:
    key = changes.private_key
    names = {
        "private_key": key is not None and (None if key.is_zero() else key) != present.private_key,
        "listen_port": changes.listen_port not in (None, present.listen_port),
        "fwmark": changes.fwmark not in (None, present.fwmark),
        "bind_device": changes.bind_device is not None
        and (changes.bind_device or None) != present.bind_device,
        "bind_addresses": changes.bind_addresses is not None
        and set(changes.bind_addresses) != set(present.bind_addresses),
    }
    return tuple(name for name, is_another in names.items() if is_another)


def _fields(peer: PeerChange, status: PeerStatus | None) -> tuple[str, ...]:
    if status is None:
        return ()
    names = {
        "preshared_key": peer.preshared_key is not None
        and _none_of_zeros(peer.preshared_key) != status.preshared_key,
        "endpoint": peer.endpoint not in (None, status.endpoint),
        "persistent_keepalive": peer.persistent_keepalive
        not in (None, status.persistent_keepalive),
        "allowed_ips": _networks_change(peer, status),
    }
    return tuple(name for name, is_another in names.items() if is_another)


def _none_of_zeros(key: PresharedKey) -> PresharedKey | None:
    return None if key.is_zero() else key


def _networks_change(peer: PeerChange, status: PeerStatus) -> bool:
    before = set(status.allowed_ips)
    after = set() if peer.replace_allowed_ips else set(before)
    for change in peer.allowed_ips:
        if change.remove:
            after.discard(change.network)
        else:
            after.add(change.network)
    return after != before
