"""SOCKS5: what a client writes and what it is answered. RFC 1928; user and password: RFC 1929.
Pure.

Each parser is given what has come so far. It returns the message and its length, or None when more
has to come, and raises ProtocolError for what can become no message.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from enum import IntEnum

VERSION, AUTH_VERSION = 5, 1
NO_AUTH, USER_PASSWORD, NO_METHOD = 0x00, 0x02, 0xFF
#: The longest of all messages of a client: a request with a name of 255 bytes, or credentials.
BYTES_MAX = 3 + 255 + 255
_IPV4, _NAME, _IPV6 = 1, 3, 4
_UDP_HEADER = 4


class ProtocolError(ValueError):
    """Bytes that are no SOCKS5. ``reply`` is what a request like this is answered with."""

    def __init__(self, message: str, reply: Reply | None = None) -> None:
        super().__init__(message)
        self.reply = reply


class Command(IntEnum):
    CONNECT = 1
    BIND = 2
    UDP_ASSOCIATE = 3


class Reply(IntEnum):
    SUCCEEDED = 0
    FAILURE = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    REFUSED = 5
    TTL_EXPIRED = 6
    NO_SUCH_COMMAND = 7
    NO_SUCH_ADDRESS_TYPE = 8


@dataclass(frozen=True, slots=True)
class Target:
    """``host`` is a name, or an address as text."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Request:
    command: Command
    target: Target


@dataclass(frozen=True, slots=True)
class Datagram:
    """``start`` is where its data begin."""

    target: Target
    start: int


def greeting(data: bytes) -> tuple[frozenset[int], int] | None:
    """The methods that a client offers."""
    if data[:1] and data[0] != VERSION:
        raise ProtocolError(f"version {data[0]}, not {VERSION}")
    if len(data) < 2 or len(data) < 2 + data[1]:
        return None
    length = 2 + data[1]
    return frozenset(data[2:length]), length


def credentials(data: bytes) -> tuple[tuple[bytes, bytes], int] | None:
    """User and password."""
    if data[:1] and data[0] != AUTH_VERSION:
        raise ProtocolError(f"version {data[0]} of user and password, not {AUTH_VERSION}")
    if len(data) < 2 or len(data) < 3 + data[1]:
        return None
    middle = 2 + data[1]
    length = middle + 1 + data[middle]
    if len(data) < length:
        return None
    return (data[2:middle], data[middle + 1 : length]), length


def request(data: bytes) -> tuple[Request, int] | None:
    if data[:1] and data[0] != VERSION:
        raise ProtocolError(f"version {data[0]}, not {VERSION}")
    if len(data) < 4:
        return None
    found = _target(data, 3)
    if found is None:
        return None
    target, length = found
    try:
        command = Command(data[1])
    except ValueError:
        raise ProtocolError(f"no command {data[1]}", Reply.NO_SUCH_COMMAND) from None
    return Request(command, target), length


def datagram(data: bytes | memoryview) -> Datagram:
    """The header of a datagram from a client. Fragments are not taken (RFC 1928, section 7: an
    implementation that does not support them drops them)."""
    if len(data) < _UDP_HEADER or data[2] != 0:
        raise ProtocolError("a fragment, or too short")
    found = _target(bytes(data[: 7 + 255]), 3)
    if found is None:
        raise ProtocolError("a header that is cut")
    return Datagram(*found)


def _target(data: bytes, at: int) -> tuple[Target, int] | None:
    """From the address type on."""
    kind = data[at]
    match kind:
        case 1 | 4:
            size, start = (4 if kind == _IPV4 else 16), at + 1
        case 3:
            if len(data) < at + 2:
                return None
            size, start = data[at + 1], at + 2
        case other:
            raise ProtocolError(f"no address type {other}", Reply.NO_SUCH_ADDRESS_TYPE)
    end = start + size
    if len(data) < end + 2:
        return None
    return Target(_host(kind, data[start:end]), int.from_bytes(data[end : end + 2])), end + 2


def _host(kind: int, raw: bytes) -> str:
    if kind == _IPV4:
        return socket.inet_ntop(socket.AF_INET, raw)
    if kind == _IPV6:
        return socket.inet_ntop(socket.AF_INET6, raw)
    name = raw.decode("ascii", "replace")
    if not is_name(name):
        raise ProtocolError("no host name", Reply.HOST_UNREACHABLE)
    return name


def is_name(name: str) -> bool:
    """What a resolver may be asked for: no more than that it is printable and has no space."""
    return 0 < len(name) <= 255 and name.isascii() and name.isprintable() and " " not in name


def method(chosen: int) -> bytes:
    return bytes((VERSION, chosen))


def verdict(is_right: bool) -> bytes:
    """About user and password."""
    return bytes((AUTH_VERSION, 0 if is_right else 1))


def reply(code: Reply, host: str = "0.0.0.0", port: int = 0) -> bytes:  # noqa: S104
    return bytes((VERSION, code, 0)) + _address(host, port)


def datagram_header(host: str, port: int) -> bytes:
    return b"\0\0\0" + _address(host, port)


def _address(host: str, port: int) -> bytes:
    if ":" in host:
        raw = bytes((_IPV6,)) + socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    else:
        raw = bytes((_IPV4,)) + socket.inet_pton(socket.AF_INET, host)
    return raw + port.to_bytes(2)
