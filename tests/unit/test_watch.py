"""Names that come to mean another address, in virtual time: no thread, no resolver, no device."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from pywg.config import Endpoint, parse
from pywg.errors import DeviceError
from pywg.host import resolver
from pywg.keys import PrivateKey, PublicKey
from pywg.service import endpoints as watch
from pywg.service.endpoints import PATIENCE_S, PROBE_S, STALE_S, Name, Watcher
from pywg.wireguard.status import InterfaceStatus, PeerStatus

KEY = PrivateKey.generate().public
OTHER = PrivateKey.generate().public
OLD, NEW, SIX = "192.0.2.1", "192.0.2.9", "2001:db8::1"


@dataclass
class World:
    """A clock, a resolver and a device with peers; `live` moves the clock on."""

    answers: list[str] = field(default_factory=lambda: [OLD])
    now: float = 1000.0
    code: int = 0
    asked: list[str] = field(default_factory=list)
    sets: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    peers: dict[PublicKey, PeerStatus] = field(default_factory=dict)
    lookup_takes: float = 0.0

    def __post_init__(self) -> None:
        self.peers[KEY] = PeerStatus(KEY, endpoint=Endpoint(OLD, 51820))
        self.peers[OTHER] = PeerStatus(OTHER, endpoint=Endpoint("192.0.2.2", 51820))
        self.watcher = self.watch(Name(KEY, Endpoint("vpn.example.com", 51820)))

    def watch(self, *names: Name) -> Watcher:
        self.watcher = Watcher(
            self,
            names,
            look_up=self.look_up,
            clock=lambda: self.now,
            log=self.log.append,
            tell=self.told.append,
        )
        return self.watcher

    @property
    def peer(self) -> PeerStatus:
        return self.peers[KEY]

    # The device

    def get(self) -> InterfaceStatus:
        return InterfaceStatus(peers=[PeerStatus(**vars_of(peer)) for peer in self.peers.values()])

    def set(self, text: str) -> None:
        self.sets.append(text)
        lines = dict(line.split("=", 1) for line in text.splitlines())
        assert lines["update_only"] == "true"
        host, _, port = lines["endpoint"].rpartition(":")
        peer = self.peers[PublicKey.from_hex(lines["public_key"])]
        peer.endpoint = Endpoint(host.strip("[]"), int(port))

    # The resolver

    def look_up(self, endpoint: Endpoint, family: str) -> list[Endpoint]:
        self.asked.append(f"{endpoint.host} {family}")
        self.now += self.lookup_takes
        if self.code:
            raise socket.gaierror(self.code, "no answer")
        return [Endpoint(host, endpoint.port) for host in self.answers]

    # What happens

    def live(self, seconds: float, *, sends: bool = True, hears: bool = False) -> None:
        """Initiations every five seconds, or a handshake."""
        for _ in range(int(seconds / PROBE_S)):
            self.now += PROBE_S
            if sends:
                self.peer.tx_bytes += 148
            if hears:
                self.shake()
            self.watcher.check()

    def shake(self) -> None:
        self.peer.last_handshake_ns += 1


def vars_of(peer: PeerStatus) -> dict[str, Any]:
    return {name: getattr(peer, name) for name in PeerStatus.__slots__}


@pytest.fixture
def world() -> World:
    return World()


def test_a_peer_that_answers_is_not_looked_up(world: World) -> None:
    world.live(3600, hears=True)
    assert world.asked == []


def test_a_handshake_that_went_stale_makes_us_follow_the_name(world: World) -> None:
    world.live(60, hears=True)
    world.answers = [NEW]
    world.live(STALE_S)
    assert world.asked == []
    world.live(PROBE_S)
    assert world.asked == ["vpn.example.com auto"]
    assert world.sets == [
        f"public_key={KEY.to_hex()}\nupdate_only=true\nendpoint={NEW}:51820\n",
    ]
    assert world.log == [f"vpn.example.com:51820 does not answer: trying {NEW}:51820"]


def test_a_peer_that_never_answered_is_looked_up_after_three_initiations(world: World) -> None:
    world.answers = [NEW]
    world.live(PATIENCE_S)
    assert world.asked == []
    world.live(PROBE_S)
    assert world.peer.endpoint == Endpoint(NEW, 51820)


def test_an_idle_peer_is_left_alone_and_looked_up_when_something_is_sent(world: World) -> None:
    world.live(60, hears=True)
    world.answers = [NEW]
    world.live(3600, sends=False)
    assert world.asked == []
    world.live(PROBE_S)
    assert world.peer.endpoint == Endpoint(NEW, 51820)


def test_a_name_that_says_the_same_changes_nothing_and_is_asked_at_a_steady_pace(
    world: World,
) -> None:
    world.live(60, hears=True)
    world.live(STALE_S + PROBE_S)
    before = len(world.asked)
    world.live(10 * PATIENCE_S)
    assert len(world.asked) - before == 10
    assert world.sets == []


def test_the_other_family_is_tried_next_and_then_the_first_again(world: World) -> None:
    world.answers = [OLD, NEW, SIX]
    seen: list[str] = []
    for _ in range(5):
        while len(world.sets) == len(seen):
            world.live(PROBE_S)
        assert world.peer.endpoint is not None
        seen.append(world.peer.endpoint.host)
    assert seen[:2] == [SIX, NEW]
    assert set(seen[2:4]) == {OLD, SIX}


def test_each_address_gets_the_time_of_three_initiations(world: World) -> None:
    world.answers = [OLD, SIX]
    world.live(PATIENCE_S + PROBE_S)
    assert len(world.sets) == 1
    world.live(PATIENCE_S - PROBE_S)
    assert len(world.sets) == 1
    world.live(PROBE_S)
    assert len(world.sets) == 2


def test_an_answer_ends_the_search(world: World) -> None:
    world.answers = [NEW]
    world.live(PATIENCE_S + PROBE_S)
    world.live(3600, hears=True)
    assert len(world.asked) == 1


def test_a_session_that_came_while_the_resolver_was_slow_is_not_touched(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.answers = [NEW]
    look_up = world.look_up

    def slow(endpoint: Endpoint, family: str) -> list[Endpoint]:
        world.shake()
        return look_up(endpoint, family)

    monkeypatch.setattr(world, "look_up", slow)
    world.watch(Name(KEY, Endpoint("vpn.example.com", 51820)))
    world.live(PATIENCE_S + PROBE_S)
    assert len(world.asked) == 1
    assert world.sets == []


def test_a_peer_that_was_removed_meanwhile_is_not_made_again(world: World) -> None:
    world.answers = [NEW]
    world.live(PATIENCE_S)
    del world.peers[KEY]
    world.now += 3600
    world.watcher.check()
    assert world.sets == []


def test_a_peer_that_is_made_anew_counts_from_zero(world: World) -> None:
    world.live(60, hears=True)
    world.peers[KEY] = PeerStatus(KEY, endpoint=Endpoint(OLD, 51820))
    world.answers = [NEW]
    world.live(PATIENCE_S + PROBE_S)
    assert world.peer.endpoint == Endpoint(NEW, 51820)


def test_a_resolver_that_does_not_answer_is_asked_once_a_round(world: World) -> None:
    world.watch(
        Name(KEY, Endpoint("one.example.com", 1)), Name(OTHER, Endpoint("two.example.com", 2))
    )
    world.code = socket.EAI_AGAIN
    world.lookup_takes = 10
    for _ in range(6):
        world.peers[OTHER].tx_bytes += 148
        world.live(PROBE_S)
    asked = [line.partition(".")[0] for line in world.asked]
    assert asked[:2] == ["one", "two"], "neither starves the other"
    assert world.sets == []
    assert "no answer" in world.log[0]


def test_a_name_that_is_gone_does_not_keep_the_others_waiting(world: World) -> None:
    world.watch(
        Name(KEY, Endpoint("one.example.com", 1)), Name(OTHER, Endpoint("two.example.com", 2))
    )
    world.code = socket.EAI_NONAME
    world.peers[OTHER].tx_bytes = 1
    world.live(PATIENCE_S)
    assert world.asked == []
    world.live(PROBE_S)
    assert len(world.asked) == 2


def test_a_forced_family_is_asked_for(world: World) -> None:
    world.watch(Name(KEY, Endpoint("vpn.example.com", 51820), "ipv6"))
    world.live(PATIENCE_S + PROBE_S)
    assert world.asked == ["vpn.example.com ipv6"]


def test_a_zone_by_number_is_the_zone_by_name(world: World) -> None:
    world.peer.endpoint = Endpoint("fe80::1%eth0", 51820)
    world.answers = ["fe80::1%2"]
    world.live(PATIENCE_S + PROBE_S)
    assert world.sets == []


def test_only_names_are_watched() -> None:
    text = "[Interface]\n" + "".join(
        f"[Peer]\nPublicKey={key}\nEndpoint={endpoint}\n"
        for key, endpoint in ((KEY, "vpn.example.com:5"), (OTHER, "192.0.2.1:5"))
    )
    (name,) = watch.names_of(parse(text))
    assert (name.public_key, name.endpoint) == (KEY, Endpoint("vpn.example.com", 5))
    assert Name.from_json(name.to_json()) == name


def test_a_name_that_says_so_is_asked_for_as_any_program_asks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "look_up", lambda endpoint, family: [Endpoint(NEW, 51820)])
    name = Name(KEY, Endpoint("vpn.example.com", 51820), dns="tunnel")
    world.watch(Name.from_json(name.to_json()))
    world.live(PATIENCE_S + PROBE_S)
    assert world.asked == []
    assert world.peer.endpoint == Endpoint(NEW, 51820)


def test_a_watcher_without_names_starts_no_thread(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "Thread", None)
    world.watch().start()


HOST = """
import os, signal
from pywg.service import endpoints, supervisor

class Device:
    def __init__(self, *arguments, **options): pass
    def start(self, finished): os.kill(os.getpid(), signal.SIGTERM)
    was_handed_over = False
    def wait(self): pass
    def close(self): print("closed")

class Watcher:
    def __init__(self, device, names, **options): print(*(name.endpoint for name in names))
    def moved(self): pass
    def start(self): print("watches")
    def stop(self): print("stops")

supervisor.Device = Device
endpoints.Watcher = Watcher
supervisor.host(supervisor.Hosting("wg0", names=(["%s", "vpn.example.com", 5, "auto", "outside"],)))
"""


def test_the_process_that_hosts_a_device_watches_its_names() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOST % KEY],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.split() == ["vpn.example.com:5", "watches", "stops", "closed"], done.stderr


def test_a_refused_set_does_not_end_the_thread(world: World) -> None:
    rounds = []

    class Refusing:
        def get(self) -> InterfaceStatus:
            rounds.append(1)
            if len(rounds) < 3:
                raise DeviceError("refused", -4)
            raise DeviceError("closed", -10)

        def set(self, config: str, /) -> None:
            raise AssertionError

    name = Name(KEY, Endpoint("vpn.example.com", 5))
    Watcher(Refusing(), [name], probe_s=0.001, log=world.log.append)._run()
    assert world.log == ["refused", "refused"]


def test_the_thread_ends_with_the_device() -> None:
    class Closed:
        def get(self) -> InterfaceStatus:
            raise DeviceError("closed", -10)

        def set(self, config: str, /) -> None:
            raise AssertionError

    name = Name(KEY, Endpoint("vpn.example.com", 5))
    Watcher(Closed(), [name], probe_s=0.001)._run()


def test_names_that_changed_meanwhile_are_followed(world: World) -> None:
    """As after `pywg reload`; a name that is the same keeps what was seen of it."""
    name = Name(KEY, Endpoint("vpn.example", 51820))
    watcher = world.watch(name)
    other = replace(name, endpoint=Endpoint("elsewhere.example", 5))
    answers = [None, [name], [other], None, []]
    watcher._renewed = lambda: answers.pop(0) if answers else None
    seen: list[list[Name]] = []
    for _ in range(5):
        watcher.check()
        seen.append([memory.name for memory in watcher._memories.values()])
    assert seen == [[name], [name], [other], [other], []]


# ---- names without an address


def wait(world: World, seconds: float) -> None:
    """Rounds as the thread makes them, nothing sent."""
    end = world.now + seconds
    while world.now < end:
        world.now += max(world.watcher._pause(), 0.1)
        world.watcher.check()


def test_a_peer_without_endpoint_is_asked_for_though_nothing_is_sent(world: World) -> None:
    world.peer.endpoint = None
    world.code = socket.EAI_NONAME
    wait(world, 60)
    assert len(world.asked) == 14, "first after a round, then after 1, 1.2, 1.44 ... seconds"
    world.code = 0
    world.answers = [NEW]
    wait(world, 25)
    assert world.peer.endpoint == Endpoint(NEW, 51820)
    before = len(world.asked)
    wait(world, 60)
    assert len(world.asked) == before


def test_the_first_tries_are_told_and_then_ever_fewer_and_a_success(world: World) -> None:
    world.peer.endpoint = None
    world.code = socket.EAI_AGAIN
    wait(world, 900)
    tries = [line.partition(", try ")[2].partition(":")[0] for line in world.told]
    assert tries == ["1", "2", "3", "4", "5", "8", "16", "32"]
    assert world.told[0] == (
        f"peer {str(KEY)[:4]}…: vpn.example.com does not resolve (no answer), try 1: "
        "asked again in 1 s"
    )
    assert world.told[-1].endswith("asked again in 20 s")
    world.code = 0
    wait(world, 25)
    assert world.told[-1].endswith(f"resolves by now: its endpoint is {OLD}:51820")


def test_a_removed_peer_without_endpoint_is_asked_for_no_more(world: World) -> None:
    world.peer.endpoint = None
    world.code = socket.EAI_NONAME
    wait(world, 10)
    del world.peers[KEY]
    before = len(world.asked)
    wait(world, 120)
    assert len(world.asked) == before


def test_another_network_makes_all_that_do_not_answer_due_at_once(world: World) -> None:
    world.watch(
        Name(KEY, Endpoint("one.example.com", 1)), Name(OTHER, Endpoint("two.example.com", 2))
    )
    world.live(60, hears=True)
    world.peers[OTHER].tx_bytes = 1
    world.live(STALE_S + PROBE_S)
    world.asked.clear()
    world.watcher.moved()
    world.now += 1
    world.watcher.check()
    assert sorted(world.asked) == ["one.example.com auto", "two.example.com auto"]
    world.asked.clear()
    world.watcher.check()
    assert world.asked == [], "once"


def test_another_network_leaves_a_peer_that_answers_alone(world: World) -> None:
    world.live(60, hears=True)
    world.watcher.moved()
    world.live(PROBE_S, hears=True)
    assert world.asked == []


def test_moving_and_stopping_wake_the_thread(world: World) -> None:
    world.peer.endpoint = None
    watcher = Watcher(world, [Name(KEY, Endpoint("vpn.example.com", 5))], look_up=world.look_up)
    thread = threading.Thread(target=watcher._run)
    thread.start()
    watcher.moved()
    for _ in range(1000):
        if world.asked:
            break
        thread.join(0.01)
    watcher.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert world.asked


def test_each_round_is_also_given_to_who_asked_for_it(world: World) -> None:
    seen: list[float] = []
    watcher = Watcher(world, (), also=lambda status, now: seen.append(now), clock=lambda: 7.0)
    watcher.check()
    assert seen == [7.0]
