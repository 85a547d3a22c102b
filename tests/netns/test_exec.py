r"""`pywg exec` of an ordinary user: the place is that of test_rootless.py.

The command is in his namespace; what leaves the host leaves by veth, where a sniffer is.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.lab import ordinary
from tools.lab.lab import PORT, Lab
from tools.lab.ordinary import UID, Place, make_place, pywg
from tools.lab.waiting import wait_until

ETH_P_ALL, UDP = 3, 17


@pytest.fixture(scope="module")
def place(shared_lab: Lab) -> Iterator[Place]:
    with ordinary.folder() as folder:
        yield make_place(shared_lab, folder)


def run_inside(place: Place, *argv: str, options: tuple[str, ...] = ()) -> Any:
    return place.run([*pywg("exec", *options, str(place.file)), "--", *argv])


LOOK = """
import json, os, socket
def way(family, host):
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))
        except OSError as error:
            return os.strerror(error.errno)
        return probe.getsockname()[0]
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "links": sorted(name for _, name in socket.if_nameindex()),
    "ids": [os.getresuid(), os.getresgid()],
    "capabilities": sorted({status[name].strip() for name in ("CapPrm", "CapEff", "CapInh")}),
    "ways": [way(socket.AF_INET, "198.51.100.1"), way(socket.AF_INET6, "2001:db8:1::1")],
    "resolv": open("/etc/resolv.conf").read().splitlines()[1:],
    "folder": os.getcwd(),
}))
"""


def look(done: Any) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def test_the_command_sees_lo_and_the_tunnel_as_the_same_user_without_capability(
    place: Place,
) -> None:
    seen = look(run_inside(place, sys.executable, "-c", LOOK))
    assert seen["links"] == ["lo", "work"]
    assert seen["ids"] == [[UID] * 3] * 2
    assert seen["capabilities"] == ["0" * 16]
    assert seen["ways"] == ["10.99.0.1", "fd99::1"]
    assert seen["resolv"] == ["nameserver 10.99.0.2"]
    assert seen["folder"] == str(Path.cwd())


def test_root_has_no_capability_inside_either(place: Place) -> None:
    argv = [*pywg("exec", str(place.file)), "--", sys.executable, "-c", LOOK]
    with place.host.entered():
        done = subprocess.run(
            ordinary.words(argv, 0), capture_output=True, text=True, check=False, timeout=60
        )
    seen = look(done)
    assert seen["ids"] == [[0] * 3] * 2
    assert seen["capabilities"] == ["0" * 16]
    assert seen["links"] == ["lo", "work"]


def test_the_interface_is_as_the_device_would_set_it(place: Place) -> None:
    is_as_the_device_would_set_it(run_inside(place, *SHOW_LINK))


SHOW_LINK = ("ip", "-d", "-j", "link", "show", "dev", "work")


def is_as_the_device_would_set_it(shown: subprocess.CompletedProcess[str]) -> None:
    """Superpackets that fit a train, no multicast, no address by itself."""
    (link,) = json.loads(shown.stdout)
    assert link["gso_max_segs"] == 45
    assert "MULTICAST" not in link["flags"]
    assert link["inet6_addr_gen_mode"] == "none"


DOCKERS = (
    *("chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap"),
    *("net_bind_service", "net_raw", "sys_chroot", "mknod", "audit_write", "setfcap"),
)


def run_in_container(place: Place, *command: str) -> subprocess.CompletedProcess[str]:
    """As root with what Docker leaves him by default, and a /proc/sys that cannot be written."""
    few = "-all," + ",".join(f"+{name}" for name in DOCKERS)
    script = "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys; "
    script += f'exec setpriv --bounding-set={few} --inh-caps=-all "$@"'
    argv = ["unshare", "-m", "sh", "-c", script, "sh", *pywg("exec", str(place.file)), "--"]
    with place.host.entered():
        words = ordinary.words([*argv, *command], 0)
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)


def test_root_of_a_container_may_do_it_too(place: Place) -> None:
    seen = look(run_in_container(place, sys.executable, "-c", LOOK))
    assert seen["links"] == ["lo", "work"]
    assert seen["ways"] == ["10.99.0.1", "fd99::1"]
    is_as_the_device_would_set_it(run_in_container(place, *SHOW_LINK))


def test_it_works_in_another_user_namespace(place: Place) -> None:
    nested = ["unshare", "--map-current-user", "--user"]
    done = place.run([*nested, *pywg("exec", str(place.file)), "--", sys.executable, "-c", LOOK])
    assert look(done)["links"] == ["lo", "work"]


def test_without_ipv6_in_the_file_there_is_no_way_out_by_it(place: Place) -> None:
    text = place.file.read_text().replace(", fd99::1/64", "").replace(", ::/0", "")
    file = place.folder / "four.conf"
    file.write_text(text)
    done = place.run([*pywg("exec", str(file)), "--", sys.executable, "-c", LOOK])
    assert look(done)["ways"] == ["10.99.0.1", os.strerror(101)]  # Network is unreachable


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -TERM $$"], 128 + signal.SIGTERM),
        (["sh", "-c", "kill -KILL $$"], 128 + signal.SIGKILL),
        (["/nowhere/command"], 127),
        (["/etc/passwd"], 126),
    ],
)
def test_the_exit_code_is_the_commands(place: Place, argv: list[str], code: int) -> None:
    done = run_inside(place, *argv)
    assert done.returncode == code
    assert bool(done.stderr) == (code in (126, 127)), done.stderr


# `setsid`: a process group of its own, in which the script and pywg are together.
STARTS_AND_ENDS = """
"$@" &
read begun <"$FIFO" && kill -TERM $! && wait $!
"""


def test_a_script_that_starts_pywg_can_end_it(place: Place) -> None:
    """Without job control they are of one process group."""
    fifo = place.folder / "fifo"
    os.mkfifo(fifo)
    os.chown(fifo, UID, UID)
    begun = ["sh", "-c", f"echo begun >{fifo}; exec sleep 60"]
    command = [*pywg("exec", str(place.file)), "--", *begun]
    script = ["env", f"FIFO={fifo}", "setsid", "--wait", "sh", "-c", STARTS_AND_ENDS, "sh"]
    done = place.run([*script, *command])
    assert done.returncode == 128 + signal.SIGTERM, done.stderr


def test_what_a_command_sends_to_its_group_reaches_it_once(place: Place) -> None:
    program = (
        "import os, signal, sys, time; heard = []\n"
        "signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))\n"
        "os.kill(0, signal.SIGUSR1)\n"
        "time.sleep(0.5); print(len(heard))\n"
    )
    command = [*pywg("exec", str(place.file)), "--", sys.executable, "-c", program]
    done = place.run(["setsid", "--wait", *command])
    assert done.stdout == "1\n", done.stderr


def test_standard_streams_and_other_descriptors_are_the_commands(place: Place) -> None:
    script = "cat; cat <&9; echo told >&2"
    argv = ["sh", "-c", 'exec "$@" 9</etc/hostname', "sh", *pywg("exec", str(place.file))]
    done = place.run([*argv, "--", "sh", "-c", script], text="given\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "given\n" + Path("/etc/hostname").read_text()
    assert done.stderr == "told\n"


def test_the_command_inherits_no_descriptor_of_pywgs(place: Place) -> None:
    script = "import os; print(sorted(os.listdir('/proc/self/fd')))"
    outside = place.run([sys.executable, "-c", script]).stdout
    assert run_inside(place, sys.executable, "-c", script).stdout == outside


def test_a_command_of_pywgs_own_words_is_left_alone(place: Place) -> None:
    done = run_inside(place, "echo", "--share", "--", "x", "--help")
    assert done.stdout == "--share -- x --help\n"


def test_waiting_ends_with_the_handshake_or_with_a_clear_line(place: Place) -> None:
    assert run_inside(place, "echo", "up", options=("--wait", "30")).stdout == "up\n"
    file = place.folder / "deaf.conf"
    file.write_text(place.file.read_text().replace("192.0.2.2", "192.0.2.77"))
    argv = pywg("exec", "--wait", "0.2", str(file))
    done = place.run([*argv, "--", "echo", "never"])
    assert (done.returncode, done.stdout) == (125, "")
    assert "no handshake within 0.2 s" in done.stderr
    assert "192.0.2.77" in done.stderr


def test_keys_that_are_for_root_are_not_used_and_named_once(place: Place) -> None:
    file = place.folder / "hooks.conf"
    touched = place.folder / "touched"
    extra = f"Table = 7\nFwMark = 8\nPostUp = touch {touched}\n[Peer]"
    file.write_text(place.file.read_text().replace("[Peer]", extra))
    done = place.run([*pywg("exec", "--wait", "30", str(file)), "--", "echo", "up"])
    assert done.stdout == "up\n", done.stderr
    assert done.stderr.count("PostUp, Table, FwMark") == 1
    assert not touched.exists()


def test_mistakes_of_a_file_are_pictured_and_125(place: Place) -> None:
    file = place.folder / "wrong.conf"
    file.write_text("[Interface]\nPrivateKey = x\n")
    done = place.run([*pywg("exec", str(file)), "--", "true"])
    assert done.returncode == 125
    assert "wrong.conf:2:14" in done.stderr
    assert "^" in done.stderr


# ---- nothing leaves beside the tunnel


@contextlib.contextmanager
def sniffer(place: Place) -> Iterator[list[bytes]]:
    """What leaves the host by veth, from now on: datagrams of IP; filled at the end."""
    caught: list[bytes] = []
    with (
        place.host.entered(),
        socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)) as raw,
    ):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        raw.bind(("veth", ETH_P_ALL))
        raw.setblocking(False)
        yield caught
        with contextlib.suppress(BlockingIOError):
            while True:
                data, address = raw.recvfrom(1 << 16)
                if address[2] == socket.PACKET_OUTGOING and address[1] in (0x0800, 0x86DD):
                    caught.append(data)


def is_wireguard(packet: bytes) -> bool:
    """IPv4, UDP, to the far end's port."""
    return packet[0] == 0x45 and packet[9] == UDP and packet[22:24] == PORT.to_bytes(2, "big")


def is_neighbour_discovery(packet: bytes) -> bool:
    """The kernel's own, of veth: ICMPv6."""
    return packet[0] >> 4 == 6 and packet[6] in (58, 0)


TALK = """
import socket
for family, host in ((socket.AF_INET, "198.51.100.1"), (socket.AF_INET6, "2001:db8:1::1")):
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        for port in (53, 123, 443):
            probe.sendto(b"x" * 100, (host, port))
for name in ("a.example", "b.example"):
    try:
        socket.getaddrinfo(name, 80)
    except OSError:
        pass
"""


def test_a_sniffer_of_the_host_sees_only_wireguard(place: Place) -> None:
    with sniffer(place) as caught:
        environment = "RES_OPTIONS=timeout:1 attempts:1"
        done = run_inside(
            place, "env", environment, sys.executable, "-c", TALK, options=("--wait", "30")
        )
        assert done.returncode == 0, done.stderr
    # Equal datagrams of one turn leave as one train, so it is bytes that are counted.
    assert sum(map(len, filter(is_wireguard, caught))) >= 6 * (100 + 28 + 32)
    others = [
        each for each in caught if not is_wireguard(each) and not is_neighbour_discovery(each)
    ]
    assert others == []


RESOLVERS = """
import os, socket, subprocess, sys, threading
# As root, in a mount namespace of our own: daemons that would answer names. Prints who was spoken
# to: by a program of the user's outside, then by the same program in the tunnel.
subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", "/run"], check=True)
spoken = []
def serve(path, listener):
    while True:
        with listener.accept()[0]:
            spoken.append(path)
def hear_all(path):
    # What came before us was heard before us.
    with socket.socket(socket.AF_UNIX) as last:
        last.connect(path)
        last.recv(1)
    spoken.remove(path)
for path in sys.argv[1].split(","):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    os.chmod(path, 0o666)
    listener.listen()
    threading.Thread(target=serve, args=(path, listener), daemon=True).start()
os.environ["RES_OPTIONS"] = "timeout:1"
user = int(sys.argv[4])
for words in ("", sys.argv[2]):
    done = subprocess.run(
        words.split() + [sys.executable, "-c", sys.argv[3], sys.argv[1]],
        user=user, group=user, extra_groups=[],
    )
    for path in sys.argv[1].split(","):
        hear_all(path)
    print(done.returncode, sorted(set(spoken)), flush=True)
    spoken.clear()
"""
ASK_ALL = """
import socket, sys
for path in sys.argv[1].split(","):
    try:
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(path)
    except OSError:
        pass
try:
    socket.getaddrinfo("name.example", 80)
except OSError:
    pass
"""


def test_sockets_that_answer_names_are_not_to_be_found(place: Place) -> None:
    """Those of nscd, systemd-resolved, avahi and the system bus; the C library asks nscd first."""
    paths = [
        *("/run/nscd/socket", "/run/systemd/resolve/io.systemd.Resolve"),
        *("/run/dbus/system_bus_socket", "/run/avahi-daemon/socket"),
    ]
    inside = " ".join([*pywg("exec", str(place.file)), "--"])
    argv = [sys.executable, "-c", RESOLVERS, ",".join(paths), inside, ASK_ALL, str(UID)]
    with place.host.entered():
        words = ordinary.words(argv, 0)
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=90)
    outside, through = done.stdout.splitlines()
    assert outside == f"0 {sorted(paths)}"
    assert through == "0 []", done.stderr


# ---- nothing is left


def of_user() -> list[int]:
    """His processes that live."""
    found = []
    for path in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if path.name.isdigit() and path.stat().st_uid == UID:
                state = (path / "stat").read_text().rpartition(")")[2].split()[0]
                if state not in "ZX":
                    found.append(int(path.name))
    return found


def tree(root: int) -> dict[int, list[int]]:
    """The processes below one, each with its words."""
    found: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if path.name.isdigit():
                above = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                found.setdefault(above, []).append(int(path.name))
    return found


def below(root: int) -> list[int]:
    children = tree(root)
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


LEAVE_BEHIND = "setsid sleep 1000 & (sleep 1001 &) ; echo begun; exec sleep 1002"


VICTIMS = ["front", "keeper", "helper", "forwarder", "command", "child", "front keeper"]


@pytest.mark.parametrize("victim", VICTIMS)
def test_whichever_process_is_killed_nothing_is_left(place: Place, victim: str) -> None:
    forward = ["-L", f"127.0.0.1:{51970 + VICTIMS.index(victim)}:10.99.0.2:80"]
    argv = [*pywg("exec", *forward, str(place.file)), "--", "sh", "-c", LEAVE_BEHIND]
    with ordinary.started(place.host, argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        found = wait_until(lambda: roles_below(process.pid), "all of them are there")
        everything = of_user_of(found)
        for name in victim.split():
            os.kill(everything[name], signal.SIGKILL)
        if victim == "child":
            os.kill(found["command"], signal.SIGKILL)
        watched = list(everything.values())
        wait_until(
            lambda: not set(watched) & set(of_user()), f"all ended with the {victim}", seconds=10
        )
        process.wait(10)


def test_a_command_whose_caller_is_stopped_ends_with_its_tunnel(place: Place) -> None:
    argv = [*pywg("exec", str(place.file)), "--", "sh", "-c", "echo begun; exec sleep 1002"]
    with ordinary.started(place.host, argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        found = wait_until(
            lambda: roles_below(process.pid, without={"forwarder"}), "all of them are there"
        )
        os.kill(process.pid, signal.SIGSTOP)
        os.kill(found["keeper"], signal.SIGKILL)
        wait_until(lambda: not {found["command"], found["helper"]} & set(of_user()), "both ended")


ROLES = {"front", "keeper", "helper", "forwarder", "command"}


def roles_below(root: int, without: Collection[str] = ()) -> dict[str, int]:
    """Empty until the command's shell has become what it is."""
    found = {role_of(pid): pid for pid in below(root)}
    return found if found.keys() >= ROLES.difference(without) else {}


def role_of(pid: int) -> str:
    try:
        return _role_of(pid)
    except OSError:
        return "gone"


def _role_of(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    if b"pywg.rootless.helper" in words:
        return "helper"
    if b"exec" in words:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        above = Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0")
        if b"exec" not in above:
            return "front"
        return "keeper" if os.getsid(pid) == pid else "forwarder"
    last = words[-2] if len(words) > 1 else b""  # one that ends has no words any more
    return {b"1002": "command", b"1000": "child", b"1001": "orphan"}.get(last, "other")


def of_user_of(found: dict[str, int]) -> dict[str, int]:
    """With those that have left their parents."""
    return {role_of(pid): pid for pid in of_user()} | found


# ---- what a host refuses

FILTER = """
import ctypes, os, struct, sys
# BPF: unshare(2) gives EPERM, all else is allowed, as Docker's filter has it.
numbers = {"x86_64": 272, "aarch64": 97}
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, numbers[os.uname().machine]), (6, 0, 0, 0x50001),
         (6, 0, 0, 0x7FFF0000)]
code = b"".join(struct.pack("=HBBI", *step) for step in steps)
buffer = ctypes.create_string_buffer(code)
program = struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.create_string_buffer(program), 0, 0) == 0
os.execvp(sys.argv[1], sys.argv[1:])
"""
WITHOUT_NAMESPACES = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'


@pytest.mark.parametrize(
    ("around", "told"),
    [
        ([sys.executable, "-c", FILTER], "the seccomp filter of this container forbids namespaces"),
        (["unshare", "-U"], "this user has no number in the user namespace it is in"),
        (
            ["unshare", "-Ur", "sh", "-c", WITHOUT_NAMESPACES, "sh"],
            "user namespaces are switched off here (sudo sysctl -w user.max_user_namespaces=15000)",
        ),
    ],
)
def test_a_host_that_refuses_is_told_apart(place: Place, around: list[str], told: str) -> None:
    done = place.run([*around, *pywg("exec", str(place.file)), "--", "echo", "never"])
    assert (done.returncode, done.stdout) == (125, "")
    assert told in done.stderr


@pytest.mark.parametrize(
    ("make", "told"),
    [
        ("mknod /dev/net/tun c 10 200; chmod 600 /dev/net/tun", "is not open to this user"),
        ("true", "there is no usable /dev/net/tun"),
    ],
)
def test_a_tun_that_is_not_there_or_not_open_is_told_apart(
    place: Place, make: str, told: str
) -> None:
    as_user = f"setpriv --reuid {UID} --regid {UID} --clear-groups --inh-caps=-all"
    script = f'mount -t tmpfs none /dev/net; {make}; exec {as_user} "$@"'
    argv = ["unshare", "-m", "sh", "-c", script, "sh"]
    argv += [*pywg("exec", str(place.file)), "--", "echo", "never"]
    with place.host.entered():
        words = ordinary.words(argv, 0)
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (125, "")
    assert told in done.stderr


def test_the_profile_of_apparmor_is_printed(place: Place) -> None:
    done = place.run(pywg("exec", "--print-apparmor-profile"))
    assert done.returncode == 0
    assert "  userns,\n" in done.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["exec"], "write the command behind --"),
        (["exec", "x.conf"], "write the command behind --"),
        (["exec", "--", "true"], "which tunnel"),
        (["exec", "-L", "80", "x.conf", "--", "true"], "PORT:HOST:PORT"),
        (["shell"], "which tunnel"),
    ],
)
def test_wrong_usage_is_2(place: Place, words: list[str], told: str) -> None:
    done = place.run(pywg(*words))
    assert done.returncode == 2
    assert told in done.stderr
