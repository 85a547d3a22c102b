"""pywg: userspace WireGuard. The public names, and nothing else.

``Tunnel`` is a tunnel of this process with sockets in it, without root; ``Device`` a whole
interface, ``Interface`` the protocol alone, ``Config`` a wg-quick file.
"""

from typing import TYPE_CHECKING, Any

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
from pywg.native.device import Device, LogLevel, Offload
from pywg.native.interface import Interface, Now, Packet, Verdict, now

if TYPE_CHECKING:
    from pywg.rootless.inside import TunnelClosed
    from pywg.rootless.refusal import Refused
    from pywg.rootless.tunnel import NoHandshake, Tunnel

__all__ = [
    "AllowedIP",
    "Config",
    "ConfigError",
    "CoreLoadError",
    "Device",
    "DeviceError",
    "Endpoint",
    "Interface",
    "InterfaceSection",
    "KeyFormatError",
    "LogLevel",
    "NetworkError",
    "NoHandshake",
    "Now",
    "Offload",
    "Packet",
    "PeerSection",
    "PermissionDenied",
    "PresharedKey",
    "PrivateKey",
    "PublicKey",
    "PywgError",
    "Refused",
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
    """What only some programs need is imported when it is asked for."""
    if name not in {"NoHandshake", "Refused", "Tunnel", "TunnelClosed"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pywg.rootless import inside, refusal, tunnel

    places = (tunnel, inside, refusal)
    return next(getattr(place, name) for place in places if hasattr(place, name))
