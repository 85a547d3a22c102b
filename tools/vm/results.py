"""What the guest says of its cases: one line each, made here and read here.

    PWVM begin reload
    PWVM reload ok 3.2 sessions survive
    PWVM reload FAIL 3.2 why, in one line
    PWVM asleep 15                 a wish: to be woken after so many seconds
    PWVM end

Knows no case. A line may come amid other words of the console; what else is said is the log.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

MARK = "PWVM"
LINE = re.compile(rf"{MARK} (\S+) (ok|FAIL|skip) (\d+\.\d) (.*)")
BEGIN = re.compile(rf"{MARK} begin (\S+)")
ASLEEP = re.compile(rf"{MARK} asleep (\d+)")
END = f"{MARK} end"


@dataclass(frozen=True)
class Result:
    """``word``: ok, FAIL, or skip when the guest's parts cannot show it; ``text`` says why."""

    case: str
    word: str
    seconds: float
    text: str

    def __str__(self) -> str:
        text = " ".join(self.text.split()) or "-"
        return f"{MARK} {self.case} {self.word} {self.seconds:.1f} {text}"


def asleep(seconds: int) -> str:
    return f"{MARK} asleep {seconds}"


def read(line: str) -> Result | None:
    found = LINE.search(line)
    return Result(found[1], found[2], float(found[3]), found[4].strip()) if found else None


def table(results: Sequence[Result]) -> str:
    rows = ["| case | result | seconds | what was seen |", "|---|---|---|---|"]
    rows += [
        f"| {found.case} | {found.word} | {found.seconds:.1f} | {found.text.replace('|', '/')} |"
        for found in results
    ]
    return "".join(f"{row}\n" for row in rows)
