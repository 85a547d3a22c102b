"""`pywg top`: what successive answers become, which rows are shown and how, all from plain values;
and the live view, driven by textual's own pilot."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from pywg import cli, wireguard
from pywg.config import Endpoint
from pywg.errors import PywgError, UapiError
from pywg.host import processes
from pywg.keys import PublicKey
from pywg.top import observe, plain, table, words
from pywg.top.sampler import (
    HISTORY_LENGTH,
    Dropped,
    InterfaceView,
    Observation,
    Sampler,
)
from pywg.top.table import Sort
from pywg.tunnel import names
from pywg.wireguard import socket as uapi_socket
from pywg.wireguard.status import InterfaceStatus, PeerStatus, PeerTrace, Report

S = 1_000_000_000
NOW_NS = 1_700_000_000 * S


def key(number: int) -> PublicKey:
    return PublicKey(number.to_bytes(32, "big"))


def peer(number: int, received: int = 0, sent: int = 0, **others: Any) -> PeerStatus:
    return PeerStatus(key(number), rx_bytes=received, tx_bytes=sent, **others)


def seen(
    at_s: float, *peers: PeerStatus, wall_s: float | None = None, **others: Any
) -> Observation:
    wall_ns = NOW_NS + int(S * (at_s if wall_s is None else wall_s))
    return Observation(int(at_s * S), wall_ns, peers, **others)


def views(*observations: Observation) -> list[InterfaceView]:
    sampler = Sampler()
    return [sampler.take(one) for one in observations]


# ---- successive answers


def test_the_first_answer_has_totals_and_no_rates() -> None:
    (view,) = views(seen(1, peer(1, 100, 50)))
    assert (view.seconds, view.received.total, view.received.rate) == (0.0, 100, None)
    assert view.peers[0].sent.rate is None and view.peers[0].sent.history == ()


def test_rates_are_bytes_over_the_seconds_between() -> None:
    *_, view = views(seen(1, peer(1, 100, 50), peer(2)), seen(3, peer(1, 500, 50), peer(2, 0, 8)))
    assert view.seconds == 2.0
    assert [one.received.rate for one in view.peers] == [200.0, 0.0]
    assert [one.sent.rate for one in view.peers] == [0.0, 4.0]
    assert (view.received.rate, view.sent.rate) == (200.0, 4.0)


def test_a_counter_that_became_smaller_was_begun_anew() -> None:
    *_, view = views(seen(0, peer(1, 1000)), seen(1, peer(1, 30)), seen(2, peer(1, 70)))
    assert view.peers[0].received.history == (30.0, 40.0)


def test_a_peer_that_comes_has_no_rate_yet_and_one_that_goes_leaves_nothing() -> None:
    first, second, third, fourth = views(
        seen(0, peer(1, 10)),
        seen(1, peer(1, 20), peer(2, 5000)),
        seen(2, peer(2, 5600)),
        seen(3, peer(1, 99), peer(2, 5600)),
    )
    assert first.received.rate is None
    assert [one.received.rate for one in second.peers] == [10.0, None]
    assert second.received.rate == 10.0  # what it had before it was seen was not of this second
    assert [one.status.public_key for one in third.peers] == [key(2)]
    assert (third.received.rate, third.received.total) == (600.0, 5600)
    assert fourth.peers[0].received.rate is None, "it is another one, though of the same key"


def test_no_step_of_the_wall_clock_changes_a_rate() -> None:
    for wall_s in (-3600.0, 86400.0):
        *_, view = views(seen(0, peer(1)), seen(1, peer(1, 100), wall_s=wall_s))
        assert view.peers[0].received.rate == 100.0


def test_a_handshake_has_an_age_and_one_of_the_future_says_so() -> None:
    shaken = peer(1, last_handshake_ns=NOW_NS + 4 * S)
    then, later = views(seen(10, shaken), seen(11, shaken, wall_s=2))
    assert then.peers[0].handshake_s == 6.0
    assert later.peers[0].handshake_s == -2.0
    assert words.age(later.peers[0].handshake_s) == "clock?"
    (view,) = views(seen(1, peer(1)))
    assert view.peers[0].handshake_s is None


def test_what_is_wrong_with_a_peer_is_told_in_words() -> None:
    asked = replace(peer(1), endpoint=Endpoint("192.0.2.7", 5))
    report = Report(peers={key(1): PeerTrace(has_endpoint=True, asked=2, asked_for_ms=7000)})
    told, unknown = views(seen(1, asked, report=report), seen(2, asked))
    assert told.peers[0].condition.word == "no_answer"
    assert unknown.peers[0].condition.word == "unknown"


@pytest.mark.parametrize("again_s", [5.0, 4.0])
def test_time_that_stands_still_or_goes_back_begins_anew(again_s: float) -> None:
    *_, view = views(seen(4, peer(1, 1)), seen(5, peer(1, 9)), seen(again_s, peer(1, 30)))
    assert view.seconds == 0.0
    assert view.peers[0].received.rate is None and view.received.history == ()


def test_histories_end_and_silent_peers_have_none() -> None:
    sampler = Sampler()
    for second in range(HISTORY_LENGTH + 10):
        view = sampler.take(seen(second, peer(1, 7 * second), peer(2)))
    assert view.peers[0].received.history == (7.0,) * HISTORY_LENGTH
    assert view.peers[1].received.history == ()
    for later in range(second + 1, second + HISTORY_LENGTH + 2):
        view = sampler.take(seen(later, peer(1), peer(2)))
    assert view.peers[0].received.history == ()


def test_processor_time_becomes_cores() -> None:
    *_, view = views(seen(0, cpu_ns=5 * S), seen(2, cpu_ns=8 * S))
    assert view.cpu == 1.5
    *_, view = views(seen(0, cpu_ns=None), seen(2, cpu_ns=8 * S))
    assert view.cpu is None
    *_, view = views(seen(0, cpu_ns=9 * S), seen(2, cpu_ns=S))
    assert view.cpu == 0.5, "another process, that has begun meanwhile"


def report(dropped: dict[str, int], **other: int) -> Report:
    return Report(dropped=dropped, other={name: str(value) for name, value in other.items()})


def test_drops_are_told_by_reason_those_of_now_first() -> None:
    *_, view = views(
        seen(0, report=report({"no_peer": 900, "replayed": 3, "too_old": 0})),
        seen(2, report=report({"no_peer": 900, "replayed": 23, "too_old": 0})),
    )
    assert view.dropped == (Dropped("replayed", 23, 10.0), Dropped("no_peer", 900, 0.0))
    assert words.dropped(view.dropped) == "replayed 23 (10/s), no peer 900"


def test_offloads_are_told_by_what_they_come_to_between_two_answers() -> None:
    before = report(
        {},
        udp_send_calls=10,
        udp_sent=10,
        udp_receive_calls=5,
        udp_received=5,
        tun_reads=1,
        tun_read_bytes=50,
        tun_writes=7,
        tun_written_bytes=70,
    )
    after = report(
        {},
        udp_send_calls=20,
        udp_sent=410,
        udp_receive_calls=5,
        udp_received=5,
        tun_reads=3,
        tun_read_bytes=120_050,
        tun_writes=7,
        tun_written_bytes=70,
    )
    *_, view = views(seen(0, report=before), seen(1, report=after))
    assert view.efficiency is not None
    assert view.efficiency.datagrams_a_send == 40.0
    assert view.efficiency.datagrams_a_receive is None
    assert view.efficiency.bytes_a_read == 60_000.0
    assert (
        words.efficiency(view.efficiency)
        == "datagrams a call: 40.0 out; superpackets: 58.6 KiB out"
    )
    *_, view = views(seen(0, report=report({})), seen(1, report=report({})))
    assert view.efficiency is None, "a device that does not count this"
    assert words.efficiency(None) == ""


# ---- words


@pytest.mark.parametrize(
    ("bytes_a_second", "text"),
    [
        (None, "-"),
        (0, "0 bit/s"),
        (1, "8 bit/s"),
        (124.99, "1.0 kbit/s"),
        (125_000, "1.0 Mbit/s"),
        (400_000_000, "3.2 Gbit/s"),
        (12_400_000, "99.2 Mbit/s"),
        (12_500_000, "100 Mbit/s"),
        (1e15, "8000 Tbit/s"),
    ],
)
def test_rates_are_bits_a_second(bytes_a_second: float | None, text: str) -> None:
    assert words.rate(bytes_a_second) == text


def test_amounts_are_bytes() -> None:
    shown = [words.amount(value) for value in (0, 1023, 1024, 1 << 30, 5 << 40, 5 << 52)]
    assert shown == ["0 B", "1023 B", "1.0 KiB", "1.0 GiB", "5.0 TiB", "20480 TiB"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "never"),
        (0.2, "0s"),
        (59.9, "59s"),
        (60, "1m 0s"),
        (3725, "1h 2m"),
        (200_000, "2d 7h"),
        (-1, "clock?"),
    ],
)
def test_ages_have_two_units(seconds: float | None, text: str) -> None:
    assert words.age(seconds) == text


def test_bars_end_at_the_right_and_the_highest_is_whole() -> None:
    assert words.bars((), 3) == "   "
    assert words.bars((4000.0, 0.0, 2000.0, 4000.0), 6) == "  █▁▅█"
    assert words.bars((1.0, 4000.0, 2000.0), 2) == "█▅"
    assert words.bars((1.0, 2.0, 1.0), 3) == "▁▁▁", "a keepalive is no mountain"


# ---- rows


def some() -> dict[str, InterfaceView]:
    names = {key(1): "Laptop", key(3): "phone"}
    before = (peer(1, 0, 0), peer(2, 0, 0), peer(3, 0, 0))
    after = (
        peer(1, 100, 0, last_handshake_ns=NOW_NS - 50 * S, endpoint=Endpoint("192.0.2.7", 5)),
        peer(2, 0, 300, last_handshake_ns=NOW_NS - 5 * S),
        peer(3, 0, 0, endpoint=Endpoint("2001:db8::7", 6)),
    )
    *_, view = views(seen(0, *before, names=names), seen(1, *after, names=names))
    return {"wg0": view}


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        (Sort.TRAFFIC, [2, 1, 3]),
        (Sort.IN, [1, 2, 3]),
        (Sort.OUT, [2, 1, 3]),
        (Sort.HANDSHAKE, [2, 1, 3]),
        (Sort.RECEIVED, [1, 2, 3]),
        (Sort.SENT, [2, 1, 3]),
        (Sort.NAME, [1, 3, 2]),
    ],
)
def test_rows_are_ordered_by_what_is_asked_for(sort: Sort, order: list[int]) -> None:
    found = [row.peer.status.public_key for row in table.rows(some(), sort)]
    assert found == [key(number) for number in order]


def test_reversed_the_last_comes_first() -> None:
    rows = table.rows(some(), Sort.IN, reverse=True)
    assert rows[-1].peer.status.public_key == key(1)


def test_the_key_goes_through_every_order() -> None:
    sort, visited = Sort.TRAFFIC, set()
    while sort not in visited:
        visited.add(sort)
        sort = sort.next()
    assert visited == set(Sort)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("laptop", [1]),
        ("192.0.2.7:5", [1]),
        ("2001:DB8", [3]),
        (key(2).to_base64()[-8:], [2]),
        ("wg0 phone", [3]),
        ("wg0", [2, 1, 3]),
        ("laptop phone", []),
        ("  ", [2, 1, 3]),
    ],
)
def test_a_filter_is_words_in_any_case(wanted: str, found: list[int]) -> None:
    rows = table.rows(some(), Sort.TRAFFIC, wanted=wanted)
    assert [row.peer.status.public_key for row in rows] == [key(number) for number in found]


@pytest.mark.parametrize("width", [20, 60, 80, 100, 132, 200])
@pytest.mark.parametrize("several", [False, True])
def test_columns_fit_and_every_cell_is_as_wide_as_its_column(width: int, several: bool) -> None:
    columns = table.columns(width, several=several)
    assert columns[0].title == "PEER"
    assert sum(column.width + 1 for column in columns) <= width + 1 or len(columns) <= 3
    for row in table.rows(some(), Sort.TRAFFIC):
        assert [len(table.cell(column, row)) for column in columns] == [
            column.width for column in columns
        ]


def test_a_title_says_the_order() -> None:
    (column,) = (one for one in table.columns(132, several=False) if one.title == "IN")
    assert table.title(column, Sort.IN, reverse=False).endswith(" IN▼")
    assert table.title(column, Sort.IN, reverse=True).endswith(" IN▲")
    assert table.title(column, Sort.OUT, reverse=False).endswith(" IN")


# ---- the command


class Answers:
    """Interfaces that answer with plain values."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock_s = 0.0
        self.received = 0
        self.answers: dict[str, InterfaceStatus | UapiError] = {}
        monkeypatch.setattr(wireguard, "interfaces", lambda: list(self.answers))
        monkeypatch.setattr(wireguard, "get", self._get)
        monkeypatch.setattr(uapi_socket, "owner", lambda name: 0)
        monkeypatch.setattr(names, "file_of", lambda name: Path(__file__))
        monkeypatch.setattr(names, "names_of", lambda name: {key(1): "Laptop"})
        monkeypatch.setattr(time, "clock_gettime_ns", lambda clock: int(self.clock_s * S))
        monkeypatch.setattr(time, "sleep", self._sleep)

    def _get(self, name: str) -> InterfaceStatus:
        answer = self.answers[name]
        if isinstance(answer, UapiError):
            raise answer
        return answer

    def _sleep(self, seconds: float) -> None:
        self.clock_s += seconds
        for answer in self.answers.values():
            if isinstance(answer, InterfaceStatus):
                answer.peers = [
                    replace(one, rx_bytes=one.rx_bytes + int(125_000 * seconds))
                    for one in answer.peers
                ]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    return Answers(monkeypatch)


def test_once_prints_one_table_over_one_interval(
    answers: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    answers.answers["wg0"] = InterfaceStatus(peers=[peer(1, endpoint=Endpoint("192.0.2.7", 5))])
    answers.answers["gone"] = UapiError("gone: no answer", 0)
    assert cli.main(["top", "--once", "--interval", "2"]) == 1
    out, err = capsys.readouterr()
    head, empty, titles, row = out.splitlines()
    assert head.split() == ["wg0", "1", "peer", "in", "1.0", "Mbit/s", "out", "0", "bit/s"]
    assert empty == "" and titles.split()[:3] == ["PEER", "IN", "OUT"]
    assert row.split()[:3] == ["Laptop", "1.0", "Mbit/s"] and "192.0.2.7:5" in row
    assert err == "pywg: gone: no answer\n"


def test_json_has_the_names_of_show_and_rates_in_bytes(
    answers: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    answers.answers["wg0"] = InterfaceStatus(peers=[peer(1, last_handshake_ns=NOW_NS)])
    assert cli.main(["top", "--json"]) == 0
    flows = {"transferRx": 125_000, "transferTx": 0, "rxPerSecond": 125_000, "txPerSecond": 0}
    assert json.loads(capsys.readouterr().out) == {
        "wg0": {
            "seconds": 1.0,
            **flows,
            "peers": {str(key(1)): {"name": "Laptop", "latestHandshake": NOW_NS // S, **flows}},
        }
    }


def test_json_tells_what_pywgs_own_devices_count() -> None:
    counted = dict.fromkeys(("udp_send_calls", "udp_receive_calls", "tun_reads", "tun_writes"), 1)
    *_, view = views(
        seen(0, cpu_ns=0, report=report({"no_peer": 0}, **dict.fromkeys(counted, 0))),
        seen(1, cpu_ns=S // 4, report=report({"no_peer": 5}, udp_sent=40, **counted)),
    )
    shown = plain.to_json({"wg0": view})["wg0"]
    assert shown["cpu"] == 0.25
    assert shown["dropped"] == {"no_peer": {"count": 5, "perSecond": 5.0}}
    assert shown["offloadEfficiency"]["datagramsPerSend"] == 40.0


def test_without_interfaces_it_says_so(
    answers: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["top", "--once"]) == 1
    assert capsys.readouterr() == ("", "pywg: there is no WireGuard interface here\n")


def test_a_name_that_nobody_has_is_told_at_once(
    answers: Answers, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("textual", reason="the extra `tui` is not installed")
    answers.answers["wg7"] = UapiError("wg7: no userspace WireGuard interface of this name runs", 0)
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    for arguments in (["top", "wg7"], ["top", "--once", "wg7"]):
        assert cli.main(arguments) == 1
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("pywg: wg7: no userspace WireGuard interface")


def test_without_textual_it_says_what_to_install(
    answers: Answers, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith(("textual", "pywg.top.app"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "textual", None)
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.delitem(sys.modules, "pywg.top.peers", raising=False)
    monkeypatch.delitem(sys.modules, "pywg.top.details", raising=False)
    assert cli.main(["top"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and 'pip install "pywg-tunnel[tui]"' in err and len(err.splitlines()) == 1


def test_another_implementation_is_asked_for_its_report_once(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(name: str) -> Report:
        asked.append(name)
        raise UapiError("no such question", 22)

    monkeypatch.setattr(uapi_socket, "owner", lambda name: 1)
    monkeypatch.setattr(uapi_socket, "report", refuse)
    answers.answers["wg0"] = InterfaceStatus(peers=[peer(1)])
    observers = observe.Observers(())
    for _ in range(3):
        assert isinstance(observers.views()["wg0"], InterfaceView)
    assert asked == ["wg0"]


def test_an_interface_that_goes_and_comes_is_followed(answers: Answers) -> None:
    observers = observe.Observers(())
    assert observers.views() == {}
    answers.answers["wg0"] = InterfaceStatus(peers=[peer(1)])
    assert list(observers.views()) == ["wg0"]
    answers.answers.clear()
    assert observers.views() == {}


def test_a_process_has_used_processor_time_and_the_kernel_none() -> None:
    assert processes.cpu_ns(0) is None
    used = processes.cpu_ns(1)
    assert used is not None and used >= 0


# ---- the live view


class Device:
    """An interface that the view looks at: each look is a second later."""

    def __init__(self, peers: int = 3) -> None:
        self.sampler = Sampler()
        self.names = {key(1): "Laptop", key(3): "phone"}
        self.peers = [
            peer(
                number,
                endpoint=Endpoint("192.0.2.7", number % 65536),
                last_handshake_ns=NOW_NS,
                allowed_ips=[ip_network(f"10.{number >> 8 & 255}.{number & 255}.0/24")],
            )
            for number in range(1, peers + 1)
        ]
        self.looks = 0
        self.error: PywgError | None = None

    def look(self) -> dict[str, InterfaceView | PywgError]:
        self.looks += 1
        if self.error is not None:
            return {"wg0": self.error}
        for number, one in enumerate(self.peers[:3], start=1):
            one.rx_bytes += 125_000 * number
        return {"wg0": self.sampler.take(seen(self.looks, *self.peers, names=self.names))}


Act = Callable[[Any, Any, Device], Awaitable[None]]


def drive(act: Act, device: Device | None = None, size: tuple[int, int] = (132, 30)) -> None:
    """Runs the view over a device while ``act(app, pilot, device)`` presses its keys."""
    pytest.importorskip("textual", reason="the extra `tui` is not installed")
    from pywg.top.app import Top

    looked_at = device or Device()

    async def run() -> None:
        app = Top(looked_at.look, 0.2)
        async with app.run_test(size=size) as pilot:
            await until(lambda: looked_at.looks > 2)
            await act(app, pilot, looked_at)

    asyncio.run(run())


async def until(what: Callable[[], bool], seconds: float = 30) -> None:
    limit = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < limit, "it did not come to pass"
        await asyncio.sleep(0.01)


def screen(app: Any) -> list[str]:
    """What the terminal shows, line by line."""
    strips = app.screen._compositor.render_strips()
    return [strip.text.rstrip() for strip in strips]


def titles_and_rows(app: Any) -> list[str]:
    lines = screen(app)
    first = next(i for i, line in enumerate(lines) if line.startswith("PEER"))
    return [line for line in lines[first:] if line][:4]


def test_the_view_shows_peers_by_their_traffic_with_bars() -> None:
    async def act(app: Any, pilot: Any, device: Device) -> None:
        await until(lambda: "3.0 Mbit/s" in "\n".join(screen(app)))
        titles, *rows = titles_and_rows(app)
        assert [row.split()[0] for row in rows] == ["phone", "AAAAAAAAAAAAAAAAAAAAAAAAA…", "Laptop"]
        assert "█" in rows[0] and "192.0.2.7:3" in rows[0]
        assert titles.split()[:3] == ["PEER", "IN", "OUT"]
        assert screen(app)[0].startswith("wg0  3 peers  in")
        assert "6.0 Mbit/s" in screen(app)[0]
        assert "Filter" in screen(app)[-1] and "Quit" in screen(app)[-1]

    drive(act)


def test_keys_sort_and_reverse() -> None:
    async def act(app: Any, pilot: Any, device: Device) -> None:
        await until(lambda: "3.0 Mbit/s" in "\n".join(screen(app)))
        await pilot.press("s")
        await until(lambda: "IN▼" in titles_and_rows(app)[0])
        await pilot.press("r")
        await until(lambda: "IN▲" in titles_and_rows(app)[0])
        assert titles_and_rows(app)[1].startswith("Laptop")
        await pilot.press("r", *["s"] * (len(Sort) - 2))
        await until(lambda: "PEER▼" in titles_and_rows(app)[0])
        assert [row.split()[0] for row in titles_and_rows(app)[1:3]] == ["Laptop", "phone"]

    drive(act)


def test_a_filter_is_typed_and_taken_back() -> None:
    async def act(app: Any, pilot: Any, device: Device) -> None:
        await pilot.press("slash", *"PHO")
        await until(lambda: "1 of 3 peers" in "\n".join(screen(app)))
        assert titles_and_rows(app)[1].startswith("phone")
        await pilot.press("enter")
        assert app.focused is app.query_one("PeerTable")
        await pilot.press("escape")
        await until(lambda: "1 of 3 peers" not in "\n".join(screen(app)))

    drive(act)


def test_enter_shows_everything_of_a_peer_and_follows_it() -> None:
    async def act(app: Any, pilot: Any, device: Device) -> None:
        await until(lambda: titles_and_rows(app)[1].startswith("phone"))
        await pilot.press("down", "down", "enter")
        await until(lambda: "10.0.1.0/24" in "\n".join(screen(app)))
        text = "\n".join(screen(app))
        assert str(key(1)) in text and "Laptop" in text and "peak" in text
        device.peers.pop(0)
        await until(lambda: "This peer is gone." in "\n".join(screen(app)))
        await pilot.press("escape")
        await until(lambda: titles_and_rows(app)[0].startswith("PEER"))

    drive(act)


def test_paused_it_stays_as_it_is() -> None:
    async def act(app: Any, pilot: Any, device: Device) -> None:
        await pilot.press("p")
        await until(lambda: "PAUSED" in "\n".join(screen(app)))
        before, looks = screen(app), device.looks
        device.error = UapiError("wg0: gone", 0)
        await until(lambda: device.looks > looks + 2)
        assert screen(app) == before
        await pilot.press("p")
        await until(lambda: "wg0: gone" in "\n".join(screen(app)))

    drive(act)


def test_the_cursor_follows_its_peer() -> None:
    async def act(app: Any, pilot: Any, device: Device) -> None:
        await until(lambda: titles_and_rows(app)[1].startswith("phone"))
        await pilot.press("down", "down")
        assert app.query_one("PeerTable").under_cursor.title == "Laptop"
        await pilot.press("s", "s", "s", "s", "s", "s")
        await until(lambda: titles_and_rows(app)[1].startswith("Laptop"))
        assert app.query_one("PeerTable").under_cursor.title == "Laptop"

    drive(act)


def test_q_ends_it() -> None:
    async def act(app: Any, pilot: Any, device: Device) -> None:
        await pilot.press("q")
        await until(lambda: not app.is_running)

    drive(act)


def test_ten_thousand_peers_draw_only_the_lines_that_are_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: set[bytes] = set()
    cell = table.cell

    def count(column: table.Column, row: table.Row) -> str:
        drawn.add(bytes(row.peer.status.public_key))
        return cell(column, row)

    monkeypatch.setattr(table, "cell", count)

    async def act(app: Any, pilot: Any, device: Device) -> None:
        await until(lambda: "10000 peers" in "\n".join(screen(app)))
        await pilot.press("end")
        await until(lambda: app.query_one("PeerTable").cursor == 9_999)
        await pilot.press("home", "s")
        await until(lambda: "IN▼" in titles_and_rows(app)[0])
        assert len(drawn) < 200

    drive(act, Device(10_000))
