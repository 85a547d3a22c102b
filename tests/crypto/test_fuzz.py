"""The targets of scripts/fuzz for a moment each, on every compilation of the kernels; and that they
find faults.

Budgets are iterations, not time, so a seed decides the whole run. A failure prints its seed;
PYWG_TEST_SEED=... repeats it, and what it prints as `replay` repeats the one iteration.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tools.build import checks, core
from tools.build.checks import Builder
from tools.fuzz import command
from tools.fuzz.program import FOUND, NOT_RUNNABLE, NOTHING, Fuzzer

from .conftest import MODELS, ROOT, make_builder

AEAD_ITERATIONS = 2500
MODELLED_ITERATIONS = 600
POLY1305_ITERATIONS = 50_000
# Enough for each fault, many times over.
FAULT_ITERATIONS = 5000


@pytest.fixture(scope="module")
def fuzzer(installed: Builder) -> Fuzzer:
    return Fuzzer([str(installed.program("fuzz"))])


def test_every_compilation_of_the_aead_does_what_std_does(
    fuzzer: Fuzzer, kernels: str, seed: str
) -> None:
    code, said = fuzzer.run("aead", seed, "--iterations", AEAD_ITERATIONS, "--kernels", kernels)
    if code == NOT_RUNNABLE:
        pytest.skip(f"this CPU cannot run {kernels}")
    assert code == NOTHING, said
    assert f"kernels: {kernels} " in said
    assert f"{AEAD_ITERATIONS} iterations" in said


@pytest.mark.skipif(core.find_arch() != "x86_64", reason="these forms are for AVX-512")
@pytest.mark.parametrize("flavour", MODELS)
def test_the_source_for_avx512_does_what_std_does_without_its_instructions(
    modelled: Builder, seed: str, flavour: str
) -> None:
    """Between pages that may not be touched, which the emulated PC with AVX-512 does not have."""
    fuzzer = Fuzzer([str(modelled.program("fuzz"))])
    chosen = ("--iterations", MODELLED_ITERATIONS, "--kernels", flavour)
    code, said = fuzzer.run("aead", seed, *chosen)
    if code == NOT_RUNNABLE:
        pytest.skip(f"this CPU cannot run {flavour}")
    assert code == NOTHING, said


def test_all_forms_of_poly1305_do_what_whole_numbers_do(
    installed: Builder, fuzzer: Fuzzer, kernels: str, seed: str
) -> None:
    """Compiled for this CPU: each has other instructions for it."""
    if fuzzer.run("aead", seed, "--iterations", 0, "--kernels", kernels)[0] == NOT_RUNNABLE:
        pytest.skip(f"this CPU cannot run {kernels}")
    compiled = Fuzzer([str(installed.program("fuzz", flavour=kernels))])
    code, said = compiled.run("poly1305", seed, "--iterations", POLY1305_ITERATIONS)
    assert code == NOTHING, said
    assert f"{POLY1305_ITERATIONS} iterations" in said


def test_the_whole_numbers_are_right() -> None:
    command = [*core.find_zig(), "test", "core/check/fuzz/field.zig"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---- that faults are found -----------------------------------------------------------------------

# fault of core/check/fuzz/faults.zig -> what is said of it
FAULTS = {
    "tag_bit": r"sealing packet \d+ of \d+ \(65 bytes, .*: byte 72 is",
    "late_packet": "sealing packet",
    "counter_carry": "sealing packet",
    "reduction": "sealing packet",
    "overrun": "mismatch: ",  # into the margin or into the next packet
    "source": "its plaintext was written to",
    "overread": "crash: SIGSEGV",
    "underread": "crash: SIGSEGV",
    "accepted": "it is accepted",
    "short_comparison": r"\(0 bytes, .*, forgery \w+\): it is accepted",
    "stale": "it is accepted",
    "remainder": "it is refused and not zeroed",
    "neighbour": "it is refused",
    "panic": "panic: on purpose",
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Fuzzer:
    graph: core.Graph = {**checks.MODULES, "cipher_testing": checks.MODULES["faulty"]}
    builder = make_builder(tmp_path_factory.mktemp("faulty"), graph=graph)
    return Fuzzer([str(builder.program("fuzz"))])


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_aead_is_found_and_its_iteration_repeats_it(
    faulty: Fuzzer, fault: str, seed: str
) -> None:
    chosen = ("--kernels", fault)
    code, said = faulty.run("aead", seed, "--iterations", FAULT_ITERATIONS, *chosen)
    assert code == FOUND, said
    finding = faulty.expect_finding(said, FAULTS[fault], seed)
    code, said = faulty.run("aead", seed, "--iteration", finding.iteration, *chosen)
    assert code == FOUND, said
    assert faulty.expect_finding(said, FAULTS[fault], seed) == finding


def test_a_fault_of_poly1305_is_found(faulty: Fuzzer, seed: str) -> None:
    code, said = faulty.run("poly1305", seed, "--iterations", FAULT_ITERATIONS)
    assert code == FOUND, said
    faulty.expect_finding(said, "limbs of 26 bits, key [0-9a-f]{64}, after", seed)


def test_without_a_fault_nothing_is_found(faulty: Fuzzer, seed: str) -> None:
    code, said = faulty.run("aead", seed, "--iterations", 200, "--kernels", "none")
    assert code == NOTHING, said


# ---- scripts/fuzz --------------------------------------------------------------------------------


def test_the_command_it_prints_repeats_the_finding(
    faulty: Fuzzer,
    seed: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """With the faulty program instead of what it would build."""
    monkeypatch.setattr(command, "build", lambda options: Path(faulty.command[0]))

    def call(*words: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["fuzz", *words])
        return command.main(), capfd.readouterr().out

    capfd.readouterr()
    code, said = call("poly1305", "60", "--seed", seed)
    assert code == FOUND, said
    replay = said.splitlines()[-1].removeprefix("replay: scripts/fuzz ")
    code, again = call(*replay.split())
    assert code == FOUND, again
    finding = faulty.expect_finding(said, "limbs of 26 bits", seed)
    assert faulty.expect_finding(again, "limbs of 26 bits", seed) == finding
