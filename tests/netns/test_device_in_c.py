"""tests/data/device.c: a device in a program in C, rightly and wrongly used, under valgrind too."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pywg.native import library
from tools.lab.namespaces import Namespace, unique

ROOT = Path(__file__).parents[2]
WORDS = ["options", "events", "counters", "handshake", "fork", "threads"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("ziglang")
    made = tmp_path_factory.mktemp("device") / "device"
    built = library.find().parent
    source = str(ROOT / "tests" / "data" / "device.c")
    # Baseline: valgrind knows no AVX-512.
    flags = ["-Wall", "-Wextra", "-Werror", "-g", "-mcpu=baseline", "-lpthread"]
    flags.append(f"-I{ROOT / 'core' / 'include'}")
    linked = [f"-L{built}", "-lpywg", f"-Wl,-rpath,{built}"]
    compiler = [sys.executable, "-m", "ziglang", "cc"]
    subprocess.run([*compiler, *flags, source, *linked, "-o", str(made)], check=True)
    return made


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    made = Namespace("inc")
    try:
        yield made
    finally:
        made.close()


def test_a_device_in_c(namespace: Namespace, program: Path) -> None:
    done = namespace.attempt(str(program), unique("wgc"), timeout=120)
    assert (done.returncode, done.stdout.split()) == (0, WORDS), done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="needs valgrind (Debian: valgrind)")
def test_a_device_in_c_under_valgrind(namespace: Namespace, program: Path) -> None:
    watched = ["valgrind", "-q", "--error-exitcode=9", "--trace-children=yes"]
    done = namespace.attempt(*watched, str(program), unique("wgc"), timeout=300)
    assert (done.returncode, done.stdout.split()) == (0, WORDS), done.stdout + done.stderr
