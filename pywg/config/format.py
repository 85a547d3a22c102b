"""The text of a file in its one canonical form, with the same meaning: what `pywg fmt` writes.

Keys and sections in the spelling of the documents, one space on each side of `=` and before a
comment, one blank line before each section. Values, comments and the order of lines stay. Knows
lines, not values. Invariant: what the text means does not change, and a second time nothing does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pywg.config import grammar
from pywg.config.grammar import Row
from pywg.config.parser import BYTE_ORDER_MARK, EXTENSION, parse, significant
from pywg.config.spans import is_end
from pywg.config.values import SPACES, squeeze
from pywg.errors import hide_keys

_ROWS = {(row.is_extension, row.name.lower()): row for row in grammar.KEYS}
_SECTIONS = {f"[{name}]".lower(): f"[{name}]" for name in grammar.SECTIONS}


@dataclass(frozen=True, slots=True)
class _Line:
    text: str
    is_blank: bool = False
    is_comment: bool = False
    is_header: bool = False


def formatted(text: str, path: str = "<config>") -> str:
    """The canonical form of a wg-quick file. Raises ConfigError for one with mistakes, which is not
    touched: what it means cannot be kept."""
    parse(text, path)
    lines = text.removeprefix(BYTE_ORDER_MARK).split("\n")
    ending = "\r\n" if lines[0].endswith("\r") else "\n"
    spelled = [_spelled(line.rstrip("\r")) for line in lines]
    return "".join(f"{line}{ending}" for line in _spaced(spelled))


def without_secrets(text: str) -> str:
    """To be shown: asterisks in the place of keys; as many lines as before."""
    return "\n".join(map(_hidden, text.split("\n")))


# ---- one line


def _spelled(line: str) -> _Line:
    said, is_extension = significant(line.partition("\0")[0])
    word = squeeze(said)
    comment = "" if is_extension else line[len(said) :].rstrip(SPACES)
    if not word:
        whole = line.strip(SPACES)
        return _Line(whole, is_blank=not whole, is_comment=bool(whole))
    prefix = f"{EXTENSION} " if is_extension else ""
    if word.startswith("["):
        text, is_header = _SECTIONS[word.lower()], True
    else:
        text, comment = _assignment(said, line, comment, is_extension=is_extension)
        is_header = False
    if "\0" in line:  # a C string ends there: whatever is behind it stays where it is
        return _Line(line, is_header=is_header)
    return _Line(" ".join(filter(None, (prefix + text, comment))), is_header=is_header)


def _assignment(said: str, line: str, comment: str, *, is_extension: bool) -> tuple[str, str]:
    """And the comment behind it, which a hook does not have: `#` is the shell's there."""
    row = _row_of(said, is_extension=is_extension)
    assert row is not None, "a file with an unknown key does not parse"  # noqa: S101
    if row.is_raw:
        said, comment = line, ""
    value = said.partition("=")[2].strip(SPACES)
    return f"{row.name} = {value}" if value else f"{row.name} =", comment


def _row_of(said: str, *, is_extension: bool) -> Row | None:
    key = squeeze(said.partition("=")[0]).lower()
    return _ROWS.get((is_extension, key))


def _hidden(line: str) -> str:
    said, is_extension = significant(line)
    row = _row_of(said, is_extension=is_extension)
    if row is not None and row.is_secret:
        start = line.index("=") + 1
        line = line[:start] + re.sub(r"\S", "*", line[start:])
    return hide_keys(line)


# ---- blank lines


def _spaced(lines: Iterable[_Line]) -> Iterator[str]:
    """One blank line before each section, with the comments right above its header; none behind a
    header, at either end, or beside another one."""
    blocks: list[list[_Line]] = [[]]
    for line in lines:
        if line.is_header:
            blocks.append([*_comments_above(blocks[-1]), line])
        else:
            blocks[-1].append(line)
    is_first = True
    for block in blocks:
        texts = list(_single_blanks(block))
        if texts:
            yield from texts if is_first else ["", *texts]
            is_first = False


def _comments_above(block: list[_Line]) -> list[_Line]:
    """Takes them out of the block that they follow."""
    start = len(block)
    while start > 0 and block[start - 1].is_comment and not is_end(block[start - 1].text):
        start -= 1
    found = block[start:]
    del block[start:]
    return found


def _single_blanks(block: list[_Line]) -> Iterator[str]:
    pending = False
    begun = False
    for line in block:
        if line.is_blank:
            pending = begun
            continue
        if pending:
            yield ""
        yield line.text
        pending, begun = False, not line.is_header
