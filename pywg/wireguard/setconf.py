"""The words of wg(8): the files of setconf, addconf and syncconf, and the arguments of set, to
Changes.

A file has the keys that wg reads and no others; grammar.py has them, and their words. Reads key
files, and asks the resolver through host/resolver.py; knows no device. Invariant: no message
repeats the value of a key, nor a line that could be one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pywg.config import Config, PeerSection, Position, grammar
from pywg.config.grammar import Row, SectionName
from pywg.config.parser import Section, read_sections, replaces_list
from pywg.config.values import BadValue, Reading, squeeze
from pywg.errors import ConfigError, KeyFormatError, PywgError, hide_keys, system_call
from pywg.host.resolver import resolve, spelled
from pywg.keys import BASE64_LENGTH, PresharedKey
from pywg.wireguard.changes import (
    NO_PRESHARED_KEY,
    NO_PRIVATE_KEY,
    AllowedIPChange,
    Changes,
    PeerChange,
)

Warn = Callable[[str], None]

KEY_FILE_MAX = 1 << 16
IN_PLACE_OF_A_FILE = (
    "expected the name of a file that holds the key, and this looks like the key itself: other "
    "users see what stands on a command line, so make a new key, and write it to a file"
)


# ---- files


def read_file(path: str, *, append: bool, warn: Warn) -> Changes:
    """A file, a pipe or /dev/stdin. With ``append`` the device keeps what the file leaves out."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        if hide_keys(path) == path:
            raise system_call(error, path) from None
        raise PywgError("expected the name of a file, and this looks like a key") from None
    except OSError as error:
        raise system_call(error, path) from None
    return parse(data.decode("utf-8", errors="replace"), path, append=append, warn=warn)


def parse(text: str, path: str, *, append: bool, warn: Warn) -> Changes:
    """Raises ConfigError, with all that is wrong in the text; ``warn`` hears what is odd."""
    said = read_sections(text, path, ("wg",))
    for warning in said.warnings:
        warn(f"Warning: {warning.as_wg}" if warning.as_wg else str(warning))
    peers = (_peer_change(peer.values(), replaces=True) for peer in said.peers)
    device = (
        Changes()
        if append
        else Changes(private_key=NO_PRIVATE_KEY, listen_port=0, fwmark=0, replace_peers=True)
    )
    return replace(
        device,
        **said.interface.values(),
        peers=tuple(_resolved(peer, path, warn) for peer in peers),
    )


def _peer_change(said: dict[str, Any], *, replaces: bool) -> PeerChange:
    """``replaces``: what becomes of the peer's allowed IPs where nothing is said of them."""
    lines = said.pop("allowed_ips", ())
    changes = tuple(
        AllowedIPChange(edit.allowed.network, remove=edit.sign == "-")
        for line in lines
        for edit in line
    )
    return PeerChange(
        **said,
        replace_allowed_ips=replaces_list(lines) if lines else replaces,
        allowed_ips=changes,
    )


# ---- arguments of set


def read_arguments(words: Sequence[str], warn: Warn) -> Changes:
    """``[listen-port N] ... [peer KEY [remove] ...]...``, the words after the interface."""
    device = Section("Interface")
    peers: list[Section] = []
    rest = iter(words)
    for word in rest:
        if word == "remove" and peers:
            peers[-1].said["remove"] = True
            continue
        if word == "peer":
            peers.append(Section("Peer"))
        section = peers[-1] if peers else device
        row = _row(section.name, word)
        if row is None:
            raise _unexpected(word, section.name)
        section.say(row, _argument(row, rest, warn))
    changes = (_peer_change(peer.values(), replaces=False) for peer in peers)
    resolved = tuple(_resolved(change, None, warn) for change in changes)
    return Changes(**device.values(), peers=resolved)


def with_keys(words: Sequence[str], key_of: Callable[[str], str | None]) -> Iterator[str]:
    """The same words, with the key of each peer that is called by its name."""
    section: SectionName = "Interface"
    rest = iter(words)
    for word in rest:
        yield word
        if word == "peer":
            section = "Peer"
        if _row(section, word) is None:
            continue
        for value in rest:
            is_name = word == "peer" and len(value) != BASE64_LENGTH
            yield (key_of(value) if is_name else None) or value
            break


def _argument(row: Row, rest: Iterator[str], warn: Warn) -> Any:
    def hear(position: Position, message: str, as_wg: str) -> None:
        warn(f"Warning: {as_wg or f'{row.word}: {message}'}")

    try:
        text = next(rest)
    except StopIteration:
        raise PywgError(f"{row.word}: a value has to follow") from None
    try:
        if row.is_secret:
            text = key_file(text)
        elif squeeze(text) != text and not row.accumulates:
            raise BadValue("there is whitespace in the value")
        return row.read(text, Reading(Position(), hear))
    except (BadValue, KeyFormatError) as error:
        raise PywgError(f"{row.word}: {error}") from None


def _row(section: SectionName, word: str) -> Row | None:
    return next((row for row in grammar.rows(section, "wg") if row.word == word), None)


def _words(section: SectionName) -> list[str]:
    """What may begin an argument there."""
    own = [row.word for row in grammar.rows(section, "wg")]
    return [*own, "remove"] if section == "Peer" else [*own, "peer"]


def _unexpected(word: str, section: SectionName) -> PywgError:
    # What is no word of the grammar may be a key in the wrong place: do not repeat it.
    shown = f": {word}" if re.fullmatch(r"[a-z_-]{1,24}", word) else ""
    known = _words(section)
    if section == "Interface" and word in _words("Peer"):
        hint = "; it is said of a peer: peer KEY goes before it"
    elif section == "Peer" and _row("Interface", word) is not None:
        hint = "; it is said of the interface: it goes before the first peer"
    elif close := difflib.get_close_matches(word.lower().replace("_", "-"), known, n=1):
        hint = f'; did you mean "{close[0]}"?'
    else:
        hint = f"; there are {', '.join(known)}"
    return PywgError(f"Invalid argument{shown}{hint}")


# Values that are words.
_OFF = {"fwmark": ("off",), "persistent-keepalive": ("off",)}


def what_follows(words: Sequence[str]) -> Literal["file", "peer"] | tuple[str, ...]:
    """What can come behind these words of `set`: the name of a file, a peer, or one of some words;
    none where only the user knows, or where there is no way on."""
    section: SectionName = "Interface"
    said: set[str] = set()
    rest = iter(words)
    for word in rest:
        if word == "peer":
            section, said = "Peer", set()
        row = _row(section, word)
        if row is not None and next(rest, None) is None:
            return "peer" if word == "peer" else "file" if row.is_secret else _OFF.get(word, ())
        if row is None and not (word == "remove" and section == "Peer"):
            return ()
        said.add(word)
    return tuple(dict.fromkeys(word for word in (*_words(section), "peer") if _is_new(word, said)))


def _is_new(word: str, said: Set[str]) -> bool:
    return word == "peer" or word not in said


def key_file(path: str) -> str:
    """The key on the first line, in base64; a file that is empty, as /dev/null, means no key.

    A pipe that gives nothing is an error: the program at its other end has failed.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(KEY_FILE_MAX)
            seekable = file.seekable()
    except FileNotFoundError as error:
        if hide_keys(path) == path:
            raise BadValue(str(system_call(error, path))) from None
        raise BadValue(IN_PLACE_OF_A_FILE) from None
    except OSError as error:
        raise BadValue(str(system_call(error, path))) from None
    if not data and seekable:
        return NO_PRESHARED_KEY.to_base64()
    if len(data) < BASE64_LENGTH:
        raise BadValue(f"{path} holds no key: too short")
    key, rest = data[:BASE64_LENGTH].decode("ascii", errors="replace"), data[BASE64_LENGTH:]
    if rest.strip():
        raise BadValue(f"{path}: something follows the key")
    try:
        return PresharedKey.from_base64(key).to_base64()
    except KeyFormatError as error:
        raise BadValue(f"{path} holds no key: {error}") from None


# ---- endpoints


def _resolved(peer: PeerChange, path: str | None, warn: Warn) -> PeerChange:
    """With a numeric endpoint; waits for the resolver as long as the environment says, and tells
    of each try."""
    if peer.endpoint is None or peer.remove:
        return peer
    asked = Config(peers=(PeerSection(peer.public_key, endpoint=peer.endpoint),), path=path or "")
    try:
        found = resolve(asked, tell=warn).peers[0].endpoint or peer.endpoint
    except ConfigError as error:
        if path is None:
            raise PywgError(error.message) from None
        raise
    # As wg sends it: the device may be in another network namespace, where indices differ.
    return replace(peer, endpoint=spelled(found))
