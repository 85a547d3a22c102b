"""UAPI: text out, text in, and a client against a server made of a list."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pywg.config import Endpoint, parse
from pywg.config.model import Config
from pywg.errors import ConfigError, UapiError
from pywg.host import resolver as resolve
from pywg.keys import PrivateKey, PublicKey
from pywg.wireguard import socket as uapi_socket
from pywg.wireguard import uapi
from pywg.wireguard.changes import of_config, of_status, synchronizing
from pywg.wireguard.status import InterfaceStatus

KEY = PrivateKey(bytes([8] * 31 + [72]))
PEER = PublicKey(bytes(range(32)))
PSK = bytes(range(32, 64))


def config(peer_lines: str = "", interface_lines: str = "") -> Config:
    return parse(
        f"[Interface]\nPrivateKey={KEY.to_base64()}\n{interface_lines}\n"
        f"[Peer]\nPublicKey={PEER}\n{peer_lines}"
    )


def set_text(config: Config, present: InterfaceStatus | None = None) -> str:
    """What is sent to a new device, or to one that runs."""
    wanted = of_config(config)
    return uapi.changes_text(wanted if present is None else synchronizing(wanted, present))


def test_set_text_has_device_keys_first_and_replaces_peers() -> None:
    text = set_text(
        config(
            "Endpoint=[2001:db8::1]:5\nAllowedIPs=10.0.0.0/8,::/0\nPersistentKeepalive=25",
            "ListenPort=7\nFwMark=0x10\nAddress=10.0.0.1/24\nMTU=1400",
        )
    )
    assert text == (
        f"private_key={KEY.to_hex()}\n"
        "listen_port=7\n"
        "fwmark=16\n"
        "replace_peers=true\n"
        f"public_key={PEER.to_hex()}\n"
        "endpoint=[2001:db8::1]:5\n"
        "persistent_keepalive_interval=25\n"
        "replace_allowed_ips=true\n"
        "allowed_ip=10.0.0.0/8\n"
        "allowed_ip=::/0\n"
    )


def test_set_text_changes_present_peers_in_place_and_removes_the_others() -> None:
    other = PrivateKey.generate().public
    present = uapi.parse_get(
        f"public_key={PEER.to_hex()}\npreshared_key={PSK.hex()}\npersistent_keepalive_interval=5\n"
        f"public_key={other.to_hex()}\nerrno=0\n"
    )
    assert set_text(config("AllowedIPs=10.0.0.0/8"), present) == (
        f"private_key={KEY.to_hex()}\n"
        f"public_key={other.to_hex()}\n"
        "remove=true\n"
        f"public_key={PEER.to_hex()}\n"
        f"preshared_key={'0' * 64}\n"
        "persistent_keepalive_interval=0\n"
        "replace_allowed_ips=true\n"
        "allowed_ip=10.0.0.0/8\n"
    )


def test_set_text_leaves_out_what_the_file_leaves_out() -> None:
    assert set_text(parse("")) == "replace_peers=true\n"
    assert "listen_port" not in set_text(config())


def test_set_text_wants_numeric_endpoints() -> None:
    with pytest.raises(UapiError, match=r"example\.com has not been resolved: pywg\.resolve"):
        set_text(config("Endpoint=example.com:5"))


GET = f"""\
private_key={KEY.to_hex()}
listen_port=51820
fwmark=51820
public_key={PEER.to_hex()}
preshared_key={PSK.hex()}
protocol_version=1
endpoint=[fe80::1%3]:5
last_handshake_time_sec=1700000000
last_handshake_time_nsec=5
tx_bytes=4294967296
rx_bytes=2
persistent_keepalive_interval=25
allowed_ip=10.0.0.0/8
allowed_ip=fd00::/8
something_new=1
public_key={KEY.public.to_hex()}
preshared_key={"0" * 64}
endpoint=1.2.3.4:5
errno=0

"""


def test_get_text_becomes_a_status() -> None:
    status = uapi.parse_get(GET)
    assert status.private_key == KEY
    assert status.public_key == KEY.public
    assert (status.listen_port, status.fwmark) == (51820, 51820)
    first, second = status.peers
    assert first.public_key == PEER
    assert first.preshared_key is not None
    assert bytes(first.preshared_key) == PSK
    assert first.endpoint == Endpoint("fe80::1%3", 5)
    assert first.last_handshake_ns == 1_700_000_000_000_000_005
    assert (first.tx_bytes, first.rx_bytes) == (1 << 32, 2)
    assert [str(network) for network in first.allowed_ips] == ["10.0.0.0/8", "fd00::/8"]
    assert second.preshared_key is None
    assert second.endpoint == Endpoint("1.2.3.4", 5)
    assert second.last_handshake_ns == 0


def test_repr_of_a_status_hides_secrets() -> None:
    assert KEY.to_hex() not in repr(uapi.parse_get(GET))


@pytest.mark.parametrize(
    "text",
    ["nonsense", "private_key=zz", "listen_port=x", f"public_key={PEER.to_hex()}\nrx_bytes="],
)
def test_a_bad_answer_is_an_error_without_its_value(text: str) -> None:
    with pytest.raises(UapiError) as caught:
        uapi.parse_get(text)
    assert "zz" not in str(caught.value)


def test_report_text_becomes_a_report() -> None:
    report = uapi.parse_report(
        "offload_tun_tso=active\noffload_udp_gso=stepped_down EIO\ngso_refused=1.2.3.4:5\n"
        "gso_lost=1.2.3.5:6\ngso_lost=[2001:db8::1]:7\ndropped_no_peer=3\ncipher=x86-64-v3\nlater=1\nerrno=0\n\n"
    )
    assert report.offloads == {"tun_tso": "active", "udp_gso": "stepped_down EIO"}
    assert report.gso_refused == ["1.2.3.4:5"]
    assert report.gso_lost == ["1.2.3.5:6", "[2001:db8::1]:7"]
    assert report.dropped == {"no_peer": 3}
    assert report.cipher == "x86-64-v3"
    assert report.other == {"later": "1"}


# ---- the client


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[bytes]]]:
    """serve(name, answer): a socket that gives one answer to anything; returns what it heard."""
    monkeypatch.setattr(uapi_socket, "SOCKET_DIRECTORY", tmp_path)
    threads, servers = [], []

    def start(name: str, answer: bytes) -> list[bytes]:
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(tmp_path / f"{name}.sock"))
        server.listen()
        heard = []

        def body() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    data = client.recv(4096)
                    if data:
                        heard.append(data)
                        for byte in range(0, len(answer), 7):  # in pieces
                            client.sendall(answer[byte : byte + 7])

        thread = threading.Thread(target=body)
        thread.start()
        threads.append(thread)
        servers.append(server)
        return heard

    yield start
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
    for thread in threads:
        thread.join()


def test_get_asks_and_reads_to_the_empty_line(serve: Callable[..., list[bytes]]) -> None:
    heard = serve("wg0", GET.encode())
    assert uapi_socket.get("wg0") == uapi.parse_get(GET)
    assert heard == [b"get=1\n\n"]


def test_report_asks_pywgs_own_question(serve: Callable[..., list[bytes]]) -> None:
    heard = serve("wg0", b"cipher=neon\nerrno=0\n\n")
    assert uapi_socket.report("wg0").cipher == "neon"
    assert heard == [b"pywg_get=1\n\n"]


@pytest.mark.parametrize("number", [errno.EINVAL, -errno.EINVAL])
def test_an_errno_of_either_sign_is_raised(serve: Callable[..., list[bytes]], number: int) -> None:
    serve("wg0", f"errno={number}\n\n".encode())
    with pytest.raises(UapiError, match="Invalid argument") as caught:
        uapi_socket.request("wg0", "set=1\n\n")
    assert caught.value.os_errno == errno.EINVAL


@pytest.mark.parametrize("answer", [b"\n\n", b"fwmark=1\n\n", b"errno=x\n\n"])
def test_an_answer_without_errno_is_raised(
    serve: Callable[..., list[bytes]], answer: bytes
) -> None:
    serve("wg0", answer)
    with pytest.raises(UapiError, match=r"errno="):
        uapi_socket.request("wg0", "get=1\n\n")


def test_a_device_that_hangs_up_is_told_apart(serve: Callable[..., list[bytes]]) -> None:
    serve("wg0", b"")
    with pytest.raises(UapiError, match="hung up"):
        uapi_socket.report("wg0")


def test_interfaces_are_those_somebody_listens_for(
    serve: Callable[..., list[bytes]], tmp_path: Path
) -> None:
    serve("wg1", b"")
    serve("wg0", b"")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "old.sock"))
    (tmp_path / "file.sock").touch()
    assert sorted(uapi_socket.interfaces()) == ["wg0", "wg1"]
    assert uapi_socket.is_alive("wg0")
    assert not uapi_socket.is_alive("old")
    with pytest.raises(UapiError, match="no userspace WireGuard interface"):
        uapi_socket.get("old")
    with pytest.raises(UapiError, match="no userspace WireGuard interface"):
        uapi_socket.get("none")


# ---- endpoint names


def test_numeric_endpoints_need_no_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", None)
    numeric = config("Endpoint=1.2.3.4:5")
    assert resolve.resolve(numeric) == numeric


def test_a_name_is_tried_again_with_growing_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [socket.gaierror(socket.EAI_AGAIN, "later")] * 3
    pauses: list[float] = []

    def getaddrinfo(host: str, port: int, **ignored: int) -> list[Any]:
        if answers:
            raise answers.pop()
        return [(socket.AF_INET6, 0, 0, "", ("fe80::1%eth0", port, 0, 2))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    resolved = resolve.resolve(config("Endpoint=example.com:5"), pauses.append)
    assert resolved.peers[0].endpoint == Endpoint("fe80::1%2", 5)
    assert pauses == pytest.approx([1, 1.2, 1.44])


@pytest.mark.parametrize(
    ("code", "retries", "pauses"),
    [
        (socket.EAI_NONAME, "15", 0),
        (socket.EAI_AGAIN, "0", 0),
        (socket.EAI_AGAIN, "2", 2),
        (socket.EAI_AGAIN, "", 15),
    ],
)
def test_resolution_gives_up_with_the_line(
    monkeypatch: pytest.MonkeyPatch, code: int, retries: str, pauses: int
) -> None:
    def getaddrinfo(host: str, port: int, **ignored: int) -> list[Any]:
        raise socket.gaierror(code, "no")

    slept: list[float] = []
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setenv("WG_ENDPOINT_RESOLUTION_RETRIES", retries)
    with pytest.raises(ConfigError, match=r"cannot resolve example\.com") as caught:
        resolve.resolve(config("Endpoint=example.com:5"), slept.append)
    assert caught.value.line == 6
    assert len(slept) == pauses


def test_a_device_with_more_callers_than_it_listens_for_is_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uapi_socket, "SOCKET_DIRECTORY", tmp_path)
    with socket.socket(socket.AF_UNIX) as server, contextlib.ExitStack() as stack:
        server.bind(str(tmp_path / "wg0.sock"))
        server.listen(0)
        for _ in range(4):
            caller = stack.enter_context(socket.socket(socket.AF_UNIX))
            caller.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                caller.connect(str(tmp_path / "wg0.sock"))
        assert uapi_socket.is_alive("wg0")


def test_a_socket_path_that_is_too_long_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uapi_socket, "SOCKET_DIRECTORY", tmp_path / ("x" * 120))
    with pytest.raises(UapiError, match="too long"):
        uapi_socket.get("wg0")


def test_where_to_bind_is_said_only_where_it_is_asked_for() -> None:
    text = "[Interface]\n#!pywg BindDevice = eth0\n#!pywg BindAddress = 192.0.2.1, 2001:db8::1\n"
    assert set_text(parse(text)).splitlines() == [
        "pywg_bind_device=eth0",
        "pywg_bind_address=",
        "pywg_bind_address=192.0.2.1",
        "pywg_bind_address=2001:db8::1",
        "replace_peers=true",
    ]
    assert "bind" not in set_text(parse("[Interface]\n"))


def test_a_report_keeps_what_comes_twice() -> None:
    report = uapi.parse_report("pywg_bind_address=192.0.2.1\npywg_bind_address=::1\n")
    assert report.other == {"pywg_bind_address": "192.0.2.1, ::1"}


BOUND = "pywg_bind_device=eth0\npywg_bind_address=192.0.2.1\npywg_bind_address=::1\n"


def test_a_file_that_binds_to_nothing_releases_what_was_bound() -> None:
    present = uapi.add_bindings(uapi.parse_get(""), uapi.parse_report(BOUND))
    released = "pywg_bind_device=\npywg_bind_address=\nreplace_peers=true\n"
    assert set_text(parse("[Interface]\n"), present) == released
    assert set_text(parse("[Interface]\n#!pywg BindDevice = eth1\n"), present) == (
        "pywg_bind_device=eth1\npywg_bind_address=\nreplace_peers=true\n"
    )


def test_what_a_device_did_can_be_asked_of_it_again() -> None:
    present = uapi.add_bindings(uapi.parse_get(GET), uapi.parse_report(BOUND))
    text = uapi.changes_text(of_status(present))
    assert "pywg_bind_device=eth0\npywg_bind_address=\npywg_bind_address=192.0.2.1\n" in text
    again = uapi.parse_get("".join(f"{line}\n" for line in text.splitlines()))
    for peer in present.peers:
        peer.last_handshake_ns = peer.rx_bytes = peer.tx_bytes = 0
    present.bind_device, present.bind_addresses = None, ()  # `get` does not tell them
    assert again == present


def test_a_device_without_a_key_gets_none_back() -> None:
    before, present = uapi.parse_get("listen_port=5\n"), uapi.parse_get(GET)
    text = uapi.changes_text(synchronizing(of_status(before), present))
    assert text.startswith(f"private_key={'0' * 64}\nlisten_port=5\nfwmark=0\nreplace_peers=true\n")
