"""What happened to a device, as values: what ``Device.events`` and ``Device.wait_event`` give.

Knows records of the core, not how they are fetched. No repr shows a secret: there is none in an
event.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass

from pywg.config import Endpoint
from pywg.keys import PublicKey
from pywg.native import abi
from pywg.native.options import Offload


@dataclass(frozen=True, slots=True)
class HandshakeDone:
    """There is a session with the peer: a new one, or the renewal some two minutes later."""

    public_key: PublicKey


@dataclass(frozen=True, slots=True)
class EndpointChanged:
    """The peer was heard from somewhere else than where it was known to be (whitepaper 2.1)."""

    public_key: PublicKey
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class PeerStale:
    """The peer does not answer.

    Handshakes had no response for 90 seconds (REKEY_ATTEMPT_TIME), or there was no new session for
    9 minutes (3 x REJECT_AFTER_TIME), so that all keys were forgotten (whitepaper 6). Told once;
    the next ``HandshakeDone`` of the peer says that it is there again.
    """

    public_key: PublicKey


@dataclass(frozen=True, slots=True)
class PeerTrouble:
    """Handshakes with the peer come to nothing, and why; the next ``HandshakeDone`` ends it.

    ``os_errno``: ETIMEDOUT for no answer to three of them, some ten seconds; ECONNREFUSED,
    EHOSTUNREACH, ENETUNREACH or EACCES for an ICMP error or no route; EPERM for a firewall of this
    host; EKEYREJECTED for an answer by another preshared key or other keys; EPROTO for handshakes
    of the peer that we answered and it never confirmed; ETIME for one that is older than one
    before; EBUSY for a peer under load. Told again when it is for another reason.
    """

    public_key: PublicKey
    os_errno: int

    @property
    def reason(self) -> str:
        """The name of ``os_errno``, such as ``ECONNREFUSED``."""
        return errno.errorcode.get(self.os_errno, str(self.os_errno))


@dataclass(frozen=True, slots=True)
class PeerGone:
    """The peer was removed from the configuration, by whomever."""

    public_key: PublicKey


@dataclass(frozen=True, slots=True)
class OffloadSteppedDown:
    """The kernel refused an offload, and it is no longer used; what it refused was sent again.

    With an ``endpoint`` only towards that one, for a minute or more; ``os_errno`` is 0 there if
    trains got lost on the way.
    """

    offload: Offload
    os_errno: int
    endpoint: Endpoint | None


@dataclass(frozen=True, slots=True)
class PortFailed:
    """The link is up, and the sockets cannot be opened, such as on a port that another program has
    (EADDRINUSE). It is tried again each second; ``Healed`` says that it worked."""

    port: int
    os_errno: int

    @property
    def reason(self) -> str:
        """The name of ``os_errno``, such as ``EADDRINUSE``."""
        return errno.errorcode.get(self.os_errno, str(self.os_errno))


@dataclass(frozen=True, slots=True)
class Healed:
    """The sockets are open on ``port`` again after ``PortFailed``, or after the interface that they
    are bound to had gone."""

    port: int


@dataclass(frozen=True, slots=True)
class InterfaceRemoved:
    """The interface, or its UAPI socket, was removed: the device ends."""


@dataclass(frozen=True, slots=True)
class EventsLost:
    """``count`` events found no room at this place: nobody had fetched those before them."""

    count: int


Event = (
    HandshakeDone
    | EndpointChanged
    | PeerStale
    | PeerTrouble
    | PeerGone
    | OffloadSteppedDown
    | PortFailed
    | Healed
    | InterfaceRemoved
    | EventsLost
)


def endpoint_of(raw: abi.pywg_endpoint) -> Endpoint | None:
    """None where there is none."""
    address = bytes(raw.address)
    match raw.family:
        case 4:
            return Endpoint(socket.inet_ntop(socket.AF_INET, address[:4]), raw.port)
        case 6:
            host = socket.inet_ntop(socket.AF_INET6, address)
            return Endpoint(f"{host}%{raw.scope_id}" if raw.scope_id else host, raw.port)
        case _:
            return None


def _endpoint_changed(raw: abi.pywg_event) -> EndpointChanged:
    endpoint = endpoint_of(raw.endpoint)
    assert endpoint is not None  # noqa: S101 - such an event has one
    return EndpointChanged(PublicKey(bytes(raw.public_key)), endpoint)


_KINDS: dict[int, Callable[[abi.pywg_event], Event]] = {
    abi.PYWG_EVENT_LOST: lambda raw: EventsLost(raw.lost),
    abi.PYWG_EVENT_HANDSHAKE: lambda raw: HandshakeDone(PublicKey(bytes(raw.public_key))),
    abi.PYWG_EVENT_ENDPOINT: _endpoint_changed,
    abi.PYWG_EVENT_STALE: lambda raw: PeerStale(PublicKey(bytes(raw.public_key))),
    abi.PYWG_EVENT_GONE: lambda raw: PeerGone(PublicKey(bytes(raw.public_key))),
    abi.PYWG_EVENT_STEPPED_DOWN: lambda raw: OffloadSteppedDown(
        Offload(raw.offload), raw.os_errno, endpoint_of(raw.endpoint)
    ),
    abi.PYWG_EVENT_PORT_FAILED: lambda raw: PortFailed(raw.port, raw.os_errno),
    abi.PYWG_EVENT_HEALED: lambda raw: Healed(raw.port),
    abi.PYWG_EVENT_REMOVED: lambda raw: InterfaceRemoved(),
    abi.PYWG_EVENT_TROUBLE: lambda raw: PeerTrouble(PublicKey(bytes(raw.public_key)), raw.os_errno),
}


def of_record(raw: abi.pywg_event) -> Event | None:
    """None for a kind that only a newer core knows."""
    make = _KINDS.get(raw.kind)
    return None if make is None else make(raw)
