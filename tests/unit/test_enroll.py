"""A server's file and those of its clients: addresses, names, keys, and that nothing is half done.
Texts and values, but for the files of a temporary folder."""

from __future__ import annotations

import os
import stat
import threading
from ipaddress import ip_network
from pathlib import Path

import pytest

from pywg.config import IPNetwork, comments, document, parse
from pywg.enroll import begin, client, files, peers, pool, qr, rotation, server
from pywg.enroll.client import Wish
from pywg.enroll.server import Server
from pywg.errors import PywgError
from pywg.keys import PresharedKey, PrivateKey, PublicKey
from pywg.wireguard.changes import NO_PRESHARED_KEY

OWN = PrivateKey.generate()
KEYS = [PrivateKey.generate() for _ in range(3)]
HEAD = (
    f"[Interface]\nPrivateKey = {OWN.to_base64()}\nListenPort = 7\n"
    "Address = 10.7.0.1/24, fd07::1/64\n#!pywg PublicEndpoint = vpn.example.com:7\n"
)


def made(text: str = HEAD) -> Server:
    config = parse(text, "wg0.conf")
    return Server("wg0", Path("wg0.conf"), text, config, comments.names(text, config))


def with_clients(*names: str, text: str = HEAD) -> Server:
    for name in names:
        found = made(text)
        keys = client.keys(None, with_psk=True)
        text = peers.added(found, client.section(found, name, keys))
    return made(text)


# ---- addresses


def networks(*texts: str) -> list[IPNetwork]:
    return [ip_network(text) for text in texts]


@pytest.mark.parametrize(
    ("of", "taken", "expected"),
    [
        ("10.0.0.0/24", [], "10.0.0.1"),
        ("10.0.0.0/24", ["10.0.0.1/32", "10.0.0.2/32", "10.0.0.4/32"], "10.0.0.3"),
        ("10.0.0.0/24", ["10.0.0.0/25", "10.0.0.128/32"], "10.0.0.129"),
        ("10.0.0.0/24", ["10.0.0.1/32", "10.0.0.0/26", "10.0.0.2/32"], "10.0.0.64"),
        ("10.0.0.0/24", ["0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/24", "fd00::1/128"], "10.0.0.1"),
        ("10.0.0.0/30", ["10.0.0.1/32", "10.0.0.2/32"], None),
        ("10.0.0.0/30", ["10.0.0.1/32"], "10.0.0.2"),
        ("10.0.0.0/31", ["10.0.0.0/32"], "10.0.0.1"),
        ("fd00::/64", ["fd00::1/128", "10.0.0.1/32"], "fd00::2"),
        ("fd00::/126", ["fd00::1/128", "fd00::2/128", "fd00::3/128"], None),
        ("::/120", ["::1/128"], "::2"),
    ],
)
def test_the_lowest_address_that_nobody_has(
    of: str, taken: list[str], expected: str | None
) -> None:
    found = pool.next_free(ip_network(of), networks(*taken))
    assert (None if found is None else str(found)) == expected
    if found is not None:
        assert found.version == ip_network(of).version


def test_made_up_networks_are_private_and_hardly_anybody_elses() -> None:
    v4, v6 = pool.made_up(bytes(range(1, 10)))
    assert (str(v4), str(v6)) == ("10.1.2.0/24", "fd03:405:607:809::/64")
    assert pool.made_up(begin.randomness())[1] != v6
    assert v6.subnet_of(ip_network("fd00::/8"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("auto", "auto"), ["10.1.2.1/24", "fd03:405:607:809::1/64"]),
        (("10.9.0.0/16", "none"), ["10.9.0.1/16"]),
        (("10.9.0.254/24", "fd01::/64"), ["10.9.0.254/24", "fd01::1/64"]),
        (("none", "fd01::5/64"), ["fd01::5/64"]),
    ],
)
def test_a_server_has_the_first_address_or_the_one_that_is_said(
    words: tuple[str, str], expected: list[str]
) -> None:
    assert [str(one) for one in begin.addresses(*words, bytes(range(1, 10)))] == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("none", "none"), "a server needs an address"),
        (("10.9.0.1", "auto"), "address: 10.9.0.1/32 has no room for clients"),
        (("fd01::/64", "auto"), "address: expected IPv4"),
        (("auto", "10.0.0.0/8"), "address6: expected IPv6"),
        (("x", "auto"), 'address: "x" is not an IP address'),
    ],
)
def test_addresses_that_cannot_be_are_refused(words: tuple[str, str], said: str) -> None:
    with pytest.raises(PywgError, match=said):
        begin.addresses(*words, bytes(9))


def test_a_new_server_says_what_its_clients_are_to_be_told() -> None:
    plan = begin.Plan(
        begin.addresses("10.9.0.0/24", "fd01::/64", bytes(9)),
        7,
        server.endpoint("vpn.example.com", 7),
        server.dns(["10.9.0.1,corp.example"]),
    )
    text = begin.text(plan, OWN)
    assert text == (
        f"[Interface]\nPrivateKey = {OWN.to_base64()}\nListenPort = 7\n"
        "Address = 10.9.0.1/24, fd01::1/64\n#!pywg Pool = 10.9.0.0/24, fd01::/64\n"
        "#!pywg PublicEndpoint = vpn.example.com:7\n#!pywg ClientDNS = 10.9.0.1, corp.example\n"
    )
    assert document.rewrite(text, parse(text)) == text
    assert "PublicEndpoint" not in "\n".join(begin.what_next("wg0", "wg0", plan))
    bare = begin.Plan(plan.addresses)
    assert "#!pywg PublicEndpoint = HOST:51820" in "\n".join(begin.what_next("wg0", "wg0", bare))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vpn.example.com", "vpn.example.com:7"),
        ("vpn.example.com:9", "vpn.example.com:9"),
        ("192.0.2.1", "192.0.2.1:7"),
        ("2001:db8::1", "[2001:db8::1]:7"),
        ("[2001:db8::1]", "[2001:db8::1]:7"),
        ("[2001:db8::1]:9", "[2001:db8::1]:9"),
    ],
)
def test_where_a_server_is_found(text: str, expected: str) -> None:
    assert str(server.endpoint(text, 7)) == expected


@pytest.mark.parametrize(
    "text", ["", "a b", "host:0", "-x.example", f"{'f' * 64}", "x/y", "fe80::1%a#b"]
)
def test_where_no_server_can_be_found(text: str) -> None:
    with pytest.raises(PywgError, match="endpoint: "):
        server.endpoint(text, 7)


# ---- clients


def test_clients_get_the_next_addresses_and_the_servers_file_no_private_key() -> None:
    found = with_clients("ada", "bob")
    assert [list(map(str, peer.networks)) for peer in found.config.peers] == [
        ["10.7.0.2/32", "fd07::2/128"],
        ["10.7.0.3/32", "fd07::3/128"],
    ]
    assert list(found.names.values()) == ["ada", "bob"]
    assert found.text.startswith(HEAD)
    assert found.text.count("PrivateKey") == 1


def test_a_client_s_file_is_all_that_it_needs() -> None:
    found = made(HEAD + "#!pywg ClientDNS = 10.7.0.1, corp.example\n")
    keys = client.keys(None, with_psk=True)
    section = client.section(found, "ada", keys)
    config = parse(client.file(found, section, Wish(), keys))
    assert config.interface.private_key == keys.private
    assert list(map(str, config.interface.addresses)) == ["10.7.0.2/32", "fd07::2/128"]
    assert list(map(str, config.interface.dns_servers)) == ["10.7.0.1"]
    assert config.interface.dns_search == ("corp.example",)
    (peer,) = config.peers
    assert peer.public_key == OWN.public
    assert peer.preshared_key == keys.preshared == section.preshared_key
    assert list(map(str, peer.networks)) == ["10.7.0.0/24", "fd07::/64"]
    assert str(peer.endpoint) == "vpn.example.com:7"
    assert (peer.persistent_keepalive, peer.name) == (25, "wg0")


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (Wish(client.EVERYTHING), "AllowedIPs = 0.0.0.0/0, ::/0\n"),
        (
            Wish(tuple(networks("192.168.5.0/24"))),
            "AllowedIPs = 10.7.0.0/24, fd07::/64, 192.168.5.0/24\n",
        ),
        (Wish(endpoint=server.endpoint("other.example:9", 7)), "Endpoint = other.example:9\n"),
        (Wish(dns=server.dns(["9.9.9.9"])), "DNS = 9.9.9.9\n"),
    ],
)
def test_a_client_is_told_what_is_wished(wish: Wish, expected: str) -> None:
    found = made()
    keys = client.keys(None, with_psk=False)
    text = client.file(found, client.section(found, "ada", keys), wish, keys)
    assert expected in text
    assert "PresharedKey" not in text


def test_a_peer_with_a_default_route_leaves_room_for_networks() -> None:
    found = made(f"{HEAD}[Peer]\nPublicKey = {KEYS[0].public}\nAllowedIPs = 0.0.0.0/0, ::/0\n")
    keys = client.keys(None, with_psk=True)
    section = client.section(found, "site", keys, tuple(networks("192.168.5.0/24")))
    assert [str(one) for one in section.networks] == [
        "10.7.0.2/32",
        "fd07::2/128",
        "192.168.5.0/24",
    ]


def test_without_keepalive_there_is_no_such_line() -> None:
    found = made()
    keys = client.keys(None, with_psk=False)
    text = client.file(found, client.section(found, "ada", keys), Wish(keepalive=0), keys)
    assert "PersistentKeepalive" not in text


def test_a_client_with_a_key_of_its_own_is_told_where_to_put_it() -> None:
    found = made()
    keys = client.keys(KEYS[0].public, with_psk=True)
    text = client.file(found, client.section(found, "ada", keys), Wish(), keys)
    assert keys.private is None
    assert parse(text).interface.private_key is None
    assert f"#   {KEYS[0].public}\n# PrivateKey = ...\n" in text
    filled = text.replace("# PrivateKey = ...", f"PrivateKey = {KEYS[0].to_base64()}")
    assert parse(filled).interface.private_key == KEYS[0]


def test_networks_behind_a_client_go_to_it_unless_they_are_somebodys() -> None:
    found = made()
    keys = client.keys(None, with_psk=True)
    section = client.section(found, "site", keys, tuple(networks("192.168.5.0/24")))
    found = made(peers.added(found, section))
    assert str(found.config.peers[0].networks[-1]) == "192.168.5.0/24"
    assert client.own_addresses(found, section) == section.networks[:2]
    with pytest.raises(PywgError, match=r"192.168.5.128/25 meets 192.168.5.0/24"):
        client.section(
            found, "x", client.keys(None, with_psk=True), tuple(networks("192.168.5.128/25"))
        )


@pytest.mark.parametrize(
    ("addresses", "behind", "expected"),
    [
        ("10.7.0.1/24, 10.7.0.9/24", [], ["10.7.0.2/32"]),
        ("10.7.0.1/24, 10.7.1.1/16", [], ["10.7.0.2/32"]),
        ("10.7.1.1/16, 10.7.0.1/24", [], ["10.7.0.2/32"]),
        ("10.7.0.1/24", ["10.7.0.2/32"], ["10.7.0.3/32", "10.7.0.2/32"]),
        ("10.7.0.1/24", ["192.168.5.0/24"] * 2, ["10.7.0.2/32", "192.168.5.0/24"]),
    ],
)
def test_no_address_is_given_to_a_client_twice(
    addresses: str, behind: list[str], expected: list[str]
) -> None:
    found = made(HEAD.replace("10.7.0.1/24, fd07::1/64", addresses))
    keys = client.keys(None, with_psk=False)
    section = client.section(found, "ada", keys, tuple(networks(*behind)))
    assert [str(one) for one in section.networks] == expected
    own = parse(client.file(found, section, Wish(), keys)).interface.addresses
    assert [str(one) for one in own] == [one for one in expected if one.startswith("10.7.")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD.replace("10.7.0.1/24", "10.7.0.1/32").replace("fd07::1/64", "fd07::1"), "Pool"),
        (HEAD + "#!pywg Pool = 10.7.0.0/31\n", ""),
        (HEAD + "#!pywg Pool = 10.7.0.1/32\n", "the pool 10.7.0.1/32 is empty"),
        ("[Interface]\n", "no PrivateKey"),
    ],
)
def test_what_a_server_s_file_lacks_is_said(text: str, said: str) -> None:
    found = made(text)
    if not said:
        client.section(found, "ada", client.keys(None, with_psk=True))
        return
    with pytest.raises(PywgError, match=said):
        client.section(found, "ada", client.keys(None, with_psk=True))


def test_a_file_that_does_not_say_where_it_is_found_says_so() -> None:
    found = made(HEAD.replace("#!pywg PublicEndpoint", "#"))
    keys = client.keys(None, with_psk=True)
    with pytest.raises(PywgError, match="does not say where clients find this host"):
        client.file(found, client.section(found, "ada", keys), Wish(), keys)


def test_what_a_client_s_file_cannot_say_is_refused() -> None:
    found = made(HEAD.replace("vpn.example.com:7", "[fe80::1%a#b]:7"))
    keys = client.keys(None, with_psk=True)
    with pytest.raises(PywgError, match="begins a comment"):
        client.file(found, client.section(found, "ada", keys), Wish(), keys)


def test_a_key_that_is_there_is_not_added_again() -> None:
    found = with_clients("ada")
    for key in (OWN.public, found.config.peers[0].public_key):
        with pytest.raises(PywgError, match="public key: "):
            client.section(found, "bob", client.keys(key, with_psk=True))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("ada", "ada.conf"),
        ("Ada's phone", "Ada-s-phone.conf"),
        ("../../etc/passwd", "etc-passwd.conf"),
        ("a very long name of a laptop", "a-very-long-nam.conf"),
    ],
)
def test_a_client_s_file_can_be_brought_up_by_its_name(name: str, file: str) -> None:
    assert client.file_name(name) == file


def test_a_name_of_which_no_file_can_be_made_needs_one() -> None:
    with pytest.raises(PywgError, match="--out FILE"):
        client.file_name("\u4f60")


# ---- names


@pytest.mark.parametrize("word", ["", "x" * 65, "a\tb", "A" * 42 + "E="])
def test_what_cannot_be_a_name_is_refused(word: str) -> None:
    with pytest.raises(PywgError, match="NAME: "):
        server.new_name(made(), word)


def test_a_name_is_given_once() -> None:
    with pytest.raises(PywgError, match=r'there is a peer called "Ada" in wg0\.conf'):
        server.new_name(with_clients("Ada"), "ada")


def test_a_peer_is_found_by_its_name_or_by_its_key() -> None:
    found = with_clients("ada", "bob")
    ada, bob = found.config.peers
    assert server.find(found, "ada") == ada
    assert server.find(found, str(bob.public_key)) == bob
    with pytest.raises(PywgError, match='no peer is called "abd"; did you mean "ada"'):
        server.find(found, "abd")
    with pytest.raises(PywgError, match=r'no peer is called "xyz".*pywg peer list wg0'):
        server.find(found, "xyz")


def test_a_name_that_two_have_means_neither() -> None:
    found = with_clients("ada", "bob")
    twice = made(found.text.replace("Name = bob", "Name = ada"))
    with pytest.raises(PywgError, match="2 peers are called ada: say which by its key: "):
        server.find(twice, "ada")


@pytest.mark.parametrize(
    "section",
    [
        "[Peer]\n# friendly_name = Ada\nPublicKey = {}\n",
        "[Peer]\n# friendly_name=Ada\nPublicKey = {}\n",
        "# Name = Ada\n[Peer]\nPublicKey = {}\n",
        "[Peer]\r\n#name =  Ada \r\nPublicKey = {}\r\n",
        "### Client Ada\n[Peer]\nPublicKey = {}\n",
        "[Peer]\nPublicKey = {}\n#!pywg Name = Ada\n# Name = not this\n",
        "# Name = not this\n[Peer]\nPublicKey = {}\n#!pywg Name = Ada\n",
    ],
)
def test_names_of_other_programs_are_read(section: str) -> None:
    text = f"{HEAD}\n{section.format(KEYS[0].public)}\n[Peer]\nPublicKey = {KEYS[1].public}\n"
    found = made(text)
    assert found.names == {KEYS[0].public: "Ada"}
    named = peers.renamed(found, server.find(found, "Ada"), "Eve")
    assert comments.names(named, parse(named)) == {KEYS[0].public: "Eve"}


@pytest.mark.parametrize("comment", ["# Client Ada", "# my name = x", "# Name =", "## friendly"])
def test_other_comments_are_no_names(comment: str) -> None:
    assert made(f"{HEAD}\n{comment}\n[Peer]\nPublicKey = {KEYS[0].public}\n").names == {}


def test_a_line_for_pywg_is_not_the_comment_of_the_next_section() -> None:
    """It was: removing the second peer took the first one's name."""
    first, second = (key.public for key in KEYS[:2])
    text = f"{HEAD}[Peer]\nPublicKey = {first}\n#!pywg Name = ada\n[Peer]\nPublicKey = {second}\n"
    found = made(text)
    assert "#!pywg Name = ada" in peers.removed(found, server.find(found, str(second)))
    renamed = peers.renamed(found, server.find(found, "ada"), "eve")
    assert renamed == text.replace("ada", "eve")


def test_a_peer_in_two_sections_has_one_name() -> None:
    key = KEYS[0].public
    text = f"{HEAD}[Peer]\nPublicKey = {key}\n#!pywg Name = a\n[Peer]\nPublicKey = {key}\n"
    found = made(text)
    renamed = peers.renamed(found, found.config.peers[0], "b")
    assert comments.names(renamed, parse(renamed)) == {key: "b"}
    assert renamed.count("Name") == 1
    assert peers.removed(found, found.config.peers[0]) == HEAD


# ---- files


def test_what_is_new_is_for_its_owner_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with files.all_or_nothing() as made:
            made.create(tmp_path / "a.conf", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.conf").stat().st_mode) == 0o600


def test_nothing_is_overwritten_and_no_link_followed(tmp_path: Path) -> None:
    (tmp_path / "there.conf").write_text("old")
    (tmp_path / "link.conf").symlink_to(tmp_path / "elsewhere")
    for name in ("there.conf", "link.conf"):
        with (
            pytest.raises(PywgError, match="is there already, and is not overwritten"),
            files.all_or_nothing() as made,
        ):
            made.create(tmp_path / name, b"new")
    assert (tmp_path / "there.conf").read_text() == "old"
    assert not (tmp_path / "elsewhere").exists()


def test_if_something_fails_no_file_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "wg0.conf"
    path.write_text("old")
    with pytest.raises(PywgError, match="no such place"), files.all_or_nothing() as made:
        made.create(tmp_path / "a.conf", b"x")
        made.change(path, "new")
        assert path.read_text() == "new"
        raise PywgError("no such place")
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["wg0.conf"]


def test_ctrl_c_right_after_a_file_was_made_or_changed_takes_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "wg0.conf"
    path.write_text("old")
    write, interrupts = document.write, [KeyboardInterrupt()]

    def written(path: Path, text: str) -> None:
        write(path, text)
        if interrupts:
            raise interrupts.pop()

    monkeypatch.setattr(document, "write", written)
    with pytest.raises(KeyboardInterrupt), files.all_or_nothing() as made:
        made.change(path, "new")
    assert path.read_text() == "old"

    open_file = os.open

    def opened(name: Path, flags: int, mode: int = 0o777) -> int:
        os.close(open_file(name, flags, mode))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", opened)
        with pytest.raises(KeyboardInterrupt), files.all_or_nothing() as made:
            made.create(tmp_path / "a.conf", b"x")
    assert list(tmp_path.iterdir()) == [path]


def test_only_what_was_made_here_is_removed_again(tmp_path: Path) -> None:
    path, other = tmp_path / "a.conf", tmp_path / "other.conf"
    with pytest.raises(PywgError, match="no such place"), files.all_or_nothing() as made:
        made.create(path, b"x")
        other.write_text("another's")
        other.rename(path)
        raise PywgError("no such place")
    assert path.read_text() == "another's"


def test_a_file_that_is_as_it_was_is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "wg0.conf"
    path.write_text("old")

    def full(path: Path, text: str) -> None:
        raise PywgError("no space")

    monkeypatch.setattr(document, "write", full)
    before = path.stat()
    with pytest.raises(PywgError, match="no space"), files.all_or_nothing() as made:
        made.change(path, "new")
    assert (path.read_text(), path.stat().st_ino) == ("old", before.st_ino)


def test_one_at_a_time_changes_the_files_of_a_folder(tmp_path: Path) -> None:
    seen: list[str] = []

    def other() -> None:
        with files.locked(tmp_path / "wg1.conf"):
            seen.append("other")

    thread = threading.Thread(target=other)
    with files.locked(tmp_path / "wg0.conf"):
        thread.start()
        thread.join(0.05)
        seen.append("this")
    thread.join(10)
    assert seen == ["this", "other"]


# ---- rotation


def test_another_preshared_key_is_in_both_files_and_all_else_as_it_was() -> None:
    found = made()
    keys = client.keys(None, with_psk=True)
    section = client.section(found, "ada", keys)
    text = client.file(found, section, Wish(), keys)
    found = made(peers.added(found, section))
    rotated = rotation.of_psk(found, section)
    psk = rotated.keys.preshared
    assert psk is not None and keys.preshared is not None and psk != keys.preshared
    old, new = keys.preshared.to_base64(), psk.to_base64()
    assert rotated.text == found.text.replace(old, new)
    changed = client.with_new_keys(text, "ada.conf", OWN.public, keys.public, preshared=psk)
    assert changed == text.replace(old, new)


def test_a_next_key_stands_beside_the_old_one_and_then_in_its_place() -> None:
    found = with_clients("ada", "bob")
    ada = server.find(found, "ada")
    rotated = rotation.of_key_pair(found, ada, client.keys(None, with_psk=False))
    pending = made(rotated.text)
    assert pending.text.startswith(found.text)
    old, new = rotation.pair(pending, "ada")
    assert (old, new.networks, new.replaces) == (ada, (), ada.public_key)
    assert new.preshared_key not in (None, ada.preshared_key), "the gate, which nobody else knows"
    assert rotated.keys.preshared == ada.preshared_key
    done = rotation.finished(pending, old, new)
    assert done == found.text.replace(str(old.public_key), str(new.public_key))
    with pytest.raises(PywgError, match="has a next key already"):
        rotation.of_key_pair(pending, ada, client.keys(None, with_psk=False))
    assert peers.removed(pending, ada) == peers.removed(found, ada), "both are gone"
    with pytest.raises(PywgError, match="has no next key"):
        rotation.pair(found, "ada")


def test_a_next_key_takes_the_place_of_the_old_one_in_each_section() -> None:
    found = with_clients("ada", "bob")
    ada = server.find(found, "ada")
    more = f"\n[Peer]\nPublicKey = {ada.public_key}\nAllowedIPs = +10.9.0.0/24\n"
    found = made(found.text + more)
    ada = server.find(found, "ada")
    pending = made(rotation.of_key_pair(found, ada, client.keys(None, with_psk=False)).text)
    old, new = rotation.pair(pending, "ada")
    done = rotation.finished(pending, old, new)
    assert done == found.text.replace(str(old.public_key), str(new.public_key))


def test_a_next_key_takes_over_in_one_request() -> None:
    found = with_clients("ada")
    (ada,) = found.config.peers
    new = rotation.of_key_pair(found, ada, client.keys(KEYS[0].public, with_psk=False)).section
    where = server.endpoint("192.0.2.9:5", 7)
    gone, anew, last = rotation.takeover(ada, new, where).peers
    assert (gone.public_key, gone.remove) == (ada.public_key, True)
    assert (anew.public_key, anew.remove) == (KEYS[0].public, True)
    assert (last.public_key, last.endpoint, last.preshared_key) == (
        KEYS[0].public,
        where,
        ada.preshared_key,
    )
    assert [change.network for change in last.allowed_ips] == list(ada.networks)
    assert last.persistent_keepalive == 1
    assert rotation.settled(ada, new).peers[0].persistent_keepalive == 0


def test_a_client_without_preshared_key_has_none_afterwards() -> None:
    found = made()
    keys = client.keys(None, with_psk=False)
    section = client.section(found, "ada", keys)
    found = made(peers.added(found, section))
    new = rotation.of_key_pair(found, section, client.keys(None, with_psk=False)).section
    last = rotation.takeover(section, new, server.endpoint("192.0.2.9:5", 7)).peers[-1]
    assert new.preshared_key is not None
    assert last.preshared_key == NO_PRESHARED_KEY


def test_only_the_file_of_that_client_is_changed() -> None:
    found = made()
    keys = client.keys(None, with_psk=True)
    text = client.file(found, client.section(found, "ada", keys), Wish(), keys)
    other = KEYS[0].public
    psk = PresharedKey.generate()
    with pytest.raises(PywgError, match="is another client's"):
        client.with_new_keys(text, "a.conf", OWN.public, other, preshared=psk)
    with pytest.raises(PywgError, match="no \\[Peer\\] with this server's"):
        client.with_new_keys(text, "a.conf", other, keys.public, preshared=psk)
    fresh = PrivateKey.generate()
    changed = client.with_new_keys(text, "a.conf", OWN.public, keys.public, private=fresh)
    assert keys.private is not None
    assert changed == text.replace(keys.private.to_base64(), fresh.to_base64())


def test_a_preshared_key_in_a_file_of_its_own_is_left_there() -> None:
    text = f"{HEAD}[Peer]\nPublicKey = {KEYS[0].public}\n#!pywg PresharedKeyFile = psk\n"
    found = made(text)
    with pytest.raises(PywgError, match="its preshared key is in psk"):
        rotation.of_psk(found, found.config.peers[0])


def test_public_keys_stay_what_they_are() -> None:
    assert isinstance(client.keys(KEYS[0].public, with_psk=False).public, PublicKey)


# ---- QR codes


def test_a_code_holds_what_the_apps_read_and_no_more() -> None:
    assert qr.content("[Interface]\n# a comment\n\n#!pywg Name = x\n DNS = 1.1.1.1 \n") == (
        "[Interface]\nDNS = 1.1.1.1\n"
    )


@pytest.mark.parametrize("word", ["", "gif:x", "png:", "terminal:x", "x.png"])
def test_other_words_are_no_target(word: str) -> None:
    with pytest.raises(PywgError, match="qr: expected terminal, png:FILE or svg:FILE"):
        qr.target(word)


def test_a_code_is_drawn_or_written() -> None:
    pytest.importorskip("segno")
    text = "[Interface]\nPrivateKey = x\n"
    plain, colored = qr.terminal(text, color=False), qr.terminal(text, color=True)
    assert "\N{LOWER HALF BLOCK}" in plain and "\033" not in plain
    assert all(line.startswith("\033[40;97m") for line in colored.splitlines())
    assert qr.image(text, "png").startswith(b"\x89PNG")
    assert b"<svg" in qr.image(text, "svg")
