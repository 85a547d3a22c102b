"""tests/data/device.c: a device in a program in C, rightly and wrongly used, under valgrind too."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.lab.embedder import VALGRIND, compiled
from tools.lab.namespaces import Namespace, unique

ROOT = Path(__file__).parents[2]
WORDS = ["options", "events", "counters", "handshake", "fork", "threads"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("ziglang")
    return compiled("device.c", tmp_path_factory.mktemp("device"))


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
    done = namespace.attempt(*VALGRIND, str(program), unique("wgc"), timeout=300)
    assert (done.returncode, done.stdout.split()) == (0, WORDS), done.stdout + done.stderr
