"""The text of one value to what it means, as wg(8) and wg-quick(8) read it. Knows no file.

What is wrong is a BadValue, which says what was expected. Invariant: its text never holds a key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface
from typing import cast

from pywg.config.model import (
    BackendChoice,
    Endpoint,
    Family,
    IPAddress,
    IPInterface,
    Position,
    Table,
)

MTU_MIN = 68  # the least IPv4 can live with (RFC 791)
MTU_MAX = 65535
_TABLES = {"default": 253, "main": 254, "local": 255}  # the names every rt_tables has
# Long runs of what base64 is made of, spaces between them or not.
_KEY_LIKE = re.compile(r"(?:[A-Za-z0-9+/]\s*){20,}=*")


class BadValue(Exception):
    """A value its reader refuses; ``offset`` is where in it, in characters."""

    def __init__(self, message: str, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset


def squeeze(text: str) -> str:
    """Without any whitespace, as wg(8) reads a line."""
    return "".join(text.split())


def mask(text: str) -> str:
    """The same length, with asterisks for what could be a key."""
    return _KEY_LIKE.sub(lambda found: re.sub(r"\S", "*", found[0]), text)


def number(text: str, least: int, most: int) -> int:
    digits = squeeze(text)
    if not digits.isascii() or not digits.isdigit() or len(digits) > 10:
        raise BadValue(f"expected a number from {least} to {most}")
    value = int(digits)
    if not least <= value <= most:
        raise BadValue(f"{value} is not between {least} and {most}")
    return value


def fwmark(text: str) -> int:
    word = squeeze(text).lower()
    if word == "off":
        return 0
    if re.fullmatch(r"0x[0-9a-f]{1,8}", word):
        return int(word, 16)
    if word.isascii() and word.isdigit() and len(word) <= 10 and int(word) <= 0xFFFFFFFF:
        return int(word)
    raise BadValue('expected "off", a number or 0x and up to 8 hexadecimal digits')


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


def backend(text: str) -> BackendChoice:
    word = squeeze(text).lower()
    if word not in ("userspace", "kernel", "auto"):
        raise BadValue('expected "userspace", "kernel" or "auto"')
    return cast(BackendChoice, word)


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


def bind_addresses(text: str) -> tuple[IPAddress, ...]:
    found = [dns(item, offset) for item, offset in words(text)]
    addresses = tuple(item for item in found if not isinstance(item, str))
    versions = [address.version for address in addresses]
    if len(addresses) != len(found) or len(set(versions)) != len(versions) or not addresses:
        raise BadValue("expected one IPv4 address, one IPv6 address or one of each")
    return addresses


def keepalive(text: str) -> int:
    return 0 if squeeze(text).lower() == "off" else number(text, 0, 65535)


def words(text: str) -> Iterator[tuple[str, int]]:
    """The items of a list as wg-quick splits them, by commas or spaces, and where each begins."""
    for found in re.finditer(r"[^\s,]+", text):
        yield found[0], found.start()


def items(text: str) -> Iterator[tuple[str, int]]:
    """The items of a list as wg splits them: by commas, with whitespace of no meaning."""
    offset = 0
    for part in text.split(",") if text.strip() else ():
        start = offset + len(part) - len(part.lstrip())
        item = squeeze(part)
        if not item:
            raise BadValue("an empty item in the list", start)
        yield item, start
        offset += len(part) + 1


def prefix(text: str, offset: int = 0) -> IPInterface:
    """``ADDRESS`` or ``ADDRESS/LENGTH``; no netmasks, no zones, no leading zeros."""
    address, slash, length = text.partition("/")
    strict = not slash or re.fullmatch(r"0|[1-9][0-9]{0,2}", length)
    try:
        if not strict or "%" in address or not address:
            raise ValueError
        return ip_interface(text)
    except ValueError:
        shown = mask(text[:64])
        raise BadValue(f'"{shown}" is not an IP address with an optional /length', offset) from None


def dns(text: str, offset: int = 0) -> IPAddress | str:
    """An address is a server, anything else a search domain."""
    if not re.fullmatch(r"[0-9.]+", text) and ":" not in text:
        if not re.fullmatch(r"(?!-)[A-Za-z0-9_.~-]{1,253}", text):
            raise BadValue(f'"{mask(text[:64])}" is no address and no domain', offset)
        return text
    try:
        return ip_address(text)
    except ValueError:
        raise BadValue(f'"{mask(text[:64])}" is not an IP address', offset) from None


def endpoint(text: str, at: Position) -> Endpoint:
    value = squeeze(text)
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port:
        raise BadValue("expected HOST:PORT or [IPv6]:PORT")
    if host.startswith("["):
        if not host.endswith("]"):
            raise BadValue("expected [IPv6]:PORT")
        host = host[1:-1]
        try:
            IPv6Address(host)
        except ValueError:
            raise BadValue("the brackets do not hold an IPv6 address") from None
    elif ":" in host:
        raise BadValue("an IPv6 address goes in brackets: [IPv6]:PORT")
    elif re.fullmatch(r"[0-9.]+", host):
        try:
            IPv4Address(host)
        except ValueError:
            raise BadValue(f'"{host[:64]}" is not an IPv4 address') from None
    return Endpoint(host, number(port, 1, 65535), at)
