"""The kernel's WireGuard interfaces, over generic netlink.

pyroute2's own WireGuard class sends one peer at a time, has no flag for replacing peers or for
taking a single allowed IP away, and writes IPv6 scopes in the wrong byte order; so the messages are
described here, with raw bytes, and only its socket is used. ``device_messages`` and ``merged`` are
plain functions from and to values; ``get``, ``change`` and ``interfaces`` do the talking.

Knows netlink, nothing of sockets in /var/run/wireguard. Attribute names are those of
linux/wireguard.h.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Network, IPv6Network
from socket import AF_INET, AF_INET6, if_nametoindex, inet_ntop, inet_pton
from typing import Any, TypeVar

from pyroute2 import IPRoute, NetlinkError
from pyroute2.netlink import (
    NLA_F_NESTED,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    genlmsg,
    nla,
)
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted
from pyroute2.netlink.generic import GenericNetlinkSocket

from pywg.config import Endpoint, IPNetwork
from pywg.errors import NetworkError
from pywg.keys import PresharedKey, PrivateKey, PublicKey
from pywg.wireguard.changes import AllowedIPChange, Changes, PeerChange
from pywg.wireguard.status import InterfaceStatus, PeerStatus

FAMILY = "wireguard"
VERSION = 1
GET_DEVICE = 0
SET_DEVICE = 1
REPLACE_PEERS = 1  # WGDEVICE_F_
REMOVE_ME = 1  # WGPEER_F_, and the same for WGALLOWEDIP_F_
REPLACE_ALLOWEDIPS = 2  # WGPEER_F_

# A message stays below what wg(8) sends at once. The sizes are upper bounds, headers included.
MESSAGE_BYTES_MAX = 8192
DEVICE_BYTES = 128
PEER_BYTES = 136
ALLOWED_IP_BYTES = 48
ALLOWED_IPS_PER_PART = 64
# A change may come in between again and again, but not for ever.
DUMP_ATTEMPTS = 8

Answer = TypeVar("Answer")
Attributes = list[list[Any]]


class _AllowedIP(nla):  # type: ignore[misc]
    prefix = "WGALLOWEDIP_A_"
    nla_flags = NLA_F_NESTED
    nla_map = (
        ("WGALLOWEDIP_A_UNSPEC", "none"),
        ("WGALLOWEDIP_A_FAMILY", "uint16"),
        ("WGALLOWEDIP_A_IPADDR", "cdata"),
        ("WGALLOWEDIP_A_CIDR_MASK", "uint8"),
        ("WGALLOWEDIP_A_FLAGS", "uint32"),
    )


class _Peer(nla):  # type: ignore[misc]
    prefix = "WGPEER_A_"
    nla_flags = NLA_F_NESTED
    nla_map = (
        ("WGPEER_A_UNSPEC", "none"),
        ("WGPEER_A_PUBLIC_KEY", "cdata"),
        ("WGPEER_A_PRESHARED_KEY", "cdata"),
        ("WGPEER_A_FLAGS", "uint32"),
        ("WGPEER_A_ENDPOINT", "cdata"),
        ("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL", "uint16"),
        ("WGPEER_A_LAST_HANDSHAKE_TIME", "cdata"),
        ("WGPEER_A_RX_BYTES", "uint64"),
        ("WGPEER_A_TX_BYTES", "uint64"),
        ("WGPEER_A_ALLOWEDIPS", "*allowed_ip"),
        ("WGPEER_A_PROTOCOL_VERSION", "uint32"),
    )
    allowed_ip = _AllowedIP


class DeviceMessage(genlmsg):  # type: ignore[misc]
    """One message of the family, either way."""

    prefix = "WGDEVICE_A_"
    nla_map = (
        ("WGDEVICE_A_UNSPEC", "none"),
        ("WGDEVICE_A_IFINDEX", "uint32"),
        ("WGDEVICE_A_IFNAME", "asciiz"),
        ("WGDEVICE_A_PRIVATE_KEY", "cdata"),
        ("WGDEVICE_A_PUBLIC_KEY", "cdata"),
        ("WGDEVICE_A_FLAGS", "uint32"),
        ("WGDEVICE_A_LISTEN_PORT", "uint16"),
        ("WGDEVICE_A_FWMARK", "uint32"),
        ("WGDEVICE_A_PEERS", "*peer"),
    )
    peer = _Peer


# ---- talking


def interfaces() -> list[str]:
    """Names of the links of kind wireguard in our network namespace."""
    return _patiently(_interfaces)


def get(name: str) -> InterfaceStatus:
    """What the interface does. The kernel shows it to CAP_NET_ADMIN only."""
    return _patiently(lambda: _get(name))


def _interfaces() -> list[str]:
    with _wrapped("ip link show type wireguard"), IPRoute() as route:
        return [
            str(link.get_attr("IFLA_IFNAME"))
            for link in route.get_links()
            if link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == FAMILY
        ]


def _get(name: str) -> InterfaceStatus:
    with _wrapped(name), _socket() as netlink:
        return merged(_exchange(netlink, GET_DEVICE, [["WGDEVICE_A_IFNAME", name]]))


def _patiently(read: Callable[[], Answer]) -> Answer:
    """A dump that a change has interrupted is begun again."""
    for _ in range(DUMP_ATTEMPTS - 1):
        try:
            return read()
        except NetworkError as error:
            if error.os_errno != errno.EINTR:
                raise
    return read()


def change(name: str, changes: Changes) -> None:
    """Message by message: an error leaves done what came before it, as with wg(8)."""
    with _wrapped(name), _socket() as netlink:
        for attributes in device_messages(name, changes):
            _exchange(netlink, SET_DEVICE, attributes)


class _Socket(GenericNetlinkSocket):  # type: ignore[misc]
    module_err_level = "debug"  # that there is no such family is told by an exception


# From 0.9 on another class does the talking, and is asked for that level. Debian has 0.7 and 0.8.
with suppress(ImportError):
    from pyroute2.netlink.generic import AsyncGenericNetlinkSocket

    class _AsyncSocket(AsyncGenericNetlinkSocket):  # type: ignore[misc]
        module_err_level = _Socket.module_err_level

    _Socket.async_class = _AsyncSocket


@contextmanager
def _socket() -> Iterator[Any]:
    with _Socket() as netlink:
        netlink.bind(FAMILY, DeviceMessage)
        yield netlink


def _exchange(netlink: Any, command: int, attributes: Attributes) -> list[Any]:
    message = DeviceMessage()
    message["cmd"] = command
    message["version"] = VERSION
    message["attrs"] = attributes
    flags = NLM_F_REQUEST | (NLM_F_DUMP if command == GET_DEVICE else NLM_F_ACK)
    return list(netlink.nlm_request(message, msg_type=netlink.prid, msg_flags=flags))


@contextmanager
def _wrapped(doing: str) -> Iterator[None]:
    """What the kernel refuses, as a NetworkError. NetlinkError is no OSError."""
    try:
        yield
    except NetlinkDumpInterrupted:
        message = f"{doing}: it changes faster than it can be read"
        raise NetworkError(message, errno.EINTR) from None
    except (NetlinkError, OSError) as error:
        code = error.code if isinstance(error, NetlinkError) else error.errno or 0
        match code:
            case errno.ENOENT:
                reason = "the kernel has no WireGuard: modprobe wireguard"
            case errno.EPERM:
                reason = "permission denied (run it with sudo)"
            case errno.EOPNOTSUPP:
                reason = "it is no WireGuard interface"
            case _:
                reason = os.strerror(code) if code else str(error)
        raise NetworkError(f"{doing}: {reason}", code) from None


# ---- Changes to messages


def device_messages(name: str, changes: Changes) -> Iterator[Attributes]:
    """The attributes of each message, in the order they are to be sent.

    Peers may be too many for one, and so may the allowed IPs of a peer: then the peer comes again,
    with nothing but more of them.
    """
    message = [["WGDEVICE_A_IFNAME", name], *_device_attributes(changes)]
    peers: list[dict[str, Attributes]] = []
    room = MESSAGE_BYTES_MAX - DEVICE_BYTES
    for part, size in _parts(changes.peers):
        if size > room:
            yield [*message, ["WGDEVICE_A_PEERS", peers]]
            message, peers = [["WGDEVICE_A_IFNAME", name]], []
            room = MESSAGE_BYTES_MAX - DEVICE_BYTES
        peers.append({"attrs": part})
        room -= size
    yield [*message, ["WGDEVICE_A_PEERS", peers]] if peers else message


def _device_attributes(changes: Changes) -> Iterator[list[Any]]:
    """Nothing of bindings: the kernel's sockets are bound to no device and to no address."""
    if changes.private_key is not None:
        yield ["WGDEVICE_A_PRIVATE_KEY", bytes(changes.private_key)]
    if changes.listen_port is not None:
        yield ["WGDEVICE_A_LISTEN_PORT", changes.listen_port]
    if changes.fwmark is not None:
        yield ["WGDEVICE_A_FWMARK", changes.fwmark]
    if changes.replace_peers:
        yield ["WGDEVICE_A_FLAGS", REPLACE_PEERS]


def _parts(peers: Iterable[PeerChange]) -> Iterator[tuple[Attributes, int]]:
    """Each peer in one or more parts, with an upper bound of its bytes."""
    for peer in peers:
        attributes = list(_peer_attributes(peer))
        allowed_ips = () if peer.remove else peer.allowed_ips
        for begin in range(0, len(allowed_ips) or 1, ALLOWED_IPS_PER_PART):
            part = allowed_ips[begin : begin + ALLOWED_IPS_PER_PART]
            if part:
                values = [{"attrs": _allowed_ip_attributes(allowed)} for allowed in part]
                attributes.append(["WGPEER_A_ALLOWEDIPS", values])
            yield attributes, PEER_BYTES + ALLOWED_IP_BYTES * len(part)
            attributes = [["WGPEER_A_PUBLIC_KEY", bytes(peer.public_key)]]


def _peer_attributes(peer: PeerChange) -> Iterator[list[Any]]:
    yield ["WGPEER_A_PUBLIC_KEY", bytes(peer.public_key)]
    if peer.remove:
        yield ["WGPEER_A_FLAGS", REMOVE_ME]
        return
    if peer.replace_allowed_ips:
        yield ["WGPEER_A_FLAGS", REPLACE_ALLOWEDIPS]
    if peer.preshared_key is not None:
        yield ["WGPEER_A_PRESHARED_KEY", bytes(peer.preshared_key)]
    if peer.endpoint is not None:
        yield ["WGPEER_A_ENDPOINT", pack_endpoint(peer.endpoint)]
    if peer.persistent_keepalive is not None:
        yield ["WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL", peer.persistent_keepalive]


def _allowed_ip_attributes(allowed: AllowedIPChange) -> Attributes:
    network = allowed.network
    attributes: Attributes = [
        ["WGALLOWEDIP_A_FAMILY", AF_INET if network.version == 4 else AF_INET6],
        ["WGALLOWEDIP_A_IPADDR", network.network_address.packed],
        ["WGALLOWEDIP_A_CIDR_MASK", network.prefixlen],
    ]
    if allowed.remove:
        attributes.append(["WGALLOWEDIP_A_FLAGS", REMOVE_ME])
    return attributes


def pack_endpoint(endpoint: Endpoint) -> bytes:
    """struct sockaddr_in or sockaddr_in6: the port in network order, family and scope in ours."""
    host, _, zone = endpoint.host.partition("%")
    if ":" not in host:
        return struct.pack("=H2s4s8x", AF_INET, _big(endpoint.port), inet_pton(AF_INET, host))
    scope = 0 if not zone else int(zone) if zone.isdigit() else if_nametoindex(zone)
    address = inet_pton(AF_INET6, host)
    return struct.pack("=H2s4x16sI", AF_INET6, _big(endpoint.port), address, scope)


def _big(port: int) -> bytes:
    return port.to_bytes(2, "big")


# ---- messages to InterfaceStatus


def merged(messages: Iterable[Any]) -> InterfaceStatus:
    """A dump. What did not fit one message goes on in the next, perhaps in the midst of a peer."""
    status = InterfaceStatus()
    for message in messages:
        private_key = message.get_attr("WGDEVICE_A_PRIVATE_KEY")
        if private_key is not None and any(private_key):
            status.private_key = PrivateKey(private_key)
        status.listen_port = message.get_attr("WGDEVICE_A_LISTEN_PORT") or status.listen_port
        status.fwmark = message.get_attr("WGDEVICE_A_FWMARK") or status.fwmark
        for part in message.get_attr("WGDEVICE_A_PEERS") or ():
            _merge_peer(status, part)
    return status


def _merge_peer(status: InterfaceStatus, part: Any) -> None:
    public_key = PublicKey(part.get_attr("WGPEER_A_PUBLIC_KEY"))
    networks = [_network(value) for value in part.get_attr("WGPEER_A_ALLOWEDIPS") or ()]
    if status.peers and status.peers[-1].public_key == public_key:
        status.peers[-1].allowed_ips += networks
        return
    status.peers.append(
        PeerStatus(
            public_key,
            preshared_key=_preshared_key(part.get_attr("WGPEER_A_PRESHARED_KEY")),
            endpoint=unpack_endpoint(part.get_attr("WGPEER_A_ENDPOINT") or b""),
            allowed_ips=networks,
            last_handshake_ns=_nanoseconds(part.get_attr("WGPEER_A_LAST_HANDSHAKE_TIME")),
            rx_bytes=part.get_attr("WGPEER_A_RX_BYTES") or 0,
            tx_bytes=part.get_attr("WGPEER_A_TX_BYTES") or 0,
            persistent_keepalive=part.get_attr("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL") or 0,
        )
    )


def _preshared_key(raw: bytes | None) -> PresharedKey | None:
    return PresharedKey(raw) if raw is not None and any(raw) else None


def _nanoseconds(timespec: bytes | None) -> int:
    """struct __kernel_timespec: two signed 64-bit numbers."""
    if timespec is None:
        return 0
    seconds, nanoseconds = struct.unpack("=qq", timespec)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def _network(value: Any) -> IPNetwork:
    packed = value.get_attr("WGALLOWEDIP_A_IPADDR")
    kind = IPv4Network if value.get_attr("WGALLOWEDIP_A_FAMILY") == AF_INET else IPv6Network
    return kind((packed, value.get_attr("WGALLOWEDIP_A_CIDR_MASK")), strict=False)


def unpack_endpoint(raw: bytes) -> Endpoint | None:
    """None for a family that is neither IPv4 nor IPv6: there is no endpoint yet."""
    family = struct.unpack_from("=H", raw)[0] if len(raw) >= 2 else 0
    if family == AF_INET and len(raw) >= 16:
        port, address = struct.unpack_from("!2xH4s", raw)
        return Endpoint(inet_ntop(AF_INET, address), port)
    if family == AF_INET6 and len(raw) >= 28:
        port, address = struct.unpack_from("!2xH4x16s", raw)
        scope = struct.unpack_from("=24xI", raw)[0]
        host = inet_ntop(AF_INET6, address)
        return Endpoint(f"{host}%{scope}" if scope else host, port)
    return None
