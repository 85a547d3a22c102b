"""Which lines of a file belong to which section, comments too.

Knows lines, not what they say. Invariant: spans are in order and apart; a line that says something
belongs to the section that the parser reads it for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pywg.config.parser import BYTE_ORDER_MARK, significant
from pywg.config.values import squeeze

_END_MARK = re.compile(r"\s*#+\s*END[_ ](PEER|CLIENT)\b.*", re.IGNORECASE)


@dataclass(slots=True)
class Span:
    """Lines ``first`` to ``end``: with the comment right above the ``header``, the one right below
    the last line that says something, and the blank lines after that. ``kind`` is the word in the
    header, in small letters; ``public_key``: as it is written, or empty."""

    kind: str
    first: int
    header: int
    end: int = 0
    public_key: str = ""


def spans(lines: Sequence[str]) -> Iterator[Span]:
    """Of each section, in order. A comment that blank lines set off belongs to none."""
    lines = [line if at else line.removeprefix(BYTE_ORDER_MARK) for at, line in enumerate(lines)]
    found: list[Span] = []
    last = -1  # of the lines that say something
    for number, line in enumerate(lines):
        text, is_extension = significant(line.partition("\0")[0])
        word = squeeze(text).lower()
        if not word.startswith("["):
            last = number if word or is_extension else last
            name, separator, value = text.partition("=")
            if found and separator and not is_extension and key(name) == "publickey":
                found[-1].public_key = squeeze(value)
            continue
        first = number
        while first > last + 1 and _is_comment(lines[first - 1]) and not is_end(lines[first - 1]):
            first -= 1
        if found:
            found[-1].end = _end(lines, last, first)
        found.append(Span(word.strip("[]"), first, number))
        last = number
    if found:
        found[-1].end = _end(lines, last, len(lines))
    yield from found


def _end(lines: Sequence[str], last: int, limit: int) -> int:
    """Of a section whose last line that says something this is; ``limit``: what is another's."""
    end = last + 1
    while end < limit and _is_comment(lines[end]):
        end += 1
    for number in range(end, limit):
        if is_end(lines[number]):
            end = number + 1
        elif lines[number].strip():
            break
    while end < limit and not lines[end].strip():
        end += 1
    return end


def is_end(line: str) -> bool:
    """Whether a comment is the mark with which an install script ends a section, so that it is not
    the comment of the next one."""
    return _END_MARK.fullmatch(line) is not None


def key(text: str) -> str:
    """What stands before a ``=``, as keys are compared."""
    return squeeze(text).lower()


def _is_comment(line: str) -> bool:
    """An extension is none: it belongs to the section above it."""
    return line.lstrip().startswith("#") and not significant(line)[1]
