"""Many datagrams in one system call (sendmmsg), each from another address: what a flood takes to be
one, from a single Python."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence

_PER_CALL = 64
_CONTROL_SPACE = 32  # CMSG_SPACE of struct in_pktinfo
_libc = ctypes.CDLL(None, use_errno=True)


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("padding", ctypes.c_int),
        ("sent", ctypes.c_uint),
    )


class Burst:
    """The same datagrams again and again, in their order."""

    def __init__(
        self, target: tuple[str, int], datagrams: Sequence[bytes], sources: Sequence[int]
    ) -> None:
        """``sources``: an IPv4 address of this namespace for each datagram, as a number."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._count, self._next = len(datagrams), 0
        name = struct.pack("=H", socket.AF_INET) + struct.pack("!H", target[1])
        name += socket.inet_aton(target[0]) + bytes(8)
        self._name = ctypes.create_string_buffer(name, len(name))
        self._payloads = [ctypes.create_string_buffer(data, len(data)) for data in datagrams]
        self._vectors = (_Vector * self._count)()
        self._controls = ctypes.create_string_buffer(_CONTROL_SPACE * self._count)
        self._messages = (_Message * self._count)()
        for number, (payload, source) in enumerate(zip(self._payloads, sources, strict=True)):
            self._place(number, payload, source)

    def _place(self, number: int, payload: ctypes.Array[ctypes.c_char], source: int) -> None:
        self._vectors[number] = _Vector(ctypes.addressof(payload), len(payload))
        start = _CONTROL_SPACE * number
        # struct cmsghdr, then struct in_pktinfo: no interface, the source, nothing.
        header = struct.pack("@Nii", 28, socket.IPPROTO_IP, 8)
        information = struct.pack("=iIi", 0, socket.htonl(source), 0)
        place = ctypes.addressof(self._controls) + start
        ctypes.memmove(place, header + information, 28)
        self._messages[number] = _Message(
            ctypes.addressof(self._name),
            len(self._name),
            ctypes.addressof(self._vectors) + ctypes.sizeof(_Vector) * number,
            1,
            place,
            _CONTROL_SPACE,
        )

    def send(self, count: int) -> None:
        """The next ``count``; what the kernel refuses counts as sent."""
        while count > 0:
            wanted = min(count, _PER_CALL, self._count - self._next)
            first = ctypes.byref(self._messages, ctypes.sizeof(_Message) * self._next)
            sent = _libc.sendmmsg(self._socket.fileno(), first, wanted, 0)
            done = max(sent, 1)
            self._next = (self._next + done) % self._count
            count -= done
