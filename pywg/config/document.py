"""A file as its lines, so that saving changes only what changed: comments, order and spelling of
the rest stay.

Knows lines and values, not what runs. Invariant: what is equal in both configurations is not
touched.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pywg.config import grammar, spans
from pywg.config.grammar import Row
from pywg.config.model import Config, PeerSection
from pywg.config.parser import BYTE_ORDER_MARK, EXTENSION, parse, significant
from pywg.config.spans import Span
from pywg.errors import system_call
from pywg.keys import PublicKey


def rewrite(text: str, after: Config) -> str:
    """The text with what is in ``after``.

    What is equal in both stays as it is written. An endpoint that is a name stays one: what it was
    resolved to is not what was meant.
    """
    before = parse(text, after.path)
    mark, lines = _split(text)
    sections = list(spans.spans(lines))
    old, new = _merged(before), _merged(after)
    # From the end, so that the places of what comes before stay right.
    done = set()
    for section in reversed(sections):
        key = section.public_key
        if section.kind == "interface":
            if section is next(item for item in sections if item.kind == "interface"):
                _update(lines, section, before.interface, after.interface)
        elif key not in new or (key in done and old[key] != new[key]):
            _remove(lines, section)
        elif key not in done:
            done.add(key)  # of several sections the last is the one that counts
            _update(lines, section, old[key], _keep_name(old[key], new[key]))
    if not any(section.kind == "interface" for section in sections):
        lines[:0] = ["[Interface]", *written("interface", after.interface), ""]
    for key, peer in new.items():
        if key not in old:
            _append(lines, peer)
    return mark + "\n".join(lines)


def with_peer(text: str, peer: PeerSection) -> str:
    """With one section more, at the end; not a character before it changes."""
    ending = "\r\n" if "\r\n" in text else "\n"
    lines = ["", "[Peer]", *written("Peer", peer), ""]
    before = text if text.endswith("\n") or not text else text + ending
    return before + ending.join(lines if before else lines[1:])


def without_peer(text: str, key: PublicKey) -> str:
    """Without the sections of a peer, and the comments right above them and right below."""
    mark, lines = _split(text)
    for span in reversed(list(spans.spans(lines))):
        if span.public_key == str(key):
            _remove(lines, span)
    return mark + "\n".join(lines)


def with_changed(text: str, key: PublicKey, **values: Any) -> str:
    """With other values of one peer, by field. Of several sections the last says them, and no other
    does, but for the public key, which makes them sections of this peer."""
    mark, lines = _split(text)
    sections = [span for span in spans.spans(lines) if span.kind == "peer"]
    is_last = True
    for span, peer in reversed(list(zip(sections, parse(text).peers, strict=True))):
        if span.public_key == str(key):
            other = PeerSection(values.get("public_key", key))
            unsaid = {name: getattr(other, name) for name in values}
            _update(lines, span, peer, replace(peer, **(values if is_last else unsaid)))
            is_last = False
    return mark + "\n".join(lines)


def with_interface(text: str, **values: Any) -> str:
    """With other values of ``[Interface]``, by field; it has one."""
    mark, lines = _split(text)
    section = next(span for span in spans.spans(lines) if span.kind == "interface")
    before = parse(text).interface
    _update(lines, section, before, replace(before, **values))
    return mark + "\n".join(lines)


def write(path: Path, text: str) -> None:
    """All of it or nothing, with the mode and owner the file had; a link keeps being one."""
    _write(path.resolve(), text)


def write_itself(path: Path, text: str) -> None:
    """The same where a link leads to a file of somebody else; only the folder may be one."""
    _write(path.parent.resolve() / path.name, text)


def _write(path: Path, text: str) -> None:
    fresh = ""
    try:
        status = path.lstat() if os.path.lexists(path) else None
        if status is not None and stat.S_ISLNK(status.st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        number, fresh = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(number, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            if status is not None:
                os.fchmod(number, status.st_mode & 0o7777)
                os.fchown(number, status.st_uid, status.st_gid)
            file.write(text)
            file.flush()
            os.fsync(number)
        Path(fresh).rename(path)
    except BaseException as error:  # Ctrl-C, too: what is in it are keys
        if fresh:
            Path(fresh).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise system_call(error, str(path)) from None
        raise


def _split(text: str) -> tuple[str, list[str]]:
    """The byte order mark, or nothing, which stays in front; and the lines."""
    rest = text.removeprefix(BYTE_ORDER_MARK)
    return text[: len(text) - len(rest)], rest.split("\n")


def _remove(lines: list[str], section: Span) -> None:
    """At the end of a file the empty line before it goes with it."""
    first, is_last = section.first, section.end == len(lines)
    if is_last and first > 0 and not lines[first - 1].strip():
        first -= 1
    lines[first : section.end] = [""] if is_last else []


def _is_of(line: str, row: Row) -> bool:
    text, is_extension = significant(line)
    name, separator, _ = text.partition("=")
    return (
        bool(separator) and is_extension == row.is_extension and row.name.lower() == spans.key(name)
    )


def _update(lines: list[str], section: Span, old: Any, new: Any) -> None:
    """Where a value changed, its lines are given the new values in order; lines that are left over
    go, and values that are left over come behind them."""
    for row in reversed(list(_rows(section.kind))):
        values = list(row.write(new))
        if values == list(row.write(old)):
            continue
        places = [
            number
            for number in range(section.header + 1, section.end)
            if _is_of(lines[number], row)
        ]
        for number, value in zip(places, values, strict=False):
            lines[number] = _with_value(lines[number], value, row)
        at = places[-1] + 1 if places else _after_keys(lines, section)
        ending = "\r" if lines[section.header].endswith("\r") else ""
        added = [f"{_assignment(row, value)}{ending}" for value in values[len(places) :]]
        lines[at:at] = added
        surplus = places[len(values) :]
        for number in reversed(surplus):
            del lines[number]
        section.end += len(added) - len(surplus)


def _with_value(line: str, value: str, row: Row) -> str:
    """Spaces before it, and a comment behind it, stay."""
    text = line if row.is_raw else significant(line)[0]
    start = text.index("=") + 1
    start += len(text[start:]) - len(text[start:].lstrip(" \t"))
    end = max(start, len(text.rstrip()))
    return line[:start] + value + line[end:]


def _assignment(row: Row, value: str) -> str:
    return f"{f'{EXTENSION} ' if row.is_extension else ''}{row.name} = {value}"


def written(kind: str, section: object) -> list[str]:
    """All lines of a new section, without its header."""
    return [_assignment(row, value) for row in _rows(kind) for value in row.write(section)]


def _rows(kind: str) -> Iterator[Row]:
    return (row for row in grammar.KEYS if row.section.lower() == kind.lower())


def _after_keys(lines: Sequence[str], section: Span) -> int:
    numbers = range(section.header + 1, section.end)
    keys = [number for number in numbers if "=" in significant(lines[number])[0]]
    return keys[-1] + 1 if keys else section.header + 1


def _append(lines: list[str], peer: PeerSection) -> None:
    while lines and not lines[-1].strip():
        lines.pop()
    lines += ["", "[Peer]", *written("peer", peer), ""]


def _merged(config: Config) -> dict[str, PeerSection]:
    """By public key in the spelling of the file; of several sections the last wins."""
    return {str(peer.public_key): peer for peer in config.peers}


def _keep_name(old: PeerSection, new: PeerSection) -> PeerSection:
    is_name = old.endpoint is not None and old.endpoint.address() is None
    return replace(new, endpoint=old.endpoint) if is_name else new
