"""Saving a file: only what changed, and all of it or nothing."""

from __future__ import annotations

import dataclasses
import os
import stat
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest

from pywg.config import AllowedIP, Config, Endpoint, PeerSection, comments, parse
from pywg.config.document import rewrite, with_changed, without_peer, write
from pywg.errors import PywgError
from pywg.keys import PresharedKey, PrivateKey, PublicKey

CONFIGS = sorted((Path(__file__).parents[1] / "data" / "configs").glob("*.conf"))
KEYS = [PrivateKey.generate().public for _ in range(3)]
TEXT = f"""\
# my laptop
[Interface]   # first
PrivateKey = {PrivateKey.generate().to_base64()}
Address = 10.0.0.1/24   # home
Address = fd00::1/64
PostUp = echo "%i"  # kept

# the office
[Peer]
PublicKey = {KEYS[0]}
AllowedIPs=10.0.0.2/32   # one
#!pywg EndpointFamily = ipv4
Endpoint = vpn.example.com:51820

# a friend
[Peer]
PublicKey = {KEYS[1]}
AllowedIPs = 10.0.0.3/32
"""


def changed(config: Config, peer: int | None = None, **values: Any) -> Config:
    if peer is None:
        return dataclasses.replace(
            config, interface=dataclasses.replace(config.interface, **values)
        )
    peers = list(config.peers)
    peers[peer] = dataclasses.replace(peers[peer], **values)
    return dataclasses.replace(config, peers=tuple(peers))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_what_has_not_changed_stays_to_the_byte(path: Path) -> None:
    text = path.read_text()
    assert rewrite(text, parse(text)) == text


def test_windows_line_ends_stay() -> None:
    text = TEXT.replace("\n", "\r\n")
    assert rewrite(text, parse(text)) == text
    after = changed(parse(text), listen_port=7, mtu=1400)
    expected = text.replace('"%i"  # kept\r\n', '"%i"  # kept\r\nListenPort = 7\r\nMTU = 1400\r\n')
    assert parse(rewrite(text, after)) == after
    assert (
        rewrite(text, after).count("\n")
        == rewrite(text, after).count("\r\n")
        == expected.count("\n")
    )


def test_a_changed_value_keeps_its_line_and_its_comment() -> None:
    after = changed(parse(TEXT), 0, allowed_ips=(AllowedIP(ip_network("10.9.0.0/16")),))
    assert rewrite(TEXT, after) == TEXT.replace(
        "AllowedIPs=10.0.0.2/32   # one", "AllowedIPs=10.9.0.0/16   # one"
    )


def test_of_several_lines_of_a_key_the_first_gets_the_values() -> None:
    addresses = (ip_interface("10.0.0.1/24"), ip_interface("10.5.0.1/24"))
    assert rewrite(TEXT, changed(parse(TEXT), addresses=addresses)) == TEXT.replace(
        "Address = 10.0.0.1/24   # home\nAddress = fd00::1/64",
        "Address = 10.0.0.1/24, 10.5.0.1/24   # home",
    )


def test_new_values_go_behind_the_last_key_of_their_section() -> None:
    psk = PresharedKey.generate()
    after = changed(parse(TEXT), 1, preshared_key=psk, persistent_keepalive=25)
    added = f"10.0.0.3/32\nPresharedKey = {psk.to_base64()}\nPersistentKeepalive = 25\n"
    assert sorted(rewrite(TEXT, after).splitlines()) == sorted(
        TEXT.replace("10.0.0.3/32\n", added).splitlines()
    )
    assert parse(rewrite(TEXT, after)) == after


def test_every_key_can_be_changed_hooks_and_extensions_too() -> None:
    text = TEXT.replace("[Interface]   # first\n", "[Interface]\n  #!pywg  BindDevice =  eth0\n")
    hooks = ("one", "two")
    after = changed(parse(text), bind_device="eth1", post_up=hooks, table="off", netns="red")
    written = rewrite(text, after)
    assert parse(written) == after
    assert "  #!pywg  BindDevice =  eth1\n" in written
    assert "PostUp = one\nPostUp = two\n" in written, "a hook is all of its line"
    assert "#!pywg Netns = red\n" in written
    assert rewrite(written, parse(text)) == text.replace("# kept\n", "# kept\n")


def test_values_that_are_gone_lose_their_lines() -> None:
    after = changed(parse(TEXT), addresses=())
    assert rewrite(TEXT, after) == TEXT.replace(
        "Address = 10.0.0.1/24   # home\nAddress = fd00::1/64\n", ""
    )


def test_a_peer_that_is_gone_takes_its_comment_with_it() -> None:
    config = parse(TEXT)
    left = dataclasses.replace(config, peers=config.peers[1:])
    start, end = TEXT.index("# the office"), TEXT.index("# a friend")
    assert rewrite(TEXT, left) == TEXT[:start] + TEXT[end:]


GONE, STAYS = f"[Peer]\nPublicKey = {KEYS[0]}\n", f"[Peer]\nPublicKey = {KEYS[1]}\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"{GONE}\n# footer\n", "# footer\n"),
        (f"{STAYS}\n{GONE}\n# footer", f"{STAYS}\n# footer"),
        (f"{GONE}\n\n# ---- office ----\n\n{STAYS}", f"# ---- office ----\n\n{STAYS}"),
        (f"{GONE}\n# [Peer]\n# PublicKey = x\n\n{STAYS}", f"# [Peer]\n# PublicKey = x\n\n{STAYS}"),
        (f"{GONE}# her phone\n\n{STAYS}", STAYS),
        (f"{GONE}#!pywg Name = x\n# her phone\n\n# a note\n", "# a note\n"),
        (f"{GONE}# a friend\n{STAYS}", f"# a friend\n{STAYS}"),
        (
            f"# BEGIN_PEER a\n{GONE}# END_PEER a\n# BEGIN_PEER b\n{STAYS}# END_PEER b\n",
            f"# BEGIN_PEER b\n{STAYS}# END_PEER b\n",
        ),
        (
            f"# BEGIN_PEER b\n{STAYS}# END_PEER b\n# BEGIN_PEER a\n{GONE}# END_PEER a\n",
            f"# BEGIN_PEER b\n{STAYS}# END_PEER b\n",
        ),
        (f"{GONE}\n# END_PEER a\n{STAYS}", STAYS),
    ],
    ids=[
        "footer",
        "footer without newline",
        "heading",
        "commented out",
        "below",
        "below an extension",
        "above the next",
        "marks of the first",
        "marks of the last",
        "mark set off",
    ],
)
def test_comments_that_are_not_the_peers_stay(before: str, after: str) -> None:
    for ending in ("\n", "\r\n"):
        head = f"[Interface]{ending}{ending}"
        text, left = (head + said.replace("\n", ending) for said in (before, after))
        assert without_peer(text, KEYS[0]) == left
        config = parse(text)
        peers = tuple(peer for peer in config.peers if peer.public_key != KEYS[0])
        assert rewrite(text, dataclasses.replace(config, peers=peers)) == left


def test_a_new_peer_comes_last() -> None:
    config = parse(TEXT)
    peer = PeerSection(KEYS[2], None, (AllowedIP(ip_network("10.0.0.9/32")),), Endpoint("::1", 5))
    after = dataclasses.replace(config, peers=(*config.peers, peer))
    assert rewrite(TEXT, after) == (
        f"{TEXT}\n[Peer]\nPublicKey = {KEYS[2]}\nAllowedIPs = 10.0.0.9/32\nEndpoint = [::1]:5\n"
    )


def test_an_endpoint_that_is_a_name_stays_one() -> None:
    after = changed(parse(TEXT), 0, endpoint=Endpoint("192.0.2.9", 51820))
    assert rewrite(TEXT, after) == TEXT


def test_a_peer_in_two_sections_ends_in_one() -> None:
    text = f"{TEXT}\n[Peer]\nPublicKey = {KEYS[1]}\nAllowedIPs = 10.0.0.4/32\n"
    config = parse(text)
    other = dataclasses.replace(config.peers[2], persistent_keepalive=5)
    after = dataclasses.replace(config, peers=(config.peers[0], other))
    assert parse(rewrite(text, after)).peers[-1] == other


def test_keys_from_files_are_not_written() -> None:
    text = "[Interface]\n#!pywg PrivateKeyFile = /etc/wireguard/key\n"
    after = changed(parse(text), private_key=PrivateKey.generate())
    assert rewrite(text, after) == text


def test_a_file_without_an_interface_gets_one() -> None:
    text = f"[Peer]\nPublicKey = {KEYS[0]}\n"
    after = changed(parse(text), listen_port=7)
    assert rewrite(text, after) == f"[Interface]\nListenPort = 7\n\n{text}"


@pytest.mark.parametrize("head", ["", "# Name = ada\n", "\n"])
def test_a_byte_order_mark_stays_in_front(head: str) -> None:
    rest = f"[Peer]\nPublicKey = {KEYS[1]}\n"
    text = f"{head}[Peer]\nPublicKey = {KEYS[0]}\n\n{rest}"
    marked = f"\ufeff{text}"
    after = changed(parse(text), listen_port=7)
    assert rewrite(marked, after) == f"\ufeff{rewrite(text, after)}"
    assert parse(rewrite(marked, after)).interface.listen_port == 7
    assert without_peer(marked, KEYS[0]) == f"\ufeff{without_peer(text, KEYS[0])}"
    assert with_changed(marked, KEYS[0], name="eve") == (
        f"\ufeff{with_changed(text, KEYS[0], name='eve')}"
    )
    assert comments.names(marked, parse(marked)) == comments.names(text, parse(text))


def test_public_keys_are_told_apart() -> None:
    assert isinstance(KEYS[0], PublicKey)
    assert len(set(KEYS)) == 3


def test_writing_keeps_mode_and_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.conf", tmp_path / "wg0.conf"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    write(link, "caf\udce9\r\n")
    assert real.read_bytes() == b"caf\xe9\r\n"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert link.is_symlink()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["real.conf", "wg0.conf"]


def test_a_new_file_is_for_its_owner_only(tmp_path: Path) -> None:
    write(tmp_path / "new.conf", "x")
    assert stat.S_IMODE((tmp_path / "new.conf").stat().st_mode) == 0o600


@pytest.mark.parametrize("at", ["fsync", "fchmod"])
def test_ctrl_c_leaves_no_second_file_with_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    path = tmp_path / "wg0.conf"
    path.write_text("old")

    def interrupted(*arguments: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, at, interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "wg0.conf"
    path.write_text("old")

    def no_space(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(PywgError, match="No space left"):
        write(path, "new")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["wg0.conf"]
