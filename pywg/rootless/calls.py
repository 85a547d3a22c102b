"""Linux calls that Python 3.11 lacks, by ctypes. What the kernel refuses is an OSError with the
name of the call.

Knows no tunnel. Each concerns this thread or process alone.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT = 1, 2, 4, 32
MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE = 4096, 8192, 16384, 1 << 18
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_PR_CAP_AMBIENT, _CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_INT = struct.Struct("=i")
_IFREQ = struct.Struct("=16sH22x")
_NS_GET_PARENT = 0xB702
_SIGNAL_SET_BYTES = 128
_SFD_CLOEXEC, _SFD_NONBLOCK = 0o2000000, 0o4000
#: struct signalfd_siginfo: number, errno, code, sender; 128 bytes in all.
SIGNAL_INFO = struct.Struct("=IiiI112x")

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def enter(descriptor: int, kind: int) -> None:
    """This process goes into the namespace behind a descriptor; ``kind`` is a CLONE_NEW*."""
    _check(_libc.setns(descriptor, kind), "setns")


def map_own_ids() -> None:
    """In a user namespace that this process has just made: it is who it was, and nobody else is
    there (user_namespaces(7))."""
    uid, gid = os.geteuid(), os.getegid()
    write_ids(uid, gid)


def write_ids(uid: int, gid: int) -> None:
    """As map_own_ids, for who has been told the numbers: in the new namespace they are unknown."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def mount(
    source: str | Path | None, target: str | Path, kind: str | None, flags: int, options: str = ""
) -> None:
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind)]
    answer = _libc.mount(*words, ctypes.c_ulong(flags), os.fsencode(options) if options else None)
    _check(answer, f"mount {target}")


def die_with_parent(parent: int) -> None:
    """From now on the kernel kills this process when the thread that forked it ends. A change of
    credentials takes that back, so it is asked for last."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0), "prctl")
    if os.getppid() != parent:
        os._exit(1)  # it ended before we asked


def receive_with_fds(stream: socket.socket, length: int, fds_max: int) -> tuple[bytes, list[int]]:
    """A datagram and the descriptors beside it, which no program that is executed inherits:
    socket.recv_fds ignores its flags."""
    room = socket.CMSG_SPACE(fds_max * _INT.size)
    data, ancillary, _, _ = stream.recvmsg(length, room, socket.MSG_CMSG_CLOEXEC)
    fds = [
        fd
        for level, kind, raw in ancillary
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for (fd,) in _INT.iter_unpack(raw[: len(raw) - len(raw) % _INT.size])
    ]
    return data, fds


def close_all_but(*kept: int) -> None:
    """Of all descriptors; in the place of a standard stream that is not kept there is /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in {0, 1, 2}.difference(kept):
        os.dup2(null, fd)
    last = 2
    for fd in (*sorted(fd for fd in kept if fd > last), 1 << 20):
        os.closerange(last + 1, fd)
        last = fd


def set_dumpable(value: bool) -> None:
    _libc.prctl(_PR_SET_DUMPABLE, int(value), 0, 0, 0)


def give_up_capabilities() -> None:
    """All of them, for good: what is executed later has none either, root's programs included.

    Not by the bounding set: the kernel refuses to execute what is marked with a capability that is
    missing there, and many a ping is marked.
    """
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    _libc.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def open_tun(name: str) -> tuple[int, str]:
    """A TUN interface of this network namespace, down, with virtio-net headers as core/io/tun.zig
    wants them. The descriptor, and what the kernel calls it."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    request = _IFREQ.pack(name.encode(), _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR)
    try:
        answer = fcntl.ioctl(descriptor, _TUNSETIFF, request)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor, _IFREQ.unpack(answer)[0].rstrip(b"\0").decode()


def parent_namespace(descriptor: int) -> int | None:
    """Of a user namespace; the caller closes it. None if it is not for this process to see."""
    try:
        return fcntl.ioctl(descriptor, _NS_GET_PARENT)
    except OSError:
        return None


def signal_descriptor(numbers: Iterable[int]) -> int:
    """Readable when one of these signals, which have to be blocked, has come (signalfd(2))."""
    mask = sum(1 << (number - 1) for number in numbers)
    raw = mask.to_bytes(_SIGNAL_SET_BYTES, "little")
    descriptor: int = _libc.signalfd(-1, raw, _SFD_CLOEXEC | _SFD_NONBLOCK)
    _check(min(descriptor, 0), "signalfd")
    return descriptor


def _check(answer: int, call: str) -> None:
    if answer != 0:
        code = ctypes.get_errno() or errno.EINVAL
        raise OSError(code, os.strerror(code), call)
