"""Events as objects of JSON: one form for whoever tells them, and wherever they come from.

Pure. Whatever fields an event has are told, so that a new kind of event needs nothing here.
"""

from __future__ import annotations

import errno
import re
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from pywg.config import Endpoint
from pywg.keys import PublicKey
from pywg.native.events import Event
from pywg.native.options import Offload

#: Of no device: the last that a process tells whose tunnel goes on in another one, which tells what
#: happens from then on.
HANDED_OVER = "handed_over"


def kind_of(event: Event | type[Event]) -> str:
    """``handshake_done`` of ``HandshakeDone``."""
    cls = event if isinstance(event, type) else type(event)
    return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


def to_json(event: Event, interface: str, time_s: float, **more: str) -> dict[str, Any]:
    """``time_s`` is Unix time. ``time`` is RFC 3339 in UTC, ``interface`` its name, ``event`` the
    kind, ``peer`` a public key; then the fields of the event, and what else is known."""
    told: dict[str, Any] = {
        "time": stamp(time_s),
        "interface": interface,
        "event": kind_of(event),
    }
    for field in fields(event):
        told |= _field(field.name, getattr(event, field.name))
    return told | {key: value for key, value in more.items() if value}


def stamp(time_s: float) -> str:
    when = datetime.fromtimestamp(time_s, UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _field(name: str, value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, PublicKey):
        return {"peer": str(value)}
    if isinstance(value, Endpoint):
        return {"endpoint": str(value)}
    if isinstance(value, Offload):
        return {"offload": ",".join(one.name.lower() for one in value if one.name)}
    if name == "os_errno" and isinstance(value, int):
        return {"reason": errno.errorcode.get(value, str(value))} if value else {}
    return {name: value if isinstance(value, (str, int, float)) else str(value)}
