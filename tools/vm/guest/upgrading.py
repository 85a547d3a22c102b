"""Another version is installed while a service runs: `systemctl reload-or-restart` is safe."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pywg
from pywg.tunnel import record
from pywg.wireguard.socket import owner
from tools.lab.namespaces import inside, run
from tools.lab.waiting import wait_until
from tools.vm.guest import place
from tools.vm.guest.place import (
    PATIENCE,
    check_traffic,
    interface_is_there,
    is_active,
    systemctl,
    unit,
)
from tools.vm.guest.units import main_pid

NATIVE = Path(pywg.__file__).parent / "_native"


def upgrade() -> str:
    """A service of pywg's: its main process stays, the one that hosts the tunnel is another."""
    place.write_config(0)
    systemctl("restart", unit(0))
    check_traffic(0)
    main, hosting, before = main_pid(0), owner("wg0"), place.handshake(0)
    with connection(0) as (near, far):
        goes_on(near, far)
        install_another("libpywg.so")
        place.write_config(0, "MTU = 1370")
        systemctl("reload-or-restart", unit(0))
        goes_on(near, far)
        assert place.handshake(0) == before, "there was a handshake"
    assert is_active(unit(0)), systemctl("status", unit(0), check=False)
    assert main_pid(0) == main, "the main process is another one"
    assert owner("wg0") not in (0, hosting), "the old version goes on"
    assert "mtu 1370" in run("ip", "link", "show", "wg0")
    wait_until(functools.partial(is_resumed, main), "the main process is the new version", PATIENCE)
    systemctl("stop", unit(0))
    assert not interface_is_there("wg0")
    assert not record.path_of("wg0").exists()
    return "the connection, the session and the main process are the same; stop took all of it down"


def daemon() -> str:
    """A service of pywgd's: another process goes on, and is the main one from then on."""
    service = "pywgd@wg1.service"
    place.write_config(1)
    systemctl("start", service)
    try:
        set_up(1)
        main, before = pid_of(service), place.handshake(1)
        with connection(1) as (near, far):
            goes_on(near, far)
            install_another("pywgd")
            systemctl("reload-or-restart", service)
            goes_on(near, far)
            assert place.handshake(1) == before, "there was a handshake"
        assert is_active(service), systemctl("status", service, check=False)
        assert pid_of(service) not in (0, main), "the main process is the old one"
        assert pid_of(service) == owner("wg1")
        killed = pid_of(service)
        os.kill(killed, signal.SIGKILL)
        again = functools.partial(is_again, service, killed)
        wait_until(again, "it is started again", PATIENCE, every=place.EVERY)
        set_up(1)
    finally:
        systemctl("stop", service)
    assert not interface_is_there("wg1")
    return (
        "connection and session are the same, the main process is the new one; restarted, stopped"
    )


def is_again(service: str, killed: int) -> bool:
    return is_active(service) and pid_of(service) not in (0, killed)


def set_up(number: int) -> None:
    """Addresses are not the daemon's."""
    name = f"wg{number}"
    run("ip", "address", "add", f"10.99.{number}.1/24", "dev", name)
    run("ip", "address", "add", f"fd99:{number}::1/64", "dev", name, "nodad")
    check_traffic(number)


def pid_of(service: str) -> int:
    return int(systemctl("show", "--property=MainPID", "--value", service))


def is_resumed(process: int) -> bool:
    return b"--resume" in Path(f"/proc/{process}/cmdline").read_bytes()


def install_another(name: str) -> None:
    """As a package does it: a new file in the place of the old one, which is in use."""
    path = NATIVE / name
    scratch = path.with_suffix(".new")
    scratch.write_bytes(path.read_bytes() + b"another build")
    scratch.chmod(path.stat().st_mode)
    scratch.replace(path)


@contextlib.contextmanager
def connection(number: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection through the tunnel."""
    (far,) = Path("/run/netns").glob("*-far*")
    with inside(str(far)):
        listener = socket.create_server((f"10.99.{number}.2", 0))
    with listener, socket.create_connection(listener.getsockname(), PATIENCE) as near:
        there, _ = listener.accept()
        with there:
            there.settimeout(PATIENCE)
            yield near, there


def goes_on(near: socket.socket, far: socket.socket) -> None:
    for sender, receiver in ((near, far), (far, near)):
        sent = os.urandom(20_000)
        sender.sendall(sent)
        found = bytearray()
        while len(found) < len(sent):
            more = receiver.recv(1 << 16)
            assert more, "the connection has ended"
            found += more
        assert found == sent
