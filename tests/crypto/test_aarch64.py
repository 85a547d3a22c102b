"""The AEAD and Poly1305 as compiled for aarch64 (NEON) and the other architectures we build for,
run by qemu-user: the targets of scripts/fuzz for a moment each.

qemu-user shows that the code is right, not that it is fast, and does not show weak memory order.
"""

from __future__ import annotations

import shutil

import pytest

from tools.build import checks, core
from tools.fuzz.program import NOTHING, Fuzzer

from .conftest import make_builder

# architecture -> the path its kernels must report
PATHS = {"aarch64": "neon", "armv7l": "portable", "riscv64": "portable", "x86_64": "baseline"}
OTHERS = sorted(set(PATHS) - {core.find_arch()})
AEAD_ITERATIONS = 1000
POLY1305_ITERATIONS = 5000


@pytest.fixture(scope="module", params=OTHERS)
def arch(request: pytest.FixtureRequest) -> str:
    arch: str = request.param
    (runner,) = checks.emulator(arch)
    if shutil.which(runner) is None:
        pytest.skip(f"needs {runner} (Debian: qemu-user-static, scripts/peers)")
    return arch


@pytest.fixture(scope="module")
def fuzzer(arch: str, tmp_path_factory: pytest.TempPathFactory) -> Fuzzer:
    program = make_builder(tmp_path_factory.mktemp(arch), arch=arch).program("fuzz")
    return Fuzzer([*checks.emulator(arch), str(program)])


def test_the_aead_does_what_std_does(fuzzer: Fuzzer, arch: str, seed: str) -> None:
    code, said = fuzzer.run("aead", seed, "--iterations", AEAD_ITERATIONS)
    assert code == NOTHING, said
    assert f"kernels: baseline (path {PATHS[arch]})" in said
    assert f"{AEAD_ITERATIONS} iterations" in said


def test_both_forms_of_poly1305_do_what_whole_numbers_do(fuzzer: Fuzzer, seed: str) -> None:
    code, said = fuzzer.run("poly1305", seed, "--iterations", POLY1305_ITERATIONS)
    assert code == NOTHING, said
    assert f"{POLY1305_ITERATIONS} iterations" in said
