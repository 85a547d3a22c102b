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
from pywg.native.device import Device, LogLevel, Offload
from pywg.native.interface import Interface, Now, Packet, Verdict, now

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
    "Now",
    "Offload",
    "Packet",
    "PeerSection",
    "PermissionDenied",
    "PresharedKey",
    "PrivateKey",
    "PublicKey",
    "PywgError",
    "Status",
    "UapiError",
    "Verdict",
    "__version__",
    "cipher_path",
    "core_version",
    "now",
    "resolve",
]
