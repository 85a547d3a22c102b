"""The text of the cross-platform userspace protocol: Changes to `set`, `get` to InterfaceStatus,
`pywg_get` to Report.

Pure: knows the text, neither the socket it goes through nor the device behind that.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from pywg.config import Endpoint
from pywg.config.values import network, shown_host
from pywg.errors import KeyFormatError, UapiError
from pywg.keys import PresharedKey, PrivateKey, PublicKey
from pywg.wireguard.addresses import network_text
from pywg.wireguard.changes import Changes, PeerChange
from pywg.wireguard.status import InterfaceStatus, Notice, PeerStatus, PeerTrace, Report

# Keys of pywg's own. Another implementation refuses them, so they are written only where asked for.
BIND_DEVICE, BIND_ADDRESS = "pywg_bind_device", "pywg_bind_address"

# ---- set


def changes_text(changes: Changes) -> str:
    """What carries these changes out: `set` without ``set=1`` and the final empty line.

    Raises UapiError for an endpoint that is still a name. A zone is written as it is given: it may
    be one of another network namespace than ours.
    """
    return "".join(f"{line}\n" for line in _change_lines(changes))


def _change_lines(changes: Changes) -> Iterator[str]:
    if changes.private_key is not None:
        yield f"private_key={changes.private_key.to_hex()}"
    if changes.listen_port is not None:
        yield f"listen_port={changes.listen_port}"
    if changes.fwmark is not None:
        yield f"fwmark={changes.fwmark}"
    if changes.bind_device is not None:
        yield f"{BIND_DEVICE}={changes.bind_device}"
    if changes.bind_addresses is not None:
        yield f"{BIND_ADDRESS}="  # of these each line adds one
        yield from (f"{BIND_ADDRESS}={address}" for address in changes.bind_addresses)
    if changes.replace_peers:
        yield "replace_peers=true"
    for peer in changes.peers:
        yield from _peer_change_lines(peer)


def _peer_change_lines(peer: PeerChange) -> Iterator[str]:
    yield f"public_key={peer.public_key.to_hex()}"
    if peer.remove:
        yield "remove=true"
        return
    if peer.preshared_key is not None:
        yield f"preshared_key={peer.preshared_key.to_hex()}"
    if peer.endpoint is not None:
        if peer.endpoint.address() is None:
            host = shown_host(peer.endpoint.host)
            raise UapiError(f"{host} has not been resolved: pywg.resolve(config) looks names up")
        yield f"endpoint={peer.endpoint}"
    if peer.persistent_keepalive is not None:
        yield f"persistent_keepalive_interval={peer.persistent_keepalive}"
    if peer.replace_allowed_ips:
        yield "replace_allowed_ips=true"
    for allowed in peer.allowed_ips:
        yield f"allowed_ip={'-' if allowed.remove else ''}{network_text(allowed.network)}"


# ---- get


def parse_get(text: str) -> InterfaceStatus:
    """The answer of `get`, with or without its errno line. Unknown keys are skipped."""
    status = InterfaceStatus()
    for number, line in enumerate(text.splitlines(), start=1):
        key, separator, value = line.partition("=")
        if not line:
            continue
        if not separator:
            raise UapiError(f"line {number} of the answer is not key=value")
        try:
            _read_line(status, key, value)
        except (ValueError, IndexError, KeyFormatError):
            # The value may be a key: name the line, not its content.
            raise UapiError(f"line {number} of the answer: bad value for {key}") from None
    return status


def of_device(text: str) -> str:
    """What an answer says of the device itself, which comes before its peers."""
    return text.partition("public_key=")[0]


def _read_line(status: InterfaceStatus, key: str, value: str) -> None:
    match key:
        case "private_key":
            private_key = PrivateKey.from_hex(value)
            status.private_key = None if private_key.is_zero() else private_key
        case "listen_port":
            status.listen_port = int(value)
        case "fwmark":
            status.fwmark = int(value)
        case "public_key":
            status.peers.append(PeerStatus(PublicKey.from_hex(value)))
        case _:
            if status.peers:
                _read_peer_line(status.peers[-1], key, value)


def _read_peer_line(peer: PeerStatus, key: str, value: str) -> None:
    match key:
        case "preshared_key":
            preshared_key = PresharedKey.from_hex(value)
            peer.preshared_key = None if preshared_key.is_zero() else preshared_key
        case "endpoint":
            host, _, port = value.rpartition(":")
            peer.endpoint = Endpoint(host.removeprefix("[").removesuffix("]"), int(port))
        case "last_handshake_time_sec":
            peer.last_handshake_ns += int(value) * 1_000_000_000
        case "last_handshake_time_nsec":
            peer.last_handshake_ns += int(value)
        case "rx_bytes":
            peer.rx_bytes = int(value)
        case "tx_bytes":
            peer.tx_bytes = int(value)
        case "persistent_keepalive_interval":
            peer.persistent_keepalive = int(value)
        case "allowed_ip":
            peer.allowed_ips.append(network(value))
        case _:
            pass


# ---- report: pywg's own question


def parse_report(text: str) -> Report:
    report = Report()
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key.startswith("offload_"):
            report.offloads[key.removeprefix("offload_")] = value
        elif key.startswith("dropped_") and value.isdigit():
            report.dropped[key.removeprefix("dropped_")] = int(value)
        elif key == "gso_refused":
            report.gso_refused.append(value)
        elif key == "gso_lost":
            report.gso_lost.append(value)
        elif key == "cipher":
            report.cipher = value
        elif key in ("peer", "notice"):
            try:
                _read_told(report, key, value)
            except (ValueError, KeyError, KeyFormatError):
                raise UapiError(f"the report: bad value for {key}") from None
        elif key and key != "errno":
            before = report.other.get(key)  # such as an address to bind to of each family
            report.other[key] = value if before is None else f"{before}, {value}"
    return report


def _read_told(report: Report, key: str, value: str) -> None:
    if key == "notice":
        report.notices.append(_read_notice(value))
        return
    public_key, trace = _read_trace(value)
    report.peers[public_key] = trace


def _read_trace(text: str) -> tuple[PublicKey, PeerTrace]:
    """`KEY endpoint=1 session=0 asked=3 ...`; words that are not known here are skipped."""
    public_key, *words = text.split(" ")
    values = dict(word.split("=", 1) for word in words)
    numbers = {name: int(value) for name, value in values.items() if value.isdigit()}
    return PublicKey.from_hex(public_key), PeerTrace(
        has_endpoint=values.get("endpoint") == "1",
        has_session=values.get("session") == "1",
        asked=numbers.get("asked", 0),
        answered=numbers.get("answered", 0),
        asked_for_ms=numbers.get("asked_for_ms", 0),
        refused=values.get("refused", ""),
        heard_ms_ago=numbers.get("heard_ms_ago"),
        unanswered_ms=numbers.get("unanswered_ms", 0),
        is_silent=values.get("silent") == "1",
        dropped={
            name.removeprefix("dropped_"): number
            for name, number in numbers.items()
            if name.startswith("dropped_")
        },
    )


def _read_notice(text: str) -> Notice:
    kind, *words = text.split(" ")
    values = dict(word.split("=", 1) for word in words)
    return Notice(
        kind=kind,
        count=int(values["count"]),
        first_ms_ago=int(values["first_ms_ago"]),
        last_ms_ago=int(values["last_ms_ago"]),
        key=PublicKey.from_hex(values["key"]) if "key" in values else None,
        remote=values.get("remote", ""),
        address=values.get("address", ""),
        mtu=int(values.get("mtu", "0")),
    )


def add_bindings(status: InterfaceStatus, report: Report) -> InterfaceStatus:
    """The same status, which now also has what the sockets are bound to."""
    addresses = report.other.get(BIND_ADDRESS, "").split(", ")
    status.bind_device = report.other.get(BIND_DEVICE) or None
    status.bind_addresses = tuple(ip_address(address) for address in addresses if address)
    return status
