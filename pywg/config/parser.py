"""The text of a file to what its sections say, and of a wg-quick file to a Config. Pure: reads no
file, asks no resolver.

Everything that is wrong is told in one ConfigError, each with ``path:line:column``. Invariant: no
message repeats the value of a key, nor a line that could be one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pywg.config import grammar, values
from pywg.config import warnings as check
from pywg.config.grammar import Reader, Row, SectionName
from pywg.config.model import (
    AllowedIP,
    Config,
    ConfigWarning,
    InterfaceSection,
    IPNetwork,
    PeerSection,
    Position,
)
from pywg.config.values import SPACES, AllowedIPEdit, BadValue, Reading, squeeze
from pywg.errors import ConfigError, KeyFormatError, Problem
from pywg.keys import PublicKey

# What plain wg-quick takes for a comment: `#!pywg Key = value`.
BYTE_ORDER_MARK = "\ufeff"  # some editors begin a file with it
EXTENSION = "#!pywg"
_EXTENSION = re.compile(rf"\s*{EXTENSION}\s")
# What is longer, or has other characters, may be a key in the wrong place: it is not repeated.
_WORD = re.compile(r"[A-Za-z0-9_-]{1,20}")


def parse(text: str, path: str = "<config>") -> Config:
    """The text of a wg-quick file to a Config. Raises ConfigError."""
    said = read_sections(text, path, ("wg", "wg-quick", "pywg"))
    interface = InterfaceSection(**said.interface.values())
    idle: list[AllowedIP] = []
    peers = tuple(_peers(said.peers, idle))
    positions = [peer.position for peer in said.peers]
    found = check.warnings(path, interface, peers, positions, idle)
    warnings = [*said.warnings, *found]
    return Config(interface, peers, path, tuple(warnings))


@dataclass(slots=True)
class Section:
    """What the lines of one section have said so far, by field. Of keys that accumulate, the values
    of all their lines."""

    name: SectionName
    position: Position = field(default=Position())
    source: str = ""  # its header, fit to be shown
    said: dict[str, Any] = field(default_factory=dict)

    def say(self, row: Row, value: Any) -> None:
        pairs = zip(row.fields, value if len(row.fields) > 1 else (value,), strict=True)
        for name, one in pairs:
            if row.accumulates:
                self.said.setdefault(name, []).extend(one)
            else:
                self.said[name] = one

    def values(self) -> dict[str, Any]:
        return {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in self.said.items()
        }


@dataclass(slots=True)
class Sections:
    """A whole file; several ``[Interface]`` are one."""

    interface: Section = field(default_factory=lambda: Section("Interface"))
    peers: list[Section] = field(default_factory=list)
    warnings: list[ConfigWarning] = field(default_factory=list)


def read_sections(text: str, path: str, readers: Sequence[Reader]) -> Sections:
    """What a file says with the keys that these know; any other key is a mistake. Every peer has a
    public key. Raises ConfigError."""
    return _Parser(path, readers).parse(text)


def significant(line: str) -> tuple[str, bool]:
    """A line without its comment, and whether it is an extension; what is not read of it before is
    blank, so that every character stays in its place."""
    if _EXTENSION.match(line):
        start = line.index(EXTENSION) + len(EXTENSION)
        return " " * start + line[start:], True
    return line.partition("#")[0], False


def replaces_list(lines: Sequence[Sequence[AllowedIPEdit]]) -> bool:
    """Whether these lines of AllowedIPs, or there being none, replace what a peer has: a sign in
    the last of them means that they add to it and take from it."""
    return not any(edit.sign for line in lines[-1:] for edit in line)


def _peers(sections: Iterable[Section], idle: list[AllowedIP]) -> Iterator[PeerSection]:
    """A peer may have several sections: signs in a later one change the list of those before. What
    a sign removes of nothing is added to ``idle``."""
    lists: dict[PublicKey, tuple[AllowedIP, ...]] = {}
    for section in sections:
        said = section.values()
        lines = said.pop("allowed_ips", ())
        key = said["public_key"]
        before = () if replaces_list(lines) else lists.get(key, ())
        lists[key] = tuple(_edited(before, lines, idle))
        yield PeerSection(**said, allowed_ips=lists[key])


def _edited(
    before: Iterable[AllowedIP],
    lines: Iterable[Iterable[AllowedIPEdit]],
    idle: list[AllowedIP],
) -> Iterable[AllowedIP]:
    found: dict[IPNetwork, AllowedIP] = {allowed.network: allowed for allowed in before}
    for line in lines:
        for allowed, sign in line:
            if sign == "-" and found.pop(allowed.network, None) is None:
                idle.append(allowed)
            elif sign == "-":
                continue
            else:
                found.setdefault(allowed.network, allowed)
    return found.values()


class _Parser:
    def __init__(self, path: str, readers: Sequence[Reader]) -> None:
        self.path = path
        self.readers = readers
        # Looked up once for each line, of which there may be very many.
        self.rows = {
            (row.section, row.is_extension, row.name.lower()): row
            for section in grammar.SECTIONS
            for row in grammar.rows(section, *readers)
        }
        self.at = Position()
        self.shown: Callable[[], str] = str  # the line being read, fit to be shown
        self.done = Sections()
        self.section: Section | None = None
        self.is_unknown = False  # the section
        self.problems: list[Problem] = []

    def parse(self, text: str) -> Sections:
        for number, line in enumerate(text.removeprefix(BYTE_ORDER_MARK).split("\n"), start=1):
            whole = line.partition("\0")[0].rstrip("\r")  # a C string ends there
            read, is_extension = significant(whole)
            if not is_extension or "pywg" in self.readers:
                self._line(number, read, whole, is_extension)
        for peer in self.done.peers:
            if "public_key" not in peer.said:
                self.at, self.shown = peer.position, partial(str, peer.source)
                self._problem("[Peer] has no PublicKey")
        if self.problems:
            ordered = sorted(self.problems, key=lambda item: (item.line, item.column))
            raise ConfigError.of(self.path, ordered)
        return self.done

    # One line: empty, a section, or key = value.

    def _line(self, number: int, line: str, whole: str, is_extension: bool) -> None:
        stripped = squeeze(line)
        if not stripped:
            return
        self.at = Position(number, _indent(line) + 1)
        self.shown = partial(_hidden, whole, 0)
        if stripped.startswith("["):
            self.shown = partial(values.mask, whole)
            self._open_section(stripped)
            return
        key, separator, value = line.partition("=")
        if not separator:
            self._problem('expected "[Section]" or "Key = Value"')
            return
        at = Position(number, len(key) + 2 + _indent(value))
        word = squeeze(key)
        if _WORD.fullmatch(word):
            self.shown = partial(_hidden, whole, len(key) + 1)
        self._assign(word, value.strip(SPACES), at, whole, is_extension)

    def _open_section(self, text: str) -> None:
        self.is_unknown = False
        match text.lower():
            case "[interface]":
                self.section = self.done.interface
            case "[peer]":
                self.section = Section("Peer", self.at, self.shown())
                self.done.peers.append(self.section)
            case _:
                self.is_unknown = True
                self._unknown_section(text)

    def _unknown_section(self, text: str) -> None:
        shown = f" {text}" if _WORD.fullmatch(text[1:-1]) and text.endswith("]") else ""
        headers = [f"[{name}]" for name in grammar.SECTIONS]
        hint = _did_you_mean(text, headers)
        self._problem(f"unknown section{shown}; there are {' and '.join(headers)}{hint}")

    def _assign(self, key: str, value: str, at: Position, whole: str, is_extension: bool) -> None:
        if self.is_unknown:
            return  # told already
        if self.section is None:
            self._problem("a key before the first [Interface] or [Peer]")
            return
        row = self.rows.get((self.section.name, is_extension, key.lower()))
        if row is None:
            self._unknown_key(key, self.section.name, is_extension)
            return
        if not row.is_secret:
            self.shown = partial(values.mask, whole)
        if row.is_raw:
            value = whole.partition("=")[2].strip(SPACES)
        self._read(self.section, row, value, at)

    def _read(self, section: Section, row: Row, value: str, at: Position) -> None:
        def hear(position: Position, message: str, as_wg: str) -> None:
            said = ConfigWarning(self.path, position, f"{row.name}: {message}", as_wg)
            self.done.warnings.append(said)

        self.at = at
        try:
            section.say(row, row.read(value, Reading(at, hear)))
        except (BadValue, KeyFormatError) as error:
            offset = error.offset if isinstance(error, BadValue) else 0
            self.at = Position(at.line, at.column + offset)
            self._problem(f"{row.name}: {error}")
            if not row.accumulates:
                section.said.setdefault(row.fields[0], None)  # it was said, if wrongly

    def _unknown_key(self, key: str, section: SectionName, is_extension: bool) -> None:
        row = grammar.called(key, grammar.KEYS)
        if row is not None and row.reader == "wg-quick" and "wg-quick" not in self.readers:
            self._problem(f"{row.name}: only wg-quick knows this key; `pywg strip` leaves it out")
        elif row is not None and row.is_extension == is_extension:
            self._problem(f"{row.name}: belongs in [{row.section}], not in [{section}]")
        elif row is not None and is_extension:
            self._problem(f'{row.name}: is no extension; leave out "{EXTENSION}"')
        elif row is not None:
            self._problem(
                f"{row.name}: is written as a comment, so that wg-quick can read the file: "
                f'"{EXTENSION} {row.name} = ..."'
            )
        elif _WORD.fullmatch(key):
            rows = grammar.rows(section, *self.readers)
            hint = _did_you_mean(
                key, [row.name for row in rows if row.is_extension == is_extension]
            )
            self._problem(f'unknown key "{key}" in [{section}]{hint}')
        else:
            self._problem(f"unknown key in [{section}]")

    def _problem(self, message: str) -> None:
        self.problems.append(Problem(self.at.line, self.at.column, message, self.shown()))


def _did_you_mean(text: str, known: Sequence[str]) -> str:
    spelled = {name.lower(): name for name in known}
    close = difflib.get_close_matches(text.lower(), list(spelled), n=1)
    return f'; did you mean "{spelled[close[0]]}"?' if close else ""


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip(SPACES))


def _hidden(line: str, start: int) -> str:
    """The line with asterisks from ``start`` on: what follows may be a key."""
    return line[:start] + re.sub(r"\S", "*", line[start:])
