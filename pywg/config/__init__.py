"""wg-quick files: what they say, and how they are written again with what has changed."""

from pywg.config.model import (
    AllowedIP,
    BackendChoice,
    Config,
    ConfigWarning,
    Endpoint,
    EndpointDns,
    Family,
    InterfaceSection,
    IPAddress,
    IPInterface,
    IPNetwork,
    PeerSection,
    Position,
    Table,
)
from pywg.config.names import check_name
from pywg.config.parser import parse
from pywg.config.source import read

__all__ = [
    "AllowedIP",
    "BackendChoice",
    "Config",
    "ConfigWarning",
    "Endpoint",
    "EndpointDns",
    "Family",
    "IPAddress",
    "IPInterface",
    "IPNetwork",
    "InterfaceSection",
    "PeerSection",
    "Position",
    "Table",
    "check_name",
    "parse",
    "read",
]
