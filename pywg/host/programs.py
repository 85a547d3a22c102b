"""Other programs: run to their end with a text on standard input, or started to be talked to.

Knows no program. Invariant: none waits for a terminal, and none outlasts its time.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence

from pywg.errors import HostError

Process = subprocess.Popen[bytes]
Expired = subprocess.TimeoutExpired
TIMEOUT_S = 60.0


def run(command: Sequence[str], text: str = "") -> str:
    """Its standard output. Raises HostError with the first line it complained with."""
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"{command[0]}: {error}") from None
    if done.returncode != 0:
        said = next(iter(done.stderr.strip().splitlines()), f"failed with {done.returncode}")
        raise HostError(f"{' '.join(command[:3])}: {said}")
    return done.stdout


def output(command: Sequence[str]) -> str:
    """Its standard output as far as there is one; empty where it cannot be run."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def start(command: Sequence[str], *, piped: bool, before: Callable[[], None]) -> Process:
    """A program that goes on beside us, ``piped`` for what it prints. ``before`` runs in it first;
    no other thread may run here meanwhile."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if piped else subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=before,  # noqa: PLW1509 - see above
    )
