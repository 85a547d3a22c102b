"""The words of wg(8): the files of setconf, addconf and syncconf, and the arguments of set, to
Changes.

The grammar of a file is smaller than that of wg-quick: only what a device knows. Reads key files
and asks the resolver through pywg.resolve; knows no device. Invariant: no message repeats the
value of a key, nor a line that could be one.
"""

from __future__ import annotations

import difflib
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from pywg.config import Config, Endpoint, IPNetwork, PeerSection, Position
from pywg.errors import ConfigError, KeyFormatError, PywgError, system_call
from pywg.host.resolver import resolve, spelled
from pywg.keys import BASE64_LENGTH, LENGTH, PresharedKey, PrivateKey, PublicKey
from pywg.wireguard.changes import NO_PRIVATE_KEY, AllowedIPChange, Changes, PeerChange

Warn = Callable[[str], None]

INTERFACE_KEYS = ("PrivateKey", "ListenPort", "FwMark")
PEER_KEYS = ("PublicKey", "PresharedKey", "AllowedIPs", "Endpoint", "PersistentKeepalive")
WG_QUICK_KEYS = (
    *("Address", "MTU", "DNS", "Table", "SaveConfig"),
    *("PreUp", "PostUp", "PreDown", "PostDown"),
)
KEY_FILE_MAX = 1 << 16
# What isspace() takes in the C locale; str.split() would take more.
_SPACES = dict.fromkeys(map(ord, " \t\n\v\f\r"))


class BadValue(PywgError):
    """A value its reader refuses; the caller adds where. The text never holds a key."""


# ---- files


def read_file(path: str, *, append: bool, warn: Warn) -> Changes:
    """A file, a pipe or /dev/stdin. With ``append`` the device keeps what the file leaves out."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise system_call(error, path) from None
    return parse(data.decode("utf-8", errors="replace"), path, append=append, warn=warn)


def parse(text: str, path: str, *, append: bool, warn: Warn) -> Changes:
    changes = _File(path, append, warn).parse(text)
    return replace(changes, peers=tuple(_resolved(peer, path) for peer in changes.peers))


class _File:
    """A file while it is being read, line by line."""

    def __init__(self, path: str, append: bool, warn: Warn) -> None:
        self.path = path
        self.warn = warn
        self.section = ""
        self.device = (
            Changes()
            if append
            else Changes(private_key=NO_PRIVATE_KEY, listen_port=0, fwmark=0, replace_peers=True)
        )
        self.peers: list[PeerChange | None] = []  # None until its PublicKey has come
        self.pending = PeerChange(PublicKey(bytes(LENGTH)))
        self.has_key = False
        self.headers: list[Position] = []

    def parse(self, text: str) -> Changes:
        for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
            self._line(number, line.partition("\0")[0].partition("#")[0])
        self._finish_peer()
        peers = []
        for peer, header in zip(self.peers, self.headers, strict=True):
            if peer is None:
                raise self._error(header, "[Peer] has no PublicKey")
            peers.append(peer)
        return replace(self.device, peers=tuple(peers))

    def _line(self, number: int, line: str) -> None:
        stripped = squeeze(line)
        if not stripped:
            return
        at = Position(number, len(line) - len(line.lstrip()) + 1)
        match stripped.lower():
            case "[interface]":
                self.section = "Interface"
            case "[peer]":
                self._finish_peer()
                self.section = "Peer"
                self.headers.append(at)
                self.pending = PeerChange(PublicKey(bytes(LENGTH)), replace_allowed_ips=True)
                self.has_key = False
            case _:
                self._assign(stripped, line, at)

    def _assign(self, stripped: str, line: str, at: Position) -> None:
        key, separator, value = stripped.partition("=")
        if not self.section:
            raise self._error(at, "a line before the first [Interface] or [Peer]")
        known = INTERFACE_KEYS if self.section == "Interface" else PEER_KEYS
        name = next((name for name in known if name.lower() == key.lower()), None)
        if not separator or name is None:
            raise self._error(at, _unknown(key if separator else "", self.section, known))
        before, _, raw = line.partition("=")
        at = Position(at.line, len(before) + 2 + len(raw) - len(raw.lstrip()))
        if not value:
            raise self._error(at, f"{name}: there is no value; leave the line out")
        try:
            self._set(name, value, at)
        except (BadValue, KeyFormatError) as error:
            raise self._error(at, f"{name}: {error}") from None

    def _set(self, name: str, value: str, at: Position) -> None:
        match name:
            case "PrivateKey":
                self.device = replace(self.device, private_key=PrivateKey.from_base64(value))
            case "ListenPort":
                self.device = replace(self.device, listen_port=port(value))
            case "FwMark":
                self.device = replace(self.device, fwmark=fwmark(value))
            case "PublicKey":
                self.pending = replace(self.pending, public_key=PublicKey.from_base64(value))
                self.has_key = True
            case "PresharedKey":
                self.pending = replace(self.pending, preshared_key=PresharedKey.from_base64(value))
            case "AllowedIPs":
                self.pending = with_allowed_ips(self.pending, value, self.warn)
            case "Endpoint":
                self.pending = replace(self.pending, endpoint=endpoint(value, at))
            case "PersistentKeepalive":
                self.pending = replace(self.pending, persistent_keepalive=keepalive(value))

    def _finish_peer(self) -> None:
        if len(self.peers) < len(self.headers):
            self.peers.append(self.pending if self.has_key else None)

    def _error(self, at: Position, message: str) -> ConfigError:
        return ConfigError(self.path, at.line, at.column, message)


def _unknown(key: str, section: str, known: Sequence[str]) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,30}", key):
        # Perhaps a key pasted on its own line: do not repeat it.
        return f'expected "[Section]" or "Key = Value" with a key of [{section}]'
    for other in WG_QUICK_KEYS:
        if other.lower() == key.lower():
            return f"{other}: only wg-quick knows this key; `pywg strip` leaves it out"
    place, elsewhere = (
        ("Peer", PEER_KEYS) if section == "Interface" else ("Interface", INTERFACE_KEYS)
    )
    for other in elsewhere:
        if other.lower() == key.lower():
            return f"{other}: belongs in [{place}], not in [{section}]"
    spelled = {name.lower(): name for name in known}
    close = difflib.get_close_matches(key.lower(), list(spelled), n=1)
    hint = f'; did you mean "{spelled[close[0]]}"?' if close else ""
    return f'unknown key "{key}" in [{section}]{hint}'


# ---- arguments of set


def read_arguments(words: Sequence[str], warn: Warn) -> Changes:
    """``[listen-port N] ... [peer KEY [remove] ...]...``, the words after the interface."""
    device = Changes()
    peers: list[PeerChange] = []
    rest = iter(words)
    for word in rest:
        try:
            if word == "peer":
                peers.append(PeerChange(PublicKey.from_base64(_next(rest))))
            elif peers:
                peers[-1] = _peer_word(peers[-1], word, rest, warn)
            else:
                device = _device_word(device, word, rest)
        except (BadValue, KeyFormatError) as error:
            raise PywgError(f"{word}: {error}") from None
    return replace(device, peers=tuple(_resolved(peer, None) for peer in peers))


def _device_word(device: Changes, word: str, rest: Iterator[str]) -> Changes:
    match word:
        case "listen-port":
            return replace(device, listen_port=port(_next(rest)))
        case "fwmark":
            return replace(device, fwmark=fwmark(_next(rest)))
        case "private-key":
            return replace(device, private_key=PrivateKey(key_file(_next(rest))))
    raise _unexpected(word)


def _peer_word(peer: PeerChange, word: str, rest: Iterator[str], warn: Warn) -> PeerChange:
    match word:
        case "remove":
            return replace(peer, remove=True)
        case "preshared-key":
            return replace(peer, preshared_key=PresharedKey(key_file(_next(rest))))
        case "endpoint":
            return replace(peer, endpoint=endpoint(_next(rest), Position()))
        case "persistent-keepalive":
            return replace(peer, persistent_keepalive=keepalive(_next(rest)))
        case "allowed-ips":
            return with_allowed_ips(peer, squeeze(_next(rest)), warn)
    raise _unexpected(word)


def _next(rest: Iterator[str]) -> str:
    try:
        return next(rest)
    except StopIteration:
        raise BadValue("a value has to follow") from None


def _unexpected(word: str) -> PywgError:
    # What is no word of the grammar may be a key in the wrong place: do not repeat it.
    shown = f": {word}" if re.fullmatch(r"[a-z-]{1,24}", word) else ""
    return PywgError(f"Invalid argument{shown}")


def key_file(path: str) -> bytes:
    """A key on the first line; a file that is empty, as /dev/null, means no key.

    A pipe that gives nothing is an error: the program at its other end has failed.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(KEY_FILE_MAX)
            seekable = file.seekable()
    except OSError as error:
        raise BadValue(str(system_call(error, path))) from None
    if not data and seekable:
        return bytes(LENGTH)
    if len(data) < BASE64_LENGTH:
        raise BadValue(f"{path} holds no key: too short")
    key, rest = data[:BASE64_LENGTH], data[BASE64_LENGTH:]
    if rest.strip():
        raise BadValue(f"{path}: something follows the key")
    try:
        return bytes(PresharedKey.from_base64(key.decode("ascii", errors="replace")))
    except KeyFormatError as error:
        raise BadValue(f"{path} holds no key: {error}") from None


# ---- values


def squeeze(text: str) -> str:
    """Without any whitespace, as wg reads a line."""
    return text.translate(_SPACES)


def port(text: str) -> int:
    """A number, or the name of a UDP service."""
    if text.isascii() and text.isdigit() and len(text) <= 10:
        number = int(text)
        if number > 65535:
            raise BadValue(f"{number} is not between 0 and 65535")
        return number
    try:
        return socket.getservbyname(text, "udp")
    except (OSError, ValueError):
        raise BadValue("expected a port from 0 to 65535") from None


def fwmark(text: str) -> int:
    if text.lower() == "off":
        return 0
    if re.fullmatch(r"0x[0-9a-fA-F]{1,16}|[0-9]{1,16}", text):
        number = int(text, 16 if text.startswith("0x") else 10)
        if number <= 0xFFFFFFFF:
            return number
    raise BadValue('expected "off" or a number from 0 to 0xffffffff')


def keepalive(text: str) -> int:
    if text.lower() == "off":
        return 0
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > 65535:
        raise BadValue('expected "off" or seconds from 0 to 65535')
    return int(text)


def endpoint(text: str, at: Position) -> Endpoint:
    """``HOST:PORT`` or ``[IPv6]:PORT``; the host may be a name, the port too."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket:
            raise BadValue("the bracket is not closed")
        colon, port_text = rest[:1], rest[1:]
    else:
        host, colon, port_text = text.rpartition(":")
    if colon != ":" or not port_text or not host:
        raise BadValue("expected HOST:PORT or [IPv6]:PORT")
    return Endpoint(host, port(port_text), at)


def with_allowed_ips(peer: PeerChange, text: str, warn: Warn) -> PeerChange:
    """One list of networks. It replaces those of the peer, unless one has a sign."""
    items = text.split(",") if text else []
    changes = tuple(_allowed_ip(item, warn) for item in items)
    return replace(
        peer,
        replace_allowed_ips=not any(item[:1] in ("+", "-") for item in items),
        allowed_ips=(*peer.allowed_ips, *changes),
    )


def _allowed_ip(item: str, warn: Warn) -> AllowedIPChange:
    sign = item[:1] if item[:1] in ("+", "-") else ""
    text = item.removeprefix(sign)
    network, has_host_bits = _network(text)
    if has_host_bits:
        warn(f"Warning: AllowedIP has nonzero host part: {text}")
    return AllowedIPChange(network, remove=sign == "-")


def _network(text: str) -> tuple[IPNetwork, bool]:
    """Also whether bits beyond its length are set."""
    address, slash, length = text.partition("/")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    most = 128 if family == socket.AF_INET6 else 32
    try:
        packed = socket.inet_pton(family, address)
        if slash and (not re.fullmatch(r"[0-9]{1,10}", length) or int(length) > most):
            raise ValueError
    except (OSError, ValueError):
        # What looks like no address may be a key in the wrong place: do not repeat it.
        shown = f'"{text}"' if re.fullmatch(r"[0-9a-fA-F:./]{1,50}", text) else "this"
        raise BadValue(f"{shown} is not an IP address with an optional /length") from None
    prefix = int(length) if slash else most
    kind = IPv6Network if family == socket.AF_INET6 else IPv4Network
    network = kind((packed, prefix), strict=False)
    return network, network.network_address.packed != packed


def _resolved(peer: PeerChange, path: str | None) -> PeerChange:
    """With a numeric endpoint; waits for the resolver as long as the environment says."""
    if peer.endpoint is None or peer.remove:
        return peer
    asked = Config(peers=(PeerSection(peer.public_key, endpoint=peer.endpoint),), path=path or "")
    try:
        found = resolve(asked).peers[0].endpoint or peer.endpoint
    except ConfigError as error:
        if path is None:
            raise PywgError(error.message) from None
        raise
    # As wg sends it: the device may be in another network namespace, where indices differ.
    return replace(peer, endpoint=spelled(found))
