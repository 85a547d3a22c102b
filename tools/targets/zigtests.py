"""The Zig tests of each room, compiled for a target and run here, by qemu-user where needed.

Each test has a process of its own (core/check/each_test.zig). What an emulator of system calls
cannot do is left out by name, with the reason in LEFT_OUT.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.build import checks, core
from tools.targets import machine
from tools.targets.left_out import left_out

ROOMS = ("wire", "protocol", "cipher", "io", "device", "abi", "daemon")
RUNNER = checks.MODULES["each_test"][0]
# The others compute for long, and are compiled as an install is.
QUICKLY_COMPILED = ("wire", "io", "device", "abi", "daemon")
PATIENCE_S = 1800


@dataclass(frozen=True)
class Tally:
    """How many tests ended how; `failed` has their names."""

    ok: int
    skipped: int
    left: int
    failed: tuple[str, ...]

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.ok + other.ok,
            self.skipped + other.skipped,
            self.left + other.left,
            self.failed + other.failed,
        )

    def __str__(self) -> str:
        ran = f"{self.ok} pass"
        if self.failed:
            ran += f", {len(self.failed)} FAIL"
        if self.left or self.skipped:
            ran += f", {self.left} left out, {self.skipped} skipped"
        return ran


NOTHING = Tally(0, 0, 0, ())


def run(arch: str, rooms: Sequence[str], directory: Path) -> Tally:
    """machine.Missing: no emulator. checks.Failed: it does not compile."""
    words = machine.emulator(arch)
    tally = NOTHING
    for program in build(arch, rooms, directory):
        names = left_out(arch, program.name) if words else []
        done = subprocess.run(
            [*words, str(program), *names],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
            errors="replace",
        )
        tally += read(done.stderr)
    return tally


def build(arch: str, rooms: Sequence[str], directory: Path) -> list[Path]:
    """One program for each room, named as it."""
    zig = core.find_zig()
    job = core.Build(zig, arch, core.OPTIMIZE_DEFAULT, core.version(), directory)
    job.write_options()
    objects = job.objects if any("cipher" in core.reachable(room) for room in rooms) else []
    for flavour, cpu in job.flavours if objects else []:
        checks.run(job.kernels(flavour, cpu))
    for room in rooms:
        linked = objects if "cipher" in core.reachable(room) else []
        target = ["-target", job.target, "-mcpu", core.BASELINE.get(arch, "baseline")]
        optimize = "Debug" if room in QUICKLY_COMPILED else job.optimize
        flags = ["-O", optimize, f"-femit-bin={directory / room}", "--name", room]
        verb = ["test", "--test-no-exec", "--test-runner", RUNNER]
        checks.run([*zig, *verb, *target, *flags, *linked, *job.modules(room)])
    return [directory / room for room in rooms]


def read(said: str) -> Tally:
    """What each_test.zig told."""
    lines = [line.partition(" ") for line in said.splitlines()]
    count = {word: sum(line[0] == word for line in lines) for word in ("ok", "skipped", "left")}
    failed = tuple(name for word, _, name in lines if word == "failed")
    return Tally(count["ok"], count["skipped"], count["left"], failed)
