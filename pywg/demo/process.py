"""Child processes that cannot outlive us, namespaces for them, and a line of JSON between us.

Linux calls that Python 3.11 lacks (unshare, setns, prctl) go through ctypes. Invariant: a child
dies with its parent (PR_SET_PDEATHSIG), and a namespace with the last process in it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from pywg.errors import PywgError
from pywg.host import programs

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_TERMINATE_WAIT_S = 3.0
_IDLE_S = 0.1
Mask = set[int | signal.Signals]
_ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}

_libc = ctypes.CDLL(None, use_errno=True)


class Refused(PywgError):
    """This host does not allow this tier; the text says why and what would help."""


def unshare(flags: int) -> None:
    if _libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


def enter_network(pid: int) -> None:
    """Moves this process into the network namespace of another."""
    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(fd, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(fd)


def become_root_of_user_namespace() -> None:
    """A new user namespace in which we are root; Refused with the usual reasons."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        unshare(CLONE_NEWUSER)
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"0 {uid} 1"),
            ("gid_map", f"0 {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    except OSError as error:
        raise Refused(_user_namespace_refusal(error)) from None


def _user_namespace_refusal(error: OSError) -> str:
    reason = os.strerror(error.errno or 0)
    match error.errno:
        case errno.ENOSPC:
            return "user namespaces are used up (sysctl user.max_user_namespaces)"
        case errno.EPERM | errno.EACCES:
            return (
                f"user namespaces are not allowed: {reason} (Ubuntu: sysctl "
                "kernel.apparmor_restrict_unprivileged_userns=0; Docker: --security-opt "
                "seccomp=unconfined)"
            )
        case _:
            return f"no user namespace: {reason}"


def die_with_parent(parent: int) -> None:
    """From now on the kernel kills us when `parent` ends, however it ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it ended before we asked


class Channel:
    """Lines of JSON over a socket pair."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._buffer = b""

    def send(self, message: dict[str, Any]) -> None:
        self._stream.sendall(json.dumps(message).encode("utf-8") + b"\n")

    def receive(self, idle: Callable[[], None] | None = None) -> dict[str, Any] | None:
        """The next message, or None when the other end is gone. ``idle`` is called ten times a
        second until it comes."""
        while b"\n" not in self._buffer:
            if idle is not None and not select.select([self._stream], [], [], _IDLE_S)[0]:
                idle()
                continue
            try:
                chunk = self._stream.recv(1 << 16)
            except ConnectionError:
                return None
            if not chunk:
                return None
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def close(self) -> None:
        self._stream.close()


@contextlib.contextmanager
def _signals_held() -> Iterator[Mask]:
    """Python calls functions after a fork, on both sides, and drops exceptions in them: one that a
    signal raises there would be lost, so it comes afterwards. Gives the mask of before."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield mask
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def start(command: Sequence[str], *, piped: bool = False) -> programs.Process:
    """Another program, which dies with us."""
    parent = os.getpid()
    with _signals_held() as mask:

        def before() -> None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            die_with_parent(parent)

        return programs.start(command, piped=piped, before=before)


class Child:
    """A forked process that runs `body(channel)`; its failure arrives as ``{"failed": line}``."""

    def __init__(self, body: Callable[[Channel], None]) -> None:
        ours, theirs = socket.socketpair()
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        with _signals_held() as mask:
            self.pid = os.fork()
            if self.pid == 0:
                ours.close()
                _child_main(body, Channel(theirs), parent, mask)
        theirs.close()
        self.channel = Channel(ours)

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        try:
            self.channel.send(message)
        except OSError:
            raise PywgError("a process of the demo ended too early") from None
        return self.receive()

    def receive(self, idle: Callable[[], None] | None = None) -> dict[str, Any]:
        """The next message; a failure in the child is raised here."""
        answer = self.channel.receive(idle)
        if answer is None:
            raise PywgError("a process of the demo ended too early")
        if "refused" in answer:
            raise Refused(answer["refused"])
        if "failed" in answer:
            raise PywgError(answer["failed"])
        return answer

    def close(self) -> None:
        """Asks it to end, insists after a while, and waits until it is gone."""
        self.channel.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        limit = time.monotonic() + _TERMINATE_WAIT_S
        while os.waitpid(self.pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > limit:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                return
            time.sleep(0.005)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *ignored: object) -> None:
        self.close()


def _child_main(
    body: Callable[[Channel], None], channel: Channel, parent: int, mask: Mask
) -> NoReturn:
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the group; the parent decides
        signal.signal(signal.SIGTERM, _end)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        die_with_parent(parent)
        body(channel)
        code = 0
    except Refused as reason:
        _tell(channel, {"refused": str(reason)})
    except PywgError as error:
        _tell(channel, {"failed": str(error)})
    except Exception as error:
        _tell(channel, {"failed": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(code)


def _end(number: int, frame: object) -> NoReturn:
    raise SystemExit(0)


def _tell(channel: Channel, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        channel.send(message)
