"""The rooms of pywg/ and the arrows between them: docs/ARCHITECTURE.md, "The rooms of pywg/".

A room is a folder of pywg/, or a module beside them. Every import counts, a late one too: a circle
that is papered over by an import inside a function is still a circle.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[3] / "pywg"

# room -> the rooms it may import; it may import itself.
MAY_IMPORT = {
    "errors": "",
    "keys": "errors native",  # native.library, which knows no key, has the curve
    "config": "errors keys",
    "plan": "errors config",
    "host": "errors config",
    "wireguard": "errors keys config host",
    "native": "errors keys config host wireguard",
    "drive": "native",
    "service": "errors keys config host wireguard native",
    "sources": "errors keys config host wireguard",
    "tunnel": "errors keys config plan host wireguard service sources",
    "enroll": "errors keys config wireguard tunnel",
    "monitor": "errors keys config host wireguard native tunnel",
    "rootless": "errors keys config plan host wireguard native service",
    "proxy": "errors rootless",
    "demo": "errors keys config host wireguard native _version",
    "doctor": "errors keys config plan host wireguard tunnel rootless",
    "top": "errors keys config host wireguard tunnel",
    "cli": "errors keys config plan host wireguard native service sources tunnel enroll monitor "
    "rootless proxy demo doctor top _version",
    "_version": "native",
    "__init__": "errors keys config host wireguard native drive rootless _version",
    "__main__": "cli",
}
# word -> the rooms that may import this library.
ONLY_IN = {
    "click": "cli",
    "cryptography": "sources",
    "dns": "host",
    "prometheus_client": "monitor",
    "pyroute2": "host wireguard demo",
    "rich": "top",
    "segno": "enroll",
    "subprocess": "host rootless",
    "textual": "top",
}
# attribute -> the files that may use it.
CALLED_ONLY_IN = {
    # A tunnel's own method has that name, too.
    "getaddrinfo": {"host/resolver.py", "rootless/tunnel.py"},
}


@functools.cache
def files() -> dict[str, ast.Module]:
    """``room/file.py`` -> its syntax tree."""
    return {
        str(path.relative_to(PACKAGE)): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def room_of(file: str) -> str:
    return file.split("/", maxsplit=1)[0].removesuffix(".py")


def module_of(file: str) -> str:
    return ".".join(("pywg", *file.removesuffix(".py").split("/"))).removesuffix(".__init__")


def imported(tree: ast.AST, known: set[str]) -> Iterator[str]:
    """The modules a file imports, by their whole names; of a package's name, the package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written with whole names"
            module = node.module or ""
            for alias in node.names:
                whole = f"{module}.{alias.name}"
                yield whole if whole in known else module


def arrows(trees: dict[str, ast.Module]) -> list[tuple[str, str]]:
    """(file, imported module of pywg), once for each pair."""
    known = {module_of(file) for file in trees} | {"pywg._native"}
    found = {
        (file, name)
        for file, tree in trees.items()
        for name in imported(tree, known)
        if name == "pywg" or name.startswith("pywg.")
    }
    return sorted(found)


def against_the_rule(trees: dict[str, ast.Module]) -> list[str]:
    found = []
    for file, name in arrows(trees):
        here = room_of(file)
        there = name.split(".")[1] if "." in name else "__init__"
        if there != here and there not in MAY_IMPORT.get(here, "").split():
            found.append(f"pywg/{file} imports {name}")
    return found


def circle(trees: dict[str, ast.Module]) -> list[str]:
    """A circle of modules, or none. What ``__init__`` re-exports is no module's business: a
    module that imports a name from its own package is caught as a circle with ``__init__``."""
    graph: dict[str, set[str]] = {}
    for file, name in arrows(trees):
        graph.setdefault(module_of(file), set()).add(name)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        nodes: list[str] = error.args[1]
        return nodes
    return []


def banned_words(trees: dict[str, ast.Module]) -> list[str]:
    found = []
    for file, tree in trees.items():
        libraries = {name.split(".")[0] for name in imported(tree, set())}
        for library, rooms in ONLY_IN.items():
            if library in libraries and room_of(file) not in rooms.split():
                found.append(f"pywg/{file} imports {library}")
        called = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        for name, places in CALLED_ONLY_IN.items():
            if name in called and file not in places:
                found.append(f"pywg/{file} calls {name}")
    return found


def test_every_folder_is_a_room_with_a_rule() -> None:
    assert {room_of(file) for file in files()} == set(MAY_IMPORT)


def test_no_import_goes_against_the_arrows() -> None:
    assert against_the_rule(files()) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle(files()) == []


def test_libraries_stay_in_their_rooms() -> None:
    assert banned_words(files()) == []


@pytest.mark.parametrize(
    ("check", "file", "source"),
    [
        (against_the_rule, "plan/build.py", "from pywg.host import network"),
        (against_the_rule, "host/dns.py", "def late():\n    from pywg.plan.steps import SetDns"),
        (circle, "keys.py", "from pywg.config.values import squeeze"),
        (banned_words, "tunnel/up.py", "import click"),
        (banned_words, "wireguard/addresses.py", "import socket\nsocket.getaddrinfo('x', 1)"),
    ],
)
def test_each_check_can_fail(check: object, file: str, source: str) -> None:
    assert callable(check)
    assert check(files() | {file: ast.parse(source)}) != []


def report() -> str:
    """``python -m pytest -s -k graph`` prints it: arrows, and the largest file and function of
    each room."""
    trees = files()
    lines = [f"{len(arrows(trees))} arrows, {len(against_the_rule(trees))} against the rule"]
    for room in MAY_IMPORT:
        own = {file: tree for file, tree in trees.items() if room_of(file) == room}
        largest = max(own, key=lambda file: len((PACKAGE / file).read_text().splitlines()))
        length, function = max(
            (
                ((node.end_lineno or 0) - node.lineno + 1, node.name)
                for tree in own.values()
                for node in ast.walk(tree)
                if isinstance(node, ast.FunctionDef)
            ),
            default=(0, "-"),
        )
        lines.append(
            f"{room:10} {len(own):3} files, largest {largest} "
            f"{len((PACKAGE / largest).read_text().splitlines())} lines; "
            f"longest function {function} {length} lines"
        )
    return "\n".join(lines)


def test_the_graph_is_reported() -> None:
    print("\n" + report())
