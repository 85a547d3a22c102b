"""Runs the program of core/check/fuzz/cipher.zig, natively or emulated."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

NOTHING, FOUND, NOT_RUNNABLE = 0, 1, 4  # its exit codes


@dataclass(frozen=True)
class Finding:
    iteration: int
    what: str


@dataclass(frozen=True)
class Fuzzer:
    """The program, with what runs it."""

    command: Sequence[str]

    def run(self, target: str, seed: str, *options: object) -> tuple[int, str]:
        """Its exit code and what it said."""
        done = subprocess.run(
            [*self.command, target, "--seed", seed, *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
        )
        print(done.stdout)
        return done.returncode, done.stdout

    def expect_finding(self, said: str, pattern: str, seed: str) -> Finding:
        *_, what, replay = said.splitlines()
        assert re.search(pattern, what), said
        match = re.search(r"replay: .*--seed (\d+) --iteration (\d+)$", replay)
        assert match is not None, said
        assert match[1] == seed
        return Finding(int(match[2]), what)
