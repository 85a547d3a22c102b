"""pywg, tools, tests and scripts: who imports whom, what a command is, and that the linters see all
of it."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPTS = ROOT / "scripts"
FILES = [
    ROOT / "hatch_build.py",
    *(
        path
        for room in ("pywg", "tools", "tests", "examples")
        for path in sorted((ROOT / room).rglob("*.py"))
    ),
]
# Who must not import whom.
WALLS = {
    "pywg": {"tools", "tests", "scripts"},
    "tools": {"tests", "scripts"},
    "tests": {"scripts"},
}
SHELL = {"quickstart", "test", "peers", "tool"}
SOURCED = {"venv.sh"}
COMMAND = re.compile(
    r'#!/bin/sh\nexec "\$\(dirname "\$\(readlink -f "\$0"\)"\)/tool" (tools(?:\.\w+)+) "\$@"\n'
)
PATH_EDIT = re.compile(r"\bsys\.path\s*(?:\.\w|\[|\+?=)")
COMMANDS = sorted(path.name for path in SCRIPTS.iterdir() if COMMAND.fullmatch(path.read_text()))


def imported(source: str) -> set[str]:
    """The first word of each module that is imported, at any depth of the code."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_no_file_changes_where_modules_are_found() -> None:
    assert [path for path in FILES if PATH_EDIT.search(path.read_text())] == []
    for edit in (".insert(0, here)", "[:0] = [here]", " += [here]", " = []"):
        assert PATH_EDIT.search(f"sys.path{edit}")


def test_nobody_imports_through_a_wall() -> None:
    for room, forbidden in WALLS.items():
        for path in (path for path in FILES if path.is_relative_to(ROOT / room)):
            assert imported(path.read_text()) & forbidden == set(), path
    assert imported("def f():\n    from tests.unit import x\n    import tools.lab") == {
        "tests",
        "tools",
    }


def test_scripts_are_shell_and_commands_are_one_line_of_it() -> None:
    assert len(COMMANDS) >= 8
    assert {path.name for path in SCRIPTS.iterdir()} == {*COMMANDS, *SHELL, *SOURCED}
    for name in SHELL:
        assert re.match(r"#!(/bin/sh|/usr/bin/env bash)\n", (SCRIPTS / name).read_text())
    for name in (*COMMANDS, *SHELL):
        assert os.access(SCRIPTS / name, os.X_OK)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_its_options_in_any_folder(name: str, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.symlink_to(SCRIPTS / name)
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "__init__.py").write_text("raise ImportError('another one')")
    done = subprocess.run(
        [linked, "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {name} ")


def test_the_type_checker_is_given_every_folder_with_python() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    assert settings["strict"] is True
    assert set(settings["files"]) == {path.relative_to(ROOT).parts[0] for path in FILES}


@pytest.mark.parametrize("package", ["tools", "tools.lab"])
def test_a_package_says_what_it_holds(package: str) -> None:
    module = importlib.import_module(package)
    folder = Path(module.__path__[0])
    there = {
        path.stem
        for path in folder.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert set(re.findall(r"^(\w+)  ", module.__doc__ or "", re.M)) == there - {"__init__"}
