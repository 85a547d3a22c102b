"""What is said to etcd and what it answers, by its gateway of JSON over HTTP (/v3/kv/range,
/v3/watch, /v3/auth/authenticate): plain values, keys and values in base64.

Pure: knows no socket.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PAGE = 5_000
#: https://grpc.github.io/grpc/core/md_doc_statuscodes.html
OUT_OF_RANGE, PERMISSION_DENIED, UNAUTHENTICATED = 11, 7, 16


class Refused(Exception):
    """etcd answered with an error: ``code`` of gRPC."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code

    @property
    def is_compacted(self) -> bool:
        """The revision that was asked for is history that etcd has thrown away."""
        return self.code == OUT_OF_RANGE or "compacted" in str(self)

    @property
    def is_login(self) -> bool:
        """The token is too old, or etcd was started anew and knows it no more."""
        return self.code == UNAUTHENTICATED or "invalid auth token" in str(self)


@dataclass(frozen=True, slots=True)
class Header:
    """Which store, and how far it was. A restored or another one has another ``cluster``, or a
    ``revision`` that was before."""

    cluster: str = ""
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    header: Header
    texts: Mapping[str, str]
    last: bytes = b""  # the last key
    has_more: bool = False


@dataclass(frozen=True, slots=True)
class Watched:
    """One message of a watch. ``is_part``: more of the same revision follows. ``compacted``: the
    watch has ended, since what was before this revision is gone."""

    header: Header
    texts: Mapping[str, str | None] = field(default_factory=dict)
    is_created: bool = False
    is_part: bool = False
    is_canceled: bool = False
    compacted: int = 0
    reason: str = ""


def range_request(prefix: str, after: bytes, revision: int) -> dict[str, Any]:
    """A page of keys that begin with ``prefix``, behind the key ``after``, at a revision; 0 is the
    latest."""
    start = after + b"\0" if after else prefix.encode()
    request: dict[str, Any] = {"key": _to64(start), "range_end": _end(prefix), "limit": PAGE}
    if revision:
        request["revision"] = revision
    return request


def watch_request(prefix: str, revision: int) -> dict[str, Any]:
    """All that changes from this revision on. Big answers come in parts, and where nothing changes
    etcd says so every ten minutes."""
    return {
        "create_request": {
            "key": _to64(prefix.encode()),
            "range_end": _end(prefix),
            "start_revision": revision,
            "progress_notify": True,
            "fragment": True,
        }
    }


def page(prefix: str, data: bytes) -> Page:
    """Raises Refused, or ValueError for what is no answer of etcd's."""
    said = _answer(data)
    texts: dict[str, str] = {}
    last = b""
    for one in said.get("kvs", ()):
        last = _of64(one["key"])
        texts[_name(prefix, last)] = _text(one.get("value", ""))
    return Page(_header(said), texts, last, bool(said.get("more")) and bool(last))


def watched(prefix: str, data: bytes) -> Watched:
    """Of one line of the stream. Raises as ``page`` does."""
    said = _answer(data)
    said = said.get("result", said)
    texts: dict[str, str | None] = {}
    for event in said.get("events", ()):
        one = event["kv"]
        gone = event.get("type") == "DELETE"
        texts[_name(prefix, _of64(one["key"]))] = None if gone else _text(one.get("value", ""))
    return Watched(
        _header(said),
        texts,
        is_created=bool(said.get("created")),
        is_part=bool(said.get("fragment")),
        is_canceled=bool(said.get("canceled")),
        compacted=int(said.get("compact_revision", 0)),
        reason=str(said.get("cancel_reason", "")),
    )


def token(data: bytes) -> str:
    """Of an answer to a login."""
    return str(_answer(data).get("token", ""))


def _answer(data: bytes) -> dict[str, Any]:
    said = json.loads(data)
    if not isinstance(said, dict):
        raise ValueError("no object")
    error = said.get("error")
    if error:
        told = error if isinstance(error, dict) else said
        message = str(told.get("message") or (error if isinstance(error, str) else "an error"))
        raise Refused(message, int(told.get("grpc_code") or told.get("code") or 0))
    return said


def _header(said: Mapping[str, Any]) -> Header:
    header = said.get("header", {})
    return Header(str(header.get("cluster_id", "")), int(header.get("revision", 0)))


def _name(prefix: str, key: bytes) -> str:
    return key[len(prefix.encode()) :].decode("utf-8", errors="backslashreplace")


def _text(value: str) -> str:
    return _of64(value).decode("utf-8", errors="replace")


def _to64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _of64(text: str) -> bytes:
    return base64.b64decode(text)


def _end(prefix: str) -> str:
    """The first key that does not begin with the prefix, which ends with a slash."""
    data = prefix.encode()
    return _to64(data[:-1] + bytes([data[-1] + 1]))
