"""Programs in C that use the built library, for tests of what embedders do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pywg.native import library

ROOT = Path(__file__).parents[2]
# Valgrind runs one thread at a time. Without fair-sched, one that never waits may keep the others
# from running for minutes.
VALGRIND = ["valgrind", "-q", "--error-exitcode=9", "--fair-sched=yes"]


def compiled(name: str, folder: Path) -> Path:
    """That of tests/data/, as a program in this folder."""
    made = folder / Path(name).stem
    built = library.find().parent
    # Baseline: valgrind knows no AVX-512.
    flags = ["-Wall", "-Wextra", "-Werror", "-g", "-mcpu=baseline", "-lpthread"]
    flags.append(f"-I{ROOT / 'core' / 'include'}")
    linked = [f"-L{built}", "-lpywg", f"-Wl,-rpath,{built}"]
    command = [sys.executable, "-m", "ziglang", "cc", *flags, str(ROOT / "tests" / "data" / name)]
    subprocess.run([*command, *linked, "-o", str(made)], check=True)
    return made
