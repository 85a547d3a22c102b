"""What commands say and hear of a tunnel that runs: signals while a name server is silent, routes
that nobody made, peers by their names, what JSON tells beside what wg knows.

    this host  192.0.2.1 ---- 192.0.2.2  far, whose name server hears and never answers
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import pywg
from tools.lab.host import Host
from tools.lab.lab import Lab
from tools.lab.namespaces import unique
from tools.lab.programs import REPOSITORY
from tools.lab.waiting import wait_until

pytestmark = pytest.mark.pywgd_only

KEY = "5PThu5cmVQRg0w2VkmFTPyfmZpb6hFHJ3RcXSRFzLUA="
FILE = f"""\
[Interface]
PrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=
Address = 10.9.0.1/24
[Peer]
PublicKey = {KEY}
#!pywg Name = laptop
AllowedIPs = 10.9.0.2/32
"""
# One question waits longer than any test.
SILENT = "nameserver 192.0.2.2\noptions timeout:30 attempts:5\n"


@pytest.fixture
def silent(host: Host) -> Iterator[socket.socket]:
    """A name server that hears what it is asked."""
    (host.directory / "resolv.conf").write_text(SILENT)
    with host.far.entered():
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with server:
        server.bind(("192.0.2.2", 53))
        server.settimeout(60)
        yield server


@pytest.fixture
def tunnel(host: Host) -> Iterator[str]:
    name = unique("q")
    host.pywg("up", str(host.config(name, FILE)))
    yield name
    host.pywg("down", name)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda one: one.name)
@pytest.mark.parametrize("verb", ["up", "set"])
def test_a_signal_ends_the_wait_for_a_name(
    host: Host, silent: socket.socket, verb: str, number: signal.Signals
) -> None:
    name = unique("q")
    text = f"{FILE}Endpoint = vpn.example:51820\n"
    path = host.config(name, text if verb == "up" else FILE)
    if verb == "set":
        host.pywg("up", str(path))
        words = ["set", name, "peer", KEY, "endpoint", "vpn.example:51820"]
    else:
        words = ["up", str(path)]
    before = host.look(name)
    process = host.start(*words)
    silent.recv(512)  # it is asked
    process.send_signal(number)
    said, _ = process.communicate(timeout=25)
    assert process.returncode == 1
    told = f"interrupted by {number.name}" if number == signal.SIGTERM else "interrupted"
    assert f"pywg: {told}\n" in said
    if verb == "set":
        assert host.look(name) == before
        host.pywg("down", name)
    else:
        wait_until(lambda: not host.hosts_of(name), "its process ends")


def test_a_wait_for_a_name_is_told(host: Host, silent: socket.socket, tunnel: str) -> None:
    process = host.start("set", tunnel, "peer", KEY, "endpoint", "vpn.example:51820")
    assert process.stdout is not None
    assert "waiting for the resolver: vpn.example:51820" in process.stdout.readline()
    process.terminate()
    process.communicate(timeout=25)


def on_a_terminal(host: Host, *words: str) -> str:
    """What it says there on stderr."""
    master, slave = pty.openpty()
    with host.namespace.entered():
        done = subprocess.run(
            host.inside(sys.executable, "-m", "pywg", *words),
            stderr=slave,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
    assert done.returncode == 0
    os.close(slave)
    said = b""
    with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
        while chunk := os.read(master, 1 << 12):
            said += chunk
    os.close(master)
    return said.decode().replace("\r", "")


def test_set_says_on_a_terminal_that_no_route_leads_there(host: Host, tunnel: str) -> None:
    words = ("set", tunnel, "peer", KEY, "allowed-ips")
    said = on_a_terminal(host, *words, "10.9.0.2/32,10.50.0.0/16")
    assert said == (
        f"pywg: set makes no route, and none leads 10.50.0.0/16 into {tunnel}: "
        f"ip route add 10.50.0.0/16 dev {tunnel}\n"
    )
    host.namespace.ip("route", "add", "10.50.0.0/16", "dev", tunnel)
    assert on_a_terminal(host, *words, "10.9.0.2/32,10.50.1.0/24") == ""
    # A program that reads it knows what it does.
    assert host.attempt(sys.executable, "-m", "pywg", *words, "10.51.0.0/16").stderr == ""


def test_a_peer_is_called_by_its_name(host: Host, tunnel: str) -> None:
    host.pywg("set", tunnel, "peer", "laptop", "persistent-keepalive", "25")
    assert host.pywg("show", tunnel, "persistent-keepalive") == f"{KEY}\t25\n"
    answer = host.attempt(sys.executable, "-m", "pywg", "set", tunnel, "peer", "zzz", "remove")
    assert answer.returncode == 1
    assert answer.stderr.endswith(", such as laptop\n")
    answer = host.attempt(sys.executable, "-m", "pywg", "set", tunnel, "peer", "laptpo", "remove")
    assert answer.stderr.endswith('; did you mean "laptop"?\n')
    host.pywg("set", tunnel, "peer", "laptop", "remove")
    assert host.pywg("show", tunnel, "peers") == ""


def test_json_tells_mtu_version_uptime_and_memory(host: Host, tunnel: str) -> None:
    shown = json.loads(host.pywg("show", tunnel, "--json"))[tunnel]
    assert shown["mtu"] == host.look("")["mtu"][tunnel] == 1420
    assert shown["version"] == pywg.__version__
    assert 0 <= shown["uptime"] < 600
    assert shown["memoryBytes"] > 1 << 20

    def is_older() -> bool:
        return bool(json.loads(host.pywg("show", tunnel, "--json"))[tunnel]["uptime"])

    wait_until(is_older, "its uptime grows")


def test_so_does_the_daemon(lab: Lab) -> None:
    daemon = lab.tunnel().a.daemon
    report = daemon.report()
    assert report["version"] == pywg.__version__
    assert 0 <= time.clock_gettime(time.CLOCK_BOOTTIME) - int(report["opened"]) < 600


def test_a_service_says_which_signal_ends_it(host: Host) -> None:
    name = unique("q")
    path = host.config(name, FILE)
    process = host.start("up", "--foreground", str(path))
    wait_until(lambda: host.attempt("ip", "link", "show", "up", name).returncode == 0, "it is up")
    wait_until(lambda: '"is_up": true' in host.read(f"/run/pywg/{name}.json"), "`up` has ended")
    process.terminate()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert f"[!] SIGTERM: taking {name} down\n" in said


def test_a_program_that_hosts_says_so_too(host: Host, tmp_path: Path) -> None:
    name = unique("q")
    log = tmp_path / "log"
    script = f"LOG_LEVEL=verbose exec {sys.executable} -m pywg run -f {name} 2> {log}"
    with host.namespace.entered():
        process = subprocess.Popen(
            host.inside("sh", "-c", script), env={**os.environ, "PYTHONPATH": str(REPOSITORY)}
        )
    wait_until(lambda: host.attempt("ip", "link", "show", name).returncode == 0, "it is there")
    wait_until(
        lambda: host.attempt(sys.executable, "-m", "pywg", "show", name).returncode == 0, "it hosts"
    )
    process.terminate()
    assert process.wait(60) == 0
    assert f"pywg: {name}: SIGTERM: ending\n" in log.read_text()
    assert "was removed" not in log.read_text()


@pytest.mark.parametrize(
    "words", [("show",), ("showconf",), ("set", "listen-port", "7")], ids=lambda words: words[0]
)
def test_a_wait_for_an_interface_is_told(
    host: Host, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """Its process is there and stands still."""
    name = unique("q")
    host.pywg("up", str(host.config(name, FILE)))
    (pid,) = (pid for pid in host.hosts_of(name) if is_host(pid))
    os.kill(pid, signal.SIGSTOP)
    try:
        process = host.start(words[0], name, *words[1:])
        assert process.stdout is not None
        assert f"pywg: waiting for {name} to " in process.stdout.readline()
    finally:
        os.kill(pid, signal.SIGCONT)
    process.communicate(timeout=60)
    host.pywg("down", name)


def is_host(pid: int) -> bool:
    """And not one of its hooks, or a command that has just ended."""
    return b"up" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def test_exec_tells_that_it_waits_for_a_name(host: Host, silent: socket.socket) -> None:
    path = host.config(unique("q"), f"{FILE}Endpoint = vpn.example:51820\n")
    process = host.start("exec", str(path), "--", "true")
    assert process.stdout is not None
    first = process.stdout.readline()
    assert first == "pywg: waiting for the tunnel: host names of endpoints are looked up\n"
    assert "does not answer" in process.communicate(timeout=60)[0]


PRIVATE_DEV = """
mount -t tmpfs none /dev && mkdir /dev/net && mknod -m 666 /dev/net/tun c 10 200
mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/urandom c 1 9; mknod -m 666 /dev/random c 1 8
ln -s /proc/self/fd /dev/fd; sleep infinity & echo $!
"""


def test_what_the_core_says_in_the_background_is_in_the_systems_log(host: Host) -> None:
    name = unique("q")
    holder = int(host.run("sh", "-c", PRIVATE_DEV.replace("& echo", ">/dev/null 2>&1 & echo")))
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
            log.bind(f"/proc/{holder}/root/dev/log")
            log.settimeout(60)
            host.pywg("up", str(host.config(name, FILE)))
            refused = host.attempt(
                *(sys.executable, "-c", REFUSED, name),
            )
            assert refused.returncode == 0, refused.stderr
            line = log.recv(4096).decode()
        assert line.split("pywg[", 1)[1].split("]: ", 1)[1].startswith(f"{name}: configuration")
        host.pywg("down", name)
    finally:
        os.kill(holder, signal.SIGKILL)


REFUSED = """
import sys
from pywg.errors import UapiError
from pywg.wireguard import socket
try:
    socket.request(sys.argv[1], "set=1\\nnonsense=1\\n\\n")
except UapiError:
    sys.exit(0)
"""


def test_a_tunnel_of_another_namespace_is_not_taken_down(host: Host, tunnel: str) -> None:
    """Its socket and its record are seen there, its interface is not."""

    def there(*words: str) -> subprocess.CompletedProcess[str]:
        with host.far.entered():
            return subprocess.run(
                host.inside(sys.executable, "-m", "pywg", *words),
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            )

    before = host.look(tunnel)
    answer = there("up", str(host.directory / f"{tunnel}.conf"))
    assert answer.returncode == 1
    assert "already exists in another network namespace, " in answer.stderr
    assert "pywg down" not in answer.stderr
    answer = there("down", tunnel)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "another network namespace" in answer.stderr
    assert host.look(tunnel) == before
