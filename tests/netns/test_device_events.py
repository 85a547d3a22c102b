"""Device as a program holds it: it is told what happens, changes one peer among many, and leaves
nothing behind.

      one namespace
    +----------------------------------------------+
    |   device a, UDP on 127.0.0.1 - device b      |
    |   (in this process, without UAPI sockets)    |
    +----------------------------------------------+
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from ipaddress import ip_network
from typing import TypeVar

import pytest

import pywg
from pywg import Device, PrivateKey, PublicKey, Status
from pywg.errors import DeviceError
from tools.lab.namespaces import Namespace, unique
from tools.lab.waiting import wait_until

PATIENCE_S = 60
Kind = TypeVar("Kind", bound=pywg.Event)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    made = Namespace("events")
    try:
        with made.entered():
            yield made
    finally:
        made.close()


@contextlib.contextmanager
def opened(config: pywg.Config | str | None = None, threads: int = 1) -> Iterator[Device]:
    with Device(unique("wgev"), config, uapi_socket=False, threads=threads) as device:
        yield device


def up(namespace: Namespace, device: Device) -> None:
    namespace.ip("link", "set", "up", "dev", device.name)


def wait_for_sockets(device: Device) -> None:
    wait_until(lambda: device.report().other["up"] == "true", "sockets are open")


class Pair:
    """Two devices that know each other, both up and told of from the beginning."""

    def __init__(self, namespace: Namespace, a: Device, b: Device) -> None:
        self.a, self.b = a, b
        keys = PrivateKey.generate(), PrivateKey.generate()
        self.of_a, self.of_b = (key.public for key in keys)
        for device, own in zip((a, b), keys, strict=True):
            assert device.wait_event(0) is None  # from here on
            device.set(pywg.Config(pywg.InterfaceSection(own)))
            up(namespace, device)
            wait_for_sockets(device)
        a.add_peer(section(self.of_b, 2, b.get().listen_port))
        b.add_peer(section(self.of_a, 1, a.get().listen_port))


@pytest.fixture(params=[1])
def pair(namespace: Namespace, request: pytest.FixtureRequest) -> Iterator[Pair]:
    with opened(threads=request.param) as a, opened(threads=request.param) as b:
        yield Pair(namespace, a, b)


def section(key: PublicKey, number: int, port: int | None = None) -> pywg.PeerSection:
    return pywg.PeerSection(
        key,
        allowed_ips=(
            pywg.AllowedIP(ip_network(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}/32")),
        ),
        endpoint=None if port is None else pywg.Endpoint("127.0.0.1", port),
    )


def numbered(number: int) -> PublicKey:
    return PublicKey(number.to_bytes(32, "little"))


def awaited(device: Device, kind: type[Kind]) -> Kind:
    """The next event, which is of this kind."""
    event = device.wait_event(PATIENCE_S)
    assert isinstance(event, kind), event
    return event


# ---- what is told


@pytest.mark.parametrize("pair", [1, 3], indirect=True)
def test_a_session_and_a_peer_that_moves_and_goes_are_told(pair: Pair) -> None:
    pair.a.handshake(pair.of_b)
    assert awaited(pair.a, pywg.HandshakeDone).public_key == pair.of_b
    assert awaited(pair.b, pywg.HandshakeDone).public_key == pair.of_a
    pair.a.set("listen_port=0\n")
    # An initiation moves it. It may have to wait for REKEY_TIMEOUT.
    pair.a.handshake(pair.of_b)
    moved = awaited(pair.b, pywg.EndpointChanged)
    port = pair.a.get().listen_port
    assert (moved.public_key, str(moved.endpoint)) == (pair.of_a, f"127.0.0.1:{port}")
    assert awaited(pair.b, pywg.HandshakeDone).public_key == pair.of_a
    pair.b.remove_peer(pair.of_a)
    assert awaited(pair.b, pywg.PeerGone).public_key == pair.of_a
    pair.b.remove_peer(pair.of_a)
    assert pair.b.wait_event(0) is None


def test_a_handshake_is_refused_with_the_reason(namespace: Namespace, pair: Pair) -> None:
    def refusal(device: Device, key: PublicKey) -> tuple[int, str]:
        with pytest.raises(DeviceError) as caught:
            device.handshake(key)
        return caught.value.status, str(caught.value)

    status, text = refusal(pair.a, numbered(5))
    assert status == Status.NOT_FOUND and "no peer" in text
    pair.a.add_peer(section(numbered(5), 5))
    status, text = refusal(pair.a, numbered(5))
    assert status == Status.CONFIGURATION and "Endpoint" in text
    with opened() as other:
        other.add_peer(section(numbered(5), 5, 1))
        assert "private key" in refusal(other, numbered(5))[1]
        other.set(f"private_key={PrivateKey.generate().to_hex()}\n")
        assert "link up" in refusal(other, numbered(5))[1]


def test_events_are_iterated_in_an_event_loop_until_the_device_is_closed(pair: Pair) -> None:
    async def collect() -> list[pywg.Event]:
        seen = []
        async for event in pair.a.events():
            seen.append(event)
            if isinstance(event, pywg.HandshakeDone):
                pair.a.remove_peer(pair.of_b)
            if isinstance(event, pywg.PeerGone):
                threading.Thread(target=pair.a.close).start()
        return seen

    async def both() -> list[pywg.Event]:
        task = asyncio.create_task(collect())
        ticks = 0
        pair.a.handshake(pair.of_b)
        while not task.done():  # the loop goes on meanwhile
            ticks += 1
            await asyncio.sleep(0.001)
        assert ticks > 0
        return await task

    seen = asyncio.run(asyncio.wait_for(both(), PATIENCE_S))
    assert [type(event) for event in seen] == [pywg.HandshakeDone, pywg.PeerGone]


def test_a_task_that_waits_for_events_can_be_cancelled_and_another_goes_on(pair: Pair) -> None:
    async def body() -> pywg.Event:
        events = pair.a.events()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(anext(events), 0.01)
        waiting = asyncio.create_task(anext(events))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task"):
            await anext(events)
        pair.a.handshake(pair.of_b)
        return await asyncio.wait_for(waiting, PATIENCE_S)

    assert isinstance(asyncio.run(body()), pywg.HandshakeDone)


def test_a_thread_that_iterates_ends_when_the_device_is_closed(pair: Pair) -> None:
    seen: list[pywg.Event] = []
    events = pair.a.events()
    thread = threading.Thread(target=lambda: seen.extend(events))
    thread.start()
    pair.a.remove_peer(pair.of_b)
    pair.a.close()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert [type(event) for event in seen] in ([pywg.PeerGone], [])
    with pytest.raises(DeviceError, match="closed"):
        pair.a.events()


def test_a_removed_interface_is_the_last_that_is_told(namespace: Namespace, pair: Pair) -> None:
    events = pair.a.events()
    namespace.ip("link", "delete", pair.a.name)
    assert [type(event) for event in events] == [pywg.InterfaceRemoved]
    assert pair.a.wait(PATIENCE_S)


def test_what_nobody_fetches_is_counted(namespace: Namespace) -> None:
    with opened() as device:
        events = device.events()
        device.set("".join(f"public_key={bytes(numbered(n)).hex()}\n" for n in range(2000)))
        device.set("replace_peers=true\n")
        gone = [next(events) for _ in range(1024)]
        assert {type(event) for event in gone} == {pywg.PeerGone}
        assert next(events) == pywg.EventsLost(2000 - 1024)
        device.add_peer(section(numbered(7), 7))
        device.remove_peer(numbered(7))
        assert next(events) == pywg.PeerGone(numbered(7))


# ---- a port that is taken


def test_a_port_that_is_taken_is_told_and_tried_again(namespace: Namespace) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as squatter, opened() as device:
        squatter.bind(("", 0))
        port = squatter.getsockname()[1]
        assert device.wait_event(0) is None
        device.set(f"listen_port={port}\n")
        up(namespace, device)
        failed = awaited(device, pywg.PortFailed)
        assert (failed.port, failed.os_errno, failed.reason) == (
            port,
            errno.EADDRINUSE,
            "EADDRINUSE",
        )
        assert device.report().other["listen_error"] == "EADDRINUSE"
        with pytest.raises(DeviceError, match="tried again") as caught:
            device.wait(0)
        assert (caught.value.status, caught.value.os_errno) == (
            Status.ADDRESS_IN_USE,
            errno.EADDRINUSE,
        )
        squatter.close()
        assert awaited(device, pywg.Healed) == pywg.Healed(port)
        assert "listen_error" not in device.report().other
        assert device.wait(0) is False
        assert f":{port} " in namespace.run("ss", "-Hlun")


def test_whoever_asks_late_is_told_of_a_port_that_cannot_be_had(namespace: Namespace) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as squatter, opened() as device:
        squatter.bind(("", 0))
        device.set(f"listen_port={squatter.getsockname()[1]}\n")
        up(namespace, device)
        wait_until(lambda: "listen_error" in device.report().other, "it is tried")
        assert isinstance(device.wait_event(0), pywg.PortFailed)
        assert device.wait_event(0) is None


def test_a_link_that_goes_down_again_is_not_tried_for_any_more(namespace: Namespace) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as squatter, opened() as device:
        squatter.bind(("", 0))
        assert device.wait_event(0) is None
        device.set(f"listen_port={squatter.getsockname()[1]}\n")
        for _ in range(2):
            up(namespace, device)
            awaited(device, pywg.PortFailed)
            namespace.ip("link", "set", "down", "dev", device.name)
            wait_until(lambda: "listen_error" not in device.report().other, "it is given up")
        assert device.wait_event(0) is None


# ---- sockets of the program's own


def bound(family: socket.AddressFamily, port: int = 0) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.bind(("127.0.0.1" if family == socket.AF_INET else "::1", port))
    return made


def test_a_socket_that_was_given_is_used_and_outlives_a_link_that_is_down(
    namespace: Namespace,
) -> None:
    given = bound(socket.AF_INET)
    port = given.getsockname()[1]
    keys = PrivateKey.generate(), PrivateKey.generate()
    name = unique("wgev")
    with (
        Device(name, uapi_socket=False, udp4_fd=given.fileno()) as device,
        opened(pywg.Config(pywg.InterfaceSection(keys[1]))) as other,
    ):
        given.detach()  # the device's now
        assert device.get().listen_port == port
        assert device.wait_event(0) is None
        device.apply(pywg.Config(pywg.InterfaceSection(keys[0]), (section(keys[1].public, 2),)))
        up(namespace, other)
        wait_for_sockets(other)
        other.add_peer(section(keys[0].public, 1, port))
        for _ in range(2):
            up(namespace, device)
            wait_for_sockets(device)
            other.handshake(keys[0].public)
            # The first time it is told where the peer is, too.
            while not isinstance(device.wait_event(PATIENCE_S), pywg.HandshakeDone):
                pass
            assert f"127.0.0.1:{port} " in namespace.run("ss", "-Hlun")
            namespace.ip("link", "set", "down", "dev", name)
            wait_until(lambda: device.report().other["up"] == "false", "the link is down")
            assert f"127.0.0.1:{port} " in namespace.run("ss", "-Hlun")
        device.set(f"listen_port={port}\n")
        for text in (f"listen_port={port - 1}\n", "pywg_bind_device=lo\n"):
            with pytest.raises(DeviceError, match="were given") as caught:
                device.set(text)
            assert (caught.value.status, caught.value.os_errno) == (
                Status.CONFIGURATION,
                errno.EINVAL,
            )
    assert f":{port} " not in namespace.run("ss", "-Hlun")


def test_given_sockets_of_both_families_have_one_port(namespace: Namespace) -> None:
    with bound(socket.AF_INET) as four:
        port = four.getsockname()[1]
        with bound(socket.AF_INET6, port) as six:
            udp4_fd, udp6_fd = os.dup(four.fileno()), os.dup(six.fileno())
            with Device(
                unique("wgev"), uapi_socket=False, udp4_fd=udp4_fd, udp6_fd=udp6_fd
            ) as device:
                up(namespace, device)
                wait_for_sockets(device)
                assert device.get().listen_port == port
        with bound(socket.AF_INET6) as six:
            refused("different ports", udp4_fd=four.fileno(), udp6_fd=six.fileno())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unbound:
            refused("not bound", udp4_fd=unbound.fileno())
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as mixed:
            mixed.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            mixed.bind(("::", 0))
            refused("IPV6_V6ONLY", udp6_fd=mixed.fileno())
        with socket.socket(socket.AF_INET) as tcp:
            refused("no UDP socket", udp4_fd=tcp.fileno())
        refused("has one thread", udp4_fd=four.fileno(), threads=2)
        assert four.getsockname()[1] == port  # what was refused is still the caller's


def refused(words: str, **options: int) -> None:
    with pytest.raises(DeviceError, match=words) as caught:
        Device(unique("wgev"), uapi_socket=False, **options)  # type: ignore[arg-type]
    assert caught.value.status == Status.INVALID_ARGUMENT


# ---- peers


def test_a_config_is_applied_as_a_difference_which_is_told(namespace: Namespace) -> None:
    own = PrivateKey.generate()
    peers = tuple(section(numbered(n), n) for n in range(10, 14))
    config = pywg.Config(pywg.InterfaceSection(own, listen_port=0), peers)
    with opened() as device:
        first = device.apply(config)
        assert first.interface == ("private_key",)
        assert (set(first.added), first.removed, first.changed) == (
            {peer.public_key for peer in peers},
            (),
            (),
        )
        assert not device.apply(config)
        psk = pywg.PresharedKey.generate()
        changed = replace(peers[1], preshared_key=psk, persistent_keepalive=25)
        moved = replace(peers[2], endpoint=pywg.Endpoint("127.0.0.1", 9))
        grown = replace(
            peers[3], allowed_ips=(*peers[3].allowed_ips, pywg.AllowedIP(ip_network("fd00::/64")))
        )
        other = section(numbered(20), 20)
        second = device.apply(
            pywg.Config(pywg.InterfaceSection(own, fwmark=7), (changed, moved, grown, other))
        )
        assert second == pywg.Diff(
            interface=("fwmark",),
            added=(numbered(20),),
            removed=(numbered(10),),
            changed=(
                pywg.PeerDiff(numbered(11), ("persistent_keepalive", "preshared_key")),
                pywg.PeerDiff(numbered(12), ("endpoint",)),
                pywg.PeerDiff(numbered(13), ("allowed_ips",)),
            ),
        )
        assert psk.to_base64() not in repr(second) and psk.to_hex() not in repr(second)


def test_one_peer_is_added_changed_and_removed_and_the_others_keep_their_sessions(
    pair: Pair,
) -> None:
    pair.a.handshake(pair.of_b)
    awaited(pair.a, pywg.HandshakeDone)
    before = pair.a.counters()[pair.of_b]
    psk = pywg.PresharedKey.generate()
    one = replace(section(numbered(9), 9), preshared_key=psk, persistent_keepalive=5)
    pair.a.add_peer(one)
    status = {peer.public_key: peer for peer in pair.a.get().peers}[numbered(9)]
    assert (status.preshared_key, status.persistent_keepalive) == (psk, 5)
    assert [str(network) for network in status.allowed_ips] == ["10.0.0.9/32"]
    # Again: in place, and what it leaves out is taken away.
    pair.a.add_peer(section(numbered(9), 8))
    status = {peer.public_key: peer for peer in pair.a.get().peers}[numbered(9)]
    assert (status.preshared_key, status.persistent_keepalive) == (None, 0)
    assert [str(network) for network in status.allowed_ips] == ["10.0.0.8/32"]
    pair.a.add_peer(section(pair.of_b, 2))  # its endpoint stays, and its session
    assert pair.a.counters()[pair.of_b] == before
    pair.a.remove_peer(numbered(9))
    assert list(pair.a.counters()) == [pair.of_b]
    assert awaited(pair.a, pywg.PeerGone).public_key == numbered(9)


def test_counters_are_those_of_get_in_its_order(pair: Pair) -> None:
    pair.a.handshake(pair.of_b)
    awaited(pair.a, pywg.HandshakeDone)
    for number in range(100, 300):
        pair.a.add_peer(section(numbered(number), number))
    counted = pair.a.counters()
    got = pair.a.get().peers
    assert list(counted) == [peer.public_key for peer in got]
    for peer in got:
        one = counted[peer.public_key]
        assert (one.endpoint, one.last_handshake_ns, one.rx_bytes, one.tx_bytes) == (
            peer.endpoint,
            peer.last_handshake_ns,
            peer.rx_bytes,
            peer.tx_bytes,
        )
    assert counted[pair.of_b].rx_bytes > 0


# ---- the end


def test_a_dropped_device_closes_itself_and_warns(namespace: Namespace) -> None:
    device = Device(unique("wgev"), uapi_socket=False)
    device.start()
    name = device.name
    with pytest.warns(ResourceWarning, match=f"unclosed <pywg.Device {name}"):
        del device
        gc.collect()
    assert namespace.link(name) is None


def test_a_stop_is_for_good_and_a_closed_device_says_that_it_is(namespace: Namespace) -> None:
    with opened() as device:
        with pytest.raises(DeviceError, match="runs already"):
            device.start()
        device.stop()
        assert device.wait(PATIENCE_S)
        with pytest.raises(DeviceError, match="was stopped, which is for good"):
            device.start()
    with pytest.raises(DeviceError, match="closed") as caught, device:
        pass
    assert caught.value.status == Status.CLOSED


def test_the_last_thread_to_end_calls_finished_and_may_close(namespace: Namespace) -> None:
    called: list[str] = []
    device = Device(unique("wgev"), uapi_socket=False, threads=3)
    done = threading.Event()

    def finished() -> None:
        called.append(threading.current_thread().name)
        device.close()
        done.set()

    device.start(finished)
    namespace.ip("link", "delete", device.name)
    assert done.wait(PATIENCE_S)
    assert len(called) == 1 and called[0].startswith("pywg ")


AT_EXIT = """
import sys, pywg
device = pywg.Device(sys.argv[1])
device.start()
kept = device.events()
"""


def test_a_program_that_ends_without_closing_leaves_no_socket_file(namespace: Namespace) -> None:
    name = unique("wgev")
    namespace.run(sys.executable, "-c", AT_EXIT, name)
    assert namespace.link(name) is None
    assert not os.path.lexists(f"/var/run/wireguard/{name}.sock")


@contextlib.contextmanager
def child(body: Callable[[], None]) -> Iterator[Callable[[], bytes]]:
    """A forked child that says what it has to, and then lives until it is killed."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            body()
            os.write(writing, b"done")
        except BaseException as error:
            os.write(writing, repr(error).encode())
        os.close(writing)
        signal.pause()
        os._exit(0)
    os.close(writing)
    try:
        yield lambda: os.read(reading, 1000)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reading)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_device_is_gone_with_its_close_while_a_forked_child_lives(
    namespace: Namespace, threads: int
) -> None:
    with Device(unique("wgev"), uapi_socket=False, threads=threads) as device:
        events = device.events()
        up(namespace, device)
        wait_for_sockets(device)
        name, port = device.name, device.get().listen_port

        def body() -> None:
            calls: list[Callable[[], object]] = [device.get, device.counters, device.events]
            calls += [device.wait_event, partial(next, events)]
            for call in calls:
                with pytest.raises(DeviceError, match="after fork"):
                    call()
            device.stop()
            device.close()

        with child(body) as said:
            assert said() == b"done"
            assert namespace.link(name) is not None
            assert f":{port} " in namespace.run("ss", "-Hlun")
            assert device.wait(0) is False
            device.close()
            assert namespace.link(name) is None
            assert f":{port} " not in namespace.run("ss", "-Hlun")
