"""System calls that fail on purpose: strace attached to a running daemon."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tools.lab.waiting import wait_until


@contextlib.contextmanager
def failing(pid: int, calls: str, error: str, when: str, log: Path) -> Iterator[None]:
    """While inside, the calls fail with the error at the given times (strace's `when=`, counted by
    thread)."""
    tracer = subprocess.Popen(
        [
            "strace",
            "-f",
            "-qq",
            "-o",
            str(log),
            "-e",
            f"trace={calls}",
            "-e",
            f"inject={calls}:error={error}:when={when}",
            "-p",
            str(pid),
        ],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )

    def attached() -> bool:
        if tracer.poll() is not None:
            assert tracer.stderr is not None
            raise AssertionError(f"strace ended: {tracer.stderr.read().decode()}")
        return all(
            "TracerPid:\t0\n" not in (thread / "status").read_text()
            for thread in Path(f"/proc/{pid}/task").iterdir()
        )

    try:
        wait_until(attached, f"strace traces {pid}")
        yield
    finally:
        tracer.terminate()
        tracer.wait(5)
        if tracer.stderr is not None:
            tracer.stderr.close()


def injected(log: Path) -> int:
    """How many calls failed on purpose."""
    return log.read_text(errors="replace").count("(INJECTED)")
