"""What holds in every file of pywg/: no `case _` on our own unions, no file that nobody imports.

That a match leaves no case out is mypy's to say (``exhaustive-match``): so a wildcard would only
hide the case that is added later.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator

from pywg.cli import COMMANDS
from tests.unit.house.test_rooms import PACKAGE, arrows, files, module_of


def wildcards_on_unions(trees: dict[str, ast.Module]) -> list[str]:
    """Wildcards beside patterns of classes, but those that only call assert_never."""
    return [
        f"pywg/{file}:{case.pattern.lineno}"
        for file, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Match) and any(map(is_class_pattern, node.cases))
        for case in node.cases
        if is_wildcard(case) and "assert_never" not in ast.dump(ast.Module(case.body, []))
    ]


def is_class_pattern(case: ast.match_case) -> bool:
    return any(isinstance(node, ast.MatchClass) for node in ast.walk(case.pattern))


def is_wildcard(case: ast.match_case) -> bool:
    pattern = case.pattern
    return isinstance(pattern, ast.MatchAs) and pattern.pattern is None and case.guard is None


def imported_by_nobody(trees: dict[str, ast.Module]) -> list[str]:
    """Modules that no other imports, and that are no way in."""
    imported = {name for _, name in arrows(trees)} | set(ways_in())
    return [
        module
        for module in map(module_of, trees)
        # A package is imported with any of its modules.
        if module not in imported and not any(name.startswith(f"{module}.") for name in imported)
    ]


def ways_in() -> Iterator[str]:
    yield "pywg.__main__"
    yield "pywg.rootless.helper"  # by pywg.rootless.inside, with python -m
    yield from (module for module, _ in COMMANDS.values())
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    for target in project["project"]["scripts"].values():
        yield target.partition(":")[0]


def test_no_wildcard_hides_a_new_case() -> None:
    assert wildcards_on_unions(files()) == []


def test_every_module_is_imported() -> None:
    assert imported_by_nobody(files()) == []


def test_a_wildcard_would_be_found() -> None:
    planted = "match step:\n    case Note():\n        pass\n    case _:\n        pass\n"
    assert wildcards_on_unions({"x.py": ast.parse(planted)}) == ["pywg/x.py:4"]


def test_a_forgotten_module_would_be_found() -> None:
    planted = files() | {"host/forgotten.py": ast.parse("")}
    assert imported_by_nobody(planted) == ["pywg.host.forgotten"]
