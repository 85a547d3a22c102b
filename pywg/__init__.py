"""pywg: userspace WireGuard. The public names, and nothing else.

``Device`` is a whole interface, ``Interface`` the protocol alone, ``Config`` a wg-quick file.
"""

from pywg._version import __version__, cipher_path, core_version
from pywg.config import AllowedIP, Config, Endpoint, InterfaceSection, PeerSection
from pywg.errors import (
    ConfigError,
    CoreLoadError,
    DeviceError,
    KeyFormatError,
    NetworkError,
    PermissionDenied,
    PywgError,
    Status,
    UapiError,
)
from pywg.host.resolver import resolve_now as resolve
from pywg.keys import PresharedKey, PrivateKey, PublicKey
from pywg.native.device import Device
from pywg.native.event_stream import EventStream
from pywg.native.events import (
    EndpointChanged,
    Event,
    EventsLost,
    HandshakeDone,
    Healed,
    InterfaceRemoved,
    OffloadSteppedDown,
    PeerGone,
    PeerStale,
    PortFailed,
)
from pywg.native.interface import Interface, Now, Packet, Verdict, now
from pywg.native.options import LogLevel, Offload
from pywg.wireguard.diff import Diff, PeerDiff
from pywg.wireguard.status import InterfaceStatus, PeerCounters, PeerStatus, Report

__all__ = [
    "AllowedIP",
    "Config",
    "ConfigError",
    "CoreLoadError",
    "Device",
    "DeviceError",
    "Diff",
    "Endpoint",
    "EndpointChanged",
    "Event",
    "EventStream",
    "EventsLost",
    "HandshakeDone",
    "Healed",
    "Interface",
    "InterfaceRemoved",
    "InterfaceSection",
    "InterfaceStatus",
    "KeyFormatError",
    "LogLevel",
    "NetworkError",
    "Now",
    "Offload",
    "OffloadSteppedDown",
    "Packet",
    "PeerCounters",
    "PeerDiff",
    "PeerGone",
    "PeerSection",
    "PeerStale",
    "PeerStatus",
    "PermissionDenied",
    "PortFailed",
    "PresharedKey",
    "PrivateKey",
    "PublicKey",
    "PywgError",
    "Report",
    "Status",
    "UapiError",
    "Verdict",
    "__version__",
    "cipher_path",
    "core_version",
    "now",
    "resolve",
]
