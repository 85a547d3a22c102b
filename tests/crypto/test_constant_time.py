"""No branch and no address depends on a secret: ImperialViolet's ctgrind, with valgrind's memcheck.

core/check/ctgrind.zig marks secrets as undefined memory; memcheck reports what depends on them. It
runs the compiled code, so it also sees what the optimizer made of the source. Sealing runs the
kernels exactly as they are installed. Opening has one value that is public and branched on, the
verdict on a packet: these kernels are compiled with a request to valgrind at that place and are
otherwise the same. AVX-512 cannot be shown: valgrind does not know it. Its kernels' source is shown
as compiled for other CPUs, with functions for the instructions that these lack.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tools.build import core
from tools.build.checks import Builder

from .conftest import MODELS

FOUND = 9  # by memcheck
CLEAN = 0
BRANCH = "Conditional jump or move depends on uninitialised value"
ADDRESS = "Use of uninitialised value"
BOUNDS = "Invalid read"

pytestmark = [
    pytest.mark.skipif(
        shutil.which("valgrind") is None, reason="needs valgrind (Debian: valgrind, scripts/peers)"
    ),
    pytest.mark.skipif(
        platform.machine() != "x86_64", reason="valgrind's client requests: tried on x86-64 only"
    ),
]


@pytest.fixture(scope="module")
def program(installed: Builder) -> Path:
    return installed.program("ctgrind")


@pytest.fixture(scope="module")
def annotated_program(annotated: Builder) -> Path:
    return annotated.program("ctgrind")


def watch(program: Path, *arguments: str) -> tuple[int, str]:
    """What memcheck says; skips where the machine under valgrind lacks these kernels."""
    done = subprocess.run(
        [
            *("valgrind", "-q", f"--error-exitcode={FOUND}", "--exit-on-first-error=no"),
            # A wide load that begins inside a packet and ends outside is an error too.
            *("--partial-loads-ok=no", "--expensive-definedness-checks=yes"),
            *(str(program), *arguments),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode == 4:
        pytest.skip(f"no {arguments[-1]} on this CPU under valgrind")
    assert done.returncode in (CLEAN, FOUND), f"{done.returncode}: {done.stderr}"
    return done.returncode, done.stderr


def places(said: str) -> set[tuple[str, str]]:
    """What was found, and in which file."""
    pattern = rf"({BRANCH}|{ADDRESS}|{BOUNDS}).*\n.* at 0x\w+: .*\((?:.*/)?([^/:]+):\d+\)"
    found = {(match[1], match[2]) for match in re.finditer(pattern, said)}
    assert found or not said
    return found


def expect_clean(program: Path, *arguments: str) -> None:
    code, said = watch(program, *arguments)
    assert code == CLEAN, said


def test_sealing_with_the_installed_kernels_branches_on_no_secret(
    program: Path, kernels: str
) -> None:
    expect_clean(program, "seal", kernels)


def test_opening_branches_on_the_verdict_only(annotated_program: Path, kernels: str) -> None:
    expect_clean(annotated_program, "open", kernels)


@pytest.mark.skipif(core.find_arch() != "x86_64", reason="these forms are for AVX-512")
@pytest.mark.parametrize("task", ["seal", "open"])
@pytest.mark.parametrize("flavour", MODELS)
def test_the_source_for_avx512_branches_on_lengths_and_the_verdict_only(
    modelled: Builder, task: str, flavour: str
) -> None:
    expect_clean(modelled.program("ctgrind"), task, flavour)


def test_the_verdict_is_the_only_public_value(program: Path, kernels: str) -> None:
    """Without the request the verdict is found: secrets do reach the comparison of tags."""
    code, said = watch(program, "open", kernels)
    assert code == FOUND
    assert BRANCH in said
    assert ADDRESS not in said
    assert BOUNDS not in said


def test_comparing_macs_and_keys_shows_the_outcome_only(program: Path) -> None:
    expect_clean(program, "compare")


def test_keys_are_read_and_written_as_hexadecimal_without_a_branch_on_them(program: Path) -> None:
    expect_clean(program, "hexadecimal")


def test_deriving_keys_and_sealing_handshake_fields_branches_on_the_verdict_only(
    program: Path,
) -> None:
    _, said = watch(program, "derivation")
    # std's AEAD branches on its verdict, as ours does, and does not tell valgrind.
    assert places(said) <= {(BRANCH, "chacha20.zig")}, said
    assert said.count(BRANCH) <= 1


def test_x25519_branches_on_no_secret_but_where_a_key_is_refused(program: Path) -> None:
    """A key of small order."""
    _, said = watch(program, "agreement")
    assert ADDRESS not in said and BOUNDS not in said
    where = re.findall(rf"{BRANCH}.*\n.* at 0x\w+: (\w+) ", said)
    # Compiled with the kernels, so without lines; one place for each multiplication.
    assert set(where) <= {"pywg_x25519"} and len(where) == said.count(BRANCH) <= 2, said


@pytest.mark.parametrize(
    ("task", "message"), [("branches", BRANCH), ("indexes", ADDRESS), ("overreads", BOUNDS)]
)
def test_a_fault_on_purpose_is_found(program: Path, task: str, message: str) -> None:
    code, said = watch(program, task)
    assert code == FOUND
    assert message in said
