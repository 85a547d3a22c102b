"""What was found, as plain values. Knows no host. Invariant: no finding holds a key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

from pywg.errors import hide_keys


class Severity(IntEnum):
    """``note``: worth knowing, nothing is to be done. ``warning``: something will not work as it is
    meant to. ``error``: no tunnel, or not the one that is meant."""

    OK = 0
    NOTE = 1
    WARNING = 2
    ERROR = 3

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Finding:
    """``word`` is for programs and never changes its meaning, ``text`` for people. ``evidence``:
    what was seen. ``mend``: the line that mends it, a command or one of the file. ``path``,
    ``line``, ``column`` and ``source``, which is that line with asterisks for secrets: where a file
    says so; 0 or empty where it does not matter."""

    severity: Severity
    word: str
    text: str
    evidence: str = ""
    mend: str = ""
    path: str = ""
    line: int = 0
    column: int = 0
    source: str = ""

    def __post_init__(self) -> None:
        for name in ("text", "evidence", "mend", "path", "source"):
            object.__setattr__(self, name, hide_keys(getattr(self, name)))

    def to_json(self) -> dict[str, Any]:
        """Without what is empty, but for the first three."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        shown = {name: value for name, value in values.items() if value}
        return {**shown, "severity": str(self.severity)}


def ok(word: str, text: str, evidence: str = "") -> Finding:
    return Finding(Severity.OK, word, text, evidence)


def note(word: str, text: str, evidence: str = "", mend: str = "") -> Finding:
    return Finding(Severity.NOTE, word, text, evidence, mend)


def warning(word: str, text: str, evidence: str = "", mend: str = "") -> Finding:
    return Finding(Severity.WARNING, word, text, evidence, mend)


def error(word: str, text: str, evidence: str = "", mend: str = "") -> Finding:
    return Finding(Severity.ERROR, word, text, evidence, mend)


def exit_code(findings: Iterable[Finding]) -> int:
    """0: nothing worse than a note. 1: warnings. 2: errors."""
    worst = max((item.severity for item in findings), default=Severity.OK)
    return {Severity.WARNING: 1, Severity.ERROR: 2}.get(worst, 0)
