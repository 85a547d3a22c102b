"""The text of a wg-quick file to a Config. Pure: reads no file, asks no resolver.

Everything that is wrong is told in one ConfigError, each with ``path:line:column``. Invariant: no
message repeats the value of a key, nor a line that could be one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pywg.config import values
from pywg.config import warnings as check
from pywg.config.model import (
    AllowedIP,
    Config,
    ConfigWarning,
    Endpoint,
    Family,
    InterfaceSection,
    IPNetwork,
    PeerSection,
    Position,
)
from pywg.config.values import BadValue, squeeze
from pywg.errors import ConfigError, KeyFormatError, Problem
from pywg.keys import PresharedKey, PrivateKey, PublicKey

# What plain wg-quick takes for a comment: `#!pywg Key = value`.
EXTENSION = re.compile(r"\s*#!pywg\s")
_SECRET = ("PrivateKey", "PresharedKey")


def parse(text: str, path: str = "<config>") -> Config:
    """The text of a file to a Config."""
    return _Parser(path).parse(text)


@dataclass(slots=True)
class _Peer:
    """A peer while its section is being read."""

    position: Position
    source: str
    public_key: PublicKey | None = None
    has_public_key: bool = False  # perhaps a wrong one
    preshared_key: PresharedKey | None = None
    allowed_ips: dict[IPNetwork, AllowedIP] = field(default_factory=dict)
    endpoint: Endpoint | None = None
    persistent_keepalive: int | None = None
    preshared_key_file: Path | None = None
    endpoint_family: Family = "auto"

    def finish(self) -> PeerSection:
        assert self.public_key is not None  # noqa: S101 - narrows the type for mypy
        return PeerSection(
            public_key=self.public_key,
            preshared_key=self.preshared_key,
            allowed_ips=tuple(self.allowed_ips.values()),
            endpoint=self.endpoint,
            persistent_keepalive=self.persistent_keepalive,
            preshared_key_file=self.preshared_key_file,
            endpoint_family=self.endpoint_family,
        )


class _Parser:
    def __init__(self, path: str) -> None:
        self.path = path
        self.at = Position()
        self.source = ""  # the line being read, fit to be shown
        self.interface = InterfaceSection()
        self.peers: list[_Peer] = []
        self.section = ""
        self.warnings: list[ConfigWarning] = []
        self.problems: list[Problem] = []

    def parse(self, text: str) -> Config:
        for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
            if EXTENSION.match(line):
                start = line.index("#!pywg") + len("#!pywg")
                self._line(number, " " * start + line[start:], line, extension=True)
            else:
                self._line(number, line.partition("#")[0], line)
        for peer in self.peers:
            if not peer.has_public_key:
                self.at, self.source = peer.position, peer.source
                self._problem("[Peer] has no PublicKey")
        if self.problems:
            ordered = sorted(self.problems, key=lambda item: (item.line, item.column))
            raise ConfigError.of(self.path, ordered)
        peers = tuple(peer.finish() for peer in self.peers)
        lines = tuple(peer.position for peer in self.peers)
        self.warnings += check.warnings(self.path, self.interface, peers, lines)
        return Config(self.interface, peers, self.path, tuple(self.warnings))

    # One line: empty, a section, or key = value.

    def _line(self, number: int, line: str, whole: str, extension: bool = False) -> None:
        stripped = squeeze(line)
        if not stripped:
            return
        whole = whole.rstrip("\r")
        self.at = Position(number, len(line) - len(line.lstrip()) + 1)
        self.source = _hidden(whole, 0)
        if stripped.startswith("["):
            self.source = values.mask(whole)
            self._open_section(stripped)
            return
        key, separator, value = line.partition("=")
        if not separator:
            self._problem('expected "[Section]" or "Key = Value"')
            return
        at = Position(number, len(key) + 2 + len(value) - len(value.lstrip()))
        if re.fullmatch(r"[A-Za-z0-9_-]{1,20}", squeeze(key)):
            self.source = _hidden(whole, len(key) + 1)
        self._assign(squeeze(key), value.strip(), at, whole, extension)

    def _open_section(self, text: str) -> None:
        match text.lower():
            case "[interface]":
                self.section = "Interface"
            case "[peer]":
                self.section = "Peer"
                self.peers.append(_Peer(self.at, self.source))
            case _:
                # What looks like no section name may be a key pasted here: do not repeat it.
                shown = f" {text}" if re.fullmatch(r"\[[A-Za-z0-9_-]{1,20}\]", text) else ""
                close = difflib.get_close_matches(text.lower(), ["[interface]", "[peer]"], n=1)
                hint = f'; did you mean "{_SECTIONS[close[0]]}"?' if close else ""
                self._problem(f"unknown section{shown}; there are [Interface] and [Peer]{hint}")
                self.section = "unknown"

    def _assign(self, key: str, value: str, at: Position, whole: str, extension: bool) -> None:
        if not self.section:
            self._problem("a key before the first [Interface] or [Peer]")
            return
        if self.section == "unknown":
            return  # told already
        readers = _READERS[self.section, extension]
        name = next((known for known in readers if known.lower() == key.lower()), None)
        if name is None:
            self._unknown_key(key, readers, extension)
            return
        if name not in _SECRET:
            self.source = values.mask(whole)
        self.at = at
        try:
            readers[name](self, value)
        except (BadValue, KeyFormatError) as error:
            offset = error.offset if isinstance(error, BadValue) else 0
            self.at = Position(at.line, at.column + offset)
            self._problem(f"{name}: {error}")

    def _unknown_key(self, key: str, readers: dict[str, _Reader], extension: bool) -> None:
        for (section, is_extension), other in _READERS.items():
            name = next((known for known in other if known.lower() == key.lower()), None)
            if name is None:
                continue
            if is_extension == extension:
                self._problem(f"{name}: belongs in [{section}], not in [{self.section}]")
            elif is_extension:
                self._problem(
                    f"{name}: is written as a comment, so that wg-quick can read the file: "
                    f'"#!pywg {name} = ..."'
                )
            else:
                self._problem(f'{name}: is no extension; leave out "#!pywg"')
            return
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,20}", key):
            # Perhaps a key, or half of one, pasted on its own line: do not repeat it.
            self._problem(f"unknown key in [{self.section}]")
            return
        spelled = {known.lower(): known for known in readers}
        close = difflib.get_close_matches(key.lower(), list(spelled), n=1)
        hint = f'; did you mean "{spelled[close[0]]}"?' if close else ""
        self._problem(f'unknown key "{key}" in [{self.section}]{hint}')

    # Keys whose value is more than one assignment

    def _address(self, value: str) -> None:
        found = [values.prefix(item, offset) for item, offset in values.words(value)]
        self.interface = replace(self.interface, addresses=(*self.interface.addresses, *found))

    def _dns(self, value: str) -> None:
        servers, search = [*self.interface.dns_servers], [*self.interface.dns_search]
        for item, offset in values.words(value):
            found = values.dns(item, offset)
            if isinstance(found, str):
                search.append(found)
            else:
                servers.append(found)
        self.interface = replace(
            self.interface, dns_servers=tuple(servers), dns_search=tuple(search)
        )

    def _public_key(self, value: str) -> None:
        self.peers[-1].has_public_key = True
        self.peers[-1].public_key = PublicKey.from_base64(squeeze(value))

    def _allowed_ips(self, value: str) -> None:
        allowed_ips = self.peers[-1].allowed_ips
        line, column = self.at
        for item, offset in values.items(value):
            at = Position(line, column + offset)
            sign = item[0] if item[0] in "+-" else ""
            interface = values.prefix(item.removeprefix(sign), offset)
            network = interface.network
            if interface.ip != network.network_address:
                message = f"AllowedIPs: {interface} has host bits set, {network} is meant"
                self.warnings.append(ConfigWarning(self.path, at, message))
            if sign == "-":
                allowed_ips.pop(network, None)
            else:
                allowed_ips.setdefault(network, AllowedIP(network, at))

    def _problem(self, message: str) -> None:
        self.problems.append(Problem(self.at.line, self.at.column, message, self.source))


_Reader = Callable[[_Parser, str], None]


def _set_interface(name: str, read: Callable[[str], Any]) -> _Reader:
    def reader(parser: _Parser, value: str) -> None:
        parser.interface = replace(parser.interface, **{name: read(value)})

    return reader


def _set_peer(name: str, read: Callable[[str], Any]) -> _Reader:
    def reader(parser: _Parser, value: str) -> None:
        setattr(parser.peers[-1], name, read(value))

    return reader


def _hook(name: str) -> _Reader:
    def reader(parser: _Parser, value: str) -> None:
        if value:
            hooks: Any = (*getattr(parser.interface, name), value)
            parser.interface = replace(parser.interface, **{name: hooks})

    return reader


def _path(value: str) -> Path:
    if not value:
        raise BadValue("expected the name of a file")
    return Path(value)


_SECTIONS = {"[interface]": "[Interface]", "[peer]": "[Peer]"}
_READERS: dict[tuple[str, bool], dict[str, _Reader]] = {
    ("Interface", False): {
        "PrivateKey": _set_interface(
            "private_key", lambda text: PrivateKey.from_base64(squeeze(text))
        ),
        "ListenPort": _set_interface("listen_port", lambda text: values.number(text, 0, 65535)),
        "FwMark": _set_interface("fwmark", values.fwmark),
        "Address": _Parser._address,
        "MTU": _set_interface("mtu", values.mtu),
        "DNS": _Parser._dns,
        "Table": _set_interface("table", values.table),
        "PreUp": _hook("pre_up"),
        "PostUp": _hook("post_up"),
        "PreDown": _hook("pre_down"),
        "PostDown": _hook("post_down"),
        "SaveConfig": _set_interface("save_config", values.boolean),
    },
    ("Peer", False): {
        "PublicKey": _Parser._public_key,
        "PresharedKey": _set_peer(
            "preshared_key", lambda text: PresharedKey.from_base64(squeeze(text))
        ),
        "AllowedIPs": _Parser._allowed_ips,
        "Endpoint": lambda parser, value: setattr(
            parser.peers[-1], "endpoint", values.endpoint(value, parser.at)
        ),
        "PersistentKeepalive": _set_peer("persistent_keepalive", values.keepalive),
    },
    ("Interface", True): {
        "PrivateKeyFile": _set_interface("private_key_file", _path),
        "BindDevice": _set_interface("bind_device", values.device),
        "BindAddress": _set_interface("bind_addresses", values.bind_addresses),
        "Backend": _set_interface("backend", values.backend),
        "Netns": _set_interface("netns", values.netns),
        "SocketNetns": _set_interface("socket_netns", values.netns),
    },
    ("Peer", True): {
        "PresharedKeyFile": _set_peer("preshared_key_file", _path),
        "EndpointFamily": _set_peer("endpoint_family", values.family),
    },
}


def _hidden(line: str, start: int) -> str:
    """The line with asterisks from ``start`` on: what follows may be a key."""
    return line[:start] + re.sub(r"\S", "*", line[start:])
