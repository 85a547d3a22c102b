"""Events from two looks at an interface that tells nothing by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pywg.config import Endpoint
from pywg.keys import PublicKey
from pywg.monitor.place import DEFAULT, parse
from pywg.monitor.polling import STALE_S, Looks
from pywg.native.events import EndpointChanged, Event, HandshakeDone, PeerGone, PeerStale
from pywg.wireguard.status import InterfaceStatus, PeerStatus

KEY = PublicKey(bytes(32))
HERE, THERE = Endpoint("192.0.2.1", 1), Endpoint("192.0.2.2", 1)
PEER = PeerStatus(KEY, endpoint=HERE)


def looks(*states: tuple[float, PeerStatus | None]) -> list[list[Event]]:
    seen = Looks()
    return [
        seen.events(InterfaceStatus(peers=[] if peer is None else [replace(peer)]), now)
        for now, peer in states
    ]


def test_the_first_look_tells_nothing() -> None:
    assert looks((0, replace(PEER, last_handshake_ns=5))) == [[]]


def test_a_new_handshake_is_told_also_of_a_new_peer() -> None:
    done = replace(PEER, last_handshake_ns=5)
    assert looks((0, PEER), (1, done), (2, done)) == [[], [HandshakeDone(KEY)], []]
    assert looks((0, None), (1, done)) == [[], [HandshakeDone(KEY)]]


def test_an_endpoint_that_moves_is_told_and_a_first_one_is_not() -> None:
    moved = replace(PEER, endpoint=THERE)
    assert looks((0, PEER), (1, moved))[1] == [EndpointChanged(KEY, THERE)]
    assert looks((0, replace(PEER, endpoint=None)), (1, moved))[1] == []


def test_a_peer_that_is_removed_is_told() -> None:
    assert looks((0, PEER), (1, None), (2, None)) == [[], [PeerGone(KEY)], []]


def test_a_peer_that_does_not_answer_is_stale_once() -> None:
    sent = replace(PEER, tx_bytes=148)
    again = replace(PEER, tx_bytes=296)
    told = looks((0, PEER), (1, sent), (STALE_S, again), (1 + STALE_S, again), (999, again))
    assert told == [[], [], [], [PeerStale(KEY)], []]


def test_one_that_answers_or_to_whom_nothing_is_sent_is_not() -> None:
    heard = replace(PEER, tx_bytes=148, rx_bytes=92)
    assert looks((0, PEER), (1, replace(PEER, tx_bytes=148)), (2, heard), (999, heard))[3] == []
    assert looks((0, PEER), (999, PEER))[1] == []


@pytest.mark.parametrize(
    ("text", "place", "is_local"),
    [
        ("127.0.0.1:9586", "127.0.0.1:9586", True),
        (":1234", "127.0.0.1:1234", True),
        ("[::1]:0", "[::1]:0", True),
        ("::1", "[::1]:9586", True),
        ("0.0.0.0", "0.0.0.0:9586", False),
        ("192.0.2.1:80", "192.0.2.1:80", False),
        ("[2001:db8::1]", "[2001:db8::1]:9586", False),
    ],
)
def test_places_are_read(text: str, place: str, is_local: bool) -> None:
    found = parse(text)
    assert (str(found), found.is_local) == (place, is_local)


@pytest.mark.parametrize("text", ["localhost:80", "127.0.0.1:x", "127.0.0.1:65536", "::1:", "1:2:"])
def test_places_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse(text)


def test_the_default_is_this_host_alone() -> None:
    assert DEFAULT.is_local
