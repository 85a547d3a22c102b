r"""Who goes through a tunnel: `#!pywg Only` and `#!pywg Except`, by user, group and cgroup.

    host: two senders, a and b          far: who answers, and counts what comes which way
    +----------------------+            +-----------------------------------------------+
    |  tunnel 10.9.0.2     | - through -|  tunnel 10.9.0.1        lo 198.51.100.10      |
    |         fd99::2      |            |         fd99::1            2001:db8:100::10   |
    |  veth                |== clear ===|  veth                                         |
    +----------------------+            +-----------------------------------------------+

Each sends both families by UDP and TCP, without end, to a port of its own; what shows that a
datagram was answered goes to another. A TCP connection is closed with most of its data still to be
sent: a socket without owner sends that. The host's reverse path filter is strict.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from tools.lab.host import Host, hosted
from tools.lab.namespaces import Namespace, add_address, unique
from tools.lab.programs import Program
from tools.lab.waiting import wait_until

pytestmark = pytest.mark.pywgd_only

PRIVATE = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
PUBLIC = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw="
FAR_PRIVATE = "WDF8nHAXUAAtfQcwRKGBpFWbM7gMPCbFDsvIH8hvNUs="
FAR_PUBLIC = "wzgD8VHLYDB5VsHnl5du4FYvFN/1p9cBWga4iCO2T2U="
IDS = {"a": 12345, "b": 12346}
PORTS = {"a": 51710, "b": 51720}
MARKER = 51730
LATE = 51740
WAYS = {"clear": "veth", "through": "FAR"}
# What is sent: a datagram, one for an answer to it, TCP that was answered. And, at home: that all
# of a connection came.
KINDS = {
    "sent": "udp dport {0}",
    "answered": "udp dport {1}",
    "tcp": "tcp dport {0} tcp flags & psh == psh",
}
TUNNEL = f"""[Interface]
PrivateKey = {PRIVATE}
Address = 10.9.0.2/32, fd99::2/128
DNS = 10.9.0.1
[Peer]
PublicKey = {FAR_PUBLIC}
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = 192.0.2.2:51820
"""
FAR = f"""[Interface]
PrivateKey = {FAR_PRIVATE}
Address = 10.9.0.1/32, fd99::1/128
ListenPort = 51820
[Peer]
PublicKey = {PUBLIC}
AllowedIPs = 10.9.0.2/32, fd99::2/128
"""
SENDER = """
import socket, sys, time
port = int(sys.argv[1])
ends = [(socket.AF_INET, "198.51.100.10"), (socket.AF_INET6, "2001:db8:100::10")]
udp = [(socket.socket(family, socket.SOCK_DGRAM), address) for family, address in ends]
tcp = {}
for end, _ in udp:
    end.setblocking(False)

def attempt(call, *arguments):
    try:
        return call(*arguments)
    except OSError:
        return None

def speak(family, address):
    begun, end, is_asked = tcp.get(family, (0, None, False))
    if time.monotonic() - begun > 1:
        if end is not None:
            end.close()
        end = socket.socket(family, socket.SOCK_STREAM)
        end.setblocking(False)
        end.connect_ex((address, port))
        tcp[family] = (time.monotonic(), end, False)
    elif not is_asked and attempt(end.send, b"x"):
        tcp[family] = (begun, end, True)
    elif is_asked and attempt(end.recv, 1):
        attempt(end.send, bytes(100_000))
        end.close()
        tcp[family] = (0, None, False)

print("ready", flush=True)
while True:
    for end, address in udp:
        attempt(end.sendto, b"x", (address, port))
        while attempt(end.recv, 10):
            attempt(end.sendto, b"y", (address, port + 1))
    for family, address in ends:
        speak(family, address)
    time.sleep(0.004)
"""
ANSWERER = """
import selectors, socket, sys
ends = [(socket.AF_INET, "198.51.100.10"), (socket.AF_INET6, "2001:db8:100::10")]
loop, home = selectors.DefaultSelector(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

def accept(end, port):
    new, _ = end.accept()
    new.setblocking(False)
    loop.register(new, selectors.EVENT_READ, (take, [port, 0]))

def take(end, state):
    try:
        data = end.recv(1 << 16)
        if data and not state[1]:
            end.send(b"x")
    except OSError:
        data = b""
    state[1] += len(data)
    if data == b"":
        if state[1] > 20_000:
            home.sendto(b"x", ("127.0.0.1", state[0] + 2))
        loop.unregister(end)
        end.close()

def answer(end, port):
    data, where = end.recvfrom(10)
    end.sendto(data, where)

def drop(end, port):
    end.recv(10)

for port in map(int, sys.argv[1:]):
    for family, address in ends:
        for number, kind, what in (
            (port, socket.SOCK_DGRAM, answer),
            (port + 1, socket.SOCK_DGRAM, drop),
            (port, socket.SOCK_STREAM, accept),
        ):
            end = socket.socket(family, kind)
            end.bind((address, number))
            if kind == socket.SOCK_STREAM:
                end.listen(64)
            loop.register(end, selectors.EVENT_READ, (what, port))
print("ready", flush=True)
while True:
    for key, _ in loop.select():
        key.data[0](key.fileobj, key.data[1])
"""


# A connection whose rest waits in a socket without owner until the far end reads on.
LATE_READER = """
import socket, sys
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
listener.bind(("198.51.100.10", int(sys.argv[1])))
listener.listen()
print("ready", flush=True)
end, _ = listener.accept()
input()
end.settimeout(2)
try:
    while end.recv(1 << 16):
        pass
except OSError:
    pass
print("read", flush=True)
"""
LEAVER = """
import socket, sys
end = socket.create_connection(("198.51.100.10", int(sys.argv[1])))
end.settimeout(0.2)
try:
    while end.send(bytes(4096)):
        pass
except OSError:
    pass
"""


class Place:
    """The host, and the far end with its tunnel, its answers and its counters."""

    def __init__(self, host: Host, far_name: str) -> None:
        self.host = host
        self.far_name = far_name

    def counts(self) -> dict[str, int]:
        text = self.host.far.run("nft", "-j", "list", "counters", "table", "inet", "wire")
        found = (item["counter"] for item in json.loads(text)["nftables"] if "counter" in item)
        return {counter["name"]: counter["packets"] for counter in found}

    def total(self, way: str, who: str) -> int:
        return sum(
            count
            for name, count in self.counts().items()
            if name.startswith(f"{way}_{who}_") and "whole" not in name
        )

    def settle(self) -> None:
        """Until what was sent before has been counted: it waits at the far end, for each processor
        in a queue of its own. What is sent here passes a kill switch."""
        home = os.sched_getaffinity(0)
        with self.host.namespace.socket() as end:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 51820)
            for processor in home:
                os.sched_setaffinity(0, {processor})
                seen = self.counts()["marker"]

                def arrived(seen: int = seen) -> bool:
                    end.sendto(b"x", ("192.0.2.2", MARKER))
                    return self.counts()["marker"] > seen

                wait_until(arrived, "a datagram with the mark arrives", seconds=30)
        os.sched_setaffinity(0, home)

    def flows(self, way: str, who: str) -> None:
        """All kinds of both families get there and back."""
        before = self.counts()
        wanted = [
            name for name in before if name.startswith((f"{way}_{who}_", f"home_{who}_whole"))
        ]

        def grew() -> bool:
            now = self.counts()
            return all(now[name] >= before[name] + 3 for name in wanted)

        try:
            wait_until(grew, f"{who} gets {way}", seconds=30, every=0.05)
        except AssertionError as error:
            now = self.counts()
            missing = [name for name in wanted if now[name] < before[name] + 3]
            raise AssertionError(f"{error}: {missing}") from None


def counters(far_name: str) -> str:
    """An nft table that counts by way, sender, family and kind."""
    names, rules = [], []
    for way, interface in WAYS.items():
        device = interface.replace("FAR", far_name)
        for who, port in PORTS.items():
            for family, number in (("ipv4", "4"), ("ipv6", "6")):
                for kind, match in KINDS.items():
                    name = f"{way}_{who}_{kind}{number}"
                    names.append(name)
                    rules.append(
                        f'iifname "{device}" meta nfproto {family} '
                        f"{match.format(port, port + 1)} counter name {name}"
                    )
    names += ["marker", "late"]
    rules.append(f'iifname "veth" tcp dport {LATE} tcp flags & psh == psh counter name late')
    rules.append(f'iifname "veth" udp dport {MARKER} counter name marker')
    for who, port in PORTS.items():
        names.append(f"home_{who}_whole")
        rules.append(f'iifname "lo" udp dport {port + 2} counter name home_{who}_whole')
    declared = "\n".join(f"counter {name} {{}}" for name in names)
    lines = "\n".join(rules)
    hook = "type filter hook prerouting priority -300;"
    return f"table inet wire {{\n{declared}\nchain arriving {{\n{hook}\n{lines}\n}}\n}}\n"


@pytest.fixture
def place(subject: Program, tmp_path: Path) -> Iterator[Place]:
    """Not for several tests: what a killed sender has left to send would be counted in the next."""
    with hosted(tmp_path) as host, contextlib.ExitStack() as stack:
        made = Place(host, unique("v"))
        for address in ("198.51.100.10/32", "2001:db8:100::10/128"):
            add_address(host.far, "lo", address)
        host.far.nft(counters(made.far_name))
        host.run("sysctl", "-q", "net.ipv4.conf.all.rp_filter=1")
        path = str(host.config(made.far_name, FAR))
        with host.far.entered():
            subprocess.run(host.inside(sys.executable, "-m", "pywg", "up", path), check=True)
        stack.enter_context(started(host.far, ANSWERER, *map(str, PORTS.values())))
        yield made


@contextlib.contextmanager
def started(
    namespace: Namespace, script: str, *arguments: str, before: Sequence[str] = ()
) -> Iterator[None]:
    words = [*before, sys.executable, "-c", script, *arguments]
    process = namespace.popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextlib.contextmanager
def sending(place: Place, cgroup: Path | None = None) -> Iterator[None]:
    """Both of them, a in a cgroup: a socket is of the one that it was made in."""
    with contextlib.ExitStack() as stack:
        for who, port in PORTS.items():
            user = f"--reuid={IDS[who]} --regid={IDS[who]} --clear-groups"
            before = ["setpriv", *user.split(), "--"]
            if cgroup is not None and who == "a":
                enter = f'echo $$ > {cgroup}/cgroup.procs; exec "$@"'
                before = ["sh", "-c", enter, "sh", *before]
            stack.enter_context(started(place.host.namespace, SENDER, str(port), before=before))
        yield


def tunnel(place: Place, name: str, *lines: str) -> Path:
    extra = "".join(f"#!pywg {line}\n" for line in lines)
    return place.host.config(name, TUNNEL.replace("[Peer]", f"{extra}[Peer]", 1))


@pytest.mark.parametrize(
    ("line", "inside", "beside"),
    [(f"Except = user:{IDS['a']}", "b", "a"), (f"Only = user:{IDS['a']}", "a", "b")],
    ids=["except", "only"],
)
def test_each_goes_its_way_from_up_to_down(
    place: Place, line: str, inside: str, beside: str
) -> None:
    host, name = place.host, unique("w")
    before = host.look(name)
    path = str(tunnel(place, name, line, "KillSwitch = on"))
    with sending(place):
        for who in PORTS:
            place.flows("clear", who)
        host.pywg("up", path)
        place.settle()
        stood = place.total("clear", inside)
        place.flows("clear", beside)
        place.flows("through", inside)
        host.pywg("reload", name)
        place.flows("clear", beside)
        place.flows("through", inside)
        assert place.total("through", beside) == 0
        host.namespace.run("nft", "flush", "ruleset")
        wait_until(lambda: standing(host, name), "the tables are back", seconds=30)
    with sending(place):  # what began in between goes on inside the tunnel
        place.flows("clear", beside)
        place.flows("through", inside)
        place.settle()
        assert place.total("clear", inside) == stood, "nothing in clear, flushed or not"
        host.pywg("down", name)
        for who in PORTS:
            place.flows("clear", who)
    assert host.look(name) == before


def standing(host: Host, name: str) -> bool:
    tables = host.namespace.run("nft", "list", "tables")
    return f"inet pywg-owners-{name}" in tables and f"inet pywg-kill-{name}" in tables


def test_the_rest_of_a_connection_older_than_the_tunnel_stays_in_it(place: Place) -> None:
    """To conntrack, what comes in of it is new."""
    host, name = place.host, unique("w")
    command = [sys.executable, "-c", LATE_READER, str(LATE)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with host.far.popen(command, text=True, **pipes) as reader:
        assert reader.stdout is not None
        assert reader.stdin is not None
        assert reader.stdout.readline() == "ready\n"
        as_a = ["setpriv", f"--reuid={IDS['a']}", "--clear-groups", "--"]
        host.namespace.run(*as_a, sys.executable, "-c", LEAVER, str(LATE))
        host.pywg("up", str(tunnel(place, name, f"Only = user:{IDS['a']}", "KillSwitch = on")))
        place.settle()
        stood = place.counts()["late"]
        reader.stdin.write("\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == "read\n"
        place.settle()
        assert place.counts()["late"] == stood
    host.pywg("down", name)


def test_a_group_and_a_reload_that_changes_who_is_meant(place: Place) -> None:
    """Without a kill switch."""
    host, name = place.host, unique("w")
    host.pywg("up", str(tunnel(place, name, f"Except = group:{IDS['a']}")))
    with sending(place):
        place.flows("clear", "a")
        place.flows("through", "b")
        tunnel(place, name, f"Only = group:{IDS['a']}, user:1")
        host.pywg("reload", name)
    with sending(place):
        place.flows("through", "a")
        place.flows("clear", "b")
        tunnel(place, name)
        host.pywg("reload", name)
        assert "pywg-owners" not in host.namespace.run("nft", "list", "tables")
    with sending(place):
        place.flows("through", "a")
        place.flows("through", "b")
    host.pywg("down", name)


@pytest.fixture
def cgroup(place: Place) -> Iterator[Path]:
    """A cgroup of our own, which the host sees where it has to be."""
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    root = next((Path(words[1]) for words in mounts if words[2] == "cgroup2"), None)
    if root is None:
        pytest.skip("no cgroup v2 is mounted here")
    made = root / unique("pywgtest")
    try:
        (made / "inner").mkdir(parents=True)
    except OSError as error:
        pytest.skip(f"no cgroup can be made in {root}: {error.strerror}")
    try:
        place.host.run("mount", "-t", "cgroup2", "none", "/sys/fs/cgroup")
        yield made / "inner"
    finally:
        for group in (made / "inner", made):
            wait_until(partial(done, Path.rmdir, group), f"{group} is empty")


def done(change: Callable[[Path], None], group: Path) -> bool:
    """A process that has just ended is in it for a moment."""
    try:
        change(group)
    except OSError as error:
        return error.errno != errno.EBUSY
    return True


def test_a_cgroup_and_those_below_it(place: Place, cgroup: Path) -> None:
    host, name = place.host, unique("w")
    path = tunnel(place, name, f"Only = cgroup:{cgroup.parent.name}", "KillSwitch = on")
    with sending(place, cgroup):
        for who in PORTS:  # what waits for a neighbour has passed the kill switch before it stood
            place.flows("clear", who)
        host.pywg("up", str(path))
        place.settle()
        stood = place.total("clear", "a")
        place.flows("through", "a")
        place.flows("clear", "b")
        assert place.total("clear", "a") == stood, place.counts()
    # As a service that is started again.
    for change in (Path.rmdir, Path.mkdir):
        for group in (cgroup, cgroup.parent)[:: 1 if change is Path.rmdir else -1]:
            wait_until(partial(done, change, group), "the cgroup is empty")
    shown = f'cgroupv2 level 1 "{cgroup.parent.name}"'
    table = ["nft", "list", "table", "inet", f"pywg-owners-{name}"]
    wait_until(lambda: shown in host.run(*table), "the new one is meant", seconds=30)
    with sending(place, cgroup):
        place.flows("through", "a")
        assert place.total("clear", "a") == stood
        host.pywg("down", name)


def test_what_cannot_be_done_is_refused_with_its_reason(place: Place) -> None:
    host, name = place.host, unique("w")
    before = host.look(name)
    path = tunnel(place, name, "Only = user:no-such-user")
    answer = host.attempt(sys.executable, "-m", "pywg", "up", str(path))
    assert answer.returncode == 1
    assert f"{path}:5:15: Only: there is no user no-such-user" in answer.stderr
    empty = host.directory / "empty"
    empty.mkdir()
    tunnel(place, name, "Only = user:1")
    answer = host.attempt("env", f"PATH={empty}", sys.executable, "-m", "pywg", "up", str(path))
    assert answer.returncode == 1
    assert "no Only or Except without nft" in answer.stderr
    assert host.look(name) == before
