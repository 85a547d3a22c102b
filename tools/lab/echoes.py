"""Datagrams that go and come back, some each second, while the test does something to the tunnel:
none may be missing in the end, however long it was under way."""

from __future__ import annotations

import contextlib
import select
import threading
import time
from types import TracebackType

from tools.lab.namespaces import Namespace
from tools.lab.traffic import family_of
from tools.lab.waiting import wait_until

PAUSE_SECONDS = 0.02


class Echoes:
    """From `here` to `address` in `there`, and back, until the block ends."""

    def __init__(self, here: Namespace, there: Namespace, address: str) -> None:
        self.sent = 0
        self.returned: set[int] = set()
        self.slowest_seconds = 0.0
        self._sent_at: list[float] = []
        self._far = there.socket(family_of(address))
        self._far.bind((address, 0))
        self._near = here.socket(family_of(address))
        self._near.connect(self._far.getsockname()[:2])
        self._over = threading.Event()
        self._drained = threading.Event()
        self._threads = [threading.Thread(target=run) for run in (self._answer, self._ask)]

    def __enter__(self) -> Echoes:
        for thread in self._threads:
            thread.start()
        self.flow()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        try:
            if error is None:
                wait_until(lambda: len(self.returned) == self.sent, "all came back", 20)
        except AssertionError:
            missing = sorted(set(range(self.sent)) - self.returned)
            raise AssertionError(f"{len(missing)} of {self.sent} were lost: {missing}") from None
        finally:
            self._drained.set()
            for thread in self._threads:
                thread.join(5)
            self._near.close()
            self._far.close()

    def flow(self, seconds: float = 20) -> None:
        """Waits until one has come back that was sent from now on."""
        first = self.sent
        wait_until(lambda: max(self.returned, default=-1) >= first, "echoes come back", seconds)

    def _ask(self) -> None:
        while not self._drained.is_set():
            if not self._over.is_set():
                self._sent_at.append(time.monotonic())
                with contextlib.suppress(OSError):  # then it is one that does not come back
                    self._near.send(self.sent.to_bytes(8, "big"))
                self.sent += 1
            self._over.wait(PAUSE_SECONDS)
            while select.select([self._near], [], [], PAUSE_SECONDS)[0]:
                with contextlib.suppress(OSError):  # nobody there, says ICMP
                    self._note(int.from_bytes(self._near.recv(64), "big"))

    def _note(self, number: int) -> None:
        took = time.monotonic() - self._sent_at[number]
        self.slowest_seconds = max(self.slowest_seconds, took)
        self.returned.add(number)

    def _answer(self) -> None:
        while not self._drained.is_set():
            if select.select([self._far], [], [], PAUSE_SECONDS)[0]:
                data, sender = self._far.recvfrom(64)
                self._far.sendto(data, sender)
