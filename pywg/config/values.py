"""The text of one value to what it means, and back. Knows no file and no key.

What wg(8) and wg-quick(8) accept is accepted here, with the same meaning, by every verb: `up`,
`reload`, `setconf`, `set` and the others read with these functions. Where a value can work but is
hardly meant, there is a warning. Refused although wg takes it is only what cannot work: a port
above 65535, of which wg keeps the low 16 bits. Taken although wg refuses it is an empty AllowedIPs.

What is wrong is a BadValue, which says what was expected. Invariant: neither its text nor a warning
ever holds what could be a key.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_interface
from typing import NamedTuple, cast

from pywg.config.model import (
    AllowedIP,
    BackendChoice,
    Endpoint,
    EndpointDns,
    Family,
    IPAddress,
    IPInterface,
    IPNetwork,
    KillSwitch,
    Owner,
    OwnerKind,
    Position,
    Table,
)

MTU_MIN = 68  # the least IPv4 can live with (RFC 791)
MTU_MAX = 65535
PORT_MAX = 65535
NAME_MAX = 64  # of a peer
ID_MAX = (1 << 32) - 1  # of no user and no group
_ACCOUNT = re.compile(r"[A-Za-z0-9_.@$-]{1,32}")
_CGROUP = re.compile(r"[A-Za-z0-9_.@:+~=%\\/-]{1,1024}")
_TABLES = {"default": 253, "main": 254, "local": 255}  # the names every rt_tables has
# What isspace() takes in the C locale, where wg and wg-quick read; str.split() would take more.
SPACES = " \t\n\v\f\r"
_NO_SPACES = dict.fromkeys(map(ord, SPACES))
# Long runs of what base64 is made of, spaces between them or not.
_KEY_LIKE = re.compile(r"(?:[A-Za-z0-9+/]\s*){20,}=*")


class BadValue(Exception):
    """A value its reader refuses; ``offset`` is where in it, in characters."""

    def __init__(self, message: str, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset


class Reading(NamedTuple):
    """Where the value that is being read begins, and who hears a warning about it."""

    at: Position
    hear: Callable[[Position, str, str], None]

    def position(self, offset: int) -> Position:
        return Position(self.at.line, self.at.column + offset)

    def warn(self, message: str, offset: int = 0, *, as_wg: str = "") -> None:
        """``as_wg`` is how wg(8) says it, if it does."""
        self.hear(self.position(offset), message, as_wg)


class AllowedIPEdit(NamedTuple):
    """One item of AllowedIPs, with the sign before it: "", "+" or "-"."""

    allowed: AllowedIP
    sign: str = ""


# ---- text


def squeeze(text: str) -> str:
    """Without any whitespace, as wg(8) reads a line."""
    return text.translate(_NO_SPACES)


def mask(text: str) -> str:
    """The same length, with asterisks for what could be a key."""
    return _KEY_LIKE.sub(lambda found: re.sub(r"\S", "*", found[0]), text)


def shown_host(text: str) -> str:
    """The host of an endpoint in a message. People write names in small letters; what has others
    may be a key in the wrong place."""
    return text if re.fullmatch(r"[a-z0-9._:%-]*", text) else mask(text)


def words(text: str) -> Iterator[tuple[str, int]]:
    """The items of a list as wg-quick splits them, by commas or spaces, and where each begins."""
    for found in re.finditer(rf"[^{SPACES},]+", text):
        yield found[0], found.start()


def items(text: str) -> Iterator[tuple[str, int]]:
    """The items of a list as wg splits them: by commas, with whitespace of no meaning."""
    offset = 0
    for part in text.split(",") if text.strip(SPACES) else ():
        start = offset + len(part) - len(part.lstrip(SPACES))
        item = squeeze(part)
        if not item:
            raise BadValue("an empty item in the list", start)
        yield item, start
        offset += len(part) + 1


def joined(found: Iterable[object]) -> str:
    return ", ".join(map(str, found))


# ---- numbers


def _decimal(text: str) -> int | None:
    """As strtoul(3) reads digits: with zeros before them. None for anything else."""
    digits = text.lstrip("0") or "0"
    if not re.fullmatch(r"[0-9]+", text) or len(digits) > 10:
        return None
    return int(digits)


def number(text: str, least: int, most: int) -> int:
    value = _decimal(squeeze(text))
    if value is None:
        raise BadValue(f"expected a number from {least} to {most}")
    if not least <= value <= most:
        raise BadValue(f"{value} is not between {least} and {most}")
    return value


def port(text: str) -> int:
    """A number, or the name of a UDP service of this host."""
    word = squeeze(text)
    value = _decimal(word.removeprefix("+"))
    if value is None:
        try:
            return socket.getservbyname(word, "udp")
        except (OSError, ValueError):
            raise BadValue(f"expected a port from 0 to {PORT_MAX}") from None
    if value > PORT_MAX:
        raise BadValue(f"{value} is not between 0 and {PORT_MAX}")
    return value


def fwmark(text: str) -> int:
    word = squeeze(text)
    if word.lower() == "off":
        return 0
    value = _decimal(word)
    if found := re.fullmatch(r"0x0*([0-9a-fA-F]{1,8})", word):
        value = int(found[1], 16)
    if value is None or value > 0xFFFFFFFF:
        raise BadValue('expected "off" or a number from 0 to 0xffffffff')
    return value


def keepalive(text: str) -> int:
    """Seconds; 0 for off."""
    word = squeeze(text)
    value = 0 if word.lower() == "off" else _decimal(word)
    if value is None or value > 65535:
        raise BadValue('expected "off" or seconds from 0 to 65535')
    return value


def mtu(text: str) -> int | None:
    return number(text, MTU_MIN, MTU_MAX) if squeeze(text) else None


def table(text: str) -> Table:
    word = squeeze(text).lower()
    if word in ("", "auto"):
        return "auto"
    if word == "off":
        return "off"
    if word in _TABLES:
        return _TABLES[word]
    if re.fullmatch(r"[0-9]{1,10}|0x[0-9a-f]{1,8}", word):
        value = int(word, 16) if word.startswith("0x") else int(word)
        if 0 < value <= 0xFFFFFFFF:
            return value
    raise BadValue('expected "auto", "off", "main" or the number of a routing table')


# ---- words


def boolean(text: str) -> bool:
    match squeeze(text).lower():
        case "true":
            return True
        case "false":
            return False
        case _:
            raise BadValue('expected "true" or "false"')


def family(text: str) -> Family:
    word = squeeze(text).lower()
    if word not in ("auto", "ipv4", "ipv6"):
        raise BadValue('expected "auto", "ipv4" or "ipv6"')
    return cast(Family, word)


def endpoint_dns(text: str) -> EndpointDns:
    word = squeeze(text).lower()
    if word not in ("outside", "tunnel"):
        raise BadValue('expected "outside" or "tunnel"')
    return cast(EndpointDns, word)


def backend(text: str) -> BackendChoice:
    word = squeeze(text).lower()
    if word not in ("userspace", "kernel", "auto"):
        raise BadValue('expected "userspace", "kernel" or "auto"')
    return cast(BackendChoice, word)


def kill_switch(text: str) -> KillSwitch:
    word = squeeze(text).lower()
    if word not in ("on", "off", "lan"):
        raise BadValue('expected "on", "off" or "lan"')
    return cast(KillSwitch, word)


def owners(text: str, reading: Reading) -> tuple[Owner, ...]:
    return tuple(_owner(item, offset, reading) for item, offset in words(text))


def _owner(item: str, offset: int, reading: Reading) -> Owner:
    kind, colon, name = item.partition(":")
    if kind not in ("user", "group", "cgroup") or not colon:
        raise BadValue("expected user:NAME, group:NAME or cgroup:PATH", offset)
    if kind == "cgroup":
        name = name.removeprefix("/sys/fs/cgroup").strip("/")
        if not _CGROUP.fullmatch(name) or ".." in name.split("/"):
            raise BadValue("expected the path of a cgroup, as in: systemd-cgls", offset)
    elif not _ACCOUNT.fullmatch(name) or (name.isdigit() and int(name) >= ID_MAX):
        raise BadValue(f"expected the name or the number of a {kind}", offset)
    return Owner(cast(OwnerKind, kind), name, reading.position(offset))


def peer_name(text: str) -> str:
    word = text.strip()
    if not word or len(word) > NAME_MAX or not word.isprintable():
        raise BadValue(f"expected a name of 1 to {NAME_MAX} printable characters")
    return word


def device(text: str) -> str:
    word = text.strip()
    if not re.fullmatch(r"[^\s/:]{1,15}", word) or word in (".", ".."):
        raise BadValue("expected the name of a network interface")
    return word


def netns(text: str) -> str:
    word = text.strip()
    if not re.fullmatch(r"[^\s/]{1,255}", word) or word in (".", ".."):
        raise BadValue("expected the name of a network namespace, as in: ip netns list")
    return word


# ---- addresses


def prefix(text: str, offset: int = 0) -> IPInterface:
    """``ADDRESS`` or ``ADDRESS/LENGTH``; no netmasks, no zones, no leading zeros."""
    address, slash, length = text.partition("/")
    strict = not slash or re.fullmatch(r"0|[1-9][0-9]{0,2}", length)
    try:
        if not strict or "%" in address or not address:
            raise ValueError
        return ip_interface(text)
    except ValueError:
        raise _no_prefix(text, offset) from None


def addresses(text: str) -> tuple[IPInterface, ...]:
    return tuple(prefix(item, offset) for item, offset in words(text))


def dns(text: str, offset: int = 0) -> IPAddress | str:
    """An address is a server, anything else a domain; see split_dns.py."""
    if not re.fullmatch(r"[0-9.]+", text) and ":" not in text:
        if not re.fullmatch(r"(?!-|~$)[A-Za-z0-9_.~-]{1,253}", text):
            raise BadValue(f'"{mask(text)[:64]}" is no address and no domain', offset)
        return text
    try:
        return ip_address(text)
    except ValueError:
        raise BadValue(f'"{mask(text)[:64]}" is not an IP address', offset) from None


def dns_list(text: str) -> tuple[IPAddress | str, ...]:
    """Servers and search domains, in their order."""
    return tuple(dns(item, offset) for item, offset in words(text))


def dns_lists(text: str) -> tuple[tuple[IPAddress, ...], tuple[str, ...]]:
    """The servers, and the search domains."""
    found = [dns(item, offset) for item, offset in words(text)]
    servers = tuple(item for item in found if not isinstance(item, str))
    return servers, tuple(item for item in found if isinstance(item, str))


def bind_addresses(text: str) -> tuple[IPAddress, ...]:
    servers, domains = dns_lists(text)
    versions = [address.version for address in servers]
    if domains or len(set(versions)) != len(versions) or not servers:
        raise BadValue("expected one IPv4 address, one IPv6 address or one of each")
    return servers


def allowed_ips(text: str, reading: Reading) -> tuple[AllowedIPEdit, ...]:
    """One line of AllowedIPs; bits beyond the length of a network are told and dropped."""
    return tuple(_allowed_ip(item, offset, reading) for item, offset in items(text))


def _allowed_ip(item: str, offset: int, reading: Reading) -> AllowedIPEdit:
    sign = item[0] if item[0] in "+-" else ""
    text = item.removeprefix(sign)
    network, has_host_bits = _network(text, offset)
    if has_host_bits:
        reading.warn(
            f"{text} has host bits set, {network} is meant",
            offset,
            as_wg=f"AllowedIP has nonzero host part: {text}",
        )
    return AllowedIPEdit(AllowedIP(network, reading.position(offset)), sign)


def _network(text: str, offset: int) -> tuple[IPNetwork, bool]:
    """Also whether bits beyond its length are set. An address alone is all of its bits."""
    address, slash, digits = text.partition("/")
    is_v6 = ":" in address
    most = 128 if is_v6 else 32
    length = _decimal(digits) if slash else most
    try:
        packed = socket.inet_pton(socket.AF_INET6 if is_v6 else socket.AF_INET, address)
        if length is None or length > most:
            raise ValueError
    except (OSError, ValueError):
        raise _no_prefix(text, offset) from None
    kind = IPv6Network if is_v6 else IPv4Network
    network = kind((packed, length), strict=False)
    return network, network.network_address.packed != packed


def network(text: str) -> IPNetwork:
    """What ``ipaddress.ip_network(text, strict=False)`` gives, in half its time: of networks that a
    program has written there may be very many. Raises ValueError."""
    address, _, length = text.partition("/")
    try:
        if ":" in address:
            return IPv6Network(
                (socket.inet_pton(socket.AF_INET6, address), int(length or 128)), False
            )
        return IPv4Network((socket.inet_pton(socket.AF_INET, address), int(length or 32)), False)
    except OSError:
        raise ValueError(f"{address} is no address") from None


def _no_prefix(text: str, offset: int) -> BadValue:
    return BadValue(f'"{mask(text)[:64]}" is not an IP address with an optional /length', offset)


def networks(text: str, reading: Reading) -> tuple[IPNetwork, ...]:
    """Without signs."""
    edits = allowed_ips(text, reading)
    for edit, (_, offset) in zip(edits, items(text), strict=True):
        if edit.sign:
            raise BadValue("expected networks without + or -", offset)
    return tuple(edit.allowed.network for edit in edits)


# ---- endpoints


def endpoint(text: str, reading: Reading) -> Endpoint:
    """``HOST:PORT`` or ``[IPv6]:PORT``. The host may be a name, in brackets too, and so may the
    port."""
    value = squeeze(text)
    bracketed = value.startswith("[")
    if bracketed:
        host, bracket, rest = value[1:].partition("]")
        if not bracket:
            raise BadValue("the bracket is not closed")
        colon, port_text = rest[:1], rest[1:]
    else:
        host, colon, port_text = value.rpartition(":")
    if colon != ":" or not host or not port_text:
        raise BadValue("expected HOST:PORT or [IPv6]:PORT")
    found = Endpoint(_host(host, bracketed, reading), port(port_text), reading.at)
    if ":" in host and not bracketed:
        reading.warn(f"an IPv6 address goes in brackets: {found} is meant")
    if found.port == 0:
        reading.warn("nothing can be sent to port 0")
    return found


def _host(text: str, bracketed: bool, reading: Reading) -> str:
    if ":" in text:
        try:
            IPv6Address(text)
        except ValueError:
            if bracketed:
                raise BadValue("the brackets do not hold an IPv6 address") from None
            raise BadValue("an IPv6 address goes in brackets: [IPv6]:PORT") from None
    elif re.fullmatch(r"[0-9.]+", text):
        try:
            IPv4Address(text)
        except ValueError:
            return _short_ipv4(text, reading)
    return text


def _short_ipv4(text: str, reading: Reading) -> str:
    """The C library also reads 10.1 and octal numbers (inet(3)), and so does wg."""
    try:
        address = socket.inet_ntoa(socket.inet_aton(text))
    except OSError:
        raise BadValue(f'"{mask(text)[:64]}" is not an IPv4 address') from None
    reading.warn(f"{text} is read as {address}")
    return address
