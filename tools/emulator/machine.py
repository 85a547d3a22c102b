"""An emulated PC with AVX-512, under Debian's bochs, that runs one static Linux program and ends.

    python -m tools.emulator.machine [--cpu CPU] [--xcr0 N] [--seconds S] PROGRAM [ARGUMENT...]

The program lies in the PC's ROM together with kernel.zig; what it writes comes out of the serial
port, and so does its exit code. Invariant: an exit code is only what the serial port said; bochs'
own is not looked at, and a run without one is an error.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.build import core

HERE = Path(__file__).resolve().parent
PROGRAMS = ("bochs", "objcopy")
VGA_BIOS = Path("/usr/share/vgabios/vgabios.bin")  # bochs does not start without one
PACKAGES = "bochs, bochs-term, vgabios, binutils"

# What the system saves of each program's registers, as XCR0 says it.
ALL_SAVED = 0xE7
NO_ZMM_SAVED = 0x07  # x87, xmm and ymm: a system that does not know AVX-512

# Names of bochs: AVX-512 without and with 52-bit multiply-add (IFMA).
SKYLAKE, ICELAKE = "corei7_skylake_x", "corei7_icelake_u"

# The 2 MiB at the end of 4 GiB, as in kernel.zig: program, parameters, kernel.
ROM_AT = 0xFFE0_0000
ROM_SIZE = 0x20_0000
KERNEL_SIZE = 0x2_0000
PARAMETERS_SIZE = 0x1000
PROGRAM_SIZE_MAX = ROM_SIZE - KERNEL_SIZE - PARAMETERS_SIZE

# The kernel itself has no vector register: those are the program's.
KERNEL_FLAGS = [
    *("-target", "x86_64-freestanding-none", "-mcpu", "x86_64-mmx-sse-sse2+soft_float"),
    *("-O", "ReleaseSmall", "-fno-PIE", "-fno-lto", "-fstrip", "-fsingle-threaded"),
    *("-fno-stack-check", "-fno-stack-protector", "-fno-unwind-tables"),
    *("-mcmodel=small", "-mno-red-zone", "--no-gc-sections", "-fentry=start16"),
]

# Nothing in it but a CPU, memory and a serial port; an emulated second is 10^9 instructions.
SETTINGS = """\
config_interface: textconfig
display_library: term
cpu: model={cpu}, count=1, ips=1000000000, reset_on_triple_fault=0, ignore_bad_msrs=1
memory: guest=256, host=256
romimage: file="{rom}", address={rom_at:#x}
vgaromimage: file="{vga_bios}"
pci: enabled=0
floppya: type=none
ata0: enabled=0
ata1: enabled=0
mouse: enabled=0
clock: sync=none
com1: enabled=1, mode=file, dev="{serial}"
log: "{log}"
panic: action=fatal
error: action=ignore
info: action=report
debug: action=ignore
"""


class Failed(RuntimeError):
    """There is no exit code; the text says what there is instead."""


@dataclass(frozen=True)
class Ended:
    code: int
    said: str


def find_missing() -> list[str]:
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    return missing if VGA_BIOS.is_file() else [*missing, str(VGA_BIOS)]


class Machine:
    """The kernel, compiled once, and a folder for it and for the last run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.kernel = directory / "kernel.bin"
        linked = directory / "kernel.elf"
        sources = [str(HERE / "boot.S"), f"-Mroot={HERE / 'kernel.zig'}"]
        names = ["--name", "kernel", f"-femit-bin={linked}", "-T", str(HERE / "rom.ld")]
        self._build([*core.find_zig(), "build-exe", *KERNEL_FLAGS, *names, *sources])
        sections = [word for name in (".text", ".boot16", ".reset") for word in ("-j", name)]
        whole = ["-O", "binary", *sections, "--pad-to", "0x100000"]
        self._build(["objcopy", *whole, str(linked), str(self.kernel)])
        if self.kernel.stat().st_size != KERNEL_SIZE:
            raise Failed(f"the kernel has {self.kernel.stat().st_size} bytes, not {KERNEL_SIZE}")

    def run(
        self,
        program: Path,
        *arguments: str,
        cpu: str = SKYLAKE,
        xcr0: int = ALL_SAVED,
        seconds: float = 120,
    ) -> Ended:
        """Ends with the program, or raises Failed, after so many seconds at the latest."""
        rom, serial, log, settings, commands = (
            self.directory / name
            for name in ("rom.bin", "serial.txt", "bochs.log", "bochsrc", "commands.txt")
        )
        rom.write_bytes(make_rom(program.read_bytes(), self.kernel.read_bytes(), arguments, xcr0))
        settings.write_text(
            SETTINGS.format(
                cpu=cpu, rom=rom, rom_at=ROM_AT, vga_bios=VGA_BIOS, serial=serial, log=log
            )
        )
        commands.write_text("continue\n")  # Debian's bochs begins in its debugger
        for old in (serial, log):
            old.write_text("")
        in_time = _run_on_terminal(
            ["bochs", "-q", "-f", str(settings), "-rc", str(commands)], self.directory, seconds
        )
        said = serial.read_text(errors="replace")
        end = re.search(r"^emulator: exit (\d+) ", said, re.MULTILINE)
        if end is None:
            why = "the program did not end" if in_time else f"still running after {seconds:.0f} s"
            last = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
            raise Failed(f"{why}; it said:\n{said}\nand bochs:\n{last}")
        return Ended(int(end[1]), said)

    def _build(self, command: Sequence[str]) -> None:
        # The compiler leaves files beside what it makes.
        done = subprocess.run(
            command, cwd=self.directory, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise Failed(f"{' '.join(command)}\n{done.stderr}")


def make_rom(program: bytes, kernel: bytes, arguments: Sequence[str], xcr0: int) -> bytes:
    words = ["program", *arguments]
    text = b"".join(os.fsencode(word) + b"\0" for word in words)
    parameters = struct.pack("<II", xcr0, len(words)) + text
    for size, limit in ((len(program), PROGRAM_SIZE_MAX), (len(parameters), PARAMETERS_SIZE)):
        if size > limit:
            raise Failed(f"{size} bytes of {limit}: the program or its arguments are too long")
    return (
        program.ljust(PROGRAM_SIZE_MAX, b"\0") + parameters.ljust(PARAMETERS_SIZE, b"\0") + kernel
    )


def _run_on_terminal(command: Sequence[str], directory: Path, seconds: float) -> bool:
    """False if it had to be ended. bochs draws the PC's screen, on a terminal or not at all."""
    ours, theirs = pty.openpty()
    deadline = time.monotonic() + seconds
    environment = {**os.environ, "TERM": "xterm", "LINES": "25", "COLUMNS": "80"}
    process = subprocess.Popen(
        command,
        cwd=directory,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        while time.monotonic() < deadline:
            readable, _, _ = select.select([ours], [], [], 0.1)
            if readable and not _drain(ours):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.1, deadline - time.monotonic()))
            if process.poll() is not None:
                return True
        return False
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        os.close(ours)


def _drain(terminal: int) -> bool:
    """False when nobody has its other end any more."""
    try:
        return bool(os.read(terminal, 65536))
    except OSError:
        return False


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cpu", choices=(SKYLAKE, ICELAKE), default=SKYLAKE)
    parser.add_argument("--xcr0", type=lambda text: int(text, 0), default=ALL_SAVED)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("program", type=Path)
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    missing = find_missing()
    if missing:
        raise SystemExit(f"needs {', '.join(missing)} (Debian: {PACKAGES}; scripts/peers)")
    with tempfile.TemporaryDirectory() as directory:
        try:
            ended = Machine(Path(directory)).run(
                options.program,
                *options.arguments,
                cpu=options.cpu,
                xcr0=options.xcr0,
                seconds=options.seconds,
            )
        except Failed as failed:
            raise SystemExit(str(failed)) from None
    print(ended.said, end="")
    return ended.code


if __name__ == "__main__":
    sys.exit(main())
