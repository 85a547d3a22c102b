"""The background process: how it starts, and that signals end it in order. No root, no core."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pywg.config import Endpoint
from pywg.errors import CoreLoadError, PywgError
from pywg.host.outside import Outside
from pywg.native import library
from pywg.native.options import LogLevel
from pywg.service import log, supervisor
from pywg.service.supervisor import Hosting, Supervisor, Tuning
from pywg.wireguard.status import InterfaceStatus

# A device whose thread ends, and says so, only while it is closed.
HOST = """
import os, signal, sys
from pywg.service import log, supervisor

class Device:
    def __init__(self, *arguments, **options): pass
    def start(self, finished):
        self.finished = finished
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    was_handed_over = False
    def wait(self): pass
    def close(self):
        self.finished()
        print("closed", flush=True)

supervisor.Device = Device
supervisor.host(supervisor.Hosting("wg0"))
print("returned")
"""


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"])
def test_a_signal_ends_the_host_in_order(number: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOST, number],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
        cwd=Path(__file__).parents[2],
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "closed\nreturned\n", "")


def test_what_nobody_asked_a_log_for_goes_to_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("pywg.service.log.syslog.syslog", lambda level, line: told.append(line))
    monkeypatch.setattr("pywg.service.log.JOURNAL", "/nowhere")
    supervisor._log_to(Hosting("wg0"), LogLevel.ERROR)("healed")
    supervisor._log_to(Hosting("wg0"), LogLevel.VERBOSE)("chatter")
    supervisor._log_to(Hosting("wg0", Tuning(log_level=LogLevel.SILENT)), LogLevel.ERROR)("healed")
    assert told == ["wg0: healed"]


def test_a_missing_core_is_told_before_anything_is_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise CoreLoadError("no core")

    monkeypatch.setattr(library, "load", fail)
    with pytest.raises(CoreLoadError):
        Supervisor()


def test_a_process_that_has_gone_is_an_error_and_no_broken_pipe() -> None:
    supervisor = Supervisor.__new__(Supervisor)
    supervisor._socket, theirs = socket.socketpair()
    theirs.close()
    with supervisor, pytest.raises(PywgError, match="wg0: the background process ended"):
        supervisor.start(Hosting("wg0"))


def test_what_is_hosted_comes_whole_to_the_process_that_hosts_it() -> None:
    names: supervisor.Names = (["key", "vpn.example", 5, "auto", "outside"],)
    outside = Outside("wg0", "nameserver 192.0.2.53\n", ("10.9.0.1",))
    given = Hosting("wg0", Tuning(threads=2), names=names, outside=outside, port_is_free=True)
    found = Hosting.from_json(given.to_json())
    assert (found.outside, found.tuning, found.port_is_free) == (outside, given.tuning, True)
    assert Hosting.from_json(Hosting("wg0").to_json()).outside is None


@pytest.mark.parametrize("is_free", [False, True])
def test_a_port_that_was_asked_for_is_never_left(is_free: bool) -> None:
    hosting = Hosting("wg0", port_is_free=is_free)
    watcher = supervisor._watcher(cast(Any, None), hosting, None)
    assert (watcher._also is not None) == is_free


def test_names_are_asked_for_with_the_mark_that_the_device_has_by_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def look_up(outside: Outside, endpoint: Endpoint, family: str, mark: int) -> list[Endpoint]:
        asked.append((outside.name, mark))
        return [endpoint]

    device = SimpleNamespace(get=lambda: InterfaceStatus(fwmark=51820))
    monkeypatch.setattr(Outside, "look_up", look_up)
    watcher = supervisor._watcher(cast(Any, device), Hosting("wg0", outside=Outside("wg0")), None)
    watcher._look_up(Endpoint("vpn.example", 5), "auto")
    assert asked == [("wg0", 51820)]


def test_a_line_of_the_log_is_not_waited_for() -> None:
    reader, writer = os.pipe()
    try:
        log.write_line(writer, "first")
        assert os.read(reader, 100) == b"first\n"
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        os.write(writer, bytes(4096))
        log.write_line(writer, "no room")  # would wait for ever
        assert os.read(reader, 8192) == bytes(4096)
        os.close(reader)
        log.write_line(writer, "nobody there")
    finally:
        os.close(writer)
