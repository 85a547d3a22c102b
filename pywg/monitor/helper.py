"""The process that serves the metrics of one tunnel, beside the process that hosts it.

A process of its own, executed anew, without capabilities: whoever reaches its port talks to no
program that moves packets or changes this host, and what goes wrong in it, or in a library that it
loads, does not concern the tunnel. What it knows it asks as any other program does, by UAPI. It
ends with the tunnel, and what serves is started again if it dies.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from pywg.errors import PywgError, system_call
from pywg.host.descriptors import close_others
from pywg.wireguard import socket as uapi_socket

#: Before it is started again, in seconds; doubled each time.
PAUSE_FIRST_S, PAUSE_MAX_S = 1.0, 60.0
_PR_SET_PDEATHSIG = 1


def start(name: str, listening: socket.socket, *, keeps_stderr: bool) -> None:
    """For a tunnel that is up. Returns at once; raises PywgError if there can be no process."""
    process = uapi_socket.owner(name)
    try:
        if not process:
            raise PywgError(f"{name} has ended")
        tunnel = os.pidfd_open(process)
        child = os.fork()
    except OSError as error:
        raise system_call(error, "cannot start the process that serves metrics") from None
    if child == 0:
        _become(name, listening.fileno(), tunnel, keeps_stderr=keeps_stderr)
    os.close(tunnel)
    os.waitpid(child, 0)  # the first of two forks ends at once


def _become(name: str, listening: int, tunnel: int, *, keeps_stderr: bool) -> None:
    """The child: leaves the session, forks once more and executes `pywg exporter`."""
    try:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1) if keeps_stderr else (0, 1, 2):
            os.dup2(null, fd)
        # What our caller had open, such as a lock or a pipe, is not held for as long as we live.
        close_others({listening, tunnel})
        for fd in (listening, tunnel):
            os.set_inheritable(fd, True)
        words = ["exporter", "--listen-fd", str(listening), "--beside-fd", str(tunnel), name]
        # -P: no module may come from the folder that somebody stands in.
        here = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH", ""))))
        os.execve(  # noqa: S606 - no shell is wanted
            sys.executable,
            [sys.executable, "-P", "-m", "pywg", *words],
            {**os.environ, "PYTHONPATH": path},
        )
    finally:
        os._exit(1)


def keep(tunnel: int, serve: Callable[[], None]) -> None:
    """Until the process behind the descriptor ``tunnel`` has ended: a child serves, and another one
    when that has died."""
    pause_s = PAUSE_FIRST_S
    while True:
        keeper, child = os.getpid(), os.fork()
        if child == 0:
            _serve(serve, keeper)
        serving = os.pidfd_open(child)
        try:
            ready = select.select([tunnel, serving], [], [])[0]
        finally:
            os.close(serving)
        if tunnel in ready:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return
        os.waitpid(child, 0)
        if select.select([tunnel], [], [], pause_s)[0]:
            return
        pause_s = min(2 * pause_s, PAUSE_MAX_S)


def _serve(serve: Callable[[], None], keeper: int) -> None:
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == keeper:  # it may have died before that
            serve()
    finally:
        os._exit(1)
