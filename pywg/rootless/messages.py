"""What is asked of the helper inside and of the keeper of a tunnel, and what they answer: values,
to bytes and back.

A message is one datagram of a SOCK_SEQPACKET pair: JSON, the name of its class first. Each request
brings a socket of its own for the answer (SCM_RIGHTS), so that answers need no numbers and may come
in any order. Descriptors travel beside the bytes; which ones is said at each class. Pure.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from pywg.errors import PywgError

#: The longest: below what a socket's default buffer takes whole.
BYTES_MAX = 1 << 16
#: Networks or addresses in one message; more go in several.
ITEMS_MAX = 500


class MessageError(PywgError, ValueError):
    """Bytes that are no message, or a message that is too long."""


@dataclass(frozen=True, slots=True)
class MakeInterface:
    """A TUN of this name, up, with these addresses; and the name servers of this namespace, as text
    of resolv.conf(5). ``segments`` is how many packets a superpacket may have.

    Answered by Made with three descriptors: the TUN, the user and the network namespace.
    """

    name: str
    mtu: int
    segments: int
    addresses: tuple[str, ...]
    resolv_conf: str


@dataclass(frozen=True, slots=True)
class AddRoutes:
    """Into the interface, ITEMS_MAX at most. Answered by Made."""

    name: str
    networks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MakeSocket:
    """socket(2), with Linux's numbers. Answered by Made with the socket, in its first state: to
    bind or connect it needs nobody inside."""

    family: int
    kind: int
    protocol: int


@dataclass(frozen=True, slots=True)
class LookUp:
    """getaddrinfo(3) by the name servers of this namespace. ``port`` is a number or a service's
    name, ``host`` None the machine itself. Answered by Found, or Unknown."""

    host: str | None
    port: str
    family: int
    kind: int
    protocol: int
    flags: int


@dataclass(frozen=True, slots=True)
class WhatIsLeft:
    """What the kernel still has to do for those who have ended. Answered by Left."""


@dataclass(frozen=True, slots=True)
class Left:
    """Whether packets wait in the TUN (0 or 1); how many streams were closed and not yet wholly
    delivered; how many packets ever went into the interface."""

    queued: int
    closing: int
    sent: int


@dataclass(frozen=True, slots=True)
class Made:
    """It is done; with what has to be told about it."""

    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """Entries of getaddrinfo: family, kind, protocol, canonical name, then the address."""

    entries: tuple[tuple[int | str, ...], ...]


@dataclass(frozen=True, slots=True)
class Unknown:
    """getaddrinfo failed: an EAI_* number, and the C library's words."""

    code: int
    text: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The kernel refused a step, which has a name."""

    step: str
    os_errno: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The keeper has read its file."""


@dataclass(frozen=True, slots=True)
class Begin:
    """To the keeper: where its own datagrams go. With two descriptors, of a user and a network
    namespace, into that tunnel, with its name servers; without, as the host's."""

    resolv_conf: str = ""


@dataclass(frozen=True, slots=True)
class Ready:
    """The tunnel runs. With three descriptors: of its user and its network namespace, and the
    socket by which its helper is asked."""

    name: str
    resolv_conf: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Broken:
    """There is no tunnel; the lines say why. The keeper has ended."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Began:
    """To the keeper: a command began. With one descriptor, of its user namespace: what is left in
    it is killed when the sender leaves, or has ended."""


@dataclass(frozen=True, slots=True)
class Leave:
    """To the keeper: the command has ended. It answers Others, or ends with the tunnel."""


@dataclass(frozen=True, slots=True)
class AskState:
    """To the keeper. Answered by State."""


@dataclass(frozen=True, slots=True)
class State:
    """Of the tunnel: seconds since the last handshake of any peer, -1 if there was none; bytes both
    ways, and the longest persistent keepalive in seconds."""

    handshake_age: int
    sent: int
    received: int
    keepalive: int


@dataclass(frozen=True, slots=True)
class Others:
    """The tunnel goes on, for other commands."""


Kept = Loaded | Begin | Ready | Broken | Began | Leave | Others | AskState | State
Request = MakeInterface | AddRoutes | MakeSocket | LookUp | WhatIsLeft
Answer = Made | Found | Unknown | Failed | Left
Message = Request | Answer | Kept

_CLASSES = {
    kind.__name__: kind
    for kind in (
        *(MakeInterface, AddRoutes, MakeSocket, LookUp, WhatIsLeft),
        *(Made, Found, Unknown, Failed, Left),
        *(Loaded, Begin, Ready, Broken, Began, Leave, Others, AskState, State),
    )
}


def encode(message: Message) -> bytes:
    """Raises MessageError for one that is too long."""
    data = json.dumps([type(message).__name__, asdict(message)]).encode("utf-8")
    if len(data) > BYTES_MAX:
        raise MessageError(f"{type(message).__name__} of {len(data)} bytes")
    return data


def decode(data: bytes) -> Message:
    """Raises MessageError for what encode has not made."""
    try:
        name, values = json.loads(data)
        kind = _CLASSES[name]
        arguments: dict[str, Any] = {key: _frozen(value) for key, value in values.items()}
        message: Message = kind(**arguments)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MessageError(f"no message: {error}") from None
    for field in fields(message):
        value = getattr(message, field.name)
        if not _fits(str(field.type), value):
            raise MessageError(f"{name}: {field.name} is of another type")
    return message


def _frozen(value: object) -> object:
    """Lists of JSON as tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _fits(annotation: str, value: object) -> bool:
    match annotation:
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "str":
            return isinstance(value, str)
        case "str | None":
            return value is None or isinstance(value, str)
        case "tuple[str, ...]":
            return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
        case _:
            return isinstance(value, tuple) and all(isinstance(item, tuple) for item in value)
