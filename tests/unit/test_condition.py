"""Why a peer has no session, in words: plain values in, plain values out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pywg.config import Endpoint
from pywg.errors import UapiError
from pywg.keys import PublicKey
from pywg.wireguard import condition, uapi
from pywg.wireguard.status import Notice, PeerStatus, PeerTrace, Report
from tests.netns.test_mistakes import MISTAKES

KEY = PublicKey(bytes(range(32)))
NOW = 1_700_000_000
PEER = PeerStatus(KEY, endpoint=Endpoint("192.0.2.2", 51820))
ASKED = PeerTrace(has_endpoint=True, asked=2, asked_for_ms=5_400)


def word(trace: PeerTrace, *notices: Notice, peer: PeerStatus = PEER) -> condition.Condition:
    return condition.of_peer(peer, Report(peers={KEY: trace}, notices=list(notices)), NOW)


def notice(kind: str, last_ms_ago: int = 100, **values: object) -> Notice:
    return replace(Notice(kind, 1, last_ms_ago, last_ms_ago, KEY), **values)  # type: ignore[arg-type]


HEALTHY = {
    "idle": PeerTrace(has_endpoint=True),
    "connected": PeerTrace(has_endpoint=True, has_session=True, heard_ms_ago=0),
    "asking": PeerTrace(has_endpoint=True, asked=1, asked_for_ms=20),
}


@pytest.mark.parametrize("expected", HEALTHY)
def test_a_healthy_peer_has_nothing_to_say(expected: str) -> None:
    found = word(HEALTHY[expected])
    assert found.word == expected
    assert found.is_healthy


def test_a_renewal_and_an_answer_that_is_not_due_yet_are_healthy() -> None:
    busy = PeerTrace(has_session=True, heard_ms_ago=9_000, unanswered_ms=9_900, asked=1)
    assert word(busy).is_healthy
    assert word(replace(busy, unanswered_ms=10_000)).word == "silent"


def test_a_peer_that_is_asked_because_it_was_silent_stays_so_until_it_is_heard() -> None:
    silent = PeerTrace(has_session=True, heard_ms_ago=16_000, is_silent=True, asked=1)
    assert word(silent).text == "silent: data was sent, and nothing came back (last heard 16 s ago)"
    assert word(replace(silent, heard_ms_ago=300)).is_healthy
    assert word(replace(silent, asked=2)).word == "no_answer"


def test_long_times_are_told_in_words() -> None:
    long_ago = replace(ASKED, asked_for_ms=95_000, heard_ms_ago=3 * 3600_000)
    assert "in 95 s, no answer (last heard 3 h ago)" in word(long_ago).text
    assert "(last heard 5 min ago)" in word(replace(ASKED, heard_ms_ago=300_000)).text
    assert "(last heard 2 d ago)" in word(replace(ASKED, heard_ms_ago=2 * 86_400_000)).text


def test_other_programs_say_no_more_than_wg_shows() -> None:
    assert condition.of_peer(PEER, None, NOW).word == "unknown"
    recent = replace(PEER, last_handshake_ns=(NOW - 100) * 10**9)
    assert condition.of_peer(recent, None, NOW).word == "connected"


def test_a_peer_that_the_report_leaves_out_is_idle() -> None:
    assert condition.of_peer(PEER, Report(), NOW).word == "idle"


TROUBLES = [
    (ASKED, (), "no_answer", "asked 2 times in 5 s, no answer"),
    (replace(ASKED, heard_ms_ago=60_000), (), "no_answer", "(last heard 60 s ago)"),
    (
        replace(ASKED, refused="port_unreachable"),
        (notice("port_unreachable", address="192.0.2.2"),),
        "port_unreachable",
        "refused: nobody listens on that port (ICMP port unreachable from 192.0.2.2)",
    ),
    (replace(ASKED, refused="prohibited"), (), "prohibited", "a firewall forbids it"),
    (replace(ASKED, refused="wrong_answer"), (), "wrong_answer", "the preshared key differs"),
    (replace(ASKED, refused="under_load"), (), "under_load", "asks for a cookie"),
    (replace(ASKED, refused="no_route"), (), "no_route", "no route to the endpoint"),
    (replace(ASKED, refused="not_let_out"), (), "not_let_out", "a firewall"),
    (replace(ASKED, refused="of_a_newer_core"), (), "of_a_newer_core", "of a newer core"),
    (PeerTrace(answered=2), (), "unconfirmed", "none was confirmed"),
    (PeerTrace(refused="old_timestamp"), (), "old_timestamp", "clock was set back"),
    (
        PeerTrace(has_session=True, heard_ms_ago=0, dropped={"disallowed_source": 3}),
        (notice("disallowed_source", address="10.0.0.9"),),
        "disallowed_source",
        "3 packets from 10.0.0.9 dropped: that address is not in the peer's AllowedIPs",
    ),
    (
        PeerTrace(has_session=True, heard_ms_ago=0),
        (notice("hole", mtu=1420),),
        "hole",
        "packets of 1420 bytes seem not to arrive",
    ),
    (
        PeerTrace(has_session=True, heard_ms_ago=0),
        (notice("too_big", mtu=1300),),
        "too_big",
        "which takes 1300 bytes",
    ),
]


@pytest.mark.parametrize(("trace", "notices", "expected", "text"), TROUBLES)
def test_each_trouble_has_its_word_and_its_sentence(
    trace: PeerTrace, notices: tuple[Notice, ...], expected: str, text: str
) -> None:
    found = word(trace, *notices)
    assert found.word == expected
    assert text in found.text
    assert "\n" not in found.text
    assert not found.is_healthy


def test_every_word_is_documented() -> None:
    made = {expected for _, _, expected, _ in TROUBLES} - {"of_a_newer_core"}
    rest = {"down", "unknown", "silent", "no_endpoint", "host_unreachable", "net_unreachable"}
    assert made | set(HEALTHY) | rest == set(condition.WORDS)


def test_packets_without_an_endpoint_are_told_and_an_idle_peer_without_one_is_not() -> None:
    nowhere = PeerStatus(KEY)
    assert word(PeerTrace(), peer=nowhere).is_healthy
    found = word(PeerTrace(dropped={"no_endpoint": 2}), peer=nowhere)
    assert found.word == "no_endpoint"
    assert "2 packets dropped" in found.text


def test_a_refusal_before_the_peer_was_heard_again_says_nothing() -> None:
    trace = PeerTrace(has_session=True, refused="old_timestamp", heard_ms_ago=500)
    assert word(trace, notice("old_timestamp", 4_000)).word == "connected"
    assert word(trace, notice("old_timestamp", 100)).word == "old_timestamp"


def test_what_was_long_ago_is_over() -> None:
    trace = PeerTrace(has_session=True, heard_ms_ago=0)
    assert word(trace, notice("hole", 61_000, mtu=1420)).is_healthy
    assert condition.of_interface(Report(notices=[Notice("other_key", 1, 61_000, 61_000)])) == []


def test_an_interface_that_is_down_or_has_no_port_is_what_is_missing() -> None:
    down = Report(other={"up": "false"}, peers={KEY: ASKED})
    found = condition.of_peer(PEER, down, NOW)
    assert (found.word, found.is_healthy) == ("down", True)
    taken = Report(other={"up": "true", "listen_error": "EADDRINUSE"})
    assert condition.of_interface(taken) == [
        "its port cannot be had (EADDRINUSE), so nothing is received; it is tried again"
    ]


def test_strangers_and_packets_for_nobody_are_told_of_the_interface() -> None:
    report = Report(
        notices=[
            Notice("no_peer", 3, 900, 300, address="10.5.0.1"),
            Notice("other_key", 1, 200, 200, remote="192.0.2.7:1"),
            Notice("stranger", 2, 900, 100, KEY, remote="192.0.2.8:2"),
            Notice("no_answer", 2, 900, 100, KEY),
        ]
    )
    assert condition.of_interface(report) == [
        f"a handshake from 192.0.2.8:2 (2 times): its public key {KEY} is no peer here",
        "a handshake from 192.0.2.7:1: it is for another public key than this interface's",
        "packets to 10.5.0.1 (3 times): no peer has that address in its AllowedIPs",
    ]


def test_the_report_is_read() -> None:
    report = uapi.parse_report(
        "cipher=v3\n"
        "notice=port_unreachable count=2 first_ms_ago=900 last_ms_ago=10 "
        f"key={bytes(KEY).hex()} remote=192.0.2.2:9 address=192.0.2.1 later=1\n"
        f"peer={bytes(KEY).hex()} endpoint=1 session=0 asked=3 answered=0 asked_for_ms=10400 "
        "refused=port_unreachable heard_ms_ago=0 dropped_staging_full=7 later=x\nerrno=0\n\n"
    )
    assert report.other == {}
    assert report.peers == {
        KEY: PeerTrace(
            has_endpoint=True,
            asked=3,
            asked_for_ms=10400,
            refused="port_unreachable",
            heard_ms_ago=0,
            dropped={"staging_full": 7},
        )
    }
    assert report.notices == [
        Notice("port_unreachable", 2, 900, 10, KEY, "192.0.2.2:9", "192.0.2.1")
    ]


def test_a_report_that_is_none_is_an_error_of_its_own() -> None:
    with pytest.raises(UapiError):
        uapi.parse_report("notice=no_answer\n")


def test_the_page_has_every_word_and_every_mistake() -> None:
    page = (Path(__file__).parents[2] / "docs" / "no-handshake.md").read_text()
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("| ")]
    words = {row[0].strip(" `"): row[1].strip() for row in rows if len(row) == 2}
    assert {name: words[name] for name in condition.WORDS} == condition.WORDS
    told = [row[0].strip() for row in rows if len(row) == 4]
    assert told == ["what is wrong", *(mistake.what for mistake in MISTAKES)]
