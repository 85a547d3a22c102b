"""An Interface on sockets: packets pass, timers fire, and what goes wrong costs a packet."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import queue
import socket
import threading
from collections.abc import Iterator

import pytest

from pywg.drive import BATCH, Driver, Loop
from pywg.drive.aio import AsyncDriver
from pywg.errors import DeviceError
from pywg.keys import PrivateKey
from pywg.native.interface import Interface
from tests.unit.test_batch import ipv4

PATIENCE_S = 30
AB = ("10.0.0.1", "10.0.0.2")
BA = ("10.0.0.2", "10.0.0.1")


def udp(host: str = "127.0.0.1") -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((host, 0))
    return made


class Ends:
    """Two interfaces, each with a socket of its own; only a knows where b is."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        ours, theirs = PrivateKey.generate(), PrivateKey.generate()
        self.sockets = [udp(host), udp(host)]
        shown = f"[{host}]" if ":" in host else host
        self.a = Interface(
            f"private_key={ours.to_hex()}\npublic_key={theirs.public.to_hex()}\n"
            f"endpoint={shown}:{self.sockets[1].getsockname()[1]}\nallowed_ip=10.0.0.2/32\n"
        )
        self.b = Interface(
            f"private_key={theirs.to_hex()}\npublic_key={ours.public.to_hex()}\n"
            "allowed_ip=10.0.0.1/32\n"
        )

    def close(self) -> None:
        self.a.close()
        self.b.close()
        for one in self.sockets:
            one.close()


@pytest.fixture(params=["127.0.0.1", "::1"])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    made = Ends(request.param)
    yield made
    made.close()


def echoed(packet: memoryview) -> bytes:
    """Back to where it came from."""
    whole = bytes(packet)
    return whole[:12] + whole[16:20] + whole[12:16] + whole[20:]


def test_threads_carry_packets_both_ways_and_a_driver_answers_from_within(ends: Ends) -> None:
    came: queue.Queue[bytes] = queue.Queue()
    a = Driver(ends.a, ends.sockets[:1], lambda packet: came.put(bytes(packet)))
    b = Driver(ends.b, ends.sockets[1:], lambda packet: b.send(echoed(packet)))
    packets = [ipv4(*AB, 28 + i % 1000) for i in range(3 * BATCH)]
    with Loop(a), Loop(b):
        a.send(packets[0])  # it waits for the handshake
        assert came.get(timeout=PATIENCE_S) == echoed(memoryview(packets[0]))
        for first in range(0, len(packets), 16):
            a.send(*packets[first : first + 16])
            answers = {came.get(timeout=PATIENCE_S) for _ in packets[first : first + 16]}
            assert answers == {echoed(memoryview(p)) for p in packets[first : first + 16]}
    assert a.unsent == b.unsent == 0


def test_coroutines_send_and_receive(ends: Ends) -> None:
    packets = [ipv4(*AB, 100 + i) for i in range(20)]

    async def answer(tunnel: AsyncDriver) -> None:
        while True:
            tunnel.send(echoed(memoryview(await tunnel.receive())))

    async def body() -> list[bytes]:
        async with (
            AsyncDriver(ends.a, ends.sockets[:1]) as a,
            AsyncDriver(ends.b, ends.sockets[1:]) as b,
        ):
            answering = asyncio.create_task(answer(b))
            a.send(packets[0])
            came = [await asyncio.wait_for(a.receive(), PATIENCE_S)]
            a.send(*packets[1:])
            while len(came) < len(packets):
                came.append(await asyncio.wait_for(a.receive(), PATIENCE_S))
            answering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await answering
            return came

    assert asyncio.run(body()) == [echoed(memoryview(packet)) for packet in packets]


def test_packets_that_nobody_fetches_are_bounded_and_counted(ends: Ends) -> None:
    async def body() -> None:
        async with (
            AsyncDriver(ends.a, ends.sockets[:1]) as a,
            AsyncDriver(ends.b, ends.sockets[1:], waiting_max=4) as b,
        ):
            a.send(ipv4(*AB, 40))
            await asyncio.wait_for(b.receive(), PATIENCE_S)
            a.send(*[ipv4(*AB, 40 + i) for i in range(10)])
            async with asyncio.timeout(PATIENCE_S):
                while b.lost < 6:
                    await asyncio.sleep(0.01)
            assert [len(await b.receive()) for _ in range(4)] == [40, 41, 42, 43]

    asyncio.run(body())


def test_a_first_initiation_that_is_lost_is_sent_again_by_the_timer(ends: Ends) -> None:
    """Five seconds are the protocol's (REKEY_TIMEOUT); nobody waits for more than the packet."""
    came = threading.Event()
    a = Driver(ends.a, ends.sockets[:1], lambda packet: None)
    b = Driver(ends.b, ends.sockets[1:], lambda packet: came.set())
    a.send(ipv4(*AB, 28))
    ends.sockets[1].setblocking(True)
    ends.sockets[1].recvfrom(2048)  # the initiation, and it is gone
    ends.sockets[1].setblocking(False)
    with Loop(a), Loop(b):
        assert came.wait(PATIENCE_S)


def test_what_no_socket_takes_is_counted_and_nothing_else_happens(ends: Ends) -> None:
    other = udp("127.0.0.1" if ends.sockets[0].family == socket.AF_INET6 else "::1")
    driver = Driver(ends.a, [other], lambda packet: None)
    driver.send(ipv4(*AB, 28))
    assert driver.unsent == 1
    left = driver.timeout()
    assert left is not None and 0 < left < 6
    other.close()
    driver.expire()


def test_mistakes_are_said(ends: Ends) -> None:
    with socket.socket() as tcp, pytest.raises(ValueError, match="no UDP socket"):
        Driver(ends.a, [tcp], lambda packet: None)
    with pytest.raises(ValueError, match="of one family"):
        Driver(ends.a, ends.sockets, lambda packet: None)
    driver = Driver(ends.a, ends.sockets[:1], lambda packet: None)
    with pytest.raises(ValueError, match="longer than the MTU"):
        driver.send(bytes(1421))
    ends.a.close()
    with pytest.raises(DeviceError, match="closed"):
        driver.send(ipv4(*AB, 28))
    with pytest.raises(DeviceError, match="closed"):
        driver.timeout()


def test_a_loop_ends_when_it_is_told_to_and_before_it_begins(ends: Ends) -> None:
    loop = Loop(Driver(ends.a, ends.sockets[:1], lambda packet: None))
    loop.stop()
    loop.run()
    loop.close()
    loop.close()
    gc.collect()


def test_what_deliver_raises_ends_the_loop_and_is_raised(ends: Ends) -> None:
    def deliver(packet: memoryview) -> None:
        raise KeyError("mine")

    a = Driver(ends.a, ends.sockets[:1], lambda packet: None)
    loop = Loop(Driver(ends.b, ends.sockets[1:], deliver))
    with Loop(a):
        a.send(ipv4(*AB, 28))
        with pytest.raises(KeyError, match="mine"):
            loop.run()
    loop.close()
