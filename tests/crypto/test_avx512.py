"""The AEAD as compiled for AVX-512, without and with IFMA, on emulated PCs that have it
(tools/emulator/), so that it is tested on every machine: which kernels are chosen, the cipher
room's own tests, and some iterations of scripts/fuzz. Then that what goes wrong there is reported
as failed.

The room's tests of single functions are left out: in a test program they are compiled for any CPU,
not as in the kernels. Nothing here says how fast the kernels are.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from tools.build import core
from tools.build.checks import Builder
from tools.emulator import machine
from tools.emulator.machine import ALL_SAVED, ICELAKE, NO_ZMM_SAVED, SKYLAKE, Failed, Machine
from tools.fuzz.program import FOUND, NOT_RUNNABLE, NOTHING

from .conftest import make_builder

KNOWN_ANSWER = "gives the known answer"
# Parts of the names of cipher.zig's tests. The others take minutes in an emulator.
CIPHER_TESTS = [
    KNOWN_ANSWER,
    "of RFC 8439 2.6.2 authenticates an empty packet",
    "one packet alone, of every length",
    "a flip of any bit",
    "in mixed batches",
]
FUZZ_ITERATIONS = 120
FAULT_ITERATIONS = 50  # the first one with a packet in it shows the fault
V4 = ("--kernels", "v4")
# The CPU, what its best kernels are called, and what users see.
LEVELS = [(SKYLAKE, "v4", "x86-64-v4"), (ICELAKE, "v4ifma", "x86-64-v4-ifma")]
INVALID_OPCODE = 6  # what a CPU says of an instruction it does not have or may not use

pytestmark = pytest.mark.skipif(
    os.uname().machine != "x86_64", reason="builds for this machine, and its CPU is not x86-64"
)


@pytest.fixture(scope="module")
def pc(tmp_path_factory: pytest.TempPathFactory, installed: Builder) -> Machine:
    missing = machine.find_missing()
    if missing:
        reason = f"needs {', '.join(missing)} (Debian: {machine.PACKAGES}; scripts/peers)"
        # Where scripts/peers installs it, nobody shall believe that this was tested.
        if os.geteuid() == 0 and shutil.which("apt-get") is not None:
            pytest.fail(reason)
        pytest.skip(reason)
    return Machine(tmp_path_factory.mktemp("pc"))


@pytest.fixture(scope="module")
def choice(installed: Builder) -> Path:
    return installed.program("choice")


@pytest.fixture(scope="module")
def cipher_tests(installed: Builder) -> Path:
    return installed.tests("cipher", machine.HERE / "runner.zig", CIPHER_TESTS)


@pytest.fixture(scope="module")
def fuzzer(installed: Builder) -> Path:
    return installed.program("fuzz")


@pytest.mark.parametrize("level", LEVELS)
def test_avx512_is_chosen_where_the_system_saves_its_registers(
    pc: Machine, choice: Path, level: tuple[str, str, str]
) -> None:
    cpu, _, path = level
    for xcr0, expected in ((ALL_SAVED, path), (NO_ZMM_SAVED, "x86-64-v3")):
        ended = pc.run(choice, cpu=cpu, xcr0=xcr0)
        assert ended.code == 0, ended.said
        assert f"chosen: {expected}\n" in ended.said


@pytest.mark.parametrize("cpu", [SKYLAKE, ICELAKE])
def test_the_tests_of_the_cipher_pass_with_avx512(
    pc: Machine, cipher_tests: Path, cpu: str
) -> None:
    ended = pc.run(cipher_tests, cpu=cpu)
    assert ended.code == 0, ended.said
    for name in CIPHER_TESTS:
        assert re.search(rf"{re.escape(name)}.* \.\.\. ok$", ended.said, re.MULTILINE), ended.said


def test_the_known_answer_comes_where_the_system_does_not_save_its_registers(
    pc: Machine, cipher_tests: Path
) -> None:
    ended = pc.run(cipher_tests, KNOWN_ANSWER, xcr0=NO_ZMM_SAVED)
    assert ended.code == 0, ended.said
    assert "\n1 passed, 0 failed\n" in ended.said


@pytest.mark.parametrize("level", LEVELS)
def test_the_aead_does_with_avx512_what_std_does(
    pc: Machine, fuzzer: Path, seed: str, level: tuple[str, str, str]
) -> None:
    cpu, kernels, path = level
    options = ("--iterations", FUZZ_ITERATIONS, "--kernels", kernels)
    ended = run_fuzzer(pc, fuzzer, seed, *options, cpu=cpu)
    assert ended.code == NOTHING, ended.said
    assert f"kernels: {kernels} (path {path})" in ended.said
    assert f"{FUZZ_ITERATIONS} iterations" in ended.said


def run_fuzzer(
    pc: Machine,
    program: Path,
    seed: str,
    *options: object,
    cpu: str = SKYLAKE,
    xcr0: int = ALL_SAVED,
) -> machine.Ended:
    return pc.run(program, "aead", "--seed", seed, *map(str, options), cpu=cpu, xcr0=xcr0)


# ---- that faults are found -----------------------------------------------------------------------


def test_kernels_that_the_system_does_not_support_are_refused_even_by_name(
    pc: Machine, fuzzer: Path, seed: str
) -> None:
    ended = run_fuzzer(pc, fuzzer, seed, "--iterations", 1, *V4, xcr0=NO_ZMM_SAVED)
    assert ended.code == NOT_RUNNABLE, ended.said
    ended = run_fuzzer(pc, fuzzer, seed, "--iterations", 1, "--kernels", "v4ifma")
    assert ended.code == NOT_RUNNABLE, ended.said


def test_a_call_of_kernels_that_the_system_does_not_support_is_seen(
    pc: Machine, choice: Path
) -> None:
    """So that a wrong choice would be, too; and the kernels do have AVX-512's instructions."""
    for name, xcr0 in (("v4", NO_ZMM_SAVED), ("v4ifma", NO_ZMM_SAVED), ("v4ifma", ALL_SAVED)):
        ended = pc.run(choice, name, xcr0=xcr0)
        assert ended.code != 0, ended.said
        assert f"called: {name}\n" in ended.said
        assert "returned" not in ended.said
        assert f"\nemulator: fault {INVALID_OPCODE} " in ended.said
    for name, cpu, xcr0 in (
        ("v4ifma", ICELAKE, ALL_SAVED),
        ("v4", SKYLAKE, ALL_SAVED),
        ("v3", SKYLAKE, NO_ZMM_SAVED),
    ):
        ended = pc.run(choice, name, cpu=cpu, xcr0=xcr0)
        assert ended.code == 0, ended.said
        assert f"returned: {name}\n" in ended.said


SEALS = "    Form.sealBatch(key, counter_first, jobs[0..count]);\n"
SPOILS = "    if (has(.avx512vl) and count > 0) jobs[0].destination[jobs[0].length] ^= 1;\n"


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """With a bit of the first tag flipped, in the kernels for AVX-512 only."""
    directory = tmp_path_factory.mktemp("faulty_avx512")
    room = directory / "cipher"
    shutil.copytree(core.ROOT / "core" / "cipher", room)
    kernels = room / "kernels.zig"
    source = kernels.read_text(encoding="utf-8")
    assert source.count(SEALS) == 1, "the fault has no place any more"
    kernels.write_text(source.replace(SEALS, SEALS + SPOILS), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core, "KERNELS", str(kernels))
        return make_builder(directory)


def test_a_fault_that_only_avx512_has_is_found(pc: Machine, faulty: Builder, seed: str) -> None:
    program = faulty.program("fuzz")
    ended = run_fuzzer(pc, program, seed, "--iterations", FAULT_ITERATIONS, *V4)
    assert ended.code == FOUND, ended.said
    assert re.search(r"^mismatch: .*sealing packet 0 of ", ended.said, re.MULTILINE), ended.said
    ended = run_fuzzer(pc, program, seed, "--iterations", 5, "--kernels", "v3")
    assert ended.code == NOTHING, ended.said


def test_a_run_without_an_exit_code_is_an_error(pc: Machine, fuzzer: Path, seed: str) -> None:
    endless = ("aead", "--seed", seed, "--seconds", "1000", "--kernels", "baseline")
    with pytest.raises(Failed, match="still running after"):
        pc.run(fuzzer, *endless, seconds=1)
