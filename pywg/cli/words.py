"""What is said about words that nobody knows, and about words to begin with. Knows no command."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import click

from pywg.errors import PywgError, hide_keys

NO_SYNONYMS: Mapping[str, str] = {}


def did_you_mean(word: str, known: Iterable[str], synonyms: Mapping[str, str] = NO_SYNONYMS) -> str:
    """``; did you mean "show"?``, or nothing. ``synonyms`` are the words of other programs."""
    among = list(known)
    small = word.lower()
    if small in synonyms and synonyms[small] in among:
        close = [synonyms[small]]
    else:
        close = difflib.get_close_matches(small, among, n=1)
    return f'; did you mean "{close[0]}"?' if close else ""


class Word(click.Choice):  # type: ignore[type-arg]  # no generic before click 8.2
    """One of a few words."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        choices = list(map(str, self.choices))
        hint = did_you_mean(str(value), choices) or f"; there are {', '.join(choices)}"
        if value not in choices:
            self.fail(f'"{value}" is none of its words{hint}', param, ctx)
        return str(value)


def examples(*lines: str) -> str:
    """The end of a command's help: lines that can be typed. A test has the command line parse each,
    so that none is of yesterday. Behind ``#`` is what it does."""
    return "\n".join(("\b", "Examples:" if len(lines) > 1 else "Example:", *lines))


def refuse_keys(*words: str) -> None:
    """A key has no place on a command line: others can see it there. Raises PywgError."""
    if any(hide_keys(word) != word for word in words):
        raise PywgError("this looks like a key, which has no place on a command line")


def tell(line: str) -> None:
    """On stderr, so that stdout is the product alone."""
    print(hide_keys(line), file=sys.stderr)
