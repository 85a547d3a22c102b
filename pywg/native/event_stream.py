"""EventStream: the events of a device, one after another, for ``async for`` and for ``for``.

Knows a function that takes the next event and a descriptor that is readable while there is one, not
the device.
"""

from __future__ import annotations

import os
import select
from collections.abc import AsyncIterator, Callable, Iterator

from pywg.errors import DeviceError, Status
from pywg.native.events import Event, InterfaceRemoved


class EventStream(AsyncIterator[Event], Iterator[Event]):
    """Made by ``Device.events``. ``with`` closes it, or ``close``, or its end.

    In ``async for`` nothing blocks: the event loop watches a descriptor (``add_reader``), and no
    thread is used. One task at a time.
    """

    def __init__(self, take: Callable[[], Event | None], readable: int) -> None:
        self._take = take
        self._readable = readable
        self._is_closed = False
        self._is_awaited = False

    # ---- for

    def __iter__(self) -> EventStream:
        return self

    def __next__(self) -> Event:
        while (event := self._next_at_hand()) is None:
            if self._is_closed:
                raise StopIteration
            poll = select.poll()
            poll.register(self._readable, select.POLLIN)
            poll.poll()
        return event

    # ---- async for

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        if self._is_awaited:
            raise RuntimeError("another task waits for an event of this stream already")
        self._is_awaited = True
        try:
            while (event := self._next_at_hand()) is None:
                if self._is_closed:
                    raise StopAsyncIteration
                await self._until_readable()
            return event
        finally:
            self._is_awaited = False

    async def _until_readable(self) -> None:
        import asyncio  # takes longer than all of this package

        loop = asyncio.get_running_loop()
        readable = loop.create_future()

        def note() -> None:
            if not readable.done():
                readable.set_result(None)

        loop.add_reader(self._readable, note)
        try:
            await readable
        finally:
            loop.remove_reader(self._readable)

    # ---- both

    def _next_at_hand(self) -> Event | None:
        """None when there is none now; or there will be none any more, and then it is closed."""
        if self._is_closed:
            return None
        try:
            event = self._take()
        except DeviceError as error:
            if error.status != Status.CLOSED:
                raise
            self.close()
            return None
        if isinstance(event, InterfaceRemoved):
            self.close()  # nothing comes after it
        return event

    def fileno(self) -> int:
        """Readable while there is an event; for a loop of the caller's. Not after the end."""
        return self._readable

    def take(self) -> Event | None:
        """The next event if there is one now, without waiting. Raises nothing."""
        return self._next_at_hand()

    @property
    def is_closed(self) -> bool:
        """Whether there will be no event any more."""
        return self._is_closed

    def close(self) -> None:
        """Gives its descriptor back. Not while a thread or a task waits. A second time is
        harmless."""
        if not self._is_closed:
            self._is_closed = True
            os.close(self._readable)

    def __enter__(self) -> EventStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_is_closed"):
            self.close()
