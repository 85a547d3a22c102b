"""Events for other processes: their form, and that nobody waits for a reader."""

from __future__ import annotations

import errno
import json
import os
import queue
import selectors
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast, get_args

import pytest

from pywg.config import Endpoint
from pywg.keys import PublicKey
from pywg.monitor import watching
from pywg.monitor.gathering import Names
from pywg.native import events
from pywg.native.event_json import kind_of, stamp, to_json
from pywg.native.event_stream import EventStream
from pywg.native.events import Event
from pywg.native.options import Offload
from pywg.service import announcer
from pywg.service.announcer import WAITING, Announcer, Reader
from pywg.tunnel import record
from pywg.wireguard.status import PeerCounters
from tools.lab.waiting import wait_until

ROOT = Path(__file__).parents[2]
KEY = PublicKey(bytes(range(32)))
PLACE = Endpoint("192.0.2.1", 51820)
TIME_S = 1_700_000_000.25
STAMP = "2023-11-14T22:13:20.250Z"


class Device:
    """One whose events a test makes."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._readable = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_SEMAPHORE)
        self.opened = 0

    def events(self) -> EventStream:
        self.opened += 1
        return EventStream(self._take, os.dup(self._readable))

    def _take(self) -> Event | None:
        try:
            event = self.queue.get_nowait()
        except queue.Empty:
            return None
        os.eventfd_read(self._readable)
        return event

    def tell(self, event: Event) -> None:
        self.queue.put(event)
        os.eventfd_write(self._readable, 1)

    def counters(self) -> dict[PublicKey, PeerCounters]:
        return {KEY: PeerCounters(KEY, PLACE, 0, 0, 0)}


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "run" / "wg0.events"


@pytest.fixture
def running(device: Device, place: Path) -> Iterator[Announcer]:
    made = Announcer("wg0", device, place, clock=lambda: TIME_S)
    made.start()
    yield made
    made.stop()


def connect(path: Path) -> socket.socket:
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(30)
    stream.connect(str(path))
    return stream


def greeted(path: Path) -> socket.socket:
    """One that listens from now on."""
    stream = connect(path)
    assert stream.recv(1) == b"\n"
    return stream


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (events.HandshakeDone(KEY), {"event": "handshake_done", "peer": str(KEY)}),
        (
            events.EndpointChanged(KEY, PLACE),
            {"event": "endpoint_changed", "peer": str(KEY), "endpoint": "192.0.2.1:51820"},
        ),
        (
            events.OffloadSteppedDown(Offload.UDP_GSO, errno.EIO, None),
            {"event": "offload_stepped_down", "offload": "udp_gso", "reason": "EIO"},
        ),
        (
            events.PortFailed(5, errno.EADDRINUSE),
            {"event": "port_failed", "port": 5, "reason": "EADDRINUSE"},
        ),
        (
            events.PeerTrouble(KEY, errno.ECONNREFUSED),
            {"event": "peer_trouble", "peer": str(KEY), "reason": "ECONNREFUSED"},
        ),
        (events.InterfaceRemoved(), {"event": "interface_removed"}),
        (events.EventsLost(3), {"event": "events_lost", "count": 3}),
    ],
)
def test_an_event_is_an_object(event: Event, told: dict[str, Any]) -> None:
    assert to_json(event, "wg0", TIME_S) == {"time": STAMP, "interface": "wg0", **told}


def test_every_event_is_documented() -> None:
    text = (ROOT / "docs" / "monitoring.md").read_text()
    for cls in get_args(Event):
        assert f"`{kind_of(cls)}`" in text


def test_time_is_that_of_rfc_3339() -> None:
    assert stamp(TIME_S) == STAMP


def test_all_readers_hear_all_and_a_handshake_with_its_endpoint(
    device: Device, place: Path, running: Announcer
) -> None:
    readers = [greeted(place).makefile("rb") for _ in range(3)]
    device.tell(events.HandshakeDone(KEY))
    for reader in readers:
        assert json.loads(reader.readline()) == {
            "time": STAMP,
            "interface": "wg0",
            "event": "handshake_done",
            "peer": str(KEY),
            "endpoint": "192.0.2.1:51820",
        }
    assert device.opened == 1


def test_nothing_is_kept_for_nobody(device: Device, running: Announcer) -> None:
    assert device.opened == 0


def test_only_root_may_open_the_socket(place: Path, running: Announcer) -> None:
    assert place.stat().st_mode & 0o777 == 0o600
    assert place.parent.stat().st_mode & 0o777 == 0o700


def test_the_end_is_told_and_leaves_no_file(
    device: Device, place: Path, running: Announcer
) -> None:
    reader = greeted(place).makefile("rb")
    device.tell(events.InterfaceRemoved())
    assert json.loads(reader.readline())["event"] == "interface_removed"
    assert reader.readline() == b""
    wait_until(lambda: not place.exists(), "the file is gone")


def test_what_happened_before_it_is_stopped_is_told(device: Device, place: Path) -> None:
    made = Announcer("wg0", device, place)
    made.start()
    reader = greeted(place).makefile("rb")
    for _ in range(100):
        device.tell(events.PeerGone(KEY))
    made.stop()
    assert len(reader.readlines()) == 100


def test_a_slow_reader_loses_what_has_no_room_and_is_told_how_much(
    device: Device, place: Path, running: Announcer
) -> None:
    slow, quick = greeted(place), greeted(place)
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    heard = quick.makefile("rb")
    count = 10 * WAITING
    for _ in range(count):
        device.tell(events.PeerStale(KEY))
        assert json.loads(heard.readline())["event"] == "peer_stale"
    device.tell(events.InterfaceRemoved())
    lines = [json.loads(line) for line in slow.makefile("rb")]
    kinds = [line["event"] for line in lines]
    lost = sum(line["count"] for line in lines if line["event"] == "events_lost")
    assert lost > 0
    assert kinds.count("peer_stale") + kinds.count("interface_removed") + lost == count + 1


def test_a_reader_that_goes_is_forgotten(device: Device, place: Path, running: Announcer) -> None:
    connect(place).close()
    staying = greeted(place)
    wait_until(lambda: len(running._readers) == 1, "one is left")
    device.tell(events.Healed(5))
    assert json.loads(staying.makefile("rb").readline())["port"] == 5


def test_there_are_only_so_many_readers(
    device: Device, place: Path, running: Announcer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcer, "READERS", 2)
    kept = [greeted(place) for _ in range(2)]
    assert connect(place).recv(1) == b""
    assert len(kept) == 2


def test_without_a_free_descriptor_it_waits_and_does_not_spin(
    device: Device, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Listening(socket.socket):
        refused = 0

        def accept(self) -> tuple[socket.socket, Any]:
            if Listening.refused == 0:
                Listening.refused += 1
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    monkeypatch.setattr(announcer, "PAUSE_S", 0.1)
    made = Announcer("wg0", device, place)
    assert made._listening is not None
    listening = Listening(fileno=os.dup(made._listening.fileno()))
    made._selector.unregister(made._listening)
    made._listening.close()
    made._listening = listening
    made._selector.register(listening, selectors.EVENT_READ)
    made.start()
    assert connect(place).recv(1) == b"\n"
    assert Listening.refused == 1
    made.stop()


def test_what_another_user_connects_is_closed(
    place: Path, running: Announcer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcer, "_is_trusted", lambda connection: False)
    assert connect(place).recv(1) == b""


def test_a_line_in_pieces_stays_whole() -> None:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    reader = Reader(ours)
    long = b"x" * 100_000 + b"\n"
    reader.tell(long)
    reader.tell(b"next\n")
    heard = bytearray()
    while reader.is_behind:
        assert reader.flush(lambda count: b"lost\n")
        heard += theirs.recv(1 << 20)
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            heard += theirs.recv(1 << 20)
    assert bytes(heard) == long + b"next\n"


# ---- those who read


def test_a_tunnel_is_heard_by_its_socket_with_names(
    device: Device, place: Path, running: Announcer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "events_of", lambda name: place)
    monkeypatch.setattr(Names, "of", lambda self, name: {KEY: "office"})
    watch = watching.Watch(("wg0",))
    watch.open()
    device.tell(events.HandshakeDone(KEY))
    running.stop()
    told = list(watch.events())
    assert [one["event"] for one in told] == ["handshake_done", "interface_removed"]
    assert list(told[0])[:5] == ["time", "interface", "event", "peer", "name"]
    assert told[0]["name"] == "office"


def test_what_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(record, "events_of", lambda name: tmp_path / "none")
    monkeypatch.setattr("pywg.wireguard.socket.SOCKET_DIRECTORY", cast(Any, tmp_path / "nowhere"))
    with pytest.raises(Exception, match="nosuch0"):
        watching.Watch(("nosuch0",)).open()
