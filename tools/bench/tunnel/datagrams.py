"""The two generator processes of a UDP measurement, and trials with them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tools.bench.tunnel import iperf
from tools.bench.tunnel.udp_rate import Trial
from tools.lab.namespaces import Namespace

PORT = 4242
GENERATOR = Path(__file__).with_name("generator.py")
FLOOD = 0.0


class Worker:
    """One process; one line asked, one line answered."""

    def __init__(self, space: Namespace, *arguments: str) -> None:
        self.process = space.popen(
            [sys.executable, "-I", "-S", str(GENERATOR), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout

    def answer(self) -> dict[str, Any]:
        line = self.stdout.readline()
        if not line:
            raise AssertionError("the UDP generator ended early")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, **question: float) -> dict[str, Any]:
        self.stdin.write(json.dumps(question) + "\n")
        self.stdin.flush()
        return self.answer()

    def close(self) -> None:
        iperf.end(self.process)
        for pipe in (self.stdin, self.stdout):
            with contextlib.suppress(OSError):
                pipe.close()


@contextlib.contextmanager
def trials(
    a: Namespace, b: Namespace, addresses: Sequence[str], sizes: Sequence[int], listen: str
) -> Iterator[Callable[[float, float], Trial]]:
    """Gives a function (packets per second, seconds) -> Trial; a rate of 0 is a flood."""
    with contextlib.ExitStack() as stack:
        counter = Worker(b, "count", listen, str(PORT))
        stack.callback(counter.close)
        sender = Worker(
            a, "send", ",".join(addresses), str(PORT), ",".join(str(size) for size in sizes)
        )
        stack.callback(sender.close)
        counter.answer()
        sender.answer()

        def trial(rate: float, seconds: float) -> Trial:
            sent = sender.ask(rate=rate, seconds=seconds)
            got = counter.ask(sent=sent["sent"])
            return Trial(rate, sent["sent"], got["received"], sent["seconds"], got["reordered"])

        yield trial
