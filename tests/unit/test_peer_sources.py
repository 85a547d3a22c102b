"""What a store says, what comes of it, and what the interface is told: on plain values."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywg.config import parse
from pywg.config.peer_source import parse as source_of
from pywg.config.values import BadValue
from pywg.errors import PywgError, UapiError
from pywg.keys import PresharedKey, PublicKey
from pywg.sources import gateway, state
from pywg.sources.backoff import FIRST_S, MAX_S, Backoff
from pywg.sources.cache import OUTDATED, Cache
from pywg.sources.cover import Cover
from pywg.sources.differences import difference
from pywg.sources.folder import Folder
from pywg.sources.follower import AGAIN_S, Around, Follower
from pywg.sources.gateway import Refused
from pywg.sources.merge import Merge, Static, merged
from pywg.sources.news import Away, Hear, News, Part, Same, Whole
from pywg.sources.preshared import PresharedKeys
from pywg.sources.values import Entry, read
from pywg.wireguard.changes import NO_PRESHARED_KEY, Changes
from pywg.wireguard.uapi import changes_text

A, B, C = (PublicKey(bytes([number]) * 32) for number in (1, 2, 3))


def one(text: str) -> Entry:
    said = read("a", text)
    assert not said.problems
    return said.entries["a"]


def problem(text: str) -> str:
    said = read("a", text)
    assert not said.entries
    return "\n".join(said.problems)


# ---- SOURCE


def test_a_source_is_a_folder_a_url_or_etcd() -> None:
    folder = source_of("'/srv/wg peers' interval=5")
    assert (folder.kind, folder.place, folder.interval_s) == ("folder", "/srv/wg peers", 5)
    url = source_of("https://example.com/p.json?of=me ca=/ca.pem token=/token")
    assert (url.kind, url.is_tls, url.ca) == ("url", True, Path("/ca.pem"))
    etcd = source_of("etcds://10.0.0.1,[fd00::1]:4001/wg/peers cert=/c key=/k login=/l")
    assert etcd.endpoints == (("10.0.0.1", 2379), ("fd00::1", 4001))
    assert etcd.place == "/wg/peers/"
    config = parse(f"[Interface]\n#!pywg Peers = {etcd.text}\n")
    assert config.interface.peers_from == etcd


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("peers", "a folder from / on"),
        ("etcd://10.0.0.1/", "a prefix is missing"),
        ("etcd://root:secret@10.0.0.1/wg", "login=FILE"),
        ("ftp://example.com/x", "a folder from / on"),
        ("/srv/peers ca=/x", "NAME=VALUE, of fernet, interval"),
        ("https://example.com/ cert=/x", "cert= and key= go together"),
        ("http://example.com/ ca=/x", "for https:// and etcds://"),
        ("https://example.com/ token=x", "from / on"),
        ("https://example.com/ token=/x login=/y", "not both"),
        ("/srv 'x", "not closed"),
    ],
)
def test_a_source_that_is_wrong_is_told(text: str, word: str) -> None:
    with pytest.raises(BadValue) as error:
        source_of(text)
    assert word in str(error.value)
    assert "secret" not in str(error.value)


# ---- values


def test_both_forms_say_the_same() -> None:
    entry = Entry(A, ("10.0.0.1/32", "fd00::/64"), "192.0.2.1:51820", 25, "a.psk", "", "laptop")
    assert one(json.dumps(entry.to_json())) == entry
    assert (
        one(
            f"[Peer]\nPublicKey = {A}\nAllowedIPs = 10.0.0.1, fd00::1/64\n"
            "Endpoint = 192.0.2.1:51820\nPersistentKeepalive = 25\n"
            "#!pywg PresharedKeyFile = a.psk\n#!pywg Name = laptop\n"
        )
        == entry
    )


def test_several_peers_of_one_text_have_names_of_their_own() -> None:
    text = json.dumps({"peers": [{"publicKey": str(A)}, {"publicKey": str(B)}, {"publicKey": 1}]})
    said = read("all", text)
    assert set(said.entries) == {f"all#{A}", f"all#{B}"}
    assert said.problems == ("all: peer 3: publicKey is missing",)
    sections = f"[Peer]\nPublicKey = {A}\n\n[Peer]\nPublicKey = x\n\n[Peer]\nPublicKey = {B}\n"
    said = read("all", sections)
    assert set(said.entries) == {f"all#{A}", f"all#{B}"}
    assert said.problems == (
        "all: line 5: PublicKey: 1 characters, a key has 44 (32 bytes in base64)",
    )


SECRET = PresharedKey(bytes([7]) * 32).to_base64()


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"presharedKey": SECRET}, "a preshared key does not belong in a store"),
        ({"PSK": SECRET}, "a preshared key does not belong in a store"),
        ({"allowedips": []}, 'did you mean "allowedIPs"?'),
        ({"allowedIPs": "10.0.0.1, x"}, '"x" is not an IP address'),
        ({"allowedIPs": ["+10.0.0.1"]}, "without + or -"),
        ({"endpoint": "example.com:1"}, "names are not looked up"),
        ({"persistentKeepalive": 70000}, "seconds from 0 to 65535"),
        ({"persistentKeepalive": True}, "expected seconds"),
        ({"presharedKeyFile": "/etc/shadow"}, "a name below the folder"),
        ({"presharedKeyFile": "../x"}, "a name below the folder"),
        ({"presharedKeyFile": "x", "presharedKeyEncrypted": "y"}, "not both"),
        ({"name": "\n"}, "printable"),
        ({"publicKey": "x"}, "a key has 44"),
        ({SECRET: 1}, "an unknown key"),
    ],
)
def test_what_is_wrong_in_an_object_is_told_without_secrets(
    said: Mapping[str, object], word: str
) -> None:
    told = problem(json.dumps({"publicKey": str(A), **said}))
    assert word in told
    assert told.startswith("a: ")
    assert SECRET not in told


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (f"[Peer]\nPublicKey = {A}\nPresharedKey = {SECRET}\n", "does not belong in a store"),
        (f"[Peer]\nPublicKey = {A}\n#!pywg EndpointDns = tunnel\n", "EndpointDns"),
        (f"[Peer]\nPublicKey = {A}\nAllowedIPs = +10.0.0.1\n", "without + or -"),
        ("[Interface]\nListenPort = 1\n", "[Interface] does not belong"),
        ("", "says nothing of a peer"),
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("\0Permission denied", "Permission denied"),
        ("3", ""),
    ],
)
def test_what_is_wrong_in_a_text_is_told_without_secrets(text: str, word: str) -> None:
    told = problem(text)
    assert word in told
    assert SECRET not in told


@given(st.text(max_size=200) | st.text("[]Peer{}\n =:\"'", max_size=60))
def test_no_text_is_too_strange(text: str) -> None:
    said = read("a", text)
    assert not said.entries
    assert said.problems or json.loads(text) == []  # which is a list of no peers


# ---- merge

KEYS = st.sampled_from([A, B, C, PublicKey(bytes([4]) * 32)])
NETWORKS = st.sampled_from([f"10.0.0.{number}/32" for number in range(5)])
ENTRIES = st.builds(
    Entry,
    public_key=KEYS,
    networks=st.lists(NETWORKS, unique=True, max_size=3).map(tuple),
    keepalive=st.integers(0, 2),
)
NAMES = st.sampled_from("abcdef")
STATICS = st.builds(
    Static,
    keys=st.frozensets(KEYS, max_size=2),
    networks=st.frozensets(NETWORKS, max_size=2),
)
ROUNDS = st.lists(st.dictionaries(NAMES, st.none() | ENTRIES, max_size=4), max_size=8)


@given(STATICS, ROUNDS, STATICS)
def test_step_by_step_and_at_once_say_the_same(
    static: Static, rounds: list[dict[str, Entry | None]], later: Static
) -> None:
    merge = Merge(static)
    entries: dict[str, Entry] = {}
    given: dict[PublicKey, Entry] = {}
    for changes in rounds:
        for name, entry in changes.items():
            entries.pop(name, None)
            if entry is not None:
                entries[name] = entry
        for key in merge.change(changes):
            given.pop(key, None)
            peer = merge.peer(key)
            if peer is not None:
                given[key] = peer
        assert given == merged(static, entries)
        networks = [network for peer in given.values() for network in peer.networks]
        assert len(set(networks)) == len(networks)
    other = merge.with_static(later)
    found = {key: other.peer(key) for key in other.peers()}
    assert {key: peer for key, peer in found.items() if peer} == merged(later, entries)


def test_who_loses_is_told_who_wins() -> None:
    merge = Merge(Static(frozenset([C]), frozenset(["10.0.0.9/32"])))
    merge.change(
        {
            "b": Entry(B, ("10.0.0.1/32",)),
            "a": Entry(A, ("10.0.0.1/32", "10.0.0.2/32")),
            "c": Entry(A),
            "d": Entry(C),
            "e": Entry(PublicKey(bytes([5]) * 32), ("10.0.0.9/32",)),
        }
    )
    assert merge.lost("a") == ""
    assert merge.lost("b") == "b: 10.0.0.1/32 is also claimed by a, which wins"
    assert merge.lost("c") == f"c: {A} is also in a, which wins"
    assert "d: " in merge.lost("d")
    assert "file, which wins" in merge.lost("d")
    assert "10.0.0.9/32 is a peer's of the interface's file" in merge.lost("e")
    assert merge.disputes() == 2


# ---- differences


def test_only_what_differs_is_said() -> None:
    before = Entry(A, ("10.0.0.1/32",), "192.0.2.1:1", 25, "x.psk")
    key = PresharedKey(bytes([9]) * 32)
    assert difference(A, before, before, key) is None
    moved = Entry(A, ("10.0.0.1/32",), "[fd00::1]:2", 25, "x.psk")
    change = difference(A, before, moved, key)
    assert change is not None
    assert changes_text(Changes(peers=(change,))) == (
        f"public_key={A.to_hex()}\nendpoint=[fd00::1]:2\n"
    )
    bare = difference(A, before, Entry(A), None)
    assert bare is not None
    assert bare.endpoint is None  # one that is known is better than none
    assert (bare.preshared_key, bare.persistent_keepalive) == (NO_PRESHARED_KEY, 0)
    assert bare.replace_allowed_ips
    assert difference(A, before, Entry(*before_fields(before), name="bob"), key) is None
    gone = difference(A, before, None, None)
    assert gone is not None
    assert gone.remove


def before_fields(entry: Entry) -> tuple[PublicKey, tuple[str, ...], str, int, str, str]:
    return (
        entry.public_key,
        entry.networks,
        entry.endpoint,
        entry.keepalive,
        entry.preshared_file,
        entry.preshared_encrypted,
    )


def test_cover_is_what_the_interface_leads_to() -> None:
    text = f"[Interface]\nAddress = 10.1.0.1/16, fd00::1/64\n[Peer]\nPublicKey = {A}\n"
    cover = Cover.of(parse(text + "AllowedIPs = 192.168.0.0/24\n"))
    assert cover is not None
    inside = ["10.1.2.3/32", "10.1.0.0/16", "fd00::7/128", "192.168.0.9/32"]
    outside = ["10.0.0.0/8", "10.2.0.1/32", "fd01::/64", "192.168.1.0/24"]
    assert all(cover.has(ip_network(network)) for network in inside)
    assert not any(cover.has(ip_network(network)) for network in outside)
    assert Cover.of(parse("[Interface]\nTable = off\n")) is None


def test_pauses_grow_and_are_never_the_same_for_all() -> None:
    late, early = Backoff(lambda: 1.0), Backoff(lambda: 0.0)
    pauses = [late.next_s() for _ in range(12)]
    assert pauses[:3] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    assert pauses[-1] == MAX_S
    assert early.next_s() == FIRST_S / 2
    late.succeeded()
    assert late.next_s() == FIRST_S


# ---- etcd's answers


def test_what_etcd_answers_is_read() -> None:
    head = {"cluster_id": "7", "revision": "12"}
    page = gateway.page(
        "/p/",
        json.dumps(
            {"header": head, "more": True, "kvs": [{"key": "L3AvYQ==", "value": "eA=="}]}
        ).encode(),
    )
    assert (page.texts, page.last, page.has_more) == ({"a": "x"}, b"/p/a", True)
    assert page.header == gateway.Header("7", 12)
    assert gateway.range_request("/p/", page.last, 12)["range_end"] == "L3Aw"  # /p0
    events = [{"type": "DELETE", "kv": {"key": "L3AvYQ=="}}, {"kv": {"key": "L3AvYg=="}}]
    message = gateway.watched("/p/", json.dumps({"result": {"events": events}}).encode())
    assert message.texts == {"a": None, "b": ""}
    ended = {"result": {"canceled": True, "compact_revision": "9"}}
    assert gateway.watched("/p/", json.dumps(ended).encode()).compacted == 9


@pytest.mark.parametrize(
    "said",
    [
        {"error": "etcdserver: mvcc: required revision has been compacted", "code": 11},
        {"error": {"grpc_code": 11, "message": "etcdserver: mvcc: required revision"}},
    ],
)
def test_compaction_is_known_in_each_form(said: object) -> None:
    with pytest.raises(Refused) as error:
        gateway.page("/p/", json.dumps(said).encode())
    assert error.value.is_compacted


# ---- folder


def test_only_files_that_changed_are_read(tmp_path: Path) -> None:
    folder = Folder(tmp_path, 1)
    for name in ("a.conf", "b.json", "notes.txt", ".hidden.conf", "c.conf~"):
        (tmp_path / name).write_text(name)
    assert folder.look() == Whole({"a.conf": "a.conf", "b.json": "b.json"})
    assert folder.look() == Same()
    (tmp_path / "a.conf").write_text("another")
    (tmp_path / "b.json").unlink()
    assert folder.look() == Part({"a.conf": "another", "b.json": None})
    (tmp_path / "d.conf").symlink_to("nowhere")
    assert folder.look() == Same()


def test_a_folder_that_is_away_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "peers"
    folder = Folder(place, 1)
    assert folder.look() == Away(f"{place}: No such file or directory")
    place.mkdir()
    (place / "a.conf").write_text("a")
    assert isinstance(folder.look(), Whole)
    (place / "a.conf").unlink()
    elsewhere = SimpleNamespace(st_dev=place.stat().st_dev + 1)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", lambda self, **more: elsewhere)
        assert folder.look() == Away(f"{place}: another file system is there now, and it is empty")
    assert folder.look() == Part({"a.conf": None})


# ---- preshared keys


def test_a_reference_that_leads_nowhere_is_no_peer_without_its_key(tmp_path: Path) -> None:
    keys = PresharedKeys(tmp_path, None)
    assert keys.of(Entry(A)) is None
    entry = Entry(A, preshared_file="a.psk")
    with pytest.raises(PywgError, match=r"a.psk: No such file"):
        keys.of(entry)
    (tmp_path / "a.psk").write_text(SECRET)
    (tmp_path / "a.psk").chmod(0o644)
    with pytest.raises(PywgError, match="chmod 600"):
        keys.of(entry)
    (tmp_path / "a.psk").chmod(0o600)
    assert keys.of(entry) == PresharedKey.from_base64(SECRET)
    with pytest.raises(PywgError, match="add fernet=FILE"):
        keys.of(Entry(A, preshared_encrypted="gAAAA"))
    (tmp_path / "fernet").touch(0o600)
    (tmp_path / "fernet").write_text("no key of Fernet\n")
    with pytest.raises(PywgError, match="expected keys of Fernet"):
        PresharedKeys(tmp_path, tmp_path / "fernet").of(Entry(A, preshared_encrypted="gAAAA"))


# ---- cache


def test_the_cache_has_the_last_list_after_any_end(tmp_path: Path) -> None:
    path = tmp_path / "var" / "wg0.peers"
    cache = Cache(path, "etcd://x/p")
    texts = {"a": {"a": Entry(A, ("10.0.0.1/32",))}, "b": {"b": Entry(B, name="bob")}}
    cache.write(texts)
    assert path.stat().st_mode & 0o777 == 0o600
    cache.append([("a", {}), ("c", {"c": Entry(C)})], 2, lambda: {})
    expected = {"b": texts["b"], "c": {"c": Entry(C)}}
    assert Cache(path, "etcd://x/p").load() == expected
    with path.open("a") as file:
        file.write('{"name": "d", "pe')
    assert Cache(path, "etcd://x/p").load() == expected
    assert Cache(path, "etcd://y/p").load() == {}
    path.write_bytes(b"\xff\0{")
    assert Cache(path, "etcd://x/p").load() == {}


def test_the_cache_does_not_grow_for_ever(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "wg0.peers", "/x")
    texts = {"a": {"a": Entry(A)}}
    cache.write(texts)
    for _ in range(OUTDATED + 10):
        cache.append([("a", texts["a"])], 1, lambda: texts)
    assert len((tmp_path / "wg0.peers").read_text().splitlines()) <= OUTDATED + 5
    assert Cache(tmp_path / "wg0.peers", "/x").load() == texts


# ---- the follower


@dataclass
class World:
    """An interface that remembers what it was told, and a clock that is set."""

    path: Path
    told: list[str] = field(default_factory=list)
    requests: list[Changes] = field(default_factory=list)
    refused: set[PublicKey] = field(default_factory=set)
    is_away: bool = False
    now: float = 1000.0
    static: Static = field(default_factory=Static)
    empties: bool = True

    def give(self, changes: Changes) -> None:
        if self.is_away:
            raise UapiError("wg0: no userspace interface", errno.ECONNREFUSED)
        if any(peer.public_key in self.refused for peer in changes.peers):
            raise UapiError("wg0: the device answered: Invalid argument", errno.EINVAL)
        self.requests.append(changes)

    def keys(self) -> set[PublicKey]:
        found: set[PublicKey] = set()
        for request in self.requests:
            for peer in request.peers:
                (found.discard if peer.remove else found.add)(peer.public_key)
        return found

    def follower(self) -> Follower:
        around = Around(
            self.give,
            PresharedKeys(self.path, None).of,
            lambda: (self.static, None),
            self.told.append,
            self.path / "state",
            empties=self.empties,
            clock=lambda: self.now,
            monotonic=lambda: self.now,
        )
        return Follower("/x", Silent(), Cache(self.path / "cache", "/x"), around)

    def state(self) -> state.State:
        found = state.read(self.path / "state")
        assert found is not None
        return found


class Silent:
    def run(self, hear: Hear) -> None: ...


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def text(key: PublicKey, **more: object) -> str:
    return json.dumps({"publicKey": str(key), **more})


def hear(world: World, follower: Follower, *news: News) -> None:
    for one in news:
        follower._news.put(one)
    world.now += 2
    follower.turn()


def test_a_peer_that_stays_is_not_spoken_of(world: World) -> None:
    follower = world.follower()
    hear(world, follower, Whole({"a": text(A), "b": text(B)}, "1"))
    hear(world, follower, Whole({"a": text(A), "c": text(C)}, "2"))
    first, second = world.requests
    assert {peer.public_key for peer in first.peers} == {A, B}
    assert [(peer.public_key, peer.remove) for peer in second.peers] == [(B, True), (C, False)]
    assert (world.state().peers, world.state().position) == (2, "2")


def test_what_waits_is_one_request(world: World) -> None:
    follower = world.follower()
    news = [Part({name: text(key)}, "1") for name, key in (("a", A), ("b", B))]
    hear(world, follower, *news, Part({"a": None}, "2"))
    (request,) = world.requests
    assert [peer.public_key for peer in request.peers] == [B]


def test_one_that_is_refused_keeps_no_other_away_and_is_tried_again(world: World) -> None:
    follower = world.follower()
    world.refused = {B}
    hear(world, follower, Whole({"a": text(A), "b": text(B), "c": text(C)}))
    assert world.keys() == {A, C}
    assert any("Invalid argument" in line for line in world.told)
    assert world.state().skipped == 1
    world.refused = set()
    hear(world, follower, Same())
    assert world.keys() == {A, C}
    world.now += AGAIN_S
    hear(world, follower, Same())
    assert world.keys() == {A, B, C}


def test_a_missing_key_file_is_waited_for(world: World) -> None:
    follower = world.follower()
    hear(world, follower, Whole({"a": text(A, presharedKeyFile="a.psk")}))
    assert world.keys() == set()
    (world.path / "a.psk").touch(0o600)
    (world.path / "a.psk").write_text(SECRET)
    world.now += AGAIN_S
    hear(world, follower, Same())
    assert world.keys() == {A}
    assert SECRET not in "\n".join(world.told)


def test_an_outage_changes_nothing_and_is_told_once(world: World) -> None:
    follower = world.follower()
    hear(world, follower, Whole({"a": text(A)}))
    hear(world, follower, Away("refused"))
    hear(world, follower, Away("refused"))
    assert world.keys() == {A}
    assert sum("is not reached" in line for line in world.told) == 1
    assert world.state().error == "refused"
    assert "not reached: refused" in "\n".join(state.words(world.state(), world.now))
    hear(world, follower, Same())
    assert world.told[-1] == "/x answers again"
    assert world.state().error == ""


def test_a_store_that_is_away_at_the_start_is_stood_in_for_by_the_last_list(world: World) -> None:
    hear(world, world.follower(), Whole({"a": text(A), "b": text(B)}))
    world.requests.clear()
    follower = world.follower()
    hear(world, follower, Away("refused"))
    assert world.keys() == {A, B}
    assert world.state().is_cached
    hear(world, follower, Whole({"b": text(B), "c": text(C)}))
    assert world.keys() == {B, C}
    assert not world.state().is_cached


def test_a_store_that_answers_needs_no_last_list(world: World) -> None:
    hear(world, world.follower(), Whole({"a": text(A), "b": text(B)}))
    world.requests.clear()
    hear(world, world.follower(), Whole({"b": text(B)}))
    assert [peer.public_key for request in world.requests for peer in request.peers] == [B]


def test_a_follower_that_goes_on_for_another_says_what_differs(world: World) -> None:
    known = {"a": text(A), "b": text(B, allowedIPs=["10.0.0.2/32"])}
    hear(world, world.follower(), Whole({**known, "c": text(C, presharedKeyFile="c.psk")}))
    assert world.keys() == {A, B}
    world.requests.clear()
    (world.path / "c.psk").touch(0o600)
    (world.path / "c.psk").write_text(SECRET)
    follower = world.follower()
    follower.go_on()
    hear(world, follower, Whole({"b": known["b"], "c": text(C, presharedKeyFile="c.psk")}))
    said = [peer for request in world.requests for peer in request.peers]
    assert {(peer.public_key, peer.remove) for peer in said} == {(A, True), (C, False)}


def test_a_store_whose_answer_makes_no_sense_is_asked_again(world: World) -> None:
    class Odd:
        def run(self, hear: Hear) -> None:
            raise ValueError("Invalid IPv6 URL")

    follower = world.follower()
    follower._store = Odd()
    follower.listen()
    follower.turn()
    assert "its answer makes no sense (ValueError)" in "\n".join(world.told)


def test_the_last_list_keeps_what_is_no_text_and_is_gone_when_it_cannot_be_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = world.follower()
    hear(world, follower, Whole({"a\udcff": text(A)}))
    assert list(Cache(world.path / "cache", "/x").load()) == ["a\udcff"]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(Cache, "append", full)
    hear(world, follower, Part({"b": text(B)}))
    assert world.keys() == {A, B}
    assert not (world.path / "cache").exists()


def test_an_emptied_store_is_an_accident_where_it_is_no_folder(world: World) -> None:
    world.empties = False
    follower = world.follower()
    hear(world, follower, Whole({"a": text(A)}))
    hear(world, follower, Whole({}))
    assert world.keys() == {A}
    hear(world, follower, Same())
    assert "empty all of a sudden" in world.state().error
    hear(world, follower, Part({"a": None}))  # this one is said in words
    assert world.keys() == set()


def test_another_file_of_the_interface_takes_and_gives_back(world: World) -> None:
    world.static = Static(frozenset([C]))
    follower = world.follower()
    hear(world, follower, Whole({"a": text(A, allowedIPs=["10.0.0.1"]), "b": text(B)}))
    world.static = Static(frozenset([B]), frozenset(["10.0.0.1/32"]))
    world.requests.clear()
    follower.reread()
    hear(world, follower)
    said = {peer.public_key: peer for request in world.requests for peer in request.peers}
    assert set(said) == {A, C}  # B is the file's now, and stays as it is
    assert said[C].remove
    assert said[A].replace_allowed_ips
    assert said[A].allowed_ips == ()
    world.static = Static()
    world.requests.clear()
    follower.reread()
    hear(world, follower)
    said = {peer.public_key: peer for request in world.requests for peer in request.peers}
    assert set(said) == {A, B}
    assert [change.network for change in said[A].allowed_ips] == [ip_network("10.0.0.1/32")]


def test_a_text_that_became_wrong_keeps_what_it_said(world: World) -> None:
    follower = world.follower()
    hear(world, follower, Whole({"a": text(A)}))
    hear(world, follower, Part({"a": "{"}))
    assert world.keys() == {A}
    assert "a: what it said before stays" in world.told
    assert world.state().problems == ("a: is no JSON (to see where: jq . FILE)",)
    hear(world, follower, Part({"a": None}))
    assert world.keys() == set()
    assert world.state().skipped == 0


def test_a_device_that_is_away_is_given_all_when_it_is_back(world: World) -> None:
    follower = world.follower()
    world.is_away = True
    hear(world, follower, Whole({"a": text(A), "b": text(B)}))
    world.is_away = False
    world.now += AGAIN_S
    hear(world, follower, Same())
    assert world.keys() == {A, B}


def test_many_problems_are_a_few_lines(world: World) -> None:
    hear(world, world.follower(), Whole({str(number): "{" for number in range(1000)}))
    assert len(world.told) == 11
    assert world.told[-1].startswith("and 990 more lines")
    assert world.state().skipped == 1000
