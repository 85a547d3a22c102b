"""Every error pywg raises, and the one table that turns a status and an errno into advice.

Knows no other module. Invariant: no message holds a private or preshared key, also when somebody
put one in the place of a name, a number or a file.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

# As wg and UAPI write keys; then what may be part of one. Paths are as long, but begin with a
# slash; and no word has digits and letters of both sizes.
_KEY = re.compile(
    r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=|[0-9A-Fa-f]{64}"
    r"|(?<![A-Za-z0-9+/])(?=[A-Za-z+/]*[0-9])(?=[a-z0-9+/]*[A-Z])(?=[A-Z0-9+/]*[a-z])"
    r"[A-Za-z0-9+][A-Za-z0-9+/]{31,}=*"
)


def hide_keys(text: str) -> str:
    """The same length, with asterisks for what could be a key. Errors do it by themselves; whoever
    repeats words of a user elsewhere has to."""
    return _KEY.sub(lambda found: "*" * len(found[0]), text)


class PywgError(Exception):
    """The base of all errors of this package; ``str()`` is one line for a human."""

    def __init__(self, message: str) -> None:
        super().__init__(hide_keys(message))


class KeyFormatError(PywgError, ValueError):
    """Text or bytes that are no key. The message never repeats them."""


class Problem(NamedTuple):
    """One thing that is wrong in a file; ``source`` is its line, or empty, without secrets."""

    line: int
    column: int
    message: str
    source: str = ""


class ConfigError(PywgError):
    """A configuration file says something wrong, at ``path:line:column``.

    ``problems`` has all of it, ``str()`` a line for each; ``line``, ``column`` and ``message`` are
    the first one's.
    """

    def __init__(self, path: str, line: int, column: int, message: str) -> None:
        self._fill(path, (Problem(line, column, message),))

    @classmethod
    def of(cls, path: str, problems: Sequence[Problem]) -> ConfigError:
        """One error for all of them; at least one."""
        error = cls.__new__(cls)
        error._fill(path, tuple(problems))
        return error

    def _fill(self, path: str, problems: tuple[Problem, ...]) -> None:
        self.path = hide_keys(path)
        self.problems = tuple(
            problem._replace(message=hide_keys(problem.message), source=hide_keys(problem.source))
            for problem in problems
        )
        self.line, self.column, self.message, _ = self.problems[0]
        super().__init__("\n".join(self._headline(problem) for problem in self.problems))

    def _headline(self, problem: Problem) -> str:
        return f"{self.path}:{problem.line}:{problem.column}: {problem.message}"

    def pictures(self) -> list[str]:
        """For each problem: what is wrong, the line it is in, and a caret under the place."""
        return [self._picture(problem) for problem in self.problems]

    def _picture(self, problem: Problem) -> str:
        if not problem.source:
            return self._headline(problem)
        # Tabs stay tabs, so that the caret stands under what it means.
        before = problem.source[: problem.column - 1]
        indent = "".join("\t" if character == "\t" else " " for character in before)
        return f"{self._headline(problem)}\n  {problem.source}\n  {indent}^"


class CoreLoadError(PywgError, ImportError):
    """The compiled core was not found, or is not the one this package was written for."""


class UapiError(PywgError):
    """The other end of a UAPI socket refused, or answered something that is not UAPI."""

    def __init__(self, message: str, os_errno: int = 0) -> None:
        super().__init__(message)
        self.os_errno = os_errno


class NetworkError(PywgError):
    """The kernel refused an address, a link setting or a route."""

    def __init__(self, message: str, os_errno: int = 0) -> None:
        super().__init__(message)
        self.os_errno = os_errno


class HostError(PywgError):
    """Something that this host has is broken: a program failed or never ended, or a file cannot be
    written."""


class Status(IntEnum):
    """``pywg_status`` of pywg.h."""

    OK = 0
    HANDED_OVER = 1
    INVALID_ARGUMENT = -1
    OUT_OF_MEMORY = -2
    BUFFER_TOO_SMALL = -3
    CONFIGURATION = -4
    PERMISSION = -5
    NAME_IN_USE = -6
    ADDRESS_IN_USE = -7
    NOT_FOUND = -8
    LIMIT = -9
    CLOSED = -10
    SYSTEM = -11
    FORKED = -12


NEEDS_PRIVILEGE = "making an interface needs CAP_NET_ADMIN: run it with sudo"
NO_TUN = (
    "modprobe tun; without udev: mkdir -p /dev/net && mknod /dev/net/tun c 10 200; "
    "in Docker: --device /dev/net/tun --cap-add NET_ADMIN"
)
TUN_NOT_OURS = "chmod 666 /dev/net/tun, or run it with sudo"

# What went wrong in a few words, and what to do about it. An entry with an errno goes first.
_ADVICE: dict[tuple[int, int], tuple[str, str]] = {
    (Status.INVALID_ARGUMENT, 0): (
        "a value is not allowed",
        "an interface name is 1 to 15 of [a-zA-Z0-9_=+.-], an MTU 68 to 65535",
    ),
    (Status.OUT_OF_MEMORY, 0): ("out of memory", "free some memory, or lower the number of peers"),
    (Status.BUFFER_TOO_SMALL, 0): ("a buffer is too small", "give each packet 48 bytes of room"),
    (Status.CONFIGURATION, 0): ("the configuration was refused", ""),
    (Status.PERMISSION, 0): ("permission denied", NEEDS_PRIVILEGE),
    (Status.PERMISSION, errno.EPERM): ("permission denied", NEEDS_PRIVILEGE),
    (Status.PERMISSION, errno.EACCES): ("permission denied", f"{NEEDS_PRIVILEGE}; {TUN_NOT_OURS}"),
    (Status.NAME_IN_USE, 0): (
        "the name is in use",
        "choose another name, or remove the old one: ip link delete dev NAME",
    ),
    (Status.NAME_IN_USE, errno.EBUSY): (
        "another process holds an interface of this name",
        "stop it first: pywg down NAME",
    ),
    (Status.ADDRESS_IN_USE, 0): (
        "the listen port is taken",
        "choose another ListenPort, or find its owner: ss -ulpn",
    ),
    (Status.NOT_FOUND, 0): ("not found", ""),
    (Status.NOT_FOUND, errno.ENOENT): ("there is no /dev/net/tun", NO_TUN),
    (Status.NOT_FOUND, errno.ENODEV): ("the kernel has no TUN driver", NO_TUN),
    (Status.NOT_FOUND, errno.ENXIO): ("the kernel has no TUN driver", NO_TUN),
    (Status.LIMIT, 0): ("a limit was reached", ""),
    (Status.LIMIT, errno.EMFILE): ("too many open files", "raise it: ulimit -n 4096"),
    (Status.LIMIT, errno.ENFILE): (
        "too many open files in the system",
        "raise it: sysctl fs.file-max",
    ),
    (Status.LIMIT, errno.ENAMETOOLONG): (
        "the interface name is too long",
        "at most 15 characters",
    ),
    (Status.CLOSED, 0): ("it is closed", "open a new one"),
    (Status.SYSTEM, 0): ("a system call failed", ""),
    (Status.FORKED, 0): (
        "it belongs to the process that opened it, and its keys may be used by no other",
        "open a new one after fork",
    ),
    (Status.SYSTEM, errno.ENODEV): ("the kernel has no TUN driver", NO_TUN),
    (Status.SYSTEM, errno.ENOENT): ("there is no /dev/net/tun", NO_TUN),
    (Status.SYSTEM, errno.EROFS): (
        "/var/run/wireguard cannot be written",
        "mount a tmpfs on /var/run/wireguard",
    ),
    (Status.SYSTEM, errno.EAFNOSUPPORT): (
        "the kernel lacks an address family",
        "IPv4 or IPv6 must be there: sysctl net.ipv6.conf.all.disable_ipv6",
    ),
}


class DeviceError(PywgError):
    """The core refused. ``status`` and ``os_errno`` for programs, ``hint`` for people."""

    def __init__(self, message: str, status: int, os_errno: int = 0, hint: str = "") -> None:
        super().__init__(f"{message} ({hint})" if hint else message)
        self.status = status
        self.os_errno = os_errno
        self.hint = hint

    @staticmethod
    def explain(status: int, os_errno: int = 0, text: str = "", subject: str = "") -> DeviceError:
        """The error for a status of the core: what, why and what to do, in one line.

        ``text`` is what the core said, ``subject`` the name of the interface it is about.
        """
        cause, hint = advice(status, os_errno)
        if os_errno and (status, os_errno) not in _ADVICE:
            cause = f"{cause}: {os.strerror(os_errno)}"
        hint = hint.replace("NAME", subject) if subject else hint
        kind = PermissionDenied if status == Status.PERMISSION else DeviceError
        prefix = f"{subject}: " if subject else ""
        if not text:
            return kind(prefix + cause, status, os_errno, hint)
        # The core knows more than any table: its line has cause and remedy already.
        error = kind(prefix + text, status, os_errno)
        error.hint = (
            "" if status == Status.INVALID_ARGUMENT else hint
        )  # which value, it cannot know
        return error


class PermissionDenied(DeviceError):
    """The kernel said EPERM or EACCES."""


def advice(status: int, os_errno: int = 0) -> tuple[str, str]:
    """Cause and remedy of a status; the errno makes them more exact where it can."""
    found = _ADVICE.get((status, os_errno)) or _ADVICE.get((status, 0))
    return found or (f"the core failed with status {status}", "")


def system_call(error: OSError, doing: str) -> PywgError:
    """An OSError of our own making as one line with its remedy."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    hint = " (run it with sudo)" if error.errno in (errno.EPERM, errno.EACCES) else ""
    return PywgError(f"{doing}: {reason}{hint}")
