"""No client of the UAPI socket can stop another or the tunnel: whoever stops in the middle is
closed, and nobody waits for him meanwhile."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tools.lab.daemon import ask, socket_path
from tools.lab.lab import Lab

pytestmark = pytest.mark.pywgd_only

# io/uapi_client.zig: patience_ns, and the second between two looks.
PATIENCE = 10
CLIENTS = 16


@contextlib.contextmanager
def client(name: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE + 5)
        connection.connect(str(socket_path(name)))
        yield connection


def is_closed(connection: socket.socket) -> bool:
    """Waits for it as long as the connection's time-out."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.slow
def test_who_stops_in_the_middle_is_closed_and_nobody_waits_for_him(lab: Lab) -> None:
    tunnel = lab.tunnel()
    name = tunnel.a.daemon.name
    peers = "\n".join(f"public_key={secrets.token_hex(32)}" for _ in range(10_000))
    assert ask(name, f"set=1\n{peers}")["errno"] == "0"
    with contextlib.ExitStack() as stack:
        halves = [stack.enter_context(client(name)) for _ in range(5)]
        for half in halves:
            half.sendall(b"set=1\nprivate_key=")
        deaf = stack.enter_context(client(name))
        deaf.sendall(b"get=1\n\n")
        quiet = stack.enter_context(client(name))
        quiet.sendall(b"pywg_get=1\n\n")
        assert quiet.recv(65536).endswith(b"\n\n")
        for _ in range(3):
            assert len(tunnel.a.daemon.show("dump")) == 10_002
            tunnel.a.namespace.run("ping", "-c", "1", "-w", "15", tunnel.b.inner4)
        assert all(is_closed(half) for half in halves)
        while deaf.recv(1 << 20):  # what was sent before, then the end
            pass
        # Silence between requests is no offence.
        quiet.sendall(b"pywg_get=1\n\n")
        assert quiet.recv(65536).endswith(b"\n\n")


def test_more_silent_clients_than_there_is_room_for_keep_nobody_out(lab: Lab) -> None:
    tunnel = lab.tunnel()
    name = tunnel.a.daemon.name
    with contextlib.ExitStack() as stack:
        for _ in range(3 * CLIENTS):
            stack.enter_context(client(name)).sendall(b"set=1\n")
            assert len(tunnel.a.daemon.show("dump")) == 2
        tunnel.ping()


@pytest.mark.parametrize("what", ["line", "request"])
def test_what_never_ends_is_refused(lab: Lab, what: str) -> None:
    tunnel = lab.tunnel()
    piece = (b"x" if what == "line" else b"x=1\n") * (1 << 18)
    with client(tunnel.a.daemon.name) as connection:
        answer = b""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(80):  # far more than the 64 MiB of a request
                connection.sendall(piece)
        with contextlib.suppress(ConnectionResetError):
            answer = connection.recv(100)
        assert answer in (b"errno=-7\n\n", b"")
    tunnel.ping()


def test_another_user_gets_no_answer_whatever_the_mode(lab: Lab) -> None:
    daemon = lab.daemon(None, lab.namespace("a"))
    path = socket_path(daemon.name)
    found = path.stat()
    assert (found.st_mode & 0o777, found.st_uid) == (0o600, os.geteuid())
    path.chmod(0o666)
    script = (
        "import os, socket, sys\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.settimeout(30); s.connect(sys.argv[1])\n"
        "try:\n"
        "    s.sendall(b'get=1\\n\\n')\n"
        "    print(len(s.recv(10)))\n"
        "except (BrokenPipeError, ConnectionResetError):\n"
        "    print(0)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert told.stdout == "0\n", told.stderr
    assert ask(daemon.name, "get=1")["errno"] == "0"
