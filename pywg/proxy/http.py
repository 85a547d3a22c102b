"""HTTP/1.1 as a proxy meets it: the head of a request, what is passed on of it, and where its body
ends. RFC 9112. Pure.

A head has to be exact: what two programs could read differently is refused, since the one that
reads it next is not us.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pywg.proxy.socks5 import Target, is_name

#: A head that is longer is refused.
HEAD_BYTES_MAX = 1 << 15
_END = b"\r\n\r\n"
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([!-~]+) HTTP/1\.([01])")
# A field's value: no control characters but tabs, so no line break.
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_ABSOLUTE = re.compile(rb"http://([^/?#@]+)(/[^#]*|\?[^#]*)?", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::([0-9]{1,5}))?")
# Of this connection alone (RFC 9110, section 7.6.1); the others that Connection names come to it.
_OF_THE_HOP = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"proxy-authorization", b"upgrade", b"te")
)


class BadRequest(ValueError):
    """To be answered with ``status``."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Head:
    """``path`` is empty for CONNECT; ``target`` is None for who asks this proxy itself."""

    method: bytes
    target: Target | None
    path: bytes
    minor: int
    fields: tuple[tuple[bytes, bytes], ...]

    def values(self, name: bytes) -> list[bytes]:
        """Of all fields of that name, in small letters."""
        return [value for each, value in self.fields if each.lower() == name]


@dataclass(frozen=True, slots=True)
class Framing:
    """How long a body is: so many bytes, or, where ``length`` is None, as its chunks say."""

    length: int | None


def parse(data: bytes) -> tuple[Head, int] | None:
    """The head and its length, or None if its end has not come. Raises BadRequest."""
    end = data.find(_END)
    if end < 0:
        if len(data) > HEAD_BYTES_MAX:
            raise BadRequest("the head of the request is too long", 431)
        return None
    if end > HEAD_BYTES_MAX:
        raise BadRequest("the head of the request is too long", 431)
    first, *rest = data[:end].split(b"\r\n")
    line = _LINE.fullmatch(first)
    if line is None:
        raise BadRequest("no request line of HTTP/1.1")
    method, target = line[1], line[2]
    fields = tuple(map(_field, rest))
    place, path = _place(method, target)
    return Head(method, place, path, int(line[3]), fields), end + len(_END)


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    value = value.strip(b" \t")
    if not colon or _TOKEN.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
        raise BadRequest("a field that is none")
    return name, value


def _place(method: bytes, target: bytes) -> tuple[Target | None, bytes]:
    if method == b"CONNECT":
        return authority(target.decode("ascii"), None), b""
    if target.startswith(b"/"):
        return None, target
    found = _ABSOLUTE.fullmatch(target)
    if found is None:
        raise BadRequest("only http:// is proxied so; for https ask with CONNECT")
    path = found[2] or b"/"
    return authority(found[1].decode("ascii"), 80), path if path[:1] == b"/" else b"/" + path


def authority(text: str, default: int | None) -> Target:
    """HOST:PORT. Raises BadRequest."""
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        raise BadRequest("no HOST:PORT")
    host = found[1] or found[2]
    port = default if found[3] is None else int(found[3])
    if port is None or not 0 < port < 1 << 16 or not is_name(host):
        raise BadRequest("no HOST:PORT")
    return Target(host, port)


def framing(head: Head) -> Framing:
    """Of the request's body (RFC 9112, section 6.3). Raises BadRequest for what could be read in
    two ways."""
    codings, lengths = head.values(b"transfer-encoding"), head.values(b"content-length")
    if codings:
        if lengths or head.minor == 0:
            raise BadRequest("both Transfer-Encoding and Content-Length")
        if [coding.lower() for coding in codings] != [b"chunked"]:
            raise BadRequest("only chunked is understood", 501)
        return Framing(None)
    if not lengths:
        return Framing(0)
    if len(lengths) > 1 or re.fullmatch(rb"[0-9]{1,18}", lengths[0]) is None:
        raise BadRequest("no Content-Length")
    return Framing(int(lengths[0]))


def passed_on(head: Head) -> bytes:
    """The head as the target is to see it: it ends its connection after the answer."""
    assert head.target is not None  # noqa: S101 - it is for somebody else
    named = {
        word.strip().lower() for value in head.values(b"connection") for word in value.split(b",")
    }
    # What says where the body ends stays, whatever Connection says.
    gone = (_OF_THE_HOP | named | {b"host"}) - {b"content-length", b"transfer-encoding"}
    host = head.target.host
    shown = f"[{host}]" if ":" in host else host
    if head.target.port != 80:
        shown += f":{head.target.port}"
    lines = [b"%s %s HTTP/1.1" % (head.method, head.path), b"Host: " + shown.encode("ascii")]
    lines += [name + b": " + value for name, value in head.fields if name.lower() not in gone]
    return b"\r\n".join([*lines, b"Connection: close", b"", b""])


def credentials(head: Head) -> tuple[bytes, bytes] | None:
    """User and password of Proxy-Authorization: Basic (RFC 7617), if there are any."""
    for value in head.values(b"proxy-authorization"):
        scheme, _, text = value.partition(b" ")
        if scheme.lower() != b"basic":
            continue
        try:
            user, colon, password = base64.b64decode(text.strip(), validate=True).partition(b":")
        except binascii.Error:
            return None
        return (user, password) if colon else None
    return None


_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    407: "Proxy Authentication Required",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


def response(status: int, body: str, fields: Sequence[str] = (), kind: str = "text/plain") -> bytes:
    """An answer of the proxy itself, after which it closes."""
    if status == 407:
        fields = [*fields, 'Proxy-Authenticate: Basic realm="pywg"']
    data = body.encode("utf-8")
    lines = [
        f"HTTP/1.1 {status} {_REASONS[status]}",
        f"Content-Type: {kind}; charset=utf-8",
        f"Content-Length: {len(data)}",
        "Connection: close",
        *fields,
    ]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + data


class Chunks:
    """Finds the end of a chunked body (RFC 9112, section 7.1) that comes in pieces."""

    _LINE_MAX = 4096

    def __init__(self) -> None:
        self.is_done = False
        self._left = 0  # of a chunk, with the line break behind it
        self._line = b""
        self._is_trailer = False

    def feed(self, data: bytes) -> int:
        """How many of these bytes belong to the body. Raises BadRequest."""
        at = 0
        while at < len(data) and not self.is_done:
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                continue
            end = data.find(b"\n", at)
            stop = len(data) if end < 0 else end + 1
            self._line += data[at:stop]
            at = stop
            if len(self._line) > self._LINE_MAX:
                raise BadRequest("a chunk's line is too long")
            if end >= 0:
                self._take_line()
        return at

    def _take_line(self) -> None:
        line, self._line = self._line, b""
        if not line.endswith(b"\r\n"):
            raise BadRequest("a chunk's line without its end")
        if self._is_trailer:
            self.is_done = line == b"\r\n"
            return
        size = re.fullmatch(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n", line)
        if size is None:
            raise BadRequest("no size of a chunk")
        length = int(size[1], 16)
        self._left = length + 2 if length else 0
        self._is_trailer = length == 0
