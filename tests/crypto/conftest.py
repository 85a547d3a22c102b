"""What the tests here share: the AEAD's kernels, compiled as for an install, and what links them.

Neither a library with the AEAD's own functions nor programs for valgrind are part of an install;
they are made here, with the commands of scripts/build_core.py, in seconds.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def _load_build_core() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_core", ROOT / "scripts" / "build_core.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["build_core"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


build_core = _load_build_core()
build_core.MODULES |= {
    "cipher_testing": ("core/cipher/testing.zig", ["cipher_options"]),
    "ctgrind": ("core/ctgrind.zig", ["cipher", "protocol"]),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`kernels` is each compilation of the AEAD for this architecture."""
    if "kernels" in metafunc.fixturenames:
        flavours = build_core.TARGETS[build_core.find_arch()][1]
        metafunc.parametrize("kernels", [flavour for flavour, _ in flavours])


class Builder:
    """A folder with the kernels' objects, and links with them."""

    def __init__(self, directory: Path, flags: Sequence[str] = ()) -> None:
        zig, arch = build_core.find_zig(), build_core.find_arch()
        self.flags = list(flags)
        self.job: Any = build_core.Build(
            zig, arch, build_core.OPTIMIZE_DEFAULT, build_core.version(), directory
        )
        self.job.write_options()
        for flavour, cpu in self.job.flavours:
            verb, *arguments = self.job.kernels(flavour, cpu)[len(zig) :]
            self._run([*zig, verb, *self.flags, *arguments])

    def shared_library(self, module: str) -> Path:
        return self._link("build-lib", ["-dynamic", "-fPIC", "-fstrip"], module, f"lib{module}.so")

    def program(self, module: str, optimize: str = build_core.OPTIMIZE_DEFAULT) -> Path:
        """One that talks to valgrind."""
        flags = ["-static", "-fvalgrind"]
        return self._link("build-exe", flags, module, f"{module}-{optimize}", optimize)

    def _link(
        self,
        verb: str,
        flags: Sequence[str],
        module: str,
        file: str,
        optimize: str = build_core.OPTIMIZE_DEFAULT,
    ) -> Path:
        """The CPU and the usual mode are those of an install."""
        job, output = self.job, self.job.work / file
        cpu = build_core.BASELINE.get(job.arch, "baseline")
        target = ["-target", job.target, "-mcpu", cpu, "-O", optimize]
        names = [f"-femit-bin={output}", "--name", module]
        inputs = [*job.objects, *job.modules(module)]
        self._run([*job.zig, verb, *target, *flags, *names, *inputs])
        return output

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def make_builder(directory: Path, flags: Sequence[str] = ()) -> Builder:
    try:
        return Builder(directory, flags)
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
