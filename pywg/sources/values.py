"""What a store says of peers: the text of a key or a file becomes Entries, or says what is wrong.

Pure. Invariant: an Entry has no secret, only the name of one; a text that has a preshared key in it
is refused, and no message repeats it.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pywg.config import Endpoint, IPNetwork, Position, values
from pywg.config.model import without
from pywg.config.parser import read_sections, replaces_list
from pywg.config.values import BadValue, Reading
from pywg.errors import ConfigError, KeyFormatError, hide_keys
from pywg.keys import PublicKey
from pywg.sources.news import NO_TEXT
from pywg.wireguard.addresses import network_text

NETWORKS_MAX = 4096  # of a peer
BARE = (
    "a preshared key does not belong in a store: delete it there, make a new one, and refer to it "
    "by presharedKeyFile or presharedKeyEncrypted"
)
_NAMES = {
    "publicKey": "publicKey",
    "allowedIPs": "allowedIPs",
    "allowedIps": "allowedIPs",  # as wg-json and `pywg show --json` have it
    "endpoint": "endpoint",
    "persistentKeepalive": "persistentKeepalive",
    "presharedKeyFile": "presharedKeyFile",
    "presharedKeyEncrypted": "presharedKeyEncrypted",
    "name": "name",
}
_HEADER = re.compile(r"^[ \t]*\[[ \t]*peer[ \t]*\]", re.IGNORECASE | re.MULTILINE)
_JSON = re.compile(r"\s*(\{|\[\s*[^\sA-Za-z])")  # and not [Peer]
_NO_READING = Reading(Position(), lambda *heard: None)


@dataclass(frozen=True, slots=True)
class Entry:
    """One peer of a store.

    ``networks``: its allowed IPs, each once, as `wg` writes them. ``endpoint``: numeric, or empty.
    ``keepalive``: seconds, 0 for off. ``preshared_file`` is the name of a file below the folder of
    the configuration, ``preshared_encrypted`` a token; at most one of them is not empty.
    """

    public_key: PublicKey
    networks: tuple[str, ...] = ()
    endpoint: str = ""
    keepalive: int = 0
    preshared_file: str = ""
    preshared_encrypted: str = ""
    name: str = ""

    def to_json(self) -> dict[str, Any]:
        """As a store may have it."""
        told = {
            "publicKey": str(self.public_key),
            "allowedIPs": list(self.networks),
            "endpoint": self.endpoint,
            "persistentKeepalive": self.keepalive,
            "presharedKeyFile": self.preshared_file,
            "presharedKeyEncrypted": self.preshared_encrypted,
            "name": self.name,
        }
        return {name: value for name, value in told.items() if value}


@dataclass(frozen=True, slots=True)
class Said:
    """What one text says: entries by their names, and what is wrong with others."""

    entries: Mapping[str, Entry]
    problems: tuple[str, ...] = ()


def read(name: str, text: str) -> Said:
    """A key of etcd, a file or a whole document. An Entry is called ``name`` if it is the only one
    of its text, else NAME#PUBLICKEY."""
    found: list[Entry] = []
    problems: list[str] = []
    for one in _peers(text):
        if isinstance(one, Entry):
            found.append(one)
        else:
            problems.append(f"{name}: {hide_keys(one)}")
    if len(found) == 1 and not problems:
        return Said({name: found[0]})
    entries: dict[str, Entry] = {}
    for entry in found:
        called = f"{name}#{entry.public_key}"
        if called in entries:
            problems.append(f"{name}: {entry.public_key} is there twice: the first one counts")
        entries.setdefault(called, entry)
    return Said(entries, tuple(problems))


def _peers(text: str) -> Iterator[Entry | str]:
    if text.startswith(NO_TEXT):
        yield text.removeprefix(NO_TEXT)
        return
    if _JSON.match(text):
        yield from _of_json(text)
    else:
        yield from _of_sections(text)


# ---- JSON


def _of_json(text: str) -> Iterator[Entry | str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        yield "is no JSON (to see where: jq . FILE)"
        return
    if isinstance(found, dict) and "peers" in found:
        found = found["peers"]
    several = isinstance(found, list)
    for number, one in enumerate(found if several else [found], start=1):
        try:
            yield entry_of(one)
        except (BadValue, KeyFormatError) as error:
            yield f"peer {number}: {error}" if several else str(error)


def entry_of(said: object) -> Entry:
    """Of an object of JSON. Raises BadValue or KeyFormatError."""
    if not isinstance(said, dict):
        raise BadValue("expected an object with publicKey and allowedIPs")
    known: dict[str, Any] = {}
    for key, value in said.items():
        known[_known_name(key)] = value
    public_key = known.get("publicKey")
    if not isinstance(public_key, str):
        raise BadValue("publicKey is missing")
    file, token = _text(known, "presharedKeyFile"), _text(known, "presharedKeyEncrypted")
    return Entry(
        _public_key(public_key),
        _networks(known.get("allowedIPs", ())),
        _endpoint(_text(known, "endpoint")),
        _keepalive(known.get("persistentKeepalive", 0)),
        *_preshared(file, token),
        _name(_text(known, "name")),
    )


def _known_name(key: str) -> str:
    found = _NAMES.get(key)
    if found is not None:
        return found
    if key.lower() in ("presharedkey", "psk"):
        raise BadValue(BARE)
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,30}", key):
        raise BadValue("an unknown key")
    close = difflib.get_close_matches(key.lower(), [one.lower() for one in _NAMES], n=1)
    spelled = {one.lower(): one for one in reversed(_NAMES)}
    hint = f'; did you mean "{spelled[close[0]]}"?' if close else ""
    raise BadValue(f'unknown key "{key}"{hint}')


def _text(known: Mapping[str, Any], name: str) -> str:
    value = known.get(name, "")
    if not isinstance(value, str):
        raise BadValue(f"{name}: expected a text in quotation marks")
    return value


def _public_key(text: str) -> PublicKey:
    try:
        key = PublicKey.from_base64(text)
    except KeyFormatError as error:
        raise BadValue(f"publicKey: {error}") from None
    if key.is_zero():
        raise BadValue("publicKey: all zeros is no key")
    return key


def _networks(said: object) -> tuple[str, ...]:
    items = said.split(",") if isinstance(said, str) else said
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):
        raise BadValue("allowedIPs: expected a list of networks")
    return _listed(_network(item) for item in items)


def _network(text: str) -> IPNetwork:
    try:
        return values.networks(text, _NO_READING)[0]
    except (BadValue, IndexError) as error:
        raise BadValue(f"allowedIPs: {error or 'an empty network'}") from None


def _listed(networks: Iterator[IPNetwork]) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(map(network_text, networks)))
    if len(found) > NETWORKS_MAX:
        raise BadValue(f"allowedIPs: more than {NETWORKS_MAX} networks")
    return found


def _endpoint(text: str) -> str:
    if not text:
        return ""
    try:
        found = values.endpoint(text, _NO_READING)
    except BadValue as error:
        raise BadValue(f"endpoint: {error}") from None
    return _numeric(found)


def _numeric(endpoint: Endpoint) -> str:
    if endpoint.address() is None:
        raise BadValue(
            "endpoint: names are not looked up for peers of a store: write the address, or put "
            "this peer into the file of the interface"
        )
    return str(endpoint)


def _keepalive(said: object) -> int:
    try:
        if isinstance(said, bool) or not isinstance(said, (int, str)):
            raise BadValue("expected seconds")
        return values.keepalive(str(said))
    except BadValue as error:
        raise BadValue(f"persistentKeepalive: {error}") from None


def _preshared(file: str, token: str) -> tuple[str, str]:
    """The name of a file stays below its folder: a store is not to say which files root reads."""
    if file and token:
        raise BadValue("presharedKeyFile or presharedKeyEncrypted, not both")
    parts = file.split("/")
    if file and (file.startswith("/") or ".." in parts or not file.isprintable()):
        raise BadValue("presharedKeyFile: a name below the folder of the interface's file, no ..")
    return file, token


def _name(text: str) -> str:
    try:
        return values.peer_name(text) if text else ""
    except BadValue as error:
        raise BadValue(f"name: {error}") from None


# ---- [Peer]


def _of_sections(text: str) -> Iterator[Entry | str]:
    """All at once; where something is wrong, one by one, so that the others are had."""
    try:
        yield from _sections(text)
    except ConfigError:
        pieces = _pieces(text)
        for line, piece in pieces:
            try:
                yield from _sections(piece)
            except ConfigError as error:
                first = error.problems[0]
                yield f"line {line + first.line}: {first.message}"


def _pieces(text: str) -> list[tuple[int, str]]:
    """Each section, with the number of lines before it."""
    starts = [found.start() for found in _HEADER.finditer(text)]
    if not starts or text[: starts[0]].strip():
        starts.insert(0, 0)
    bounds = zip(starts, [*starts[1:], len(text)], strict=True)
    lines = 0
    found = []
    at = 0
    for start, end in bounds:
        lines += text.count("\n", at, start)
        at = start
        found.append((lines, text[start:end]))
    return found


def _sections(text: str) -> list[Entry | str]:
    said = read_sections(text, "", ("wg", "pywg"))
    if said.interface.said:
        return ["[Interface] does not belong in a list of peers: it has [Peer] alone"]
    if not said.peers:
        return ["says nothing of a peer: expected [Peer], or an object of JSON"]
    found: list[Entry | str] = []
    for section in said.peers:
        try:
            found.append(_of_section(section.values()))
        except BadValue as error:
            found.append(f"line {section.position.line}: {error}")
    return found


def _of_section(said: dict[str, Any]) -> Entry:
    if said.get("preshared_key") is not None:
        raise BadValue(BARE)
    for field, key in (
        ("endpoint_family", "EndpointFamily"),
        ("endpoint_dns", "EndpointDns"),
        ("replaces", "Replaces"),
    ):
        if said.get(field) is not None:
            raise BadValue(f"{key}: is not for peers of a store")
    lines = said.get("allowed_ips", ())
    if lines and not replaces_list(lines):
        raise BadValue("AllowedIPs: expected networks without + or -")
    listed = [edit.allowed.network for line in lines for edit in line]
    endpoint = said.get("endpoint")
    return Entry(
        said["public_key"],
        _listed(iter(without(listed, said.get("excluded_ips", ())))),
        "" if endpoint is None else _numeric(endpoint),
        said.get("persistent_keepalive") or 0,
        *_preshared(str(said.get("preshared_key_file") or ""), ""),
        said.get("name") or "",
    )
