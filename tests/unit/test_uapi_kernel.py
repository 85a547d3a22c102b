"""The kernel's generic netlink: bytes as the kernel writes and reads them, put together and taken
apart here by hand. No module, no socket."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from socket import AF_INET, AF_INET6
from typing import Any

import pytest
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted, NetlinkError

from pywg import wireguard
from pywg.config import Endpoint
from pywg.errors import NetworkError, UapiError
from pywg.host import network
from pywg.keys import PresharedKey, PrivateKey, PublicKey
from pywg.wireguard import netlink as kernel_wireguard
from pywg.wireguard import socket as uapi_socket
from pywg.wireguard.changes import NO_PRESHARED_KEY, AllowedIPChange, Changes, PeerChange
from pywg.wireguard.netlink import DeviceMessage
from pywg.wireguard.status import InterfaceStatus, PeerStatus

PRIVATE = PrivateKey(bytes([8] * 31 + [72]))
PEERS = [PublicKey(bytes([number]) * 32) for number in (1, 2, 3)]
PSK = PresharedKey(bytes(range(32)))
NESTED = 0x8000

# linux/wireguard.h
(IFINDEX, IFNAME, PRIVATE_KEY, PUBLIC_KEY, FLAGS, LISTEN_PORT, FWMARK, A_PEERS) = range(1, 9)
(P_KEY, P_PSK, P_FLAGS, P_ENDPOINT, P_KEEPALIVE, P_HANDSHAKE, P_RX, P_TX, P_ALLOWED) = range(1, 10)
(I_FAMILY, I_ADDRESS, I_LENGTH, I_FLAGS) = range(1, 5)


def attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def nest(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | NESTED, b"".join(parts))


def message(*parts: bytes) -> bytes:
    """netlink header, generic netlink header, attributes"""
    body = struct.pack("=BBH", 0, 1, 0) + b"".join(parts)
    return struct.pack("=IHHII", 16 + len(body), 30, 2, 1, 1) + body


def allowed(text: str) -> bytes:
    network = ip_network(text)
    family = AF_INET if network.version == 4 else AF_INET6
    return nest(
        0,
        attribute(I_FAMILY, struct.pack("=H", family)),
        attribute(I_ADDRESS, network.network_address.packed),
        attribute(I_LENGTH, bytes([network.prefixlen])),
    )


def decoded(*messages: bytes) -> InterfaceStatus:
    found = []
    for data in messages:
        made = kernel_wireguard.DeviceMessage(data)
        made.decode()
        found.append(made)
    return kernel_wireguard.merged(found)


def attributes(data: bytes) -> list[tuple[int, bytes]]:
    """[(type, payload)] of bytes the kernel would be given"""
    found = []
    while data:
        length, kind = struct.unpack_from("=HH", data)
        assert length >= 4
        found.append((kind & 0x3FFF, data[4:length]))
        data = data[length + (-length % 4) :]
    return found


def sent(
    changes: Changes, name: str = "wg0"
) -> list[tuple[dict[int, bytes], list[dict[int, Any]]]]:
    """What each message says, by attribute number; peers and allowed IPs are lists."""
    answer = []
    for wanted in kernel_wireguard.device_messages(name, changes):
        made = kernel_wireguard.DeviceMessage()
        made["attrs"] = wanted
        made.encode()
        assert len(made.data) <= kernel_wireguard.MESSAGE_BYTES_MAX
        device = dict(attributes(bytes(made.data[20:])))
        assert device.pop(IFNAME) == name.encode() + b"\0"
        peers = []
        for _, raw in attributes(device.pop(A_PEERS, b"")):
            peer: dict[int, Any] = dict(attributes(raw))
            networks = attributes(peer.pop(P_ALLOWED, b""))
            peer[P_ALLOWED] = [dict(attributes(network)) for _, network in networks]
            peers.append(peer)
        answer.append((device, peers))
    return answer


# ---- get


def test_a_dump_becomes_a_status() -> None:
    status = decoded(
        message(
            attribute(IFINDEX, struct.pack("=I", 7)),
            attribute(IFNAME, b"wg0\0"),
            attribute(PRIVATE_KEY, bytes(PRIVATE)),
            attribute(PUBLIC_KEY, bytes(PRIVATE.public)),
            attribute(LISTEN_PORT, struct.pack("=H", 51820)),
            attribute(FWMARK, struct.pack("=I", 0xCA6C)),
            nest(
                A_PEERS,
                nest(
                    0,
                    attribute(P_KEY, bytes(PEERS[0])),
                    attribute(P_PSK, bytes(PSK)),
                    attribute(P_HANDSHAKE, struct.pack("=qq", 1_700_000_000, 5)),
                    attribute(P_KEEPALIVE, struct.pack("=H", 25)),
                    attribute(P_TX, struct.pack("=Q", 1 << 40)),
                    attribute(P_RX, struct.pack("=Q", 2)),
                    attribute(10, struct.pack("=I", 1)),
                    attribute(
                        P_ENDPOINT,
                        struct.pack("=H", AF_INET) + b"\x00\x05\x01\x02\x03\x04" + bytes(8),
                    ),
                    nest(P_ALLOWED, allowed("10.0.0.0/8"), allowed("fd00::/8")),
                ),
                nest(
                    0,
                    attribute(P_KEY, bytes(PEERS[1])),
                    attribute(P_PSK, bytes(32)),
                    attribute(P_HANDSHAKE, bytes(16)),
                    attribute(
                        P_ENDPOINT,
                        struct.pack("=H", AF_INET6)
                        + b"\xff\xff"
                        + b"\0\0\0\0"
                        + ip_address("fe80::1").packed
                        + struct.pack("=I", 3),
                    ),
                ),
            ),
        )
    )
    assert status.private_key == PRIVATE
    assert (status.listen_port, status.fwmark) == (51820, 0xCA6C)
    first, second = status.peers
    assert first == PeerStatus(
        PEERS[0],
        preshared_key=PSK,
        endpoint=Endpoint("1.2.3.4", 5),
        allowed_ips=[ip_network("10.0.0.0/8"), ip_network("fd00::/8")],
        last_handshake_ns=1_700_000_000_000_000_005,
        rx_bytes=2,
        tx_bytes=1 << 40,
        persistent_keepalive=25,
    )
    assert second == PeerStatus(PEERS[1], endpoint=Endpoint("fe80::1%3", 65535))


def test_a_device_without_anything() -> None:
    assert decoded(message(attribute(IFNAME, b"wg0\0"))) == InterfaceStatus()


def test_a_peer_goes_on_in_the_next_message() -> None:
    first = message(
        attribute(IFNAME, b"wg0\0"),
        attribute(LISTEN_PORT, struct.pack("=H", 7)),
        nest(
            A_PEERS,
            nest(0, attribute(P_KEY, bytes(PEERS[0])), nest(P_ALLOWED, allowed("10.0.0.0/8"))),
            nest(
                0,
                attribute(P_KEY, bytes(PEERS[1])),
                attribute(P_RX, struct.pack("=Q", 9)),
                nest(P_ALLOWED, allowed("10.1.0.0/16")),
            ),
        ),
    )
    second, third = (
        message(
            attribute(IFNAME, b"wg0\0"),
            nest(
                A_PEERS,
                nest(0, attribute(P_KEY, bytes(PEERS[1])), nest(P_ALLOWED, allowed(network))),
                *more,
            ),
        )
        for network, more in (
            ("10.2.0.0/16", ()),
            ("10.3.0.0/16", [nest(0, attribute(P_KEY, bytes(PEERS[2])))]),
        )
    )
    status = decoded(first, second, third)
    assert status.listen_port == 7
    assert [peer.public_key for peer in status.peers] == PEERS
    assert [str(network) for network in status.peers[1].allowed_ips] == [
        "10.1.0.0/16",
        "10.2.0.0/16",
        "10.3.0.0/16",
    ]
    assert status.peers[1].rx_bytes == 9


@pytest.mark.parametrize("raw", [b"", b"\0", bytes(16), struct.pack("=H", AF_INET6) + bytes(14)])
def test_what_is_no_endpoint(raw: bytes) -> None:
    assert kernel_wireguard.unpack_endpoint(raw) is None


# ---- set


def test_changes_become_attributes() -> None:
    changes = Changes(
        private_key=PRIVATE,
        listen_port=51820,
        fwmark=0xCA6C,
        replace_peers=True,
        peers=(
            PeerChange(PEERS[0], remove=True, allowed_ips=(AllowedIPChange(ip_network("::/0")),)),
            PeerChange(
                PEERS[1],
                preshared_key=NO_PRESHARED_KEY,
                endpoint=Endpoint("fe80::1%3", 5),
                persistent_keepalive=0,
                replace_allowed_ips=True,
                allowed_ips=(AllowedIPChange(ip_network("10.0.0.0/8")),),
            ),
            PeerChange(
                PEERS[2],
                endpoint=Endpoint("1.2.3.4", 65535),
                allowed_ips=(AllowedIPChange(ip_network("fd00::/8"), remove=True),),
            ),
        ),
    )
    [(device, peers)] = sent(changes)
    assert device == {
        PRIVATE_KEY: bytes(PRIVATE),
        LISTEN_PORT: struct.pack("=H", 51820),
        FWMARK: struct.pack("=I", 0xCA6C),
        FLAGS: struct.pack("=I", 1),
    }
    scoped = b"\x00\x05" + bytes(4) + ip_address("fe80::1").packed + struct.pack("=I", 3)
    one, two = struct.pack("=I", 1), struct.pack("=I", 2)
    assert peers == [
        {P_KEY: bytes(PEERS[0]), P_FLAGS: one, P_ALLOWED: []},
        {
            P_KEY: bytes(PEERS[1]),
            P_PSK: bytes(32),
            P_FLAGS: two,
            P_ENDPOINT: struct.pack("=H", AF_INET6) + scoped,
            P_KEEPALIVE: b"\0\0",
            P_ALLOWED: [
                {I_FAMILY: struct.pack("=H", AF_INET), I_ADDRESS: b"\x0a\0\0\0", I_LENGTH: b"\x08"}
            ],
        },
        {
            P_KEY: bytes(PEERS[2]),
            P_ENDPOINT: struct.pack("=H", AF_INET) + b"\xff\xff\x01\x02\x03\x04" + bytes(8),
            P_ALLOWED: [
                {
                    I_FAMILY: struct.pack("=H", AF_INET6),
                    I_ADDRESS: ip_address("fd00::").packed,
                    I_LENGTH: b"\x08",
                    I_FLAGS: one,
                }
            ],
        },
    ]


def test_no_changes_are_one_message() -> None:
    assert sent(Changes()) == [({}, [])]


def test_what_is_too_much_for_one_message_goes_on_without_flags() -> None:
    networks = [ip_network(f"fd00:{number:x}::/32") for number in range(1000)]
    changes = Changes(
        fwmark=1,
        replace_peers=True,
        peers=tuple(
            PeerChange(
                key,
                preshared_key=PSK,
                replace_allowed_ips=True,
                allowed_ips=tuple(map(AllowedIPChange, networks)),
            )
            for key in PEERS
        ),
    )
    messages = sent(changes)
    assert len(messages) > 10
    assert messages[0][0] == {FWMARK: struct.pack("=I", 1), FLAGS: struct.pack("=I", 1)}
    assert all(device == {} for device, _ in messages[1:])
    seen: dict[bytes, list[bytes]] = {}
    for peer in (peer for _, peers in messages for peer in peers):
        if peer[P_KEY] not in seen:
            assert set(peer) == {P_KEY, P_PSK, P_FLAGS, P_ALLOWED}
            seen[peer[P_KEY]] = []
        else:
            assert set(peer) == {P_KEY, P_ALLOWED}
        seen[peer[P_KEY]] += [network[I_ADDRESS] for network in peer[P_ALLOWED]]
    packed = [network.network_address.packed for network in networks]
    assert seen == {bytes(key): packed for key in PEERS}


def test_what_is_sent_comes_back() -> None:
    peers = tuple(
        PeerChange(
            key,
            preshared_key=PSK,
            endpoint=Endpoint("2001:db8::1", 5),
            persistent_keepalive=25,
            allowed_ips=(AllowedIPChange(ip_network("10.0.0.0/8")),),
        )
        for key in PEERS
    )
    made = kernel_wireguard.DeviceMessage()
    [made["attrs"]] = kernel_wireguard.device_messages("wg0", Changes(PRIVATE, 1, 2, peers=peers))
    made.encode()
    status = decoded(bytes(made.data))
    assert (status.private_key, status.listen_port, status.fwmark) == (PRIVATE, 1, 2)
    assert [peer.endpoint for peer in status.peers] == [Endpoint("2001:db8::1", 5)] * 3
    assert [peer.preshared_key for peer in status.peers] == [PSK] * 3


# ---- errors, and who is asked


@pytest.fixture
def netlink(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A list of what the next exchanges give: messages, or an error to raise."""
    answers: list[list[Any] | Exception] = []

    class Socket:
        prid = 30

        def nlm_request(self, message: DeviceMessage, msg_type: int, msg_flags: int) -> list[Any]:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

    @contextmanager
    def opened() -> Iterator[Any]:
        yield Socket()

    monkeypatch.setattr(kernel_wireguard, "_socket", opened)
    return answers


def test_a_dump_that_was_interrupted_is_begun_again(netlink: list[Any]) -> None:
    netlink += [NetlinkDumpInterrupted()] * 3 + [[]]
    assert kernel_wireguard.get("wg0") == InterfaceStatus()
    netlink += [NetlinkDumpInterrupted()] * 20
    with pytest.raises(NetworkError, match="wg0: it changes faster"):
        kernel_wireguard.get("wg0")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOENT, "wg0: the kernel has no WireGuard: modprobe wireguard"),
        (errno.EPERM, r"wg0: permission denied \(run it with sudo\)"),
        (errno.EOPNOTSUPP, "wg0: it is no WireGuard interface"),
        (errno.EADDRINUSE, "wg0: Address already in use"),
    ],
)
def test_what_the_kernel_refuses_is_a_network_error(
    netlink: list[Any], code: int, message: str
) -> None:
    for call in (
        lambda: kernel_wireguard.get("wg0"),
        lambda: kernel_wireguard.change("wg0", Changes()),
    ):
        netlink.append(NetlinkError(code))
        with pytest.raises(NetworkError, match=message) as caught:
            call()
        assert caught.value.os_errno == code


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[list[str], UapiError]:
    """Who was asked; no socket answers, the kernel has its module, and there is a link wg0."""
    calls: list[str] = []
    nobody = UapiError("nobody listens", errno.ENOENT)

    def refuse(name: str, *more: Changes) -> None:
        calls.append("socket")
        raise nobody

    def answer(name: str) -> InterfaceStatus:
        calls.append("kernel")
        return InterfaceStatus()

    monkeypatch.setattr(uapi_socket, "interfaces", lambda: ["go0"])
    monkeypatch.setattr(uapi_socket, "get", refuse)
    monkeypatch.setattr(uapi_socket, "fwmark", refuse)
    monkeypatch.setattr(uapi_socket, "change", refuse)
    monkeypatch.setattr(kernel_wireguard, "interfaces", lambda: ["wg0"])
    monkeypatch.setattr(kernel_wireguard, "get", answer)
    monkeypatch.setattr(kernel_wireguard, "change", lambda name, _: calls.append("kernel"))
    monkeypatch.setattr(wireguard, "KERNEL_MODULE", tmp_path)
    monkeypatch.setattr(network, "exists", lambda name: name == "wg0")
    calls.clear()
    return calls, nobody


def test_the_kernel_is_asked_where_no_socket_answers(asked: tuple[list[str], UapiError]) -> None:
    calls, nobody = asked
    assert wireguard.interfaces() == ["wg0", "go0"]
    wireguard.get("wg0")
    wireguard.fwmark("wg0")
    wireguard.change("wg0", Changes())
    assert calls == ["socket", "kernel"] * 3
    with pytest.raises(UapiError, match="nobody listens"):
        wireguard.get("wg1")
    nobody.os_errno = errno.EACCES
    with pytest.raises(UapiError):
        wireguard.get("wg0")


def test_the_kernel_is_not_asked_where_it_has_no_wireguard(
    asked: tuple[list[str], UapiError], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls, _ = asked
    monkeypatch.setattr(wireguard, "KERNEL_MODULE", tmp_path / "none")
    assert wireguard.interfaces() == ["go0"]
    with pytest.raises(UapiError):
        wireguard.change("wg0", Changes())
    assert calls == ["socket"]


@pytest.mark.skipif(wireguard.KERNEL_MODULE.exists(), reason="the kernel has WireGuard")
def test_a_kernel_without_wireguard_is_told_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NetworkError, match="the kernel has no WireGuard"):
        kernel_wireguard.get("wg0")
    assert capfd.readouterr() == ("", "")
