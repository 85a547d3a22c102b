"""A tunnel as it is judged: of its file, or of the device that runs. Asks name servers, for five
seconds at most, and the device."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

from pywg import wireguard
from pywg.config import Config, IPNetwork, PeerSection, split_dns
from pywg.doctor.facts import Peer, Tunnel
from pywg.errors import UapiError
from pywg.host import netns, resolver
from pywg.host.network import Network
from pywg.host.outside import Outside
from pywg.keys import PublicKey
from pywg.plan.facts import Location
from pywg.wireguard import condition
from pywg.wireguard import socket as uapi_socket
from pywg.wireguard.status import PeerStatus

Answers = Mapping[resolver.Question, resolver.Answer]


def of_file(name: str, config: Config, location: Location) -> Tunnel:
    """One that does not run. Its ``mtu`` is that of the file; what `up` would choose is the
    plan's."""
    answers = _answers(config, location, resolver.look_up)
    peers = tuple(_of_section(peer, answers) for peer in config.peers)
    return _of_config(name, config, peers)


def of_running(
    name: str, config: Config | None, location: Location, *, is_root: bool = True
) -> Tunnel:
    """``config``: its file, as far as there is one. Raises PywgError if the device cannot be
    asked."""
    status = wireguard.get(name)
    known = {} if config is None else {peer.public_key: peer for peer in config.peers}
    answers: Answers = {}
    if config is not None:
        ask = Outside(name).asking(status.fwmark) if is_root else resolver.look_up
        answers = _answers(config, location, ask)
    troubles = _troubles(name, status.peers)
    peers = tuple(
        replace(
            _of_status(peer, known.get(peer.public_key), answers),
            trouble=troubles.get(peer.public_key, ""),
        )
        for peer in status.peers
    )
    with netns.entered(location.netns), Network() as kernel:
        mtu, addresses = kernel.mtu(name), tuple(kernel.addresses(name))
        routed = [network for network, _ in kernel.routes(name)]
    base = Tunnel(name) if config is None else _of_config(name, config, ())
    is_routed_by_us = config is not None and config.interface.table == "auto"
    return replace(
        base,
        is_up=True,
        peers=peers,
        addresses=addresses,
        listen_port=status.listen_port or None,
        mark=status.fwmark,
        mtu=mtu,
        full=base.full if is_routed_by_us else full_versions(routed),
    )


def _troubles(name: str, peers: Iterable[PeerStatus]) -> dict[PublicKey, str]:
    """What pywg's own device knows beyond what wg asks for."""
    try:
        report = uapi_socket.report(name)
    except UapiError:
        return {}
    found = condition.complaints(peers, report, int(time.time()))
    return {key: state.text for key, state in found.items()}


def _of_config(name: str, config: Config, peers: tuple[Peer, ...]) -> Tunnel:
    interface = config.interface
    networks = [allowed.network for peer in config.peers for allowed in peer.allowed_ips]
    return Tunnel(
        name,
        peers=peers,
        addresses=interface.addresses,
        dns=interface.dns_servers,
        splits_dns=split_dns.is_split(interface.dns_search),
        listen_port=interface.listen_port,
        mark=interface.fwmark or 0,
        mtu=interface.mtu,
        is_mtu_given=interface.mtu is not None,
        full=full_versions(networks) if interface.table == "auto" else frozenset(),
        has_owners=bool(interface.only or interface.excepted),
    )


def full_versions(networks: Iterable[IPNetwork]) -> frozenset[int]:
    """The IP versions of which these hold everything: a default route, or its two halves."""
    wide = {network for network in networks if network.prefixlen <= 1}
    return frozenset(
        version
        for version in (4, 6)
        if len([net for net in wide if net.version == version and net.prefixlen == 1]) == 2
        or any(net.version == version and net.prefixlen == 0 for net in wide)
    )


# ---- peers


def _of_section(peer: PeerSection, answers: Answers) -> Peer:
    found = Peer(_label(peer), peer.networks, source=str(peer.endpoint or ""))
    if peer.endpoint is None:
        return found
    if not resolver.has_to_be_asked(peer.endpoint):
        return replace(found, endpoint=peer.endpoint)
    answer = answers.get(resolver.question(peer), resolver.SILENCE)
    if isinstance(answer, OSError):
        return replace(
            found,
            problem=answer.strerror or "no address",
            is_hopeless=answer.errno in resolver.FINAL,
        )
    return replace(found, endpoint=answer[0])


def _of_status(status: PeerStatus, section: PeerSection | None, answers: Answers) -> Peer:
    """Where the device has an address, that counts, and why a name has none is still told."""
    known = section if section is not None else PeerSection(status.public_key)
    found = _of_section(known, answers)
    source = found.source if section is not None else str(status.endpoint or "")
    return replace(
        found,
        networks=tuple(status.allowed_ips),
        endpoint=status.endpoint,
        source=source,
        last_handshake_ns=status.last_handshake_ns,
        sent=status.tx_bytes,
    )


def _label(peer: PeerSection) -> str:
    return peer.name or f"peer {peer.public_key.short}"


def _answers(config: Config, location: Location, ask: resolver.LookUp) -> Answers:
    asked = [peer for peer in config.peers if resolver.has_to_be_asked(peer.endpoint)]
    questions = {resolver.question(peer): resolver.asker(peer, ask) for peer in asked}
    with netns.entered(location.socket_netns):
        return resolver.look_up_all(questions, resolver.PATIENCE_S)
