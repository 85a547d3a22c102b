"""Builds the programs and libraries that check the core, with the commands of build_core.py.

No install has them. Used by scripts/fuzz, scripts/bench and tests/crypto/. The kernels are those of
an install unless a check asks for flags of its own.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import build_core
import sim_mutations

ROOT = build_core.ROOT

build_core.MODULES |= {
    "cipher_testing": ("core/cipher/testing.zig", ["cipher_options"]),
    "choice": ("tests/emulator/choice.zig", ["cipher_testing"]),
    "aead": ("core/cipher/aead.zig", []),
    "null_cipher": ("core/check/null_cipher.zig", ["aead"]),
    "bench": ("core/check/bench.zig", ["wire", "protocol", "cipher", "runtime"]),
    "ctgrind": ("core/check/ctgrind.zig", ["cipher", "protocol", "runtime"]),
    "report": ("core/check/report.zig", []),
    "fuzz": ("core/check/fuzz/cipher.zig", ["cipher_testing", "report"]),
    "fuzz_rooms": ("core/check/fuzz/rooms.zig", ["wire", "protocol", "io", "report"]),
    "whole": ("core/cipher/testing.zig", ["cipher_options"]),
    "faulty": ("core/check/fuzz/faults.zig", ["whole"]),
    "mutation": ("core/check/sim/no_mutation.zig", []),
    "sim": ("core/check/sim/sim.zig", ["wire", "protocol", "mutation", "report"]),
}
# What a program needs beyond what every one gets.
FLAGS = {
    "choice": ["-fstrip"],
    "ctgrind": ["-fvalgrind"],  # it talks to valgrind
    "daemon": ["-fstrip"],
    "fuzz": ["-fstrip"],
    "fuzz_rooms": ["-fstrip"],
}
# In names of qemu-user, where they are not ours.
QEMU_NAMES = {"armv7l": "arm"}


class Failed(RuntimeError):
    """A compiler's complaint."""


def find_flavours(arch: str) -> list[str]:
    """The compilations of the AEAD there are for an architecture."""
    return [flavour for flavour, _ in build_core.TARGETS[arch][1]]


def emulator(arch: str) -> list[str]:
    """What runs programs of this architecture here: nothing, or Debian's qemu-user-static."""
    if arch == build_core.find_arch():
        return []
    return [f"qemu-{QEMU_NAMES.get(arch, arch)}-static"]


def build_ceiling(directory: Path) -> Path:
    """pywgd with nothing in the place of the cipher: the most its datapath could carry. No VPN."""
    whole = build_core.MODULES["cipher"]
    build_core.MODULES["cipher"] = build_core.MODULES["null_cipher"]
    try:
        return Builder(directory).program("daemon")
    finally:
        build_core.MODULES["cipher"] = whole


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"{shlex.join(command)}\n{done.stderr}")


def build_simulation(directory: Path, *, mutated: bool = False) -> Path:
    """The simulator, with the protocol of an install or with a copy that has deliberate bugs.

    It needs X25519 of the kernels, which all flavours have from the same source: one is enough.
    """
    zig, arch = build_core.find_zig(), build_core.find_arch()
    job = build_core.Build(zig, arch, build_core.OPTIMIZE_DEFAULT, build_core.version(), directory)
    job.write_options()
    flavour, cpu = job.flavours[0]
    _run(job.kernels(flavour, cpu))
    modules = dict(build_core.MODULES)
    if mutated:
        room, switch = sim_mutations.write(ROOT / "core" / "protocol", directory)
        build_core.MODULES["protocol"] = (str(room), ["wire", "mutation"])
        build_core.MODULES["mutation"] = (str(switch), [])
    try:
        inputs = [job.objects[0], *job.modules("sim")]
    finally:
        build_core.MODULES.update(modules)
    output = directory / "sim"
    target = ["-target", job.target, "-mcpu", cpu, "-O", job.optimize]
    flags = ["-static", "-fstrip", "-fsingle-threaded", f"-femit-bin={output}", "--name", "sim"]
    _run([*zig, "build-exe", *target, *flags, *inputs])
    return output


class Builder:
    """A folder with the kernels' objects, and links with them."""

    def __init__(
        self, directory: Path, flags: Sequence[str] = (), *, arch: str | None = None
    ) -> None:
        zig, arch = build_core.find_zig(), arch or build_core.find_arch()
        self.flags = list(flags)
        self.job = build_core.Build(
            zig, arch, build_core.OPTIMIZE_DEFAULT, build_core.version(), directory
        )
        self.job.write_options()
        for flavour, cpu in self.job.flavours:
            verb, *arguments = self.job.kernels(flavour, cpu)[len(zig) :]
            _run([*zig, verb, *self.flags, *arguments])

    def shared_library(self, module: str) -> Path:
        return self._link("build-lib", ["-dynamic", "-fPIC", "-fstrip"], module, f"lib{module}.so")

    def program(
        self,
        module: str,
        optimize: str = build_core.OPTIMIZE_DEFAULT,
        flavour: str | None = None,
    ) -> Path:
        """With a flavour, all of it is compiled for that CPU."""
        flags = ["-static", *FLAGS.get(module, [])]
        file = "-".join(filter(None, (module, optimize, flavour)))
        return self._link("build-exe", flags, module, file, optimize=optimize, flavour=flavour)

    def tests(self, module: str, runner: Path, names: Sequence[str]) -> Path:
        """A program of those tests of a room that have one of these in their names."""
        flags = ["--test-no-exec", "-fstrip", "--test-runner", str(runner)]
        filters = [word for name in names for word in ("--test-filter", name)]
        return self._link("test", [*flags, *filters], module, f"{module}-tests")

    def _link(
        self,
        verb: str,
        flags: Sequence[str],
        module: str,
        file: str,
        *,
        optimize: str = build_core.OPTIMIZE_DEFAULT,
        flavour: str | None = None,
    ) -> Path:
        """The usual CPU and mode are those of an install."""
        job, output = self.job, self.job.work / file
        usual = build_core.BASELINE.get(job.arch, "baseline")
        cpu = dict(job.flavours)[flavour] if flavour else usual
        target = ["-target", job.target, "-mcpu", cpu, "-O", optimize]
        names = [f"-femit-bin={output}", "--name", module]
        inputs = [*job.objects, *job.modules(module)]
        _run([*job.zig, verb, *target, *flags, *names, *inputs])
        return output
