"""Tables in traps.md, security.md, PROTOCOL.md and field-reports.md name tests: each exists.

Names in backticks, in every document, are looked up in house/test_documents.py."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLES = ["traps.md", "security.md", "PROTOCOL.md", "field-reports.md", "attacks.md"]


def existing() -> set[str]:
    zig = (path.read_text() for path in (ROOT / "core").rglob("*.zig"))
    python = (path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    files = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    sentences = {name for text in zig for name in re.findall(r'^ *test "(.*)" \{', text, re.M)}
    functions = {name for text in python for name in re.findall(r"^ *def (test_\w+)", text, re.M)}
    return files | sentences | functions


def cited(text: str) -> set[str]:
    """Sentences in quotes and names in backticks, in the last column of every table."""
    cells = [
        line.rstrip().rstrip("|").rsplit(" | ", 1)[-1]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    sentences = {name for cell in cells for name in re.findall(r'"([^"]+)"', cell)}
    return sentences | set(re.findall(r"`(test_\w+(?:\.py)?)`", text))


@pytest.mark.parametrize("table", TABLES)
def test_every_test_that_a_table_names_exists(table: str) -> None:
    names = cited((ROOT / "docs" / table).read_text())
    assert len(names) > 10
    assert names - existing() == set()


def test_every_trap_has_a_test_or_a_reason() -> None:
    lines = (ROOT / "docs" / "traps.md").read_text().splitlines()
    rows = [line.strip("|").split(" | ") for line in lines if line.startswith("| ")]
    for row in rows:
        assert len(row) == 3, row
        assert row[0] == " what happened elsewhere" or re.search(
            r'"|`test_|by construction', row[2]
        ), row


def test_a_name_that_is_gone_is_found_out() -> None:
    assert cited('| a | "no such promise", `test_none` |') - existing() == {
        "no such promise",
        "test_none",
    }
