"""`pywg up --foreground` as systemd runs it: told when it is up, undone at SIGTERM, and with no
more capabilities than the unit gives."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pywg.cli import install_units
from tools.lab.daemon import pid_of, socket_path
from tools.lab.lab import Lab
from tools.lab.programs import REPOSITORY, Program
from tools.lab.traffic import ping
from tools.lab.waiting import wait_until

pytestmark = pytest.mark.pywgd_only


def bounding_set(unit: str) -> str:
    """As setpriv takes it: nothing but what the unit lists."""
    text = (install_units.SOURCE / unit).read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("CapabilityBoundingSet="))
    names = line.partition("=")[2].split()
    return ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in names)])


class Service:
    """A tunnel by `pywg up --foreground`, with a peer, and the socket of a service manager."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.here, there = lab.cabled()
        key = lab.key()
        self.name = lab.name("s")
        self.peer = lab.side(None, 2, there)
        self.peer.daemon.setconf(
            self.peer.interface_section()
            + f"[Peer]\nPublicKey = {key.public}\nAllowedIPs = 10.99.0.1/32\n"
        )
        self.peer.daemon.up("10.99.0.2/24")
        self.file = directory / f"{self.name}.conf"
        self.file.touch(0o600)
        self.file.write_text(
            f"[Interface]\nPrivateKey = {key.private}\nAddress = 10.99.0.1/32\n"
            + self.peer.peer_section(outer=4)
        )
        self.routes = self.here.ip("route")
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(str(directory / "notify"))
        self.manager.settimeout(20)
        limits = ["--bounding-set", bounding_set("pywg@.service"), "--no-new-privs"]
        self.process: subprocess.Popen[str] = self.here.popen(
            [
                "setpriv",
                *limits,
                sys.executable,
                "-m",
                "pywg",
                "up",
                "--foreground",
                str(self.file),
            ],
            env={**os.environ, "NOTIFY_SOCKET": str(directory / "notify")},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )

    def hear(self) -> str:
        return self.manager.recv(4096).decode().splitlines()[0]

    def is_gone(self) -> None:
        wait_until(lambda: pid_of(self.name) is None, "the process ends")
        assert not socket_path(self.name).exists()
        assert self.here.link(self.name) is None
        assert self.here.ip("route") == self.routes

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(10)
        self.manager.close()


@pytest.fixture
def service(lab: Lab, subject: Program, tmp_path: Path) -> Iterator[Service]:
    made = Service(lab, tmp_path)
    yield made
    made.close()


def test_the_manager_is_told_when_the_tunnel_is_up_and_sigterm_takes_it_down(
    service: Service,
) -> None:
    assert service.hear() == "READY=1"
    ping(service.here, "10.99.0.2", 1)
    service.process.send_signal(signal.SIGTERM)
    assert service.hear() == "STOPPING=1"
    assert service.process.wait(10) == 0
    service.is_gone()


def test_an_interface_that_is_deleted_ends_the_service_well(service: Service) -> None:
    assert service.hear() == "READY=1"
    service.here.ip("link", "delete", "dev", service.name)
    assert service.hear() == "STOPPING=1"
    assert service.process.wait(10) == 0
    service.is_gone()


def test_a_host_that_is_killed_is_a_failure_that_systemd_can_see(service: Service) -> None:
    assert service.hear() == "READY=1"
    (host,) = hosts_of(service)
    os.kill(host, signal.SIGKILL)
    assert service.hear() == "STOPPING=1"
    assert service.process.wait(10) == 1
    wait_until(lambda: service.here.link(service.name) is None, "the interface goes with its host")
    socket_path(service.name).unlink(missing_ok=True)


def hosts_of(service: Service) -> list[int]:
    """The process that holds the device: the other one with this command line."""
    mine = (Path("/proc") / str(service.process.pid) / "cmdline").read_bytes()
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit() and int(place.name) != service.process.pid:
            try:
                if (place / "cmdline").read_bytes() == mine:
                    found.append(int(place.name))
            except OSError:
                continue
    return found


def test_the_daemon_needs_no_more_than_its_unit_gives(lab: Lab, subject: Program) -> None:
    limits = ["setpriv", "--bounding-set", bounding_set("pywgd@.service"), "--no-new-privs"]
    tunnel = lab.tunnel(wrapper=limits)
    tunnel.ping(1)
    status = Path(f"/proc/{tunnel.a.daemon.pid}/status").read_text()
    (bounding,) = (line for line in status.splitlines() if line.startswith("CapBnd:"))
    held = int(bounding.split()[1], 16)
    assert held & 1 << 12, "CAP_NET_ADMIN"
    assert not held & 1 << 21, "CAP_SYS_ADMIN: the limit does not hold"


def test_a_tunnel_that_cannot_come_up_is_never_ready(lab: Lab, tmp_path: Path) -> None:
    here = lab.namespace("a")
    file = tmp_path / f"{lab.name('s')}.conf"
    file.touch(0o600)
    file.write_text("[Interface]\nPrivateKey = nonsense\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, here.entered():
        manager.bind(str(tmp_path / "notify"))
        done = subprocess.run(
            [sys.executable, "-m", "pywg", "up", "--foreground", str(file)],
            env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
            capture_output=True,
            check=False,
            timeout=20,
            cwd=REPOSITORY,
        )
        assert done.returncode == 1
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(1)
