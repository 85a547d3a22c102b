"""Which lines of a file belong to which section, comments too.

Knows lines, not what they say. Invariant: spans are in order and apart; a line that says something
belongs to the section that the parser reads it for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pywg.config.parser import significant
from pywg.config.values import squeeze


@dataclass(slots=True)
class Span:
    """Lines ``first`` to ``end``, with the comment right above the ``header``. ``kind`` is the word
    in the header, in small letters; ``public_key``: as it is written, or empty."""

    kind: str
    first: int
    header: int
    end: int = 0
    public_key: str = ""


def spans(lines: Sequence[str]) -> Iterator[Span]:
    """Of each section, in order."""
    found: list[Span] = []
    for number, line in enumerate(lines):
        text, is_extension = significant(line.partition("\0")[0])
        word = squeeze(text).removeprefix("\ufeff").lower()
        if not word.startswith("["):
            name, separator, value = text.partition("=")
            if found and separator and not is_extension and key(name) == "publickey":
                found[-1].public_key = squeeze(value)
            continue
        first = number
        while first > (found[-1].header + 1 if found else 0) and _is_comment(lines[first - 1]):
            first -= 1
        if found:
            found[-1].end = first
        found.append(Span(word.strip("[]"), first, number))
    if found:
        found[-1].end = len(lines)
    yield from found


def key(text: str) -> str:
    """What stands before a ``=``, as keys are compared."""
    return squeeze(text).lower()


def _is_comment(line: str) -> bool:
    """An extension is none: it belongs to the section above it."""
    return line.lstrip().startswith("#") and not significant(line)[1]
