"""Where metrics are served: an address and a port, as a command line names them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

#: The port that other exporters for WireGuard have.
PORT = 9586


@dataclass(frozen=True, slots=True)
class Place:
    """``port`` 0 is one that the kernel chooses."""

    address: IPv4Address | IPv6Address
    port: int

    @property
    def is_local(self) -> bool:
        """Whether only this host reaches it."""
        return self.address.is_loopback

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"


DEFAULT = Place(IPv4Address("127.0.0.1"), PORT)


def parse(text: str) -> Place:
    """``ADDR:PORT``, ``[ADDR]:PORT``, ``ADDR`` or ``:PORT``, which is this host's alone; ValueError
    says what is wrong. A name is refused: which of its addresses is meant would be a guess."""
    head, separator, tail = text.rpartition(":")
    is_address_alone = not separator or (":" in head and not head.endswith("]"))
    host, port = (text, str(PORT)) if is_address_alone else (head, tail)
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]") or "127.0.0.1")
    except ValueError:
        raise ValueError(f'expected ADDR:PORT with a numeric address, not "{text}"') from None
    if not (port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise ValueError(f'expected a port from 0 to 65535, not "{port}"')
    return Place(address, int(port))
