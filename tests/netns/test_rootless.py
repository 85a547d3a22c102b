r"""A tunnel in a process of an ordinary user: no capability outside, the kernel's sockets inside.

  namespace a (the host)                                    namespace b
+------------------------------------------+              +-------------------------+
|  an ordinary user's process, UDP         |              |  daemon B, UDP 51820    |
|   |   +------------------------------+   |              |        |                |
|   |   |  his namespace: lo, wg0      |   |              |        |                |
|   +---|  10.99.0.1/24, fd99::1/64    |   |              |  10.99.0.2, fd99::2     |
|       +------------------------------+   |              |                         |
|  veth 192.0.2.1 =========================================== 192.0.2.2             |
+------------------------------------------+              +-------------------------+
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.lab import ordinary
from tools.lab.lab import Lab
from tools.lab.ordinary import Place, make_place
from tools.lab.waiting import wait_until

ECHO_PORT = 51007


@pytest.fixture
def place(lab: Lab) -> Iterator[Place]:
    with ordinary.folder() as folder:
        yield make_place(lab, folder)


SOCKETS = """
import socket, sys
from pywg.config import Config
from pywg.rootless.hosting import Hosted

with Hosted("wg0", Config.load(sys.argv[1])) as tunnel:
    assert tunnel.wait_for_handshake(20)
    for family, host in ((socket.AF_INET, "10.99.0.2"), (socket.AF_INET6, "fd99::2")):
        with tunnel.inside.make_socket(family, socket.SOCK_STREAM) as stream:
            stream.settimeout(20)
            stream.connect((host, int(sys.argv[2])))
            stream.sendall(b"through")
            print(stream.recv(100).decode(), stream.getsockname()[0])
    print(sorted(tunnel.device.report().offloads.items()))
    print(tunnel.inside.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)[0][4])
    with tunnel.inside.make_socket() as stream:
        held = stream.dup()
try:
    tunnel.inside.make_socket()
except Exception as error:
    print(type(error).__name__)
held.close()
"""

ECHO = """
import socket, threading, sys
def serve(listener):
    while True:
        stream, _ = listener.accept()
        stream.sendall(stream.recv(100))
        stream.close()
places = ((socket.AF_INET, "10.99.0.2"), (socket.AF_INET6, "fd99::2"))
four, six = [socket.create_server((host, int(sys.argv[1])), family=family)
             for family, host in places]
print("listens", flush=True)
threading.Thread(target=serve, args=(four,), daemon=True).start()
serve(six)
"""


def test_sockets_of_the_kernel_inside_and_no_capability_outside(place: Place) -> None:
    with place.far.namespace.popen(
        [sys.executable, "-c", ECHO, str(ECHO_PORT)], stdout=subprocess.PIPE, text=True
    ) as echo:
        try:
            assert echo.stdout is not None
            assert echo.stdout.readline() == "listens\n"
            done = place.run([sys.executable, "-c", SOCKETS, str(place.file), str(ECHO_PORT)])
        finally:
            echo.kill()
    assert done.returncode == 0, done.stderr
    offloads = {
        name.removeprefix("offload_"): state
        for name, state in place.far.daemon.report().items()
        if name.startswith("offload_")
    }
    assert done.stdout.splitlines() == [
        "through 10.99.0.1",
        "through fd99::1",
        str(sorted(offloads.items())),
        "('127.0.0.1', 80)",
        "HelperGone",
    ]


LEFT = """
import os, sys, time
from pywg.config import Config
from pywg.rootless.hosting import Hosted

tunnel = Hosted("wg0", Config.load(sys.argv[1]))
print(tunnel.inside.pid, flush=True)
sys.stdin.read()
"""


def test_the_helper_ends_with_who_is_killed(place: Place) -> None:
    with ordinary.started(
        place.host,
        [sys.executable, "-c", LEFT, str(place.file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        helper = Path("/proc") / process.stdout.readline().strip()
        assert (helper / "comm").exists()
        process.kill()
    wait_until(lambda: not helper.exists(), "the helper ended, too")
