"""Changes: their UAPI text, what syncconf makes of them, and the words of wg they come from."""

from __future__ import annotations

import errno
import os
import random
import socket
import threading
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from pywg import Interface, config
from pywg.config import Endpoint
from pywg.errors import ConfigError, PywgError, UapiError
from pywg.keys import PresharedKey, PrivateKey, PublicKey
from pywg.wireguard import changes, uapi
from pywg.wireguard import (
    netlink as kernel_wireguard,
)
from pywg.wireguard import setconf as wgconf
from pywg.wireguard import (
    socket as uapi_socket,
)
from pywg.wireguard.changes import NO_PRESHARED_KEY, AllowedIPChange, Changes, PeerChange
from pywg.wireguard.status import InterfaceStatus, PeerStatus

PRIVATE = PrivateKey(bytes([8] * 31 + [72]))
A, B, C = (PublicKey(bytes([number]) * 32) for number in (1, 2, 3))
PSK = PresharedKey(bytes(range(32)))


def network(text: str, remove: bool = False) -> AllowedIPChange:
    return AllowedIPChange(ip_network(text), remove)


def parse(text: str, append: bool = False) -> tuple[Changes, list[str]]:
    said: list[str] = []
    return wgconf.parse(text, "file", append=append, warn=said.append), said


def words(*given: str) -> tuple[Changes, list[str]]:
    said: list[str] = []
    return wgconf.read_arguments(given, said.append), said


# ---- UAPI text


def test_changes_are_told_in_order_and_only_what_changes() -> None:
    asked = Changes(
        PRIVATE,
        7,
        16,
        replace_peers=True,
        peers=(
            PeerChange(A, remove=True, preshared_key=PSK),
            PeerChange(
                B, False, PSK, Endpoint("2001:db8::1", 5), 0, True, (network("10.0.0.0/8"),)
            ),
            PeerChange(C, allowed_ips=(network("::ffff:1.2.3.0/120", remove=True),)),
        ),
    )
    assert uapi.changes_text(asked) == (
        f"private_key={PRIVATE.to_hex()}\n"
        "listen_port=7\n"
        "fwmark=16\n"
        "replace_peers=true\n"
        f"public_key={A.to_hex()}\n"
        "remove=true\n"
        f"public_key={B.to_hex()}\n"
        f"preshared_key={PSK.to_hex()}\n"
        "endpoint=[2001:db8::1]:5\n"
        "persistent_keepalive_interval=0\n"
        "replace_allowed_ips=true\n"
        "allowed_ip=10.0.0.0/8\n"
        f"public_key={C.to_hex()}\n"
        "allowed_ip=-::ffff:1.2.3.0/120\n"
    )
    assert uapi.changes_text(Changes()) == ""


def test_repr_of_changes_hides_secrets() -> None:
    shown = repr(Changes(PRIVATE, peers=(PeerChange(A, preshared_key=PSK),)))
    for secret in (PRIVATE, PSK):
        assert secret.to_hex() not in shown
        assert secret.to_base64() not in shown


def test_change_sends_one_set_and_raises_what_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uapi_socket, "SOCKET_DIRECTORY", tmp_path)
    heard = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "wg0.sock"))
        server.listen()

        def serve() -> None:
            for answer in (b"errno=0\n\n", b"errno=-22\n\n"):
                client, _ = server.accept()
                with client:
                    heard.append(client.recv(4096))
                    client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        uapi_socket.change("wg0", Changes(fwmark=1))
        with pytest.raises(UapiError) as caught:
            uapi_socket.change("wg0", Changes(peers=(PeerChange(A),)))
        thread.join()
    assert caught.value.os_errno == errno.EINVAL
    assert heard == [b"set=1\nfwmark=1\n\n", f"set=1\npublic_key={A.to_hex()}\n\n".encode()]


# ---- syncconf


RUNNING = InterfaceStatus(
    PRIVATE,
    peers=[
        PeerStatus(A, preshared_key=PSK, persistent_keepalive=25),
        PeerStatus(B),
    ],
)


def test_synchronizing_removes_and_resets_but_replaces_no_peer() -> None:
    wanted = Changes(PRIVATE, 0, 0, True, (PeerChange(A), PeerChange(C, preshared_key=PSK)))
    assert changes.synchronizing(wanted, RUNNING) == Changes(
        PRIVATE,
        0,
        0,
        False,
        (
            PeerChange(B, remove=True),
            PeerChange(A, preshared_key=NO_PRESHARED_KEY, persistent_keepalive=0),
            PeerChange(C, preshared_key=PSK),
        ),
    )


def test_synchronizing_keeps_what_the_file_says() -> None:
    wanted = Changes(
        peers=(PeerChange(A, preshared_key=PSK, persistent_keepalive=7), PeerChange(B))
    )
    assert changes.synchronizing(wanted, RUNNING).peers == wanted.peers


def test_synchronizing_with_nothing_on_one_side_is_setconf() -> None:
    for wanted, running in (
        (Changes(replace_peers=True), RUNNING),
        (Changes(replace_peers=True, peers=(PeerChange(A),)), InterfaceStatus()),
    ):
        assert changes.synchronizing(wanted, running) == wanted


def test_a_peer_that_comes_twice_is_reset_once() -> None:
    wanted = Changes(peers=(PeerChange(A, preshared_key=PSK), PeerChange(A), PeerChange(B)))
    first, second, _ = changes.synchronizing(wanted, RUNNING).peers
    assert first.preshared_key == PSK
    assert second == PeerChange(A)


TWICE = (
    f"[Peer]\nPublicKey = {A}\nPresharedKey = {PSK.to_base64()}\nPersistentKeepalive = 25\n"
    f"[Peer]\nPublicKey = {A}\nAllowedIPs = 10.0.0.0/8\n"
)


@pytest.mark.parametrize("text", [TWICE, "[Peer]".join(["", *reversed(TWICE.split("[Peer]")[1:])])])
def test_a_peer_in_two_sections_keeps_what_either_says(text: str) -> None:
    """Over `up` and then `reload`, `Device.set` or the kernel's messages: all write this."""
    wanted = changes.of_config(config.parse(text))
    for change in (wanted, changes.synchronizing(wanted, RUNNING)):
        psk, keepalive = None, None
        for peer in change.peers:
            if peer.public_key == A:
                psk = peer.preshared_key or psk
                keepalive = (
                    keepalive if peer.persistent_keepalive is None else peer.persistent_keepalive
                )
        assert (psk, keepalive) == (PSK, 25)
        assert f"preshared_key={'0' * 64}" not in uapi.changes_text(change)
        [message] = kernel_wireguard.device_messages("wg0", change)
        assert bytes(32) not in [value for _, value in flat(message)]


def test_a_peer_in_two_sections_keeps_both_however_often_it_is_set() -> None:
    twice = config.parse(f"[Interface]\nPrivateKey = {PRIVATE.to_base64()}\n{TWICE}")
    with Interface(twice) as interface:
        for _ in range(2):
            [peer] = interface.get().peers
            assert (peer.preshared_key, peer.persistent_keepalive) == (PSK, 25)
            assert [str(network) for network in peer.allowed_ips] == ["10.0.0.0/8"]
            interface.set(twice)


def flat(attributes: list[Any]) -> Iterator[tuple[str, Any]]:
    for name, value in attributes:
        if isinstance(value, list):
            for part in value:
                yield from flat(part["attrs"])
        else:
            yield name, value


# ---- files


def test_a_file_says_everything_and_an_addition_only_what_it_says() -> None:
    text = f"[Peer]\nPublicKey={A}\n"
    peer = PeerChange(A, replace_allowed_ips=True)
    assert parse(text)[0] == Changes(changes.NO_PRIVATE_KEY, 0, 0, True, (peer,))
    assert parse(text, append=True)[0] == Changes(peers=(peer,))


def test_every_key_of_a_file() -> None:
    text = (
        f"[Interface]\nPrivateKey = {PRIVATE.to_base64()}\nListenPort = 7\nFwMark = 0x10\n"
        f"[Peer]\nPublicKey = {A}\nPresharedKey = {PSK.to_base64()}\nEndpoint = [2001:db8::1]:5\n"
        "AllowedIPs = 10.0.0.1/8, ::/0\nAllowedIPs = 10.1.1.1\nPersistentKeepalive = oFF\n"
    )
    networks = (network("10.0.0.0/8"), network("::/0"), network("10.1.1.1/32"))
    peer = PeerChange(A, False, PSK, Endpoint("2001:db8::1", 5), 0, True, networks)
    found, said = parse(text)
    assert found == Changes(PRIVATE, 7, 16, True, (peer,))
    assert said == ["Warning: AllowedIP has nonzero host part: 10.0.0.1/8"]


def test_what_wg_has_no_words_for_is_told_with_its_place() -> None:
    odd = "nothing can be sent to port 0"
    said = parse(f"[Peer]\nPublicKey = {A}\nEndpoint = 192.0.2.1:0\n")[1]
    assert said == [f"file:3:12: warning: Endpoint: {odd}"]
    assert words("peer", str(A), "endpoint", "192.0.2.1:0")[1] == [f"Warning: endpoint: {odd}"]


@pytest.mark.parametrize(
    ("lists", "replaces"),
    [
        (["10.0.0.0/8"], True),
        (["+10.0.0.0/8"], False),
        (["10.0.0.0/8,-10.1.0.0/16"], False),
        (["+10.0.0.0/8", "10.1.0.0/16"], True),
        (["10.0.0.0/8", "-10.1.0.0/16"], False),
    ],
)
def test_a_sign_means_a_change_of_the_list(lists: list[str], replaces: bool) -> None:
    lines = "".join(f"AllowedIPs = {text}\n" for text in lists)
    [peer] = parse(f"[Peer]\nPublicKey = {A}\n{lines}")[0].peers
    assert peer.replace_allowed_ips == replaces
    assert [allowed.remove for allowed in peer.allowed_ips] == [
        item.startswith("-") for text in lists for item in text.split(",")
    ]


KEY_LINE = PRIVATE.to_base64()
WRONG = [
    ("x = 1", "1:1: a key before the first [Interface] or [Peer]"),
    ("[Interface]\n  Adress = x", '2:3: unknown key "Adress" in [Interface]'),
    ("[Interface]\nListenport", '2:1: expected "[Section]" or "Key = Value"'),
    (f"[Interface]\n{KEY_LINE}", "2:1: unknown key in [Interface]"),
    (f"[Interface]\nPrivateKey = {KEY_LINE}x", "2:14: PrivateKey: 45 characters, a key has 44"),
    (f"[Peer]\n[Peer]\nPublicKey={A}\n", "1:1: [Peer] has no PublicKey"),
    (f"[Peer]\nPublicKey={A}\nAllowedIPs = {KEY_LINE}", '3:14: AllowedIPs: "*****'),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_errors_of_a_file_say_where(text: str, message: str) -> None:
    """All other mistakes are in the table of test_config.py: there is one parser."""
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert str(caught.value).startswith(f"file:{message}")
    assert KEY_LINE not in "".join(caught.value.pictures())


def test_a_name_that_is_not_found_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WG_ENDPOINT_RESOLUTION_RETRIES", "0")

    def getaddrinfo(*arguments: int | str, **options: int) -> list[Any]:
        raise socket.gaierror(socket.EAI_AGAIN, "later")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(
        ConfigError, match=r"file:3:10: Endpoint: cannot resolve example\.com: later"
    ):
        parse(f"[Peer]\nPublicKey={A}\nEndpoint=example.com:5")
    with pytest.raises(PywgError, match=r"^Endpoint: cannot resolve example\.com: later"):
        words("peer", str(A), "endpoint", "example.com:5")
    assert words("peer", str(A), "endpoint", "example.com:5", "remove")[0].peers[0].remove


# ---- arguments


def test_arguments_of_the_device_come_before_the_peers(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{PRIVATE.to_base64()}\n")
    found, _ = words(
        *("listen-port", "7", "fwmark", "off", "private-key", str(file)),
        *("peer", str(A), "remove", "peer", str(B), "allowed-ips", " 10.0.0.0/8 , +::/0 "),
    )
    assert found == Changes(
        PRIVATE,
        7,
        0,
        False,
        (
            PeerChange(A, remove=True),
            PeerChange(B, allowed_ips=(network("10.0.0.0/8"), network("::/0"))),
        ),
    )
    with pytest.raises(PywgError, match=r"^Invalid argument: fwmark; .*before the first peer$"):
        words("peer", str(A), "fwmark", "1")


def test_a_key_in_the_wrong_place_is_not_repeated() -> None:
    for given in (("private-key", KEY_LINE), (KEY_LINE,), ("peer", str(A), KEY_LINE)):
        with pytest.raises(PywgError) as caught:
            words(*given)
        assert given[0] == "private-key" or KEY_LINE not in str(caught.value)


@pytest.mark.parametrize("word", ["endpoint", "allowed-ips", "persistent-keepalive", "peer"])
@pytest.mark.parametrize("text", [f"{KEY_LINE}x", f"{KEY_LINE}:5", KEY_LINE[:-1], KEY_LINE[20:]])
def test_a_key_where_another_value_belongs_is_not_repeated(
    word: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WG_ENDPOINT_RESOLUTION_RETRIES", "0")

    def getaddrinfo(*arguments: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(PywgError) as caught:
        words("peer", str(A), word, text)
    for start in range(0, len(text) - 8):
        assert text[start : start + 8] not in str(caught.value)


@pytest.mark.parametrize(
    "content", [KEY_LINE[:-1], f"{KEY_LINE}x", f"{KEY_LINE}\n{KEY_LINE}", "\n", "é" * 22]
)
def test_a_file_that_holds_no_key(tmp_path: Path, content: str) -> None:
    file = tmp_path / "key"
    file.write_text(content)
    with pytest.raises(PywgError, match=r"^private-key: .*key.*") as caught:
        words("private-key", str(file))
    assert KEY_LINE[:-1] not in str(caught.value)


def test_an_empty_file_takes_the_key_away_and_an_empty_pipe_does_not() -> None:
    taken = words("private-key", "/dev/null")[0].private_key
    assert taken is not None
    assert taken.is_zero()
    reading, writing = os.pipe()
    os.close(writing)
    try:
        with pytest.raises(PywgError, match="holds no key: too short"):
            words("private-key", f"/proc/self/fd/{reading}")
    finally:
        os.close(reading)


# ---- what is so already is left out


def test_a_peer_that_is_as_it_is_to_be_is_left_out() -> None:
    text = (
        f"[Peer]\nPublicKey={A}\nAllowedIPs=10.0.0.0/8\nEndpoint=192.0.2.1:5\n"
        f"PersistentKeepalive=25\n[Peer]\nPublicKey={B}\nAllowedIPs=11.0.0.0/8\n"
    )
    with Interface(config.parse(text)) as interface:
        wanted = changes.of_config(config.parse(text.replace("11.0.0.0/8", "12.0.0.0/8")))
        (peer,) = changes.synchronizing(wanted, interface.get()).peers
    assert peer.public_key == B


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_left_out_the_end_is_the_same(seed: int) -> None:
    """Also where several peers have one network, or a peer comes twice."""
    choose = random.Random(seed)

    def file() -> config.Config:
        sections = []
        for _ in range(choose.randrange(5)):
            networks = choose.sample([f"10.{number}.0.0/16" for number in range(4)], 2)
            more = choose.choice(
                ["", "PersistentKeepalive=9\n", f"PresharedKey={PSK.to_base64()}\n"]
            )
            sections.append(
                f"[Peer]\nPublicKey={choose.choice([A, B, C])}\n"
                f"AllowedIPs={', '.join(networks[: choose.randrange(3)])}\n{more}"
            )
        return config.parse("".join(sections))

    def state(interface: Interface) -> list[Any]:
        peers = interface.get().peers
        return sorted(
            (
                str(peer.public_key),
                peer.preshared_key == PSK,
                peer.persistent_keepalive,
                sorted(map(str, peer.allowed_ips)),
            )
            for peer in peers
        )

    with Interface() as changed:
        for _ in range(5):
            wanted = file()
            changed.set(wanted)
            with Interface(wanted) as fresh:
                assert state(changed) == state(fresh)
