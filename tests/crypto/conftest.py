"""What the tests here share: the AEAD's kernels, compiled as for an install, and what links them.

Neither a library with the AEAD's own functions nor programs for valgrind and for made-up cases are
part of an install; tools/build/checks.py makes them here, in seconds.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tools.build import checks, core
from tools.build.checks import Builder

ROOT = core.ROOT


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`kernels` is each compilation of the AEAD for this architecture."""
    if "kernels" in metafunc.fixturenames:
        metafunc.parametrize("kernels", checks.find_flavours(core.find_arch()))


def make_builder(
    directory: Path,
    flags: Sequence[str] = (),
    *,
    arch: str | None = None,
    graph: core.Graph = checks.MODULES,
    models: Mapping[str, str] | None = None,
) -> Builder:
    try:
        return Builder(directory, flags, arch=arch, graph=graph, models=models)
    except SystemExit as missing:  # how the script says that there is no zig
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """With the kernels byte for byte as they are installed."""
    return make_builder(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="session")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """With kernels that tell valgrind which values are public. They differ in nothing else."""
    return make_builder(tmp_path_factory.mktemp("annotated"), ["-fvalgrind"])


# Which kernels get the source of which form for AVX-512: v4ifma's and v4's.
MODELS = {"v3": "eights", "baseline": "pairs"}


@pytest.fixture(scope="session")
def modelled(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """With the source of v4ifma and v4 in the place of other kernels': functions stand in for the
    instructions that it has by hand, so it runs where there is no AVX-512. Valgrind is told what is
    public."""
    directory = tmp_path_factory.mktemp("modelled")
    return make_builder(directory, ["-fvalgrind"], models=MODELS)


@pytest.fixture
def seed() -> str:
    """Another one in each run. PYWG_TEST_SEED repeats one; it is shown when the test fails."""
    chosen = os.environ.get("PYWG_TEST_SEED") or str(secrets.randbits(32))
    print(f"PYWG_TEST_SEED={chosen}")
    return chosen
