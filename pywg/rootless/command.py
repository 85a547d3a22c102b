"""A command inside a tunnel, and the process that the user's shell takes for it.

The command is forked, enters the tunnel's namespaces and a user namespace of its own, in which it
is who it was and has no capability, and is executed there. It has its caller's terminal, session,
process group, folder, files and environment. The caller passes on what only it is sent, stops when
the command stops, and ends as it ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from pywg.rootless import calls, privacy, sweep

#: As a shell's: the command was found but could not be executed; was not found.
CANNOT_EXECUTE, NOT_FOUND = 126, 127
_KERNEL = 0x80  # SI_KERNEL: of a terminal, to the whole process group
_INFO_BYTES = calls.SIGNAL_INFO.size
# What a process cannot hold back, or what is a fault of its own.
_NOT_HELD = {
    *(signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE),
    *(signal.SIGILL, signal.SIGTRAP, signal.SIGABRT),
}
# What Python ignores, and a program has to find as it was (subprocess does the same).
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command is to be: descriptors of namespaces, and the text of resolv.conf."""

    user_namespace: int
    network_namespace: int
    resolv_conf: str


class Command:
    """One that has been started. Signals are held back from now on: ``wait`` passes them on, and
    nothing interrupts what comes after it."""

    def __init__(self, place: Place, argv: Sequence[str]) -> None:
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _NOT_HELD)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.failure: tuple[int, str] | None = None
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _become(place, argv, theirs, parent, self._before)
        theirs.close()
        with ours:
            self.namespace = self._begun(ours)

    def _begun(self, report: socket.socket) -> int:
        """The command's user namespace. What it could not do comes after it, or in its place."""
        namespace = -1
        while True:
            data, fds = calls.receive_with_fds(report, 4096, 1)
            if fds:
                namespace = fds[0]
            elif data:
                code, _, text = data.decode("utf-8", "replace").partition(" ")
                self.failure = int(code), text
            else:
                return namespace

    def wait(self, watched: Sequence[socket.socket]) -> int:
        """The exit code: 128 and the signal's number for one that was killed. When one of
        ``watched`` becomes readable, its tunnel has ended, and so does the command."""
        held = signal.valid_signals() - _NOT_HELD
        signals = calls.signal_descriptor(held)
        try:
            poll = select.poll()
            for fd in (signals, *(each.fileno() for each in watched)):
                poll.register(fd, select.POLLIN)
            while True:
                for fd, _ in poll.poll():
                    if fd == signals:
                        code = self._pass_on(os.read(signals, _INFO_BYTES * 16))
                        if code is not None:
                            return code
                    else:
                        poll.unregister(fd)
                        self.kill()
        finally:
            os.close(signals)

    def _pass_on(self, raw: bytes) -> int | None:
        for at in range(0, len(raw), _INFO_BYTES):
            number, _, code, sender = calls.SIGNAL_INFO.unpack_from(raw, at)
            if number == signal.SIGCHLD:
                ended = self._look()
                if ended is not None:
                    return ended
            elif code != _KERNEL and not self._has_sent(sender):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, number)
        return None

    def _has_sent(self, sender: int) -> bool:
        """Whether it was the command, or what it has started: `kill 0` is for its whole group, and
        that has it. Anybody else, a script of our group too, means the command by us."""
        if self.namespace < 0 or sender <= 0:
            return False
        with contextlib.suppress(OSError):  # it has gone, or may not be seen
            return sweep.is_in(sender, self.namespace)
        return False

    def _look(self) -> int | None:
        """The exit code, if it has ended; stops with it."""
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
            if pid == 0:
                return None
            if not os.WIFSTOPPED(status):
                return exit_code(status)
            self._stop()

    def _stop(self) -> None:
        """As the command; then goes on with it. A shell takes the terminal when a job stops, and
        gives it back to us: a command that had it for itself gets it again."""
        os.kill(os.getpid(), signal.SIGSTOP)
        with contextlib.suppress(OSError):
            group = os.getpgid(self.pid)
            terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
            try:
                if group != os.getpgrp() == os.tcgetpgrp(terminal):
                    os.tcsetpgrp(terminal, group)
            finally:
                os.close(terminal)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """With all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        if self.namespace >= 0:
            sweep.kill_all(self.namespace)

    def close(self) -> None:
        if self.namespace >= 0:
            os.close(self.namespace)


def exit_code(status: int) -> int:
    """Of what waitpid says of a process that has ended, as a shell has it."""
    if os.WIFSIGNALED(status):
        return 128 + os.WTERMSIG(status)
    return os.WEXITSTATUS(status)


# ---- in the child


def _become(
    place: Place,
    argv: Sequence[str],
    report: socket.socket,
    parent: int,
    mask: set[int | signal.Signals],
) -> NoReturn:
    try:
        try:
            _enter(place)
            namespace = os.open("/proc/self/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            socket.send_fds(report, [b"namespace"], [namespace])
            calls.give_up_capabilities()
            _restore_signals(mask)
            calls.die_with_parent(parent)
        except OSError as error:
            text = f"cannot enter the tunnel: {error.filename or ''}: {error.strerror}"
            report.send(f"{CANNOT_EXECUTE} {text}".encode())
            os._exit(CANNOT_EXECUTE)
        os.execvp(argv[0], list(argv))  # noqa: S606 - it is what was asked for
    except OSError as error:
        code = NOT_FOUND if error.errno in (errno.ENOENT, errno.ENOTDIR) else CANNOT_EXECUTE
        report.send(f"{code} {argv[0]}: {error.strerror}".encode("utf-8", "replace"))
        os._exit(code)
    finally:
        os._exit(CANNOT_EXECUTE)


def _enter(place: Place) -> None:
    """The mounts belong to the tunnel's user namespace, so a command that becomes root of one of
    its own cannot take them away."""
    uid, gid = os.geteuid(), os.getegid()
    calls.enter(place.user_namespace, calls.CLONE_NEWUSER)
    calls.enter(place.network_namespace, calls.CLONE_NEWNET)
    calls.unshare(calls.CLONE_NEWNS)
    privacy.hide_resolvers(place.resolv_conf)
    calls.unshare(calls.CLONE_NEWUSER)
    calls.write_ids(uid, gid)


def _restore_signals(mask: set[int | signal.Signals]) -> None:
    """As whoever started us left them: what is ignored stays so (nohup), what is handled here goes
    back to its default by itself, and Python's own ignoring is undone."""
    for number in _IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
