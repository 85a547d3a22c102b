r"""`pywg exec` among other things: names, a static program, tunnels in tunnels, commands that share
one. The place is that of test_rootless.py, with a name server at the far end, and a second daemon
there that is reached through the first tunnel alone:

    his command | b.conf 10.98.0.1 | a.conf 10.99.0.1 | veth ===== 10.99.0.2 | daemon C, 10.98.0.3
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.lab import ordinary
from tools.lab.lab import PORT, Lab
from tools.lab.nameserver import NameServer
from tools.lab.namespaces import run
from tools.lab.ordinary import Place, make_place, pywg
from tools.lab.waiting import wait_until

INNER_PORT = 51940
NAME = "inside.example.test"


@pytest.fixture(scope="module")
def place(shared_lab: Lab) -> Iterator[Place]:
    with ordinary.folder() as folder:
        yield make_place(shared_lab, folder)


@pytest.fixture(scope="module")
def server(place: Place) -> Iterator[NameServer]:
    with NameServer(place.far.namespace, "10.99.0.2") as made:
        made.records[NAME] = ["10.99.0.2", "fd99::2"]
        yield made


def test_names_are_asked_for_at_the_servers_of_the_file(place: Place, server: NameServer) -> None:
    script = f"import socket; print(socket.getaddrinfo({NAME!r}, 80, type=1)[0][4][0])"
    done = place.run([*pywg("exec", str(place.file)), "--", sys.executable, "-c", script])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("10.99.0.2", "fd99::2")
    assert {line.rpartition(" ")[2] for line in server.asked} == {"10.99.0.1"}


GO = """
package main

import (
	"fmt"
	"net"
	"os"
)

func main() {
	found, err := net.LookupHost(os.Args[1])
	if err == nil {
		var stream net.Conn
		stream, err = net.Dial("tcp", net.JoinHostPort(found[0], "53"))
		if err == nil {
			fmt.Println(found[0], stream.RemoteAddr())
			return
		}
	}
	fmt.Println(err)
	os.Exit(1)
}
"""


def test_a_static_program_finds_names_and_connects(
    place: Place, server: NameServer, tmp_path: Path
) -> None:
    """One without the C library, which LD_PRELOAD would miss."""
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if go is None:
        pytest.skip("needs go")
    source, program = tmp_path / "main.go", place.folder / "static"
    source.write_text(GO)
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod", "GOPROXY": "off"}
    run(go, "build", "-o", str(program), str(source), env=environment, timeout=300)
    program.chmod(0o755)
    done = place.run([*pywg("exec", str(place.file)), "--", str(program), NAME])
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split()[0] in ("10.99.0.2", "fd99::2")


@pytest.fixture(scope="module")
def inner(place: Place, shared_lab: Lab) -> Path:
    far = shared_lab.daemon(None, place.far.namespace)
    ours, theirs = shared_lab.key(), shared_lab.key()
    far.setconf(
        f"[Interface]\nPrivateKey = {theirs.private}\nListenPort = {INNER_PORT}\n"
        f"[Peer]\nPublicKey = {ours.public}\nAllowedIPs = 10.98.0.1/32\n"
    )
    far.up("10.98.0.3/24")
    file = place.folder / "inner.conf"
    file.write_text(
        f"[Interface]\nPrivateKey = {ours.private}\nAddress = 10.98.0.1/24\nDNS = 10.98.0.3\n"
        f"[Peer]\nPublicKey = {theirs.public}\nAllowedIPs = 10.98.0.0/24\n"
        f"Endpoint = {NAME}:{INNER_PORT}\n"
    )
    file.chmod(0o644)
    return file


def test_the_first_file_carries_the_second(place: Place, server: NameServer, inner: Path) -> None:
    """The endpoint's name is known inside the first tunnel alone."""
    script = "ip -o -4 addr show scope global; ping -c 1 -W 20 10.98.0.3"
    argv = pywg("exec", "--wait", "30", str(place.file), str(inner))
    done = place.run([*argv, "--", "sh", "-c", script])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "inner    inet 10.98.0.1/24" in done.stdout
    assert "work" not in done.stdout
    assert "1 received" in done.stdout


def test_later_commands_join_a_shared_tunnel_and_keep_it(place: Place) -> None:
    first = [*pywg("exec", "--share", "lab", str(place.file)), "--", "sh", "-c", "echo up; read x"]
    second = [*pywg("exec", "--share", "lab"), "--", "sh", "-c", "echo in; read x; ip -o addr"]
    with ordinary.started(
        place.host, first, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as begun:
        assert begun.stdout is not None
        assert begun.stdout.readline() == "up\n"
        with ordinary.started(
            place.host, second, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as joined:
            assert joined.stdout is not None
            assert joined.stdout.readline() == "in\n"
            taken = place.run([*pywg("exec", "--share", "lab", str(place.file)), "--", "true"])
            assert taken.returncode == 125
            assert "there is one of this name already" in taken.stderr
            begun.communicate("\n", timeout=30)
            assert begun.returncode == 0
            out, _ = joined.communicate("\n", timeout=30)
            assert joined.returncode == 0
            assert "10.99.0.1/24" in out
    alone = place.run([*pywg("exec", "--share", "lab"), "--", "true"])
    assert alone.returncode == 125
    assert "no tunnel is shared as lab" in alone.stderr


def test_the_tunnel_ends_with_its_last_command(place: Place) -> None:
    argv = [*pywg("exec", "--share", "last", str(place.file)), "--", "true"]
    assert place.run(argv).returncode == 0
    wait_until(lambda: place.run(argv).returncode == 0, "the name is free again")


# ---- what is under way when the command ends

COLLECT = """
import socket
with socket.create_server(("10.99.0.2", 51966)) as server:
    server.settimeout(30)
    print("ready", flush=True)
    stream, _ = server.accept()
    stream.settimeout(30)
    with stream, stream.makefile("rb") as lines:
        print(len(lines.read()), flush=True)
"""
WRITE = """
import socket
with socket.create_connection(("10.99.0.2", 51966)) as stream:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
    stream.sendall(bytes(60_000))
"""


SLOW_PORT = 51941
DELAY_S = 0.15


@pytest.fixture
def slow(place: Place) -> Iterator[Path]:
    """The same tunnel by a relay at the far end that keeps each datagram for a while."""
    front, back = place.far.namespace.socket(), place.far.namespace.socket()
    front.bind((place.far.outer4, SLOW_PORT))
    back.connect((place.far.outer4, PORT))
    source: list[tuple[str, int]] = []

    def outwards(data: bytes) -> None:
        with contextlib.suppress(OSError):
            front.sendto(data, source[-1])

    def inwards(data: bytes) -> None:
        with contextlib.suppress(OSError):
            back.send(data)

    def carry() -> None:
        while True:
            ready, _, _ = select.select([front, back], [], [])
            with contextlib.suppress(ConnectionRefusedError):
                if back in ready:
                    threading.Timer(DELAY_S, outwards, [back.recv(1 << 16)]).start()
                if front in ready:
                    data, address = front.recvfrom(1 << 16)
                    if not data:
                        return
                    source.append(address)
                    threading.Timer(DELAY_S, inwards, [data]).start()

    thread = threading.Thread(target=carry, daemon=True)
    thread.start()
    file = place.folder / "slow.conf"
    file.write_text(place.file.read_text().replace(f":{PORT}", f":{SLOW_PORT}"))
    yield file
    front.sendto(b"", front.getsockname())
    thread.join(30)
    front.close()
    back.close()


def test_what_a_command_has_written_before_it_ended_is_delivered(place: Place, slow: Path) -> None:
    argv = [sys.executable, "-c", COLLECT]
    with place.far.namespace.popen(argv, stdout=subprocess.PIPE, text=True) as collector:
        assert collector.stdout is not None
        try:
            assert collector.stdout.readline() == "ready\n"
            words = [*pywg("exec", str(slow)), "--", sys.executable, "-c", WRITE]
            assert place.run(words).returncode == 0
            assert collector.stdout.readline() == "60000\n"
        finally:
            collector.kill()


def test_a_datagram_that_waits_for_the_first_handshake_is_delivered(
    place: Place, slow: Path
) -> None:
    script = "import socket; socket.socket(2, 2).sendto(b'x', ('10.99.0.2', 51967))"
    with place.far.namespace.socket() as sink:
        sink.bind(("10.99.0.2", 51967))
        sink.settimeout(30)
        words = [*pywg("exec", str(slow)), "--", sys.executable, "-c", script]
        assert place.run(words).returncode == 0
        assert sink.recv(10) == b"x"


# ---- -L and -R

SERVE = """
import socket, sys
kind, host, port = sys.argv[1:]
with socket.socket(socket.AF_INET, getattr(socket, kind)) as server:
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((host, int(port)))
    if kind == "SOCK_DGRAM":
        print("ready", flush=True)
        while True:
            data, sender = server.recvfrom(65535)
            server.sendto(data[::-1], sender)
    server.listen()
    print("ready", flush=True)
    while True:
        stream, _ = server.accept()
        with stream, stream.makefile("rb") as lines:
            stream.sendall(lines.read()[::-1])
"""

ASK = """
import socket, sys
kind, host, port, size = sys.argv[1:]
with socket.socket(socket.AF_INET, getattr(socket, kind)) as stream:
    stream.settimeout(30)
    stream.connect((host, int(port)))
    data = bytes(range(256)) * (int(size) // 256)
    stream.sendall(data)
    if kind == "SOCK_STREAM":
        stream.shutdown(socket.SHUT_WR)
        with stream.makefile("rb") as answer:
            told = answer.read()
    else:
        told = stream.recv(65535)
    print("same" if told == data[::-1] else f"other: {len(told)}")
"""


@contextlib.contextmanager
def serving(start: Callable[..., Any], *argv: str) -> Iterator[None]:
    command = [sys.executable, "-c", SERVE, *argv]
    with start(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout.readline() == "ready\n"
            yield
        finally:
            server.kill()


@pytest.mark.parametrize(("kind", "size"), [("SOCK_STREAM", 1 << 20), ("SOCK_DGRAM", 1 << 10)])
def test_a_port_here_leads_to_a_place_inside(
    place: Place, server: NameServer, kind: str, size: int
) -> None:
    port = {"SOCK_STREAM": "51961", "SOCK_DGRAM": "51962"}[kind]
    prefix = "udp:" if kind == "SOCK_DGRAM" else ""
    words = [f"{prefix}{port}:10.99.0.2:{port}", f"{prefix}127.0.0.9:{port}:{NAME}:{port}"]
    argv = [*pywg("exec", "-L", words[0], "-L", words[1], str(place.file))]
    with (
        serving(place.far.namespace.popen, kind, "10.99.0.2", port),
        ordinary.start(
            place.host,
            [*argv, "--", "sh", "-c", "echo begun; read x"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        hosts = ["127.0.0.1"] if kind == "SOCK_DGRAM" else ["127.0.0.1", "127.0.0.9"]
        for host in hosts:
            ask = [sys.executable, "-c", ASK, kind, host, port, str(size)]
            assert place.host.run(*ask, timeout=60) == "same\n"
        process.communicate("\n", timeout=30)
        assert process.returncode == 0


@pytest.mark.parametrize(("kind", "size"), [("SOCK_STREAM", 1 << 20), ("SOCK_DGRAM", 1 << 10)])
def test_a_port_inside_leads_to_a_place_here(place: Place, kind: str, size: int) -> None:
    port = {"SOCK_STREAM": "51963", "SOCK_DGRAM": "51964"}[kind]
    prefix = "udp:" if kind == "SOCK_DGRAM" else ""
    word = f"{prefix}*:{port}:127.0.0.1:{port}"
    argv = [*pywg("exec", "--wait", "30", "-R", word, str(place.file)), "--"]
    with serving(place.host.popen, kind, "127.0.0.1", port):
        ask = [sys.executable, "-c", ASK, kind, "127.0.0.1", port, str(size)]
        done = place.run([*argv, *ask])
        assert done.stdout == "same\n", done.stderr
        with ordinary.started(
            place.host,
            [*argv, "sh", "-c", "echo begun; read x"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            ask = [sys.executable, "-c", ASK, kind, "10.99.0.1", port, str(size)]
            assert place.far.namespace.run(*ask, timeout=60) == "same\n"
            process.communicate("\n", timeout=30)


def test_a_port_that_is_taken_is_told_before_the_command_begins(place: Place) -> None:
    with place.host.socket(kind=socket.SOCK_STREAM) as taken:
        taken.bind(("127.0.0.1", 51965))
        taken.listen()
        word = "127.0.0.1:51965:10.99.0.2:80"
        done = place.run([*pywg("exec", "-L", word, str(place.file)), "--", "echo", "never"])
    assert (done.returncode, done.stdout) == (125, "")
    assert "-L tcp 51965 to 10.99.0.2 port 80: 127.0.0.1: Address already in use" in done.stderr
