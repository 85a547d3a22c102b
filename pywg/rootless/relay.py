"""Two streams joined: what comes from one goes to the other, by splice(2) through a pipe.

The bytes stay in the kernel. A way holds a pipe only while there is something in it, so an idle
connection costs none, and one whose reader stalls holds one pipeful and no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import time

#: A pipe that can be had so large is; the kernel allows an ordinary user some 64 MiB in all.
PIPE_BYTES = 1 << 19
#: Empty pipes that are kept for the next.
FREE_PIPES_MAX = 32
#: Pipefuls of one way before others have their turn.
TURNS_MAX = 4
_SPLICE_F_MOVE, _SPLICE_F_NONBLOCK = 1, 2
_FLAGS = _SPLICE_F_MOVE | _SPLICE_F_NONBLOCK
_F_SETPIPE_SZ = 1031


class Pipes:
    """Empty pipes. Raises OSError when no descriptor is free."""

    def __init__(self) -> None:
        self._free: list[tuple[int, int]] = []

    def take(self) -> tuple[int, int]:
        if self._free:
            return self._free.pop()
        pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # a smaller one is a pipe, too
            fcntl.fcntl(pipe[1], _F_SETPIPE_SZ, PIPE_BYTES)
        return pipe

    def give(self, pipe: tuple[int, int], *, is_empty: bool) -> None:
        if is_empty and len(self._free) < FREE_PIPES_MAX:
            self._free.append(pipe)
        else:
            for end in pipe:
                os.close(end)

    def close(self) -> None:
        while self._free:
            for end in self._free.pop():
                os.close(end)


class Relay:
    """Both ways between two sockets that do not block. ``run`` ends when both ways have, or one has
    failed; the sockets stay the caller's to close.

    ``moved_at`` is when something moved last, by the monotonic clock. With ``limit`` no more than
    so many bytes go from the first to the second, and it is an end of all if more come.
    """

    def __init__(
        self,
        pipes: Pipes,
        first: socket.socket,
        second: socket.socket,
        *,
        limit: int | None = None,
    ) -> None:
        self.pipes = pipes
        self.moved_at = time.monotonic()
        self._ended = asyncio.get_running_loop().create_future()
        self._ways = (_Way(self, first, second, limit), _Way(self, second, first, None))

    async def run(self) -> None:
        try:
            for way in self._ways:
                way.begin()
            await self._ended
        finally:
            for way in self._ways:
                way.close()

    def way_ended(self) -> None:
        if all(way.has_ended for way in self._ways):
            self.end()

    def end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)


class _Way:
    """From ``source`` to ``sink``. Reads when its pipe is empty, and writes when it is not: so
    either is waited for, never both."""

    __slots__ = ("_held", "_left", "_loop", "_pipe", "_relay", "_sink", "_source", "has_ended")

    def __init__(
        self, relay: Relay, source: socket.socket, sink: socket.socket, limit: int | None
    ) -> None:
        self._relay = relay
        self._source, self._sink = source, sink
        self._loop = asyncio.get_running_loop()
        self._pipe: tuple[int, int] | None = None
        self._held = 0  # bytes in the pipe
        self._left = limit
        self.has_ended = False

    def begin(self) -> None:
        self._loop.add_reader(self._source.fileno(), self._read)

    def close(self) -> None:
        if not self.has_ended:
            self._loop.remove_reader(self._source.fileno())
        self._loop.remove_writer(self._sink.fileno())
        self._give_pipe()

    def _read(self) -> None:
        try:
            if self._left == 0:
                self._look_beyond()
                return
            for _ in range(TURNS_MAX):
                if not self._fill():
                    return
                if not self._drain():
                    self._loop.remove_reader(self._source.fileno())
                    self._loop.add_writer(self._sink.fileno(), self._write)
                    return
                if self._left == 0:
                    break
            self._give_pipe()
        except BlockingIOError:
            self._give_pipe()
        except OSError:  # reset, or no pipe to be had: that is the end of both
            self._relay.end()

    def _fill(self) -> bool:
        """Into an empty pipe; False at the end of the source. BlockingIOError if there is nothing
        by now."""
        if self._pipe is None:
            self._pipe = self._relay.pipes.take()
        wanted = PIPE_BYTES if self._left is None else min(self._left, PIPE_BYTES)
        self._held = os.splice(self._source.fileno(), self._pipe[1], wanted, flags=_FLAGS)
        if self._held == 0:
            self._end()
            return False
        if self._left is not None:
            self._left -= self._held
        self._relay.moved_at = time.monotonic()
        return True

    def _drain(self) -> bool:
        """Whether the pipe is empty by now."""
        assert self._pipe is not None  # noqa: S101 - it has been filled
        try:
            while self._held:
                self._held -= os.splice(
                    self._pipe[0], self._sink.fileno(), self._held, flags=_FLAGS
                )
                self._relay.moved_at = time.monotonic()
        except BlockingIOError:
            return False
        return True

    def _write(self) -> None:
        try:
            if self._drain():
                self._give_pipe()
                self._loop.remove_writer(self._sink.fileno())
                self._loop.add_reader(self._source.fileno(), self._read)
        except OSError:
            self._relay.end()

    def _look_beyond(self) -> None:
        """Behind the last byte that may pass: the end is an end, and anything more ends all."""
        if self._source.recv(1, socket.MSG_PEEK):
            self._relay.end()
        else:
            self._end()

    def _end(self) -> None:
        self.has_ended = True
        self._loop.remove_reader(self._source.fileno())
        self._give_pipe()
        with contextlib.suppress(OSError):
            self._sink.shutdown(socket.SHUT_WR)
        self._relay.way_ended()

    def _give_pipe(self) -> None:
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            self._relay.pipes.give(pipe, is_empty=self._held == 0)
