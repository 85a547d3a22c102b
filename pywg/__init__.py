"""pywg: userspace WireGuard. The public names, and nothing else.

``Tunnel`` is a tunnel of this process with sockets in it, without root; ``Device`` a whole
interface, ``Interface`` the protocol alone, ``Config`` a wg-quick file. Each name is loaded when it
is first used, so that ``import pywg`` costs a program next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pywg._version import __version__

if TYPE_CHECKING:
    from pywg._version import cipher_path, core_version
    from pywg.config import AllowedIP, Config, Endpoint, InterfaceSection, PeerSection
    from pywg.drive import Driver
    from pywg.drive.aio import AsyncDriver
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
    from pywg.native.batch import Batch
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
        PeerTrouble,
        PortFailed,
    )
    from pywg.native.interface import Interface, Now, now
    from pywg.native.options import LogLevel, Offload
    from pywg.native.packets import Packet, Verdict
    from pywg.rootless.inside import TunnelClosed
    from pywg.rootless.refusal import Refused
    from pywg.rootless.tunnel import NoHandshake, Tunnel
    from pywg.wireguard.diff import Diff, PeerDiff
    from pywg.wireguard.status import InterfaceStatus, PeerCounters, PeerStatus, Report

# module -> the names that are taken from it, as above
_NAMES = {
    "_version": "cipher_path core_version",
    "config": "AllowedIP Config Endpoint InterfaceSection PeerSection",
    "drive": "Driver",
    "drive.aio": "AsyncDriver",
    "errors": "ConfigError CoreLoadError DeviceError KeyFormatError NetworkError PermissionDenied "
    "PywgError Status UapiError",
    "host.resolver": "resolve_now",
    "keys": "PresharedKey PrivateKey PublicKey",
    "native.batch": "Batch",
    "native.device": "Device",
    "native.event_stream": "EventStream",
    "native.events": "EndpointChanged Event EventsLost HandshakeDone Healed InterfaceRemoved "
    "OffloadSteppedDown PeerGone PeerStale PeerTrouble PortFailed",
    "native.interface": "Interface Now now",
    "native.options": "LogLevel Offload",
    "native.packets": "Packet Verdict",
    "rootless.inside": "TunnelClosed",
    "rootless.refusal": "Refused",
    "rootless.tunnel": "NoHandshake Tunnel",
    "wireguard.diff": "Diff PeerDiff",
    "wireguard.status": "InterfaceStatus PeerCounters PeerStatus Report",
}
_RENAMED = {"resolve_now": "resolve"}
_HOME = {
    _RENAMED.get(name, name): (f"pywg.{module}", name)
    for module, names in _NAMES.items()
    for name in names.split()
}

__all__ = [
    "AllowedIP",
    "AsyncDriver",
    "Batch",
    "Config",
    "ConfigError",
    "CoreLoadError",
    "Device",
    "DeviceError",
    "Diff",
    "Driver",
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
    "NoHandshake",
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
    "PeerTrouble",
    "PermissionDenied",
    "PortFailed",
    "PresharedKey",
    "PrivateKey",
    "PublicKey",
    "PywgError",
    "Refused",
    "Report",
    "Status",
    "Tunnel",
    "TunnelClosed",
    "UapiError",
    "Verdict",
    "__version__",
    "cipher_path",
    "core_version",
    "now",
    "resolve",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'pywg' has no attribute {name!r}")
    module, own_name = home
    value = getattr(import_module(module), own_name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
