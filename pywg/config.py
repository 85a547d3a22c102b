"""A wg-quick file as frozen dataclasses. Pure text: no file but the one named, no resolver.

Every error is a ConfigError with ``path:line:column``. Invariant: no message repeats the value of
a key, nor a line that could be one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
)
from pathlib import Path
from typing import NamedTuple

from pywg.errors import ConfigError, KeyFormatError, system_call
from pywg.keys import PresharedKey, PrivateKey, PublicKey

IPInterface = IPv4Interface | IPv6Interface
IPNetwork = IPv4Network | IPv6Network

NAME_PATTERN = re.compile(r"[a-zA-Z0-9_=+.-]{1,15}")
MTU_MIN = 68  # the least IPv4 can live with (RFC 791)
MTU_MAX = 65535


class Position(NamedTuple):
    """Where in the file something was said."""

    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True)
class ConfigWarning:
    """Something legal that is probably not meant."""

    path: str
    position: Position
    message: str

    def __str__(self) -> str:
        where = f"{self.path}:{self.position.line}:{self.position.column}"
        return f"{where}: warning: {self.message}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Host (name, IPv4, or IPv6 without brackets, perhaps with %zone) and UDP port."""

    host: str
    port: int
    position: Position = field(default=Position(), repr=False, compare=False)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def address(self) -> IPv4Address | IPv6Address | None:
        """The numeric address, or None for a name that is still to be resolved."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class AllowedIP:
    """A network whose packets go to, and may come from, a peer."""

    network: IPNetwork
    position: Position = field(default=Position(), repr=False, compare=False)

    def __str__(self) -> str:
        return str(self.network)


@dataclass(frozen=True, slots=True)
class InterfaceSection:
    """``[Interface]``."""

    private_key: PrivateKey | None = None
    listen_port: int | None = None
    fwmark: int | None = None
    addresses: tuple[IPInterface, ...] = ()
    mtu: int | None = None


@dataclass(frozen=True, slots=True)
class PeerSection:
    """``[Peer]``."""

    public_key: PublicKey
    preshared_key: PresharedKey | None = None
    allowed_ips: tuple[AllowedIP, ...] = ()
    endpoint: Endpoint | None = None
    persistent_keepalive: int | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """One file."""

    interface: InterfaceSection = InterfaceSection()
    peers: tuple[PeerSection, ...] = ()
    path: str = field(default="<config>", compare=False)
    warnings: tuple[ConfigWarning, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def load(cls, path: str | Path) -> Config:
        """Reads a file; unreadable is a PywgError too."""
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise system_call(error, str(path)) from None
        return parse(data.decode("utf-8", errors="replace"), str(path))


def parse(text: str, path: str = "<config>") -> Config:
    """The text of a file to a Config. The first thing that is wrong is raised."""
    return _Parser(path).parse(text)


# What wg-quick knows and pywg does not do yet.
_LATER = ("DNS", "Table", "PreUp", "PostUp", "PreDown", "PostDown", "SaveConfig")


class _BadValue(Exception):
    """A value its reader refuses; the parser adds where. The text never holds a key."""


@dataclass(slots=True)
class _Peer:
    """A peer while its section is being read."""

    position: Position
    public_key: PublicKey | None = None
    preshared_key: PresharedKey | None = None
    allowed_ips: dict[IPNetwork, AllowedIP] = field(default_factory=dict)
    endpoint: Endpoint | None = None
    persistent_keepalive: int | None = None


class _Parser:
    def __init__(self, path: str) -> None:
        self.path = path
        self.position = Position()
        self.interface = InterfaceSection()
        self.peers: list[_Peer] = []
        self.section = ""
        self.warnings: list[ConfigWarning] = []

    def parse(self, text: str) -> Config:
        lines = text.removeprefix("\ufeff").split("\n")
        for number, line in enumerate(lines, start=1):
            self._line(number, line.partition("#")[0])
        peers = tuple(self._finish(peer) for peer in self.peers)
        self._check_duplicates()
        if self.interface.private_key is None:
            self._warn(Position(1, 1), "[Interface] has no PrivateKey: no tunnel can come up")
        return Config(self.interface, peers, self.path, tuple(self.warnings))

    # One line: empty, a section, or key = value.

    def _line(self, number: int, line: str) -> None:
        stripped = _squeeze(line)
        if not stripped:
            return
        self.position = Position(number, len(line) - len(line.lstrip()) + 1)
        if stripped.startswith("["):
            self._open_section(stripped)
            return
        key, separator, value = line.partition("=")
        if not separator:
            raise self._error('expected "[Section]" or "Key = Value"')
        column = len(key) + 2 + len(value) - len(value.lstrip())
        self._assign(_squeeze(key), value, Position(number, column))

    def _open_section(self, text: str) -> None:
        match text.lower():
            case "[interface]":
                self.section = "Interface"
            case "[peer]":
                self.section = "Peer"
                self.peers.append(_Peer(self.position))
            case _:
                # What looks like no section name may be a key pasted here: do not repeat it.
                shown = f" {text}" if re.fullmatch(r"\[[A-Za-z0-9_-]{1,30}\]", text) else ""
                raise self._error(f"unknown section{shown}; there are [Interface] and [Peer]")

    def _assign(self, key: str, value: str, at: Position) -> None:
        if not self.section:
            raise self._error("a key before the first [Interface] or [Peer]")
        readers = _INTERFACE_KEYS if self.section == "Interface" else _PEER_KEYS
        name = next((known for known in readers if known.lower() == key.lower()), None)
        if name is None:
            raise self._unknown_key(key)
        self.position = at
        try:
            readers[name](self, value)
        except (_BadValue, KeyFormatError) as error:
            raise self._error(f"{name}: {error}") from None

    def _unknown_key(self, key: str) -> ConfigError:
        for later in _LATER:
            if later.lower() == key.lower() and self.section == "Interface":
                return self._error(f"{later}: this wg-quick key is not supported yet")
        other, where = (
            (_PEER_KEYS, "Peer") if self.section == "Interface" else (_INTERFACE_KEYS, "Interface")
        )
        elsewhere = [*other, *(_LATER if where == "Interface" else ())]
        for known in elsewhere:
            if known.lower() == key.lower():
                return self._error(f"{known}: belongs in [{where}], not in [{self.section}]")
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,30}", key):
            # Perhaps a key pasted on its own line: do not repeat it.
            return self._error(f"unknown key in [{self.section}]")
        own = list(_INTERFACE_KEYS if self.section == "Interface" else _PEER_KEYS)
        spelled = {name.lower(): name for name in own}
        close = difflib.get_close_matches(key.lower(), list(spelled), n=1)
        hint = f'; did you mean "{spelled[close[0]]}"?' if close else ""
        return self._error(f'unknown key "{key}" in [{self.section}]{hint}')

    # [Interface]

    def _private_key(self, value: str) -> None:
        self.interface = replace(
            self.interface, private_key=PrivateKey.from_base64(_squeeze(value))
        )

    def _listen_port(self, value: str) -> None:
        self.interface = replace(self.interface, listen_port=_number(value, 0, 65535))

    def _fwmark(self, value: str) -> None:
        self.interface = replace(self.interface, fwmark=_fwmark(value))

    def _address(self, value: str) -> None:
        found = [_prefix(item) for item, _ in self._items(value)]
        addresses = (*self.interface.addresses, *found)
        self.interface = replace(self.interface, addresses=addresses)

    def _mtu(self, value: str) -> None:
        self.interface = replace(self.interface, mtu=_number(value, MTU_MIN, MTU_MAX))

    # [Peer]

    def _public_key(self, value: str) -> None:
        self.peers[-1].public_key = PublicKey.from_base64(_squeeze(value))

    def _preshared_key(self, value: str) -> None:
        self.peers[-1].preshared_key = PresharedKey.from_base64(_squeeze(value))

    def _endpoint(self, value: str) -> None:
        self.peers[-1].endpoint = _endpoint(value, self.position)

    def _persistent_keepalive(self, value: str) -> None:
        off = _squeeze(value).lower() == "off"
        self.peers[-1].persistent_keepalive = 0 if off else _number(value, 0, 65535)

    def _allowed_ips(self, value: str) -> None:
        allowed_ips = self.peers[-1].allowed_ips
        for item, at in self._items(value):
            sign = item[0] if item[0] in "+-" else ""
            interface = _prefix(item.removeprefix(sign))
            network = interface.network
            if interface.ip != network.network_address:
                self._warn(at, f"AllowedIPs: {interface} has host bits set, {network} is meant")
            if sign == "-":
                allowed_ips.pop(network, None)
            else:
                allowed_ips.setdefault(network, AllowedIP(network, at))

    # Helpers

    def _items(self, value: str) -> Iterator[tuple[str, Position]]:
        """The items of a comma separated list; an error while one is read points at it."""
        line, column = self.position
        body = value.strip()
        for part in body.split(",") if body else ():
            self.position = Position(line, column + len(part) - len(part.lstrip()))
            item = _squeeze(part)
            if not item:
                raise _BadValue("an empty item in the list")
            yield item, self.position
            column += len(part) + 1

    def _finish(self, peer: _Peer) -> PeerSection:
        if peer.public_key is None:
            self.position = peer.position
            raise self._error("[Peer] has no PublicKey")
        return PeerSection(
            public_key=peer.public_key,
            preshared_key=peer.preshared_key,
            allowed_ips=tuple(peer.allowed_ips.values()),
            endpoint=peer.endpoint,
            persistent_keepalive=peer.persistent_keepalive,
        )

    def _check_duplicates(self) -> None:
        lines: dict[PublicKey | None, int] = {}
        owners: dict[IPNetwork, tuple[PublicKey | None, int]] = {}
        for peer in self.peers:
            first = lines.setdefault(peer.public_key, peer.position.line)
            if first != peer.position.line:
                self._warn(peer.position, f"the same peer as on line {first}: this one wins")
            for allowed in peer.allowed_ips.values():
                owner, line = owners.get(allowed.network, (peer.public_key, 0))
                if owner != peer.public_key:
                    claim = f"AllowedIPs: {allowed} is also on line {line}: this one wins"
                    self._warn(allowed.position, claim)
                owners[allowed.network] = (peer.public_key, allowed.position.line)

    def _warn(self, at: Position, message: str) -> None:
        self.warnings.append(ConfigWarning(self.path, at, message))

    def _error(self, message: str) -> ConfigError:
        return ConfigError(self.path, self.position.line, self.position.column, message)


_Reader = Callable[[_Parser, str], None]
_INTERFACE_KEYS: dict[str, _Reader] = {
    "PrivateKey": _Parser._private_key,
    "ListenPort": _Parser._listen_port,
    "FwMark": _Parser._fwmark,
    "Address": _Parser._address,
    "MTU": _Parser._mtu,
}
_PEER_KEYS: dict[str, _Reader] = {
    "PublicKey": _Parser._public_key,
    "PresharedKey": _Parser._preshared_key,
    "AllowedIPs": _Parser._allowed_ips,
    "Endpoint": _Parser._endpoint,
    "PersistentKeepalive": _Parser._persistent_keepalive,
}


def _squeeze(text: str) -> str:
    """Without any whitespace, as wg(8) reads a line."""
    return "".join(text.split())


def _number(text: str, least: int, most: int) -> int:
    digits = _squeeze(text)
    if not digits.isascii() or not digits.isdigit() or len(digits) > 10:
        raise _BadValue(f"expected a number from {least} to {most}")
    value = int(digits)
    if not least <= value <= most:
        raise _BadValue(f"{value} is not between {least} and {most}")
    return value


def _fwmark(text: str) -> int:
    word = _squeeze(text).lower()
    if word == "off":
        return 0
    if re.fullmatch(r"0x[0-9a-f]{1,8}", word):
        return int(word, 16)
    if word.isascii() and word.isdigit() and len(word) <= 10 and int(word) <= 0xFFFFFFFF:
        return int(word)
    raise _BadValue('expected "off", a number or 0x and up to 8 hexadecimal digits')


def _prefix(text: str) -> IPInterface:
    """``ADDRESS`` or ``ADDRESS/LENGTH``; no netmasks, no zones, no leading zeros."""
    address, slash, length = text.partition("/")
    strict = not slash or re.fullmatch(r"0|[1-9][0-9]{0,2}", length)
    try:
        if not strict or "%" in address or not address:
            raise ValueError
        return ip_interface(text)
    except ValueError:
        raise _BadValue(f'"{text[:64]}" is not an IP address with an optional /length') from None


def _endpoint(value: str, at: Position) -> Endpoint:
    text = _squeeze(value)
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port:
        raise _BadValue("expected HOST:PORT or [IPv6]:PORT")
    if host.startswith("["):
        if not host.endswith("]"):
            raise _BadValue("expected [IPv6]:PORT")
        host = host[1:-1]
        try:
            IPv6Address(host)
        except ValueError:
            raise _BadValue("the brackets do not hold an IPv6 address") from None
    elif ":" in host:
        raise _BadValue("an IPv6 address goes in brackets: [IPv6]:PORT")
    elif re.fullmatch(r"[0-9.]+", host):
        try:
            IPv4Address(host)
        except ValueError:
            raise _BadValue(f'"{host[:64]}" is not an IPv4 address') from None
    return Endpoint(host, _number(port, 1, 65535), at)
