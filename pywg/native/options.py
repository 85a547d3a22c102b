"""Words of a device's options: offloads and levels of the log.

Knows the numbers of pywg.h, and nothing that uses them.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

from pywg.native import abi


class Offload(IntFlag):
    """What the kernel can do for us; each can be switched off by name."""

    NONE = 0
    TUN_TSO = abi.PYWG_OFFLOAD_TUN_TSO
    TUN_USO = abi.PYWG_OFFLOAD_TUN_USO
    UDP_GSO = abi.PYWG_OFFLOAD_UDP_GSO
    UDP_GRO = abi.PYWG_OFFLOAD_UDP_GRO
    TUN_TUNNEL = abi.PYWG_OFFLOAD_TUN_TUNNEL
    ALL = TUN_TSO | TUN_USO | UDP_GSO | UDP_GRO | TUN_TUNNEL

    @classmethod
    def parse(cls, text: str) -> Offload:
        """``tun_tso,udp_gso`` or ``all``, as pywgd; ValueError names the word that is none."""
        result = cls.NONE
        names = {member.lower(): member for member in cls.__members__ if member != "NONE"}
        for word in filter(None, (part.strip() for part in text.split(","))):
            if word not in names:
                raise ValueError(f'unknown offload "{word}"; there are {", ".join(names)}')
            result |= cls[names[word]]
        return result


class LogLevel(IntEnum):
    SILENT = abi.PYWG_LOG_SILENT
    ERROR = abi.PYWG_LOG_ERROR
    VERBOSE = abi.PYWG_LOG_VERBOSE

    @classmethod
    def parse(cls, text: str) -> LogLevel:
        """LOG_LEVEL as wireguard-go reads it; anything unknown means errors."""
        levels = {"verbose": cls.VERBOSE, "debug": cls.VERBOSE, "silent": cls.SILENT}
        return levels.get(text.lower(), cls.ERROR)
