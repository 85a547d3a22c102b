"""tools/vm: what the guest says of a case is read as it was meant."""

from __future__ import annotations

import pytest

from tools.vm import results
from tools.vm.results import Result


@pytest.mark.parametrize("word", ["ok", "FAIL", "skip"])
def test_a_line_is_read_back_amid_what_the_console_says(word: str) -> None:
    result = Result("reload", word, 3.2, "sessions survive")
    assert results.read(f"[    9.1] a word of the kernel {result}\r") == result
    assert str(result) == f"PWVM reload {word} 3.2 sessions survive"


def test_a_reason_of_several_lines_is_one_line() -> None:
    said = str(Result("reload", "FAIL", 1.0, "no\n\nsession | at all"))
    assert results.read(said) == Result("reload", "FAIL", 1.0, "no session | at all")
    assert str(Result("reload", "ok", 1.0, "")) == "PWVM reload ok 1.0 -"


@pytest.mark.parametrize("line", ["PWVM begin reload", "PWVM end", "PWVM reload 3.2", "reload ok"])
def test_other_lines_are_no_results(line: str) -> None:
    assert results.read(line) is None


def test_a_table_has_one_row_for_each_case() -> None:
    text = results.table([Result("a", "ok", 1.25, "x|y"), Result("b", "skip", 0.0, "-")])
    assert text.splitlines()[2:] == ["| a | ok | 1.2 | x/y |", "| b | skip | 0.0 | - |"]
