"""pywg show NAME FIELD: one line for each peer or interface, columns between tabs, as wg(8) prints
them for scripts. Shows secrets when a field of secrets is asked for, whatever WG_HIDE_KEYS says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pywg.keys import PresharedKey, PrivateKey, PublicKey
from pywg.wireguard.addresses import endpoint_text, network_text
from pywg.wireguard.status import InterfaceStatus, PeerStatus

Row = tuple[str, ...]


def lines(name: str, status: InterfaceStatus, field: str, *, with_name: bool) -> str:
    """All lines of a field, each with its newline; nothing where there are no peers."""
    before = (name,) if with_name else ()
    return "".join("\t".join((*before, *row)) + "\n" for row in FIELDS[field](status))


def _of_interface(
    read: Callable[[InterfaceStatus], str],
) -> Callable[[InterfaceStatus], Iterator[Row]]:
    def rows(status: InterfaceStatus) -> Iterator[Row]:
        yield (read(status),)

    return rows


def _of_peers(read: Callable[[PeerStatus], Row]) -> Callable[[InterfaceStatus], Iterator[Row]]:
    def rows(status: InterfaceStatus) -> Iterator[Row]:
        for peer in status.peers:
            yield (str(peer.public_key), *read(peer))

    return rows


def _dump(status: InterfaceStatus) -> Iterator[Row]:
    yield (
        _private_key(status),
        _public_key(status),
        str(status.listen_port),
        _fwmark(status),
    )
    for peer in status.peers:
        yield (
            str(peer.public_key),
            _key(peer.preshared_key),
            _endpoint(peer),
            _allowed_ips(peer, ","),
            _handshake(peer),
            *_transfer(peer),
            _keepalive(peer),
        )


def _key(key: PrivateKey | PublicKey | PresharedKey | None) -> str:
    return "(none)" if key is None else key.to_base64()


def _private_key(status: InterfaceStatus) -> str:
    return _key(status.private_key)


def _public_key(status: InterfaceStatus) -> str:
    return _key(status.public_key)


def _fwmark(status: InterfaceStatus) -> str:
    return f"0x{status.fwmark:x}" if status.fwmark else "off"


def _endpoint(peer: PeerStatus) -> str:
    return "(none)" if peer.endpoint is None else endpoint_text(peer.endpoint)


def _allowed_ips(peer: PeerStatus, separator: str) -> str:
    return separator.join(network_text(network) for network in peer.allowed_ips) or "(none)"


def _handshake(peer: PeerStatus) -> str:
    return str(peer.last_handshake_ns // 1_000_000_000)


def _transfer(peer: PeerStatus) -> tuple[str, str]:
    return str(peer.rx_bytes), str(peer.tx_bytes)


def _keepalive(peer: PeerStatus) -> str:
    return str(peer.persistent_keepalive or "off")


# In the order of wg's own usage line.
FIELDS: dict[str, Callable[[InterfaceStatus], Iterator[Row]]] = {
    "public-key": _of_interface(_public_key),
    "private-key": _of_interface(_private_key),
    "listen-port": _of_interface(lambda status: str(status.listen_port)),
    "fwmark": _of_interface(_fwmark),
    "peers": _of_peers(lambda peer: ()),
    "preshared-keys": _of_peers(lambda peer: (_key(peer.preshared_key),)),
    "endpoints": _of_peers(lambda peer: (_endpoint(peer),)),
    "allowed-ips": _of_peers(lambda peer: (_allowed_ips(peer, " "),)),
    "latest-handshakes": _of_peers(lambda peer: (_handshake(peer),)),
    "transfer": _of_peers(_transfer),
    "persistent-keepalive": _of_peers(lambda peer: (_keepalive(peer),)),
    "dump": _dump,
}
