"""Two streams that are joined by splice(2), between socket pairs of this process."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from pywg.rootless import relay
from pywg.rootless.relay import Pipes, Relay

SECONDS = 30.0


def joined(
    talk: Callable[[socket.socket, socket.socket, Relay], Coroutine[None, None, None]],
    *,
    limit: int | None = None,
) -> Pipes:
    """Runs a relay between the far ends of two pairs, and a talk at their near ends."""
    pipes = Pipes()

    async def run() -> None:
        a, far_a = socket.socketpair()
        b, far_b = socket.socketpair()
        with a, b, far_a, far_b:
            for each in (a, b, far_a, far_b):
                each.setblocking(False)
            middle = Relay(pipes, far_a, far_b, limit=limit)
            async with asyncio.timeout(SECONDS):
                running = asyncio.ensure_future(middle.run())
                await talk(a, b, middle)
                await running

    asyncio.run(run())
    return pipes


async def send(stream: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(stream, data)
    stream.shutdown(socket.SHUT_WR)


async def read_all(stream: socket.socket) -> bytes:
    found = b""
    while data := await asyncio.get_running_loop().sock_recv(stream, 1 << 16):
        found += data
    return found


@pytest.mark.parametrize("size", [0, 1, 70_000, 5_000_000])
def test_both_ways_arrive_whole_and_each_ends_by_itself(size: int) -> None:
    there, back = os.urandom(size), os.urandom(size // 2)

    async def talk(a: socket.socket, b: socket.socket, _: Relay) -> None:
        got = (await asyncio.gather(send(a, there), read_all(b)))[1]
        assert got == there
        got = (await asyncio.gather(send(b, back), read_all(a)))[1]  # the other way goes on
        assert got == back

    joined(talk)


def test_a_reader_that_stalls_costs_one_pipe_and_nothing_is_lost() -> None:
    data = os.urandom(3 * relay.PIPE_BYTES)

    async def talk(a: socket.socket, b: socket.socket, middle: Relay) -> None:
        loop = asyncio.get_running_loop()
        sent = 0
        while True:  # until nobody takes anything any more
            try:
                sent += a.send(data[sent : sent + 4096])
            except BlockingIOError:
                moved = middle.moved_at
                await asyncio.sleep(0.05)
                if middle.moved_at == moved:
                    break
            await asyncio.sleep(0)
        assert sent < len(data)
        sending = asyncio.ensure_future(send(a, data[sent:]))
        b.shutdown(socket.SHUT_WR)
        assert await read_all(b) == data
        await sending
        assert loop.is_running()

    pipes = joined(talk)
    assert len(pipes._free) <= 2
    pipes.close()


@pytest.mark.parametrize("more", [b"", b"more"])
def test_no_more_than_the_limit_passes_and_more_is_an_end(more: bytes) -> None:
    async def talk(a: socket.socket, b: socket.socket, _: Relay) -> None:
        await send(a, b"exact" + more)
        if more:
            assert (await asyncio.get_running_loop().sock_recv(b, 100)) == b"exact"
        else:
            await send(b, b"answer")
            assert await read_all(b) == b"exact"
            assert await read_all(a) == b"answer"

    joined(talk, limit=5)


def test_whoever_is_gone_ends_both_ways() -> None:
    async def run() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        near = [socket.create_connection(listener.getsockname()) for _ in "ab"]
        far = [listener.accept()[0] for _ in "ab"]
        for each in far:
            each.setblocking(False)
        pipes = Pipes()
        middle = asyncio.ensure_future(Relay(pipes, *far).run())
        await asyncio.sleep(0)
        near[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        near[0].close()  # a reset
        await asyncio.wait_for(middle, SECONDS)
        pipes.close()
        for each in (listener, near[1], *far):
            each.close()

    asyncio.run(run())


def test_no_descriptor_is_left() -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = count()

    async def talk(a: socket.socket, b: socket.socket, _: Relay) -> None:
        await asyncio.gather(send(a, b"x" * 100_000), send(b, b"y"), read_all(a), read_all(b))

    for _ in range(5):
        joined(talk).close()
    assert count() == before
