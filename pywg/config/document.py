"""A file as its lines, so that saving changes only what changed: comments, order and spelling of
the rest stay.

Knows lines and values, not what runs. Invariant: what is equal in both configurations is not
touched.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pywg.config.model import Config, InterfaceSection, PeerSection
from pywg.config.parser import parse
from pywg.config.values import squeeze
from pywg.errors import system_call

_ASSIGNMENT = re.compile(
    r"(?P<before>\s*[^=#]*=[ \t]*)(?P<value>[^#]*?)(?P<after>\s*(?:#.*)?)", re.DOTALL
)

Field = tuple[str, str]  # key and value; an empty value means that the key is absent


def rewrite(text: str, after: Config) -> str:
    """The text with what is in ``after``.

    Hooks, Table, SaveConfig and extensions stay as they are written. An endpoint that is a name
    stays one: what it was resolved to is not what was meant.
    """
    before = parse(text, after.path)
    lines = text.split("\n")
    sections = list(_sections(lines))
    old, new = _merged(before), _merged(after)
    # From the end, so that the places of what comes before stay right.
    done = set()
    for section in reversed(sections):
        key = section.public_key
        if section.kind == "interface":
            if section is next(item for item in sections if item.kind == "interface"):
                _update(lines, section, _interface(before.interface), _interface(after.interface))
        elif key not in new or (key in done and old[key] != new[key]):
            del lines[section.first : section.end]
        elif key not in done:
            done.add(key)  # of several sections the last is the one that counts
            _update(lines, section, _peer(old[key]), _peer(_keep_name(old[key], new[key])))
    if not any(section.kind == "interface" for section in sections):
        fields = _interface(after.interface)
        lines[:0] = ["[Interface]", *(f"{key} = {value}" for key, value in fields if value), ""]
    for key, peer in new.items():
        if key not in old:
            _append(lines, peer)
    return "\n".join(lines)


def write(path: Path, text: str) -> None:
    """All of it or nothing, with the mode and owner the file had; a link keeps being one."""
    path = path.resolve()
    fresh = ""
    try:
        status = path.stat() if path.exists() else None
        number, fresh = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(number, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            if status is not None:
                os.fchmod(number, status.st_mode & 0o7777)
                os.fchown(number, status.st_uid, status.st_gid)
            file.write(text)
            file.flush()
            os.fsync(number)
        Path(fresh).rename(path)
    except OSError as error:
        if fresh:
            Path(fresh).unlink(missing_ok=True)
        raise system_call(error, str(path)) from None


@dataclass(slots=True)
class _Section:
    """Lines ``first`` to ``end``, with the comment right above the header."""

    kind: str
    first: int
    header: int
    end: int = 0
    public_key: str = ""


def _sections(lines: Sequence[str]) -> Iterator[_Section]:
    found: list[_Section] = []
    for number, line in enumerate(lines):
        word = squeeze(line.partition("#")[0]).removeprefix("\ufeff").lower()
        if not word.startswith("["):
            if found and _key(line) == "publickey":
                found[-1].public_key = squeeze(_ASSIGNMENT.fullmatch(line)["value"])  # type: ignore[index]
            continue
        first = number
        while first > (found[-1].header + 1 if found else 0) and lines[
            first - 1
        ].lstrip().startswith("#"):
            first -= 1
        if found:
            found[-1].end = first
        found.append(_Section(word.strip("[]"), first, number))
    if found:
        found[-1].end = len(lines)
    yield from found


def _key(line: str) -> str:
    name, separator, _ = line.partition("#")[0].partition("=")
    return squeeze(name).lower() if separator else ""


def _update(lines: list[str], section: _Section, old: list[Field], new: list[Field]) -> None:
    """Where a value changed, the first line of its key gets all of it; the others go."""
    for (key, before), (_, after) in zip(reversed(old), reversed(new), strict=True):
        if before == after:
            continue
        places = [
            number
            for number in range(section.header + 1, section.end)
            if _key(lines[number]) == key.lower()
        ]
        if places and after:
            lines[places[0]] = _with_value(lines[places[0]], after)
            places = places[1:]
        elif after:
            at = _after_keys(lines, section)
            ending = "\r" if lines[section.header].endswith("\r") else ""
            lines.insert(at, f"{key} = {after}{ending}")
            section.end += 1
        for number in reversed(places):
            del lines[number]
            section.end -= 1


def _with_value(line: str, value: str) -> str:
    match = _ASSIGNMENT.fullmatch(line)
    assert match is not None  # noqa: S101 - _key() found a key in it
    return match["before"] + value + match["after"]


def _after_keys(lines: Sequence[str], section: _Section) -> int:
    keys = [number for number in range(section.header, section.end) if _key(lines[number])]
    return keys[-1] + 1 if keys else section.header + 1


def _append(lines: list[str], peer: PeerSection) -> None:
    while lines and not lines[-1].strip():
        lines.pop()
    fields = ((key, value) for key, value in _peer(peer) if value)
    public_key = f"PublicKey = {peer.public_key}"
    lines += ["", "[Peer]", public_key, *(f"{key} = {value}" for key, value in fields), ""]


def _merged(config: Config) -> dict[str, PeerSection]:
    """By public key in the spelling of the file; of several sections the last wins."""
    return {str(peer.public_key): peer for peer in config.peers}


def _keep_name(old: PeerSection, new: PeerSection) -> PeerSection:
    is_name = old.endpoint is not None and old.endpoint.address() is None
    return replace(new, endpoint=old.endpoint) if is_name else new


def _interface(section: InterfaceSection) -> list[Field]:
    from_file = section.private_key_file is not None
    key = section.private_key
    return [
        ("PrivateKey", "" if key is None or from_file else key.to_base64()),
        ("ListenPort", str(section.listen_port) if section.listen_port else ""),
        ("FwMark", f"0x{section.fwmark:x}" if section.fwmark else ""),
        ("Address", _joined(section.addresses)),
        ("MTU", str(section.mtu) if section.mtu else ""),
        ("DNS", _joined((*section.dns_servers, *section.dns_search))),
    ]


def _peer(peer: PeerSection) -> list[Field]:
    key = peer.preshared_key
    from_file = peer.preshared_key_file is not None
    return [
        ("PresharedKey", "" if key is None or from_file else key.to_base64()),
        ("AllowedIPs", _joined(peer.allowed_ips)),
        ("Endpoint", str(peer.endpoint) if peer.endpoint is not None else ""),
        ("PersistentKeepalive", str(peer.persistent_keepalive or "")),
    ]


def _joined(items: Sequence[object], spelled: Callable[[object], str] = str) -> str:
    return ", ".join(map(spelled, items))
