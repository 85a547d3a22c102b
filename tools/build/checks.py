"""Builds the programs and libraries that check the core, with the commands of core.py.

No install has them. Used by scripts/fuzz, scripts/bench, tests/crypto/ and tests/sandbox/. The
kernels are those of an install unless a check asks for flags of its own.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.build import core, mutations

ROOT = core.ROOT

# What the targets that coverage steers stand on.
GUIDED = ["wire", "protocol", "cipher", "io", "abi", "mutation", "report", "chance"]
MODULES: core.Graph = {
    **core.MODULES,
    "cipher_testing": ("core/cipher/testing.zig", ["cipher_options"]),
    "choice": ("tools/emulator/choice.zig", ["cipher_testing"]),
    "aead": ("core/cipher/aead.zig", []),
    "null_cipher": ("core/check/null_cipher.zig", ["aead", "wire"]),
    "bench": ("core/check/bench.zig", ["wire", "protocol", "cipher", "runtime"]),
    "ends": ("core/check/ends.zig", ["wire", "protocol", "cipher", "runtime"]),
    "ctgrind": ("core/check/ctgrind.zig", ["cipher", "protocol", "runtime"]),
    "report": ("core/check/report.zig", []),
    "vectors": ("core/check/vectors.zig", ["protocol"]),
    "seccomp": ("core/daemon/seccomp.zig", ["wire", "io"]),
    "filter": ("core/check/filter.zig", ["seccomp", "report"]),
    "chance": ("core/check/chance.zig", []),
    "each_test": ("core/check/each_test.zig", []),
    "fuzz": ("core/check/fuzz/cipher.zig", ["cipher_testing", "report"]),
    "fuzz_rooms": ("core/check/fuzz/rooms.zig", ["wire", "protocol", "io", "report", "chance"]),
    "guided": ("core/check/guided.zig", [*GUIDED, "guided_options"]),
    "replay": ("core/check/replay.zig", GUIDED),
    "whole": ("core/cipher/testing.zig", ["cipher_options"]),
    "faulty": ("core/check/fuzz/faults.zig", ["whole"]),
    "mutation": ("core/check/sim/no_mutation.zig", []),
    "sim": ("core/check/sim/sim.zig", ["wire", "protocol", "mutation", "report", "chance"]),
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
QEMU_NAMES = {"armv6": "arm", "armv7l": "arm", "i686": "i386"}
# Of x86-64 kernels that run programs for x86, too.
IA32 = Path("/proc/sys/abi/vsyscall32")


class Failed(RuntimeError):
    """A compiler's complaint."""


def find_flavours(arch: str) -> list[str]:
    """The compilations of the AEAD there are for an architecture."""
    return [flavour for flavour, _ in core.TARGETS[arch][1]]


def emulator(arch: str) -> list[str]:
    """What runs programs of this architecture here: nothing, or Debian's qemu-user-static."""
    if arch == core.find_arch() or (arch == "i686" and IA32.exists()):
        return []
    return [f"qemu-{QEMU_NAMES.get(arch, arch)}-static"]


def build_ceiling(directory: Path) -> Path:
    """pywgd with nothing in the place of the cipher: the most its datapath could carry. No VPN."""
    graph = {**MODULES, "cipher": MODULES["null_cipher"]}
    return Builder(directory, graph=graph).program("daemon")


def build_ends(directory: Path, source: Path) -> Path:
    """The program in C of scripts/bench_hub that plays far ends, and what it needs of the rooms."""
    builder = Builder(directory)
    job, output = builder.job, directory / source.stem
    rooms = directory / "ends_rooms.o"
    flags = ["-fPIC", "-fstrip", f"-femit-bin={rooms}", "--name", "ends_rooms"]
    run([*job.zig, "build-obj", *_usual(job), *flags, *job.modules("ends")])
    inputs = [str(source), str(rooms), *job.objects]
    run([*job.zig, "cc", "-O2", "-Wall", "-Wextra", "-o", str(output), *inputs])
    return output


def run(command: Sequence[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"{shlex.join(command)}\n{done.stderr}")


def build_simulation(directory: Path, *, mutated: bool = False) -> Path:
    """The simulator, with the protocol of an install or with a copy that has deliberate bugs.

    It needs X25519 of the kernels, which all flavours have from the same source: one is enough.
    """
    zig, arch = core.find_zig(), core.find_arch()
    graph = MODULES
    if mutated:
        room, switch = mutations.write(ROOT / "core" / "protocol", directory)
        changed = {"protocol": (str(room), ["wire", "mutation"]), "mutation": (str(switch), [])}
        graph = {**MODULES, **changed}
    job = core.Build(zig, arch, core.OPTIMIZE_DEFAULT, core.version(), directory, graph=graph)
    job.write_options()
    flavour, cpu = job.flavours[0]
    run(job.kernels(flavour, cpu))
    inputs = [job.objects[0], *job.modules("sim")]
    output = directory / "sim"
    target = ["-target", job.target, "-mcpu", cpu, "-O", job.optimize]
    flags = ["-static", "-fstrip", "-fsingle-threaded", f"-femit-bin={output}", "--name", "sim"]
    run([*zig, "build-exe", *target, *flags, *inputs])
    return output


def build_filter(directory: Path, arch: str) -> Path:
    """The program that shows and tries pywgd's filter of system calls. It needs no kernels."""
    zig, output = core.find_zig(), directory / "filter"
    job = core.Build(zig, arch, core.OPTIMIZE_DEFAULT, core.version(), directory, graph=MODULES)
    target = ["-target", job.target, "-mcpu", core.BASELINE.get(arch, "baseline")]
    flags = ["-O", job.optimize, "-static", "-fstrip", "-fsingle-threaded"]
    names = [f"-femit-bin={output}", "--name", "filter"]
    run([*zig, "build-exe", *target, *flags, *names, *job.modules("filter")])
    return output


# The rooms whose branches are counted while coverage steers.
COUNTED = frozenset(("wire", "protocol", "io", "device", "abi"))


def build_guided(directory: Path, target: str, compiler: str) -> Path:
    """A program of libFuzzer around one target. Clang brings libFuzzer, zig the counters."""
    job = _without_kernels(directory)
    job.options_file("guided_options").write_text(f'pub const target = "{target}";\n', "utf-8")
    program, objects = directory / target, directory / f"{target}.o"
    flags = ["-fllvm", *_usual(job), "-fPIC", "-fcompiler-rt"]
    names = [f"-femit-bin={objects}", "--name", target]
    run([*job.zig, "build-obj", *flags, *names, *_counted(job.modules("guided"))])
    run([compiler, "-fsanitize=fuzzer", str(objects), "-o", str(program)])
    return program


def build_replay(directory: Path) -> Path:
    """All targets in one program that is given inputs, without counters."""
    job, program = _without_kernels(directory), directory / "replay"
    names = [f"-femit-bin={program}", "--name", "replay"]
    flags = [*_usual(job), "-static", "-fstrip"]
    run([*job.zig, "build-exe", *flags, *names, *job.modules("replay")])
    return program


def _usual(job: core.Build) -> list[str]:
    cpu = core.BASELINE.get(job.arch, "baseline")
    return ["-target", job.target, "-mcpu", cpu, "-O", job.optimize]


def _without_kernels(directory: Path) -> core.Build:
    """core/check/guided/stand_in.zig is in their place."""
    arch = core.find_arch()
    job = core.Build(
        core.find_zig(), arch, core.OPTIMIZE_DEFAULT, core.version(), directory, graph=MODULES
    )
    job.write_options()
    options = 'pub const flavours: []const []const u8 = &.{"baseline"};\n'
    job.options_file("cipher_options").write_text(options, "utf-8")
    return job


def _counted(modules: Sequence[str]) -> list[str]:
    """The flags of modules, with the one for counters where it belongs."""
    arguments: list[str] = []
    group: list[str] = []
    for argument in modules:
        group.append(argument)
        if argument.startswith("-M"):
            is_counted = argument[2:].partition("=")[0] in COUNTED
            arguments += ["-ffuzz" if is_counted else "-fno-fuzz", *group]
            group = []
    return arguments


class Builder:
    """A folder with the kernels' objects, and links with them."""

    def __init__(
        self,
        directory: Path,
        flags: Sequence[str] = (),
        *,
        arch: str | None = None,
        graph: core.Graph = MODULES,
        models: Mapping[str, str] | None = None,
    ) -> None:
        """`models` give flavours a form of the AEAD for AVX-512, without its instructions."""
        zig, arch = core.find_zig(), arch or core.find_arch()
        self.flags = list(flags)
        self.job = core.Build(
            zig,
            arch,
            core.OPTIMIZE_DEFAULT,
            core.version(),
            directory,
            graph=graph,
            models=models or {},
        )
        self.job.write_options()
        for command in self.job.apart():
            verb, *arguments = command[len(zig) :]
            run([*zig, verb, *self.flags, *arguments])

    def shared_library(self, module: str) -> Path:
        return self._link("build-lib", ["-dynamic", "-fPIC", "-fstrip"], module, f"lib{module}.so")

    def program(
        self,
        module: str,
        optimize: str = core.OPTIMIZE_DEFAULT,
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
        optimize: str = core.OPTIMIZE_DEFAULT,
        flavour: str | None = None,
    ) -> Path:
        """The usual CPU and mode are those of an install."""
        job, output = self.job, self.job.work / file
        usual = core.BASELINE.get(job.arch, "baseline")
        cpu = dict(job.flavours)[flavour] if flavour else usual
        target = ["-target", job.target, "-mcpu", cpu, "-O", optimize]
        names = [f"-femit-bin={output}", "--name", module]
        inputs = [*job.objects, *job.modules(module)]
        run([*job.zig, verb, *target, *flags, *names, *inputs])
        return output
