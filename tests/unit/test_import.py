"""What `import pywg` brings, and what it leaves for later."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pywg
from tools.build import core

ROOT = Path(__file__).parents[2]


def loaded_by(code: str) -> set[str]:
    """The modules that are there afterwards. -P -S: none that an installation adds."""
    told = f"{code}\nimport sys\nprint(*sys.modules)"
    command = [sys.executable, "-S", "-c", told]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_importing_it_loads_none_of_its_rooms() -> None:
    brought = loaded_by("import pywg") - loaded_by("import importlib, typing, __future__")
    assert brought == {"pywg", "pywg._version"}


def test_an_interface_loads_neither_files_nor_the_host() -> None:
    brought = loaded_by("import pywg\npywg.Interface('listen_port=1\\n').close()")
    dear = {"asyncio", "cryptography", "dataclasses", "importlib.metadata", "pyroute2", "dns"}
    rooms = {"pywg.config", "pywg.host", "pywg.wireguard", "pywg.plan", "pywg.service"}
    assert brought & (dear | rooms) == set()


def test_no_key_needs_another_library() -> None:
    brought = loaded_by("import pywg\nkey = pywg.PrivateKey.generate().public")
    assert not {name for name in brought if name.startswith(("cryptography", "nacl"))}


@pytest.mark.parametrize("name", pywg.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(pywg, name) is not None
    assert name in dir(pywg)


def test_the_names_that_are_loaded_late_are_those_that_type_checkers_see() -> None:
    tree = ast.parse((ROOT / "pywg" / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == pywg._HOME
    assert set(pywg.__all__) == {*seen, "__version__"}


def test_a_name_that_is_none_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Tunnnel'"):
        pywg.Tunnnel  # noqa: B018


def test_the_version_of_the_package_is_that_of_the_core() -> None:
    assert pywg.__version__ == core.version() == pywg.core_version()
