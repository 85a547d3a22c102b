"""A tunnel as a value in a program of an ordinary user, and the examples of docs/library.md.

The drawing is that of test_rootless.py; beyond it, in namespace b, a name server and a web site at
10.99.0.2, which the host's own name server does not know.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.unit.test_examples import EXAMPLES
from tools.lab import ordinary
from tools.lab.lab import Lab
from tools.lab.nameserver import NameServer
from tools.lab.ordinary import Place, make_place
from tools.lab.web import Web
from tools.lab.wire import Wire

NAME = "intranet.example"


@pytest.fixture
def place(lab: Lab) -> Iterator[Place]:
    with ordinary.folder() as folder:
        made = make_place(lab, folder)
        address = made.far.inner4
        names = NameServer(made.far.namespace, address, **{NAME: [made.far.inner6, address]})
        with names, Web(made.far.namespace, address, NAME, folder) as web:
            web.authority.chmod(0o644)
            yield made


def run(place: Place, program: str, *arguments: str) -> list[str]:
    """The lines that a program prints; ``work.conf`` is in its folder."""
    source = place.folder / "program.py"
    source.write_text(f"import os\nos.chdir({str(place.folder)!r})\n{program}")
    source.chmod(0o644)
    certificate = f"SSL_CERT_FILE={place.folder / 'authority.pem'}"
    done = place.run(
        ["env", certificate, sys.executable, "-X", "dev", str(source), *arguments], seconds=90
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


# ---- the examples


def test_the_example_of_sockets_runs_as_it_is_written(place: Place) -> None:
    said = run(place, EXAMPLES["tunnel.py"])
    assert said == ["HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "8080"]


def needs(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed (pip install {module})")


def test_the_example_of_httpx_runs_as_it_is_written(place: Place) -> None:
    needs("httpx")
    said = run(place, EXAMPLES["tunnel_httpx.py"])
    assert said[0].startswith("/ for 10.99.0.1 ")
    assert said[-1] == "200"


def test_the_example_of_requests_runs_as_it_is_written(place: Place) -> None:
    needs("requests")
    trusting = "session.trust_env = False; session.verify = os.environ['SSL_CERT_FILE']"
    said = run(place, EXAMPLES["tunnel_requests.py"].replace("session.trust_env = False", trusting))
    assert said[0].startswith("/ for 10.99.0.1 ")
    assert said[-1] == "200"


# ---- sockets

NAMES = """
import asyncio, socket, pywg
with pywg.Tunnel("work.conf", wait=20) as tunnel:
    print(tunnel.getaddrinfo("intranet.example", 80, type=socket.SOCK_STREAM)[0][4][0])
    with tunnel.create_connection(("intranet.example", 80), 20) as stream:
        print(stream.getpeername()[0], isinstance(stream, socket.socket))
    with tunnel.socket() as stream:
        stream.settimeout(20)
        stream.connect(("intranet.example", 80))
        print(stream.getpeername())
    with tunnel.socket(socket.AF_INET6, socket.SOCK_DGRAM) as datagrams:
        datagrams.connect(("intranet.example", 9))
        print(datagrams.getpeername()[0])
    for host in ("absent.example", "." * 300):
        try:
            tunnel.create_connection((host, 80), 20)
        except socket.gaierror as error:
            print(error.errno == socket.EAI_NONAME)
    try:
        tunnel.create_connection(("10.99.0.2", 9), 20)
    except ConnectionRefusedError as error:
        print("refused")
    try:
        asyncio.run(tunnel.open_connection("10.99.0.2", 9))
    except ConnectionRefusedError as error:
        print("refused")
    print(tunnel.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK).gettimeout())
"""


def test_names_given_to_any_call_are_looked_up_in_the_tunnel(place: Place) -> None:
    assert run(place, NAMES) == [
        "fd99::2",
        "10.99.0.2 True",
        "('10.99.0.2', 80)",
        "fd99::2",
        *["True"] * 2,
        *["refused"] * 2,
        "0.0",
    ]


THREADS = """
import threading, urllib.request, pywg
from concurrent.futures import ThreadPoolExecutor

idle = threading.Event()
for _ in range(4):
    threading.Thread(target=idle.wait, daemon=True).start()
with pywg.Tunnel("work.conf", wait=20) as tunnel, ThreadPoolExecutor(16) as pool:
    def ask(number):
        with tunnel.create_connection(("intranet.example", 80), 30) as stream:
            stream.sendall(b"GET /%d HTTP/1.0\\r\\n\\r\\n" % number)
            body = b"".join(iter(lambda: stream.recv(4096), b""))
            return (b"/%d for 10.99.0.1" % number) in body
    print(all(pool.map(ask, range(64))))
"""


def test_many_threads_use_one_tunnel(place: Place) -> None:
    assert run(place, THREADS) == ["True"]


SERVER = """
import asyncio, sys, pywg
async def serve(tunnel):
    async def answer(reader, writer):
        writer.write(await reader.readline())
        writer.close()
        done.set()
    done = asyncio.Event()
    listeners = [tunnel.listen((host, 80)) for host in ("", "fd99::1")]
    servers = [await asyncio.start_server(answer, sock=each) for each in listeners]
    print("listens", flush=True)
    await done.wait()
    for server in servers:
        server.close()
        await server.wait_closed()
with pywg.Tunnel("work.conf", wait=20) as tunnel:
    asyncio.run(serve(tunnel))
"""


@pytest.mark.parametrize("address", ["10.99.0.1", "fd99::1"])
def test_a_program_listens_in_the_tunnel_at_a_port_of_root(place: Place, address: str) -> None:
    source = place.folder / "server.py"
    source.write_text(f"import os\nos.chdir({str(place.folder)!r})\n{SERVER}")
    with ordinary.start(
        place.host, [sys.executable, str(source)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listens\n"
        asked = place.far.namespace.run("ncat", address, "80", text="hello\n")
        assert asked == "hello\n"
        assert process.wait(30) == 0


# ---- life

CLOSED = """
import copy, os, pickle, socket, pywg
tunnel = pywg.Tunnel("work.conf", wait=20)
inside = tunnel.socket()
for attempt in (copy.copy, pickle.dumps):
    try:
        attempt(tunnel)
    except TypeError as error:
        print("open another one" in str(error))

child = os.fork()
if child == 0:
    try:
        tunnel.socket()
    except pywg.TunnelClosed as error:
        print("belongs to the process that made it" in str(error), flush=True)
    inside.settimeout(20)
    inside.connect(("10.99.0.2", 80))  # what was made before is a socket like any other
    print(inside.getpeername()[1], flush=True)
    tunnel.close()
    os._exit(0)
os.waitpid(child, 0)

print(tunnel.create_connection(("10.99.0.2", 80), 20).getpeername()[1])
tunnel.close()
tunnel.close()
print(repr(tunnel))
for attempt in (
    lambda: tunnel.socket(),
    lambda: tunnel.getaddrinfo("intranet.example", 80),
    lambda: tunnel.device,
    lambda: tunnel.__enter__(),
):
    try:
        attempt()
    except pywg.TunnelClosed as error:
        print("pywg.Tunnel(config)" in str(error))
"""


def test_closed_copied_and_forked_it_says_so(place: Place) -> None:
    assert run(place, CLOSED) == [
        *["True"] * 2,
        *["True", "80"],
        "80",
        "<pywg.Tunnel closed>",
        *["True"] * 4,
    ]


DROPPED = """
import gc, os, sys, time, warnings, pywg
warnings.simplefilter("always")
seen = []
warnings.showwarning = lambda message, *rest: seen.append(message)
tunnel = pywg.Tunnel("work.conf")
helper = tunnel._hosted.inside.pid
device = tunnel.device
tunnel = None
gc.collect()
print([type(each).__name__ for each in seen], "Tunnel" in str(seen[0]))
limit = time.monotonic() + 30
while os.path.exists(f"/proc/{helper}") and time.monotonic() < limit:
    time.sleep(0.01)
print(os.path.exists(f"/proc/{helper}"))
print(pywg.Tunnel("work.conf")._hosted.inside.pid and "again")
kept = pywg.Tunnel("work.conf")  # and one that the end of the program finds open
"""


def test_what_is_dropped_is_closed_with_a_warning(place: Place) -> None:
    assert run(place, DROPPED) == ["['ResourceWarning'] True", "False", "again"]


KILLED = """
import asyncio, os, signal, pywg
tunnel = pywg.Tunnel("work.conf", wait=20)
os.kill(tunnel._hosted.inside.pid, signal.SIGKILL)
for attempt in (
    lambda: tunnel.socket(),
    lambda: tunnel.create_connection(("intranet.example", 80)),
    lambda: asyncio.run(tunnel.open_connection("intranet.example", 80)),
):
    try:
        attempt()
    except pywg.TunnelClosed as error:
        print(error)
"""


def test_without_its_process_inside_it_says_so(place: Place) -> None:
    assert run(place, KILLED) == ["the process inside the tunnel has ended"] * 3


WAITED = """
import pywg
try:
    pywg.Tunnel("work.conf", wait=0.3)
except TimeoutError as error:
    print(type(error).__name__, "no handshake within 0.3 s" in str(error))
"""


def test_a_peer_that_does_not_answer_is_an_error_of_its_own(place: Place) -> None:
    place.far.daemon.close()
    assert run(place, WAITED) == ["NoHandshake True"]


def test_a_host_that_refuses_is_told_with_its_remedy(place: Place) -> None:
    """A host without /dev/net/tun."""
    program = place.folder / "refused.py"
    program.write_text(
        "import sys, pywg\n"
        "try:\n    pywg.Tunnel(sys.argv[1])\n"
        "except pywg.Refused as error:\n"
        "    print(error.refusal.reason)\n"
    )
    done = place.run(
        [
            *("unshare", "--user", "--map-root-user", "--mount", "sh", "-c"),
            f"mount -t tmpfs none /dev/net && {sys.executable} {program} {place.file}",
        ]
    )
    assert done.stdout == "no tun\n", done.stderr


LEAK = """
import pywg
with pywg.Tunnel("work.conf", wait=20) as tunnel:
    tunnel.create_connection(("intranet.example", 80), 20).close()
    try:
        tunnel.socket().connect(("absent.example", 80))
    except OSError:
        pass
"""


def test_no_name_is_asked_for_outside(place: Place) -> None:
    dns = "meta l4proto {{ tcp, udp }} th {}port 53"
    sent = {way: dns.format(way[0]) for way in ("destination", "source")}
    wire = Wire(place.host, **sent)
    run(place, LEAK)
    assert wire["data_output"] > 0
    assert [wire[way] for way in sent] == [0, 0]
