"""`pywg proxy` by an ordinary user: what real clients reach through it, and what it survives.

The drawing is that of test_rootless.py; beyond it, in namespace b, a name server and a web site at
10.99.0.2 and fd99::2. The clients are in namespace a, as the proxy.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dns.message
import pytest

from pywg.proxy import socks5
from pywg.proxy.socks5 import Command, Reply
from tools.lab import ordinary
from tools.lab.lab import Lab
from tools.lab.nameserver import NameServer
from tools.lab.ordinary import Place, make_place
from tools.lab.waiting import wait_until
from tools.lab.web import Web
from tools.lab.wire import Wire

NAME = "intranet.example"
SECRET = "user:pass word"
SECONDS = 20


@dataclass
class Running:
    """A proxy, and where it says that it listens."""

    place: Place
    process: subprocess.Popen[str]
    at: dict[str, list[str]] = field(default_factory=dict)

    def port(self, kind: str) -> int:
        return int(self.at[kind][0].rpartition(":")[2])

    def connect(self, kind: str = "socks5") -> socket.socket:
        client = self.place.host.socket(socket.AF_INET, socket.SOCK_STREAM)
        client.settimeout(SECONDS)
        client.connect(("127.0.0.1", self.port(kind)))
        return client

    def curl(self, *arguments: str) -> str:
        return self.place.host.run("curl", "-sS", "--max-time", "20", *arguments)

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextmanager
def proxy(place: Place, *options: str, **more: Any) -> Iterator[Running]:
    expected = sum(option in ("--socks5", "--http") for option in options)
    command = ordinary.pywg("proxy", str(place.file), "--wait", "20", *options)
    with ordinary.start(place.host, command, stderr=subprocess.PIPE, text=True, **more) as process:
        running = Running(place, process)
        try:
            assert process.stderr is not None
            while sum(map(len, running.at.values())) < expected:
                line = process.stderr.readline()
                assert line, f"it ended: {process.wait(30)}"
                _, kind, _, where = line.split(maxsplit=3)
                running.at.setdefault(kind, []).append(where.strip())
            yield running
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture
def place(lab: Lab) -> Iterator[Place]:
    with ordinary.folder() as folder, ExitStack() as stack:
        made = make_place(lab, folder)
        addresses = (made.far.inner4, made.far.inner6)
        stack.enter_context(NameServer(made.far.namespace, addresses[0], **{NAME: addresses}))
        for address in addresses:
            web = stack.enter_context(Web(made.far.namespace, address, NAME, folder))
        web.authority.chmod(0o644)
        yield made


BOTH = ("--socks5", "0", "--http", "0")


# ---- real clients


def test_curl_by_each_way(place: Place) -> None:
    with proxy(place, *BOTH) as running:
        socks, http = running.port("socks5"), running.port("http")
        trust = ("--cacert", str(place.folder / "authority.pem"))
        named = running.curl("-x", f"socks5h://127.0.0.1:{socks}", f"http://{NAME}/a")
        assert named.startswith("/a for fd99::1 ")
        numbered = running.curl("-x", f"socks5://127.0.0.1:{socks}", "http://10.99.0.2/b")
        assert numbered.startswith("/b for 10.99.0.1 ")
        secured = running.curl(*trust, "-x", f"socks5h://127.0.0.1:{socks}", f"https://{NAME}/c")
        assert secured.startswith("/c for ")
        connected = running.curl(*trust, "-x", f"http://127.0.0.1:{http}", f"https://{NAME}/d")
        assert connected.startswith("/d for ")
        plain = running.curl("-x", f"http://127.0.0.1:{http}", f"http://{NAME}/e?f=g", "-H", "X: y")
        assert plain.startswith("/e?f=g for ")
        assert "X=y" in plain
        assert f"Host={NAME}" in plain
        assert "Proxy-" not in plain
        assert running.end() == 0


@pytest.mark.parametrize("transfer", ["Transfer-Encoding: chunked", "X: y"])
def test_bodies_of_plain_http(place: Place, transfer: str) -> None:
    body = place.folder / "body"
    body.write_bytes(os.urandom(3_000_000))
    with proxy(place, *BOTH) as running:
        url = f"http://{NAME}/upload"
        through = ("-x", f"http://127.0.0.1:{running.port('http')}")
        if "chunked" in transfer:
            with running.connect("http") as client:
                client.sendall(f"POST {url} HTTP/1.1\r\n{transfer}\r\n\r\n".encode())
                client.sendall(b"5\r\nhello\r\n0\r\n\r\n")
                answer = b"".join(iter(lambda: client.recv(4096), b""))
                assert answer.startswith(b"HTTP/1.1 200 ")
                assert b"\r\n\r\n5 bytes from " in answer
        else:
            said = running.curl(*through, "--data-binary", f"@{body}", url)
            assert said.startswith("3000000 bytes from ")


def test_ssh_like_programs_by_ncat(place: Place) -> None:
    with proxy(place, *BOTH) as running:
        for kind, form in (("socks5", "socks5"), ("http", "http")):
            said = place.host.run(
                *("ncat", "--proxy", f"127.0.0.1:{running.port(kind)}", "--proxy-type", form),
                *("10.99.0.2", "80"),
                text="GET /n HTTP/1.0\r\n\r\n",
            )
            assert "/n for 10.99.0.1" in said


def test_ssh_with_a_proxy_command(place: Place) -> None:
    server = shutil.which("sshd", path="/usr/sbin:/usr/bin")
    if server is None or shutil.which("ssh") is None:
        pytest.skip("there is no sshd or no ssh (apt-get install openssh-server openssh-client)")
    with tempfile.TemporaryDirectory() as folder, proxy(place, *BOTH) as running:
        keys = Path(folder)
        for name in ("host", "user"):
            place.host.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name))
        Path("/run/sshd").mkdir(exist_ok=True)
        listening = place.far.namespace.popen(
            [
                *(server, "-D", "-e", "-f", "/dev/null", "-p", "2222", "-h", str(keys / "host")),
                *("-o", f"AuthorizedKeysFile={keys / 'user.pub'}", "-o", "StrictModes=no"),
                *("-o", "ListenAddress=10.99.0.2", "-o", "PidFile=none", "-o", "UsePAM=no"),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert listening.stderr is not None
            assert "listening on 10.99.0.2" in listening.stderr.readline()
            via = f"ncat --proxy 127.0.0.1:{running.port('socks5')} --proxy-type socks5 %h %p"
            said = place.host.run(
                *("ssh", "-F", "none", "-i", str(keys / "user"), "-p", "2222"),
                *("-o", f"ProxyCommand={via}", "-o", "StrictHostKeyChecking=no"),
                *("-o", f"UserKnownHostsFile={keys / 'known'}", "-o", "LogLevel=error"),
                *("root@10.99.0.2", "echo $SSH_CONNECTION"),
            )
            assert said.startswith("10.99.0.1 ")
        finally:
            listening.kill()
            listening.wait()


def test_a_browser_loads_a_page_that_exists_only_inside(place: Place) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no Chromium (apt-get install chromium)")
    with proxy(place, *BOTH) as running, tempfile.TemporaryDirectory() as profile:
        said = place.host.run(
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *(f"--user-data-dir={profile}", "--no-first-run", "--disable-background-networking"),
            f"--proxy-server=socks5://127.0.0.1:{running.port('socks5')}",
            *("--timeout=60000", "--dump-dom", f"http://{NAME}/page"),
            timeout=120,
        )
    assert "/page for " in said


def test_ports_lead_in_and_out(place: Place) -> None:
    with proxy(
        place,
        *("--http", "0", "-L", f"51080:{NAME}:80", "-R", "*:51081:192.0.2.1:51082"),
    ) as running:
        assert running.curl("http://127.0.0.1:51080/l").startswith("/l for ")
        with Web(place.host, "192.0.2.1", NAME, place.folder, ports=(51082, 51083)):
            said = place.far.namespace.run("curl", "-sS", "http://10.99.0.1:51081/r")
        assert said.startswith("/r for 192.0.2.1")


# ---- the words of SOCKS5


def ask(client: socket.socket, command: int, host: str, port: int) -> tuple[int, str, int]:
    """Without a password; the reply, and the address in it."""
    client.sendall(b"\5\1\0")
    assert client.recv(2, socket.MSG_WAITALL) == b"\5\0"
    client.sendall(request(command, host, port))
    return reply(client)


def request(command: int, host: str, port: int) -> bytes:
    raw = host.encode()
    return bytes((5, command, 0, 3, len(raw))) + raw + struct.pack("!H", port)


def reply(client: socket.socket) -> tuple[int, str, int]:
    head = client.recv(4, socket.MSG_WAITALL)
    size, family = (4, socket.AF_INET) if head[3] == 1 else (16, socket.AF_INET6)
    rest = client.recv(size + 2, socket.MSG_WAITALL)
    host = socket.inet_ntop(family, rest[:size])
    return head[1], host, struct.unpack("!H", rest[size:])[0]


def test_datagrams_by_an_association(place: Place) -> None:
    """A DNS client is served, and nobody else at its port."""
    with proxy(place, *BOTH) as running, running.connect() as control:
        code, host, port = ask(control, Command.UDP_ASSOCIATE, "0.0.0.0", 0)
        assert (code, host) == (Reply.SUCCEEDED, "127.0.0.1")
        header = socks5.datagram_header("10.99.0.2", 53)
        wire = header + dns.message.make_query(NAME, "A").to_wire()
        with place.host.socket() as client, place.host.socket() as stranger:
            client.settimeout(0.5)
            answer = asked_until_answered(client, (host, port), wire)
            assert answer[: len(header)] == header
            (found,) = dns.message.from_wire(answer[len(header) :]).answer
            assert found[0].to_text() == "10.99.0.2"
            client.sendto(b"\0\0\1" + wire[3:], (host, port))  # a fragment
            client.sendto(b"nonsense", (host, port))
            stranger.sendto(wire, (host, port))
            asked_until_answered(client, (host, port), wire)
            stranger.settimeout(0)
            with pytest.raises(BlockingIOError):
                stranger.recv(100)
        control.close()
        wait_until(lambda: f":{port} " not in place.host.run("ss", "-Hnua"), "it is closed")


def asked_until_answered(client: socket.socket, to: tuple[str, int], data: bytes) -> bytes:
    """A datagram may be lost."""
    limit = time.monotonic() + SECONDS
    while True:
        client.sendto(data, to)
        try:
            return client.recv(4096)
        except TimeoutError:
            assert time.monotonic() < limit


def test_datagrams_to_a_name(place: Place) -> None:
    with (
        place.far.namespace.socket(socket.AF_INET6) as echo,
        proxy(place, *BOTH) as running,
        running.connect() as control,
    ):
        echo.bind(("fd99::2", 51099))

        def serve() -> None:
            data, sender = echo.recvfrom(100)
            echo.sendto(data.upper(), sender)

        threading.Thread(target=serve, daemon=True).start()
        _, host, port = ask(control, Command.UDP_ASSOCIATE, "0.0.0.0", 0)
        with place.host.socket() as client:
            client.settimeout(SECONDS)
            header = b"\0\0\0\3" + bytes((len(NAME),)) + NAME.encode() + struct.pack("!H", 51099)
            client.sendto(header + b"by name", (host, port))
            answer = client.recv(100)
        found = socks5.datagram(answer)
        assert (found.target.host, answer[found.start :]) == ("fd99::2", b"BY NAME")


def test_bind_waits_for_the_host_that_was_named(place: Place) -> None:
    with proxy(place, *BOTH) as running, running.connect() as client:
        code, host, port = ask(client, Command.BIND, "10.99.0.2", 80)
        assert (code, host) == (Reply.SUCCEEDED, "10.99.0.1")
        with place.far.namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as peer:
            peer.settimeout(SECONDS)
            peer.connect((host, port))
            assert reply(client) == (Reply.SUCCEEDED, *peer.getsockname())
            peer.sendall(b"from inside")
            assert client.recv(100) == b"from inside"
            client.sendall(b"from outside")
            assert peer.recv(100) == b"from outside"


@pytest.mark.parametrize(
    ("host", "port", "code"),
    [
        ("10.99.0.2", 9, Reply.REFUSED),
        ("absent.example", 80, Reply.HOST_UNREACHABLE),
    ],
)
def test_a_failure_has_its_reply(place: Place, host: str, port: int, code: Reply) -> None:
    with proxy(place, *BOTH) as running:
        with running.connect() as client:
            assert ask(client, Command.CONNECT, host, port)[0] == code
        with running.connect() as client:
            assert ask(client, 9, host, port)[0] == Reply.NO_SUCH_COMMAND
        with running.connect("http") as client:
            client.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\n\r\n".encode())
            assert client.recv(4096).startswith(b"HTTP/1.1 502 ")


# ---- who may


def test_user_and_password(place: Place) -> None:
    secret = place.folder / "auth"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o600)
    os.chown(secret, ordinary.UID, ordinary.UID)
    with proxy(place, *BOTH, "--auth-file", str(secret)) as running:
        assert SECRET not in Path(f"/proc/{running.process.pid}/cmdline").read_text()
        for kind, scheme in (("socks5", "socks5h"), ("http", "http")):
            where = f"{scheme}://127.0.0.1:{running.port(kind)}"
            said = running.curl("-x", where, "-U", SECRET, f"http://{NAME}/p")
            assert said.startswith("/p for ")
            assert base64.b64encode(SECRET.encode()).decode() not in said
            for wrong in (("-U", "user:wrong"), ()):
                asked = ("curl", "-sS", "-w", "%{http_code}", "-x", where, *wrong)
                refused = place.host.attempt(*asked, f"http://{NAME}/p")
                assert refused.returncode == 97 or refused.stdout.endswith("407"), refused
        health = running.curl(f"http://127.0.0.1:{running.port('http')}/healthz")
        assert json.loads(health)["status"] == "ok"


def test_a_unix_socket_is_for_its_user(place: Place) -> None:
    path = place.folder / "proxy.sock"
    options = ("--http", f"unix:{path}", "--socks5", "0")
    with proxy(place, *options) as running:
        assert running.at["http"] == [f"unix:{path}"]
        assert path.stat().st_mode & 0o777 == 0o600
        health = running.curl("--unix-socket", str(path), "http://proxy/healthz")
        assert health.startswith("pywg: ") or json.loads(health)
        os.kill(running.process.pid, signal.SIGKILL)
        running.process.wait(30)
        assert path.exists()
    with proxy(place, *options) as running:  # takes the old one away
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        assert running.end() == 0
    assert not path.exists()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--socks5", "192.0.2.1:1080"), 2, "--allow-remote"),
        (("--http", "*:1080"), 2, "is not ADDRESS:PORT"),
        (("--http", "unix:/nowhere/at/all"), 125, "cannot listen: No such file"),
        (("--http", "0", "--auth-file", "/nowhere"), 125, "/nowhere: No such file"),
    ],
)
def test_what_it_refuses(place: Place, options: tuple[str, ...], code: int, said: str) -> None:
    done = place.run(ordinary.pywg("proxy", str(place.file), *options))
    assert done.returncode == code, done.stderr
    assert said in done.stderr


# ---- those who harm


def test_clients_that_stall_harm_nobody(place: Place) -> None:
    """Some say nothing, some half a word, some do not read what they have asked for."""
    with proxy(place, *BOTH) as running, ExitStack() as stack:
        for number in range(40):
            client = stack.enter_context(running.connect("socks5" if number % 2 else "http"))
            client.sendall((b"", b"\5", b"", b"GET http://in")[number % 4])
        for _ in range(8):
            client = stack.enter_context(running.connect())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            assert ask(client, Command.CONNECT, "10.99.0.2", 80)[0] == Reply.SUCCEEDED
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 20000)
        before = memory(running)
        for _ in range(5):
            said = running.curl(
                "-x", f"socks5h://127.0.0.1:{running.port('socks5')}", f"http://{NAME}/s"
            )
            assert said.startswith("/s for ")
        assert memory(running) - before < 8 << 20


def memory(running: Running) -> int:
    pages = int(Path(f"/proc/{running.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def test_beyond_the_limit_of_connections_new_ones_are_refused(place: Place) -> None:
    with proxy(place, *BOTH, "--max-connections", "3") as running, ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(running.connect())
            assert ask(client, Command.CONNECT, "10.99.0.2", 80)[0] == Reply.SUCCEEDED
        with running.connect() as late:
            assert late.recv(1) == b""
        with running.connect("http") as late:
            assert late.recv(100).startswith(b"HTTP/1.1 503 ")
        stack.close()

        def is_served() -> bool:
            with running.connect("http") as client:
                client.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
                return client.recv(100).startswith(b"HTTP/1.1 200 ")

        wait_until(is_served, "a place is free again")


def test_a_connection_that_is_silent_is_ended(place: Place) -> None:
    with (
        proxy(place, *BOTH, "--idle", "1") as running,
        running.connect() as client,
    ):
        assert ask(client, Command.CONNECT, "10.99.0.2", 80)[0] == Reply.SUCCEEDED
        assert client.recv(1) == b""


# ---- the end


@pytest.mark.parametrize("which", ["proxy", "keeper", "helper"])
def test_whatever_is_killed_nothing_is_left(place: Place, which: str) -> None:
    with proxy(place, *BOTH) as running:
        found = processes(running.process.pid)
        assert set(found) == {"proxy", "keeper", "helper"}
        os.kill(found[which], signal.SIGKILL)
        wait_until(
            lambda: not any(is_alive(pid) for pid in found.values()), "all have ended", seconds=30
        )
        assert running.process.wait(30) == (1 if which != "proxy" else -signal.SIGKILL)


def processes(pid: int) -> dict[str, int]:
    """The proxy's, by what they are."""
    (keeper,) = children(pid)
    (helper,) = children(keeper)
    return {"proxy": pid, "keeper": keeper, "helper": helper}


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_nothing_of_a_client_leaves_beside_the_tunnel(place: Place) -> None:
    inner = "meta l4proto { tcp, udp } th dport { 53, 80, 443 } oifname veth"
    wire = Wire(place.host, beside=inner)
    with proxy(place, *BOTH) as running:
        for host in (NAME, "10.99.0.2", "absent.example", "192.0.2.2"):
            place.host.attempt(
                *("curl", "-sS", "-x", f"socks5h://127.0.0.1:{running.port('socks5')}"),
                *("--max-time", "3", f"http://{host}/"),
            )
    assert wire["data_output"] > 0
    assert wire["beside"] == 0
