"""docs/INTEROP.md is what scripts/interop writes, and says nothing is broken."""

from __future__ import annotations

import re
from pathlib import Path

from tools.interop.matrix import PEERS, cases, table

DOCUMENT = Path(__file__).parents[2] / "docs" / "INTEROP.md"
CELL = re.compile(r"ok|ok, rekey|skip: \S.*")


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_holds_every_case_and_each_is_well_or_says_why_it_was_left_out() -> None:
    head, rule, *body = rows(DOCUMENT.read_text(encoding="utf-8"))
    assert head[:2] == ["peer", "who begins"]
    assert set(rule) == {"---"}
    assert len(body) >= 2 * len(PEERS)
    for row in body:
        assert len(row) == len(head)
        assert row[1] in ("pywg", "peer")
        assert all(CELL.fullmatch(cell) for cell in row[2:]), row


def test_a_row_is_written_for_each_peer_and_beginner() -> None:
    results = dict.fromkeys(cases(["boringtun"]), "ok") | dict.fromkeys(
        cases(["gotatun"]), "skip: gotatun is not installed"
    )
    _, _, *body = rows(table(results, {"boringtun": "boringtun 1"}))
    assert [row[:2] for row in body] == [
        ["boringtun 1", "pywg"],
        ["boringtun 1", "peer"],
        ["gotatun", "pywg"],
        ["gotatun", "peer"],
    ]
    assert body[0][2:] == ["ok"] * 4
