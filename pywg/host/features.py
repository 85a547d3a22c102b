"""What a network device does by itself: its offloads, by ethtool's ioctl. Only asks.

Needs no privilege. A device that does not say has none.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct

_SIOCETHTOOL = 0x8946
_GSTRINGS, _GSSET_INFO, _GFEATURES = 0x1B, 0x37, 0x3A
_FEATURES = 4  # ETH_SS_FEATURES
_NAME_LENGTH = 32  # ETH_GSTRING_LEN
_SET_INFO = struct.Struct("=IIQI")  # struct ethtool_sset_info, and one number
_STRINGS = struct.Struct("=III")  # struct ethtool_gstrings
_HEAD = struct.Struct("=II")  # struct ethtool_gfeatures
_BLOCK = struct.Struct("=IIII")  # struct ethtool_get_features_block


def active(device: str) -> frozenset[str] | None:
    """The names of what is on, as `ethtool -k` has them below its headings; None if the device does
    not say."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            return frozenset(_active(sock, device))
        except OSError:
            return None


def _active(sock: socket.socket, device: str) -> list[str]:
    asked = _SET_INFO.pack(_GSSET_INFO, 0, 1 << _FEATURES, 0)
    *_, count = _SET_INFO.unpack(_ask(sock, device, asked))
    asked = _STRINGS.pack(_GSTRINGS, _FEATURES, count) + bytes(_NAME_LENGTH * count)
    texts = _ask(sock, device, asked)[_STRINGS.size :]
    blocks = -(-count // 32)
    asked = _HEAD.pack(_GFEATURES, blocks) + bytes(_BLOCK.size * blocks)
    states = _ask(sock, device, asked)[_HEAD.size :]
    on = [_BLOCK.unpack_from(states, _BLOCK.size * block)[2] for block in range(blocks)]
    names = (
        texts[start : start + _NAME_LENGTH].partition(b"\0")[0].decode(errors="replace")
        for start in range(0, len(texts), _NAME_LENGTH)
    )
    return [name for bit, name in enumerate(names) if on[bit // 32] >> bit % 32 & 1]


def _ask(sock: socket.socket, device: str, question: bytes) -> bytes:
    """The answer has the length of the question."""
    buffer = ctypes.create_string_buffer(question, len(question))
    request = struct.pack("16sP16x", device.encode()[:15], ctypes.addressof(buffer))
    fcntl.ioctl(sock, _SIOCETHTOOL, request)
    return buffer.raw
