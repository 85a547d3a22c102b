"""Runs: the threads that are in the core for one device, whoever made them.

It outlives the Device, which the threads do not know. Nobody may close the handle while one is in.
"""

from __future__ import annotations

import threading

from pywg.errors import DeviceError


class Runs:
    """``threads`` are those that ``Device.start`` made, ``failure`` is what ended one of them,
    ``was_handed_over`` that another process has the device now."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.failure: DeviceError | None = None
        self.was_handed_over = False
        self._count = 0
        self._ended = threading.Condition()

    def begin(self) -> None:
        with self._ended:
            self._count += 1

    def end(self) -> None:
        with self._ended:
            self._count -= 1
            self._ended.notify_all()

    def wait_for_end(self) -> None:
        with self._ended:
            self._ended.wait_for(lambda: self._count == 0)
