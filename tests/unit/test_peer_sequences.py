"""Any sequence of add, remove, rename and rotate: the file parses, no address is two peers', and
what the file said before is as it was, to the byte."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest

pytest.importorskip("hypothesis")

from hypothesis import given, settings
from hypothesis import strategies as st

from pywg.config import PeerSection, comments, document, parse
from pywg.config.spans import spans
from pywg.enroll import client, peers, rotation, server
from pywg.enroll.server import Server
from pywg.errors import ConfigError, PywgError
from pywg.keys import PrivateKey, PublicKey
from tools.fuzz.config import TEXTS as ANY_TEXTS

OWN = PrivateKey.generate().to_base64()
OTHERS = [PrivateKey.generate().public for _ in range(3)]
HEAD = f"[Interface]\nPrivateKey = {OWN}\nAddress = 10.7.0.1/28\n"
# Sections as people and programs write them.
SECTIONS = [
    f"[Peer]\nPublicKey = {OTHERS[0]}\nAllowedIPs = 10.7.0.3/32\n",
    f"\n### Client ada\n[Peer]\nPublicKey={OTHERS[1]}   # hers\nAllowedIPs = 10.7.0.8/30\n\n\n",
    f"[peer]\n#!pywg Name = bob\nallowedips = 0.0.0.0/0\nPublicKey={OTHERS[2]}\n#!pywg name=eve",
    "",
]
TEXTS = st.builds(
    lambda sections, ending: (HEAD + "".join(sections)).replace("\n", ending),
    st.permutations(SECTIONS).flatmap(
        lambda order: st.integers(0, len(order)).map(lambda count: _joined(order[:count]))
    ),
    st.sampled_from(("\n", "\r\n")),
)
NAMES = st.one_of(
    st.sampled_from(("ada", "bob", "eve", "x")),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=12),
)
DEEDS = st.lists(
    st.tuples(
        st.sampled_from(("add", "add", "remove", "rename", "next", "finish")),
        st.integers(0, 9),
        NAMES,
    ),
    max_size=12,
)


def _joined(sections: list[str]) -> list[str]:
    return [one if one.endswith("\n") or not one else f"{one}\n" for one in sections]


def read(text: str) -> Server:
    config = parse(text)
    return Server("wg0", Path("wg0.conf"), text, config, comments.names(text, config))


def judge_add(before: str, after: str) -> None:
    assert after.startswith(before)


def judge_remove(before: str, after: str) -> None:
    """One piece is missing, and nothing else has changed."""
    head = same_at_the_start(before, after)
    tail = same_at_the_start(before[::-1], after[::-1])
    assert len(after) < len(before)
    assert head + tail >= len(after), "one piece"


def judge_removed(found: Server, one: PeerSection, after: str) -> None:
    """What was to replace it goes, too."""
    pending = found.next_key_of(one)
    before = document.without_peer(found.text, pending.public_key) if pending else found.text
    if pending:
        judge_remove(found.text, before)
    judge_remove(before, after)


def same_at_the_start(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def judge_rename(before: str, after: str) -> None:
    """Only lines that say a name have changed, come or gone."""
    old, new = (
        [line for line in text.splitlines() if not line.lower().startswith("#!pywg name")]
        for text in (before, after)
    )
    assert old == new


def judge_finish(found: Server, after: str, old: PublicKey, new: PublicKey) -> None:
    """The new key is in the place of the old one, and its own section is gone."""
    without = document.without_peer(found.text, new)
    assert after == without.replace(str(old), str(new))
    called = {key: name for key, name in found.names.items() if key not in (old, new)}
    own = {new: found.names[old]} if old in found.names else {}
    assert read(after).names == called | own


def do(found: Server, deed: str, which: int, name: str) -> str:
    if deed == "add":
        chosen = server.new_name(found, name)
        section = client.section(found, chosen, client.keys(None, with_psk=True))
        after = peers.added(found, section)
        judge_add(found.text, after)
        assert server.find(read(after), chosen) == section
        return after
    if not found.config.peers:
        return found.text
    one = found.config.peers[which % len(found.config.peers)]
    if deed == "remove":
        after = peers.removed(found, one)
        judge_removed(found, one, after)
        assert one.public_key not in {peer.public_key for peer in parse(after).peers}
        return after
    if deed == "next":
        rotated = rotation.of_key_pair(found, one, client.keys(None, with_psk=False))
        judge_add(found.text, rotated.text)
        assert rotation.pair(read(rotated.text), str(one.public_key))[0] == one
        return rotated.text
    if deed == "finish":
        old, new = rotation.pair(found, str(one.public_key))
        after = rotation.finished(found, old, new)
        judge_finish(found, after, old.public_key, new.public_key)
        return after
    chosen = server.new_name(found, name)
    after = peers.renamed(found, one, chosen)
    judge_rename(found.text, after)
    assert read(after).names == {**found.names, one.public_key: chosen}
    return after


@settings(max_examples=150, deadline=None)
@given(TEXTS, DEEDS)
def test_any_sequence_leaves_a_file_that_is_right(
    text: str, deeds: list[tuple[str, int, str]]
) -> None:
    for deed in deeds:
        found = read(text)
        try:
            text = do(found, *deed)
        except PywgError:
            continue  # a name that is taken or is none, or an empty pool: nothing is written
        after = read(text)
        own = list(chain(*(client.own_addresses(after, peer) for peer in after.config.peers)))
        assert len(set(own)) == len(own)
        assert after.config.interface == found.config.interface
        same = [peer for peer in after.config.peers if peer in found.config.peers]
        assert len(same) >= len(found.config.peers) - 2


@settings(max_examples=300, deadline=None)
@given(ANY_TEXTS)
def test_lines_belong_to_the_section_that_the_parser_reads_them_for(text: str) -> None:
    try:
        config = parse(text)
    except ConfigError:
        return
    found = [span.public_key for span in spans(text.split("\n")) if span.kind == "peer"]
    assert found == [str(peer.public_key) for peer in config.peers]
