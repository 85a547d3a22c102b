"""A new pywgd takes a tunnel over from the running one: the session goes on, no connection breaks,
and whatever becomes of the new one before it has all of it, the running one goes on."""

from __future__ import annotations

import array
import contextlib
import dataclasses
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.lab import programs
from tools.lab.daemon import Daemon, ask, pid_of, socket_path
from tools.lab.lab import PORT, Lab, Side, Tunnel, handshake_seconds
from tools.lab.programs import REPOSITORY
from tools.lab.stream import Stream
from tools.lab.traffic import exchange
from tools.lab.waiting import wait_until
from tools.lab.wire import Wire

pytestmark = pytest.mark.pywgd_only


def taking(*more: str) -> programs.Program:
    return dataclasses.replace(programs.subject(), arguments=("-f", "--take-over", *more))


def take_over(lab: Lab, side: Side, **options: object) -> Daemon:
    """Returns the one that is no more."""
    old = side.daemon
    side.daemon = lab.daemon(taking(), side.namespace, old.name, **options)
    assert old.wait(30) == 0, side.daemon.log()
    assert side.daemon.process.poll() is None, side.daemon.log()
    return old


def attempt(
    lab: Lab, side: Side, *more: str, wrapper: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """A new one that is expected to fail."""
    program = taking(*more)
    words = [*wrapper, program.path, *program.arguments, side.daemon.name]
    with side.namespace.entered():
        return subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, **environment},
        )


def descriptors(daemon: Daemon) -> int:
    return len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))


@contextlib.contextmanager
def undisturbed(tunnel: Tunnel) -> Iterator[None]:
    """What is under way goes on by the session that there is, with the one that there was."""
    before = handshake_seconds(tunnel.a, tunnel.b)
    process, count = tunnel.a.daemon.process, descriptors(tunnel.a.daemon)
    wire = Wire(tunnel.a.namespace)
    a, b = tunnel.a, tunnel.b
    with (
        Stream(a.namespace, b.namespace, b.inner4) as there,
        Stream(b.namespace, a.namespace, a.inner6) as back,
    ):
        there.flows()
        back.flows()
        yield
        there.flows()
        back.flows()
    assert process.poll() is None
    assert handshake_seconds(a, b) == before
    assert wire["initiation_output"] + wire["initiation_input"] == 0
    wait_until(lambda: descriptors(tunnel.a.daemon) == count, "no descriptor is left")


# ---- it works


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("threads", [1, 3])
def test_both_ends_are_taken_over_in_the_middle_of_a_connection(
    lab: Lab, threads: int, outer: int
) -> None:
    environment = {"PYWG_THREADS": str(threads)}
    tunnel = lab.tunnel(psk=True, outer=outer, environment=environment)
    a, b = tunnel.a, tunnel.b
    tunnel.session()
    wire = Wire(a.namespace)
    before = handshake_seconds(a, b), handshake_seconds(b, a)
    shown = a.daemon.wg("showconf", a.daemon.name)
    received = int(a.daemon.peer(b.key.public)["rx"])

    def both() -> None:
        for side in (a, b, a):
            take_over(lab, side)

    for address in (b.inner4, b.inner6):
        exchange(a.namespace, b.namespace, address, 8 << 20, 8 << 20, midway=both)
    assert (handshake_seconds(a, b), handshake_seconds(b, a)) == before
    assert wire["initiation_output"] + wire["initiation_input"] == 0
    assert a.daemon.wg("showconf", a.daemon.name) == shown
    assert int(a.daemon.peer(b.key.public)["rx"]) > received + (16 << 20)
    assert int(a.daemon.report()["udp_received"]) > 8 << 20 >> 16
    assert a.daemon.report()["threads"] == str(threads)
    for reason in ("replayed", "not_authentic", "unknown_index", "expired_session"):
        assert a.daemon.drops()[reason] == b.daemon.drops()[reason] == 0


def test_a_stream_each_way_goes_on_however_often_it_happens(lab: Lab) -> None:
    tunnel = lab.tunnel()
    a, b = tunnel.a, tunnel.b
    tunnel.session()
    wire = Wire(a.namespace)
    with (
        Stream(a.namespace, b.namespace, b.inner4) as there,
        Stream(b.namespace, a.namespace, a.inner6) as back,
    ):
        for side in (a, b) * 5:
            take_over(lab, side)
            there.flows()
            back.flows()
    assert wire["initiation_output"] + wire["initiation_input"] == 0


def test_what_was_taken_over_can_be_configured_renewed_and_ended(lab: Lab) -> None:
    tunnel = lab.tunnel(environment={"PYWG_THREADS": "2"})
    a, b = tunnel.a, tunnel.b
    tunnel.session()
    old = take_over(lab, a, environment={"PYWG_THREADS": "1"})
    assert a.daemon.report()["threads"] == "2"  # the TUN has two queues
    a.daemon.set("listen-port", "4801", "fwmark", "7")
    tunnel.ping()
    assert b.daemon.peer(a.key.public)["endpoint"].endswith(":4801")
    for state in ("down", "up"):
        a.namespace.ip("link", "set", a.daemon.name, state)
    a.namespace.ip("address", "add", f"{a.inner6}/64", "dev", a.daemon.name, "nodad")
    tunnel.ping()
    assert old.log().count("taken over by another process") == 1
    assert socket_path(a.daemon.name).exists()
    assert a.daemon.terminate() == 0
    assert not socket_path(a.daemon.name).exists()
    assert a.namespace.link(a.daemon.name) is None


def test_an_interface_that_is_down_or_has_no_key_is_taken_over_too(lab: Lab) -> None:
    spaces = lab.cabled()
    side = lab.side(None, 1, spaces[0])
    take_over(lab, side)
    side.daemon.setconf(side.interface_section())
    take_over(lab, side)
    side.daemon.up(f"{side.inner4}/24")
    wait_until(lambda: side.daemon.report()["up"] == "true", "it is up")
    take_over(lab, side)
    assert side.daemon.wg("show", side.daemon.name, "listen-port").strip() == str(PORT)
    assert side.daemon.report()["up"] == "true"


def test_many_peers_and_all_their_settings_are_there(lab: Lab) -> None:
    tunnel = lab.tunnel()
    tunnel.session()
    name = tunnel.a.daemon.name
    lines = []
    for number in range(3000):
        high, low = divmod(number, 250)
        lines += [
            f"public_key={secrets.token_hex(32)}",
            f"preshared_key={secrets.token_hex(32)}",
            f"endpoint=[2001:db8::{number + 16:x}]:{number + 1}",
            f"allowed_ip=10.{100 + high}.{low}.0/24",
            f"allowed_ip=fd99:0:{number + 1:x}::/48",
        ]
    request = "set=1\n" + "\n".join(lines)
    assert ask(name, request)["errno"] == "0"
    dump = tunnel.a.daemon.wg("show", name, "dump")
    with Stream(tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner4) as stream:
        stream.flows()
        take_over(lab, tunnel.a)
        stream.flows()
    # Counters of the one that is spoken to went on.
    peer = tunnel.b.key.public
    taken = tunnel.a.daemon.wg("show", name, "dump")
    assert without(taken, peer) == without(dump, peer)
    assert len(taken.splitlines()) == 3002
    removed = [f"{line}\nremove=true" for line in lines if line.startswith("public_key=")]
    assert ask(name, "set=1\n" + "\n".join(removed))["errno"] == "0"
    tunnel.ping()


def without(dump: str, peer: str) -> list[str]:
    return [line for line in dump.splitlines() if not line.startswith(peer)]


def test_in_the_background_it_returns_once_it_serves(lab: Lab) -> None:
    tunnel = lab.tunnel()
    a = tunnel.a
    tunnel.session()
    with a.namespace.entered():
        done = subprocess.run(
            [programs.subject().path, "--take-over", a.daemon.name], timeout=30, check=False
        )
    assert done.returncode == 0
    assert a.daemon.wait(10) == 0
    pid = wait_until(lambda: pid_of(a.daemon.name), "it is in the background")
    assert pid is not None
    try:
        tunnel.ping()
        assert handshake_seconds(a, tunnel.b) > 0
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not socket_path(a.daemon.name).exists(), "it has ended")


IN_PYTHON = """
import sys, threading
import pywg
over = threading.Event()
device = pywg.Device(sys.argv[1], take_over=sys.argv[2] == "take")
device.start(over.set)
print("serves", flush=True)
over.wait(60)
device.wait(10)
print(device.was_handed_over, flush=True)
device.close()
"""


def test_programs_in_python_take_over_and_are_taken_over(lab: Lab) -> None:
    tunnel = lab.tunnel(environment={"PYWG_THREADS": "2"})
    a, b = tunnel.a, tunnel.b
    tunnel.session()
    before = handshake_seconds(a, b)
    words = [sys.executable, "-c", IN_PYTHON, a.daemon.name, "take"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    program = a.namespace.popen(
        words, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, env=environment
    )
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "serves\n"
        assert a.daemon.wait(10) == 0
        tunnel.ping()
        assert ask(a.daemon.name, "pywg_get=1")["threads"] == "2"
        a.daemon = lab.daemon(taking(), a.namespace, a.daemon.name)
        assert program.stdout.readline() == "True\n"
        assert program.wait(10) == 0
        tunnel.ping()
        assert a.daemon.process.poll() is None
        assert handshake_seconds(a, b) == before
    finally:
        program.kill()
        program.wait()


# ---- it fails, and the running one goes on


# The first three are of its first request. The fourth of what it watches, which packets pass
# meanwhile, and the last of the sockets that it gets, when they wait.
@pytest.mark.parametrize(
    "where", ["sendto:1", "recvmsg:1", "recvfrom:1", "epoll_ctl:4", "epoll_ctl:8"]
)
def test_one_that_is_killed_at_any_point_leaves_all_as_it_was(lab: Lab, where: str) -> None:
    call, number = where.split(":")
    tunnel = lab.tunnel()
    tunnel.session()
    injected = f"inject={call}:signal=KILL:when={number}"
    wrapper = ("strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", injected)
    with undisturbed(tunnel):
        assert attempt(lab, tunnel.a, wrapper=wrapper).returncode != 0


@pytest.mark.parametrize(
    "call", ["recvmsg:EIO:1", "mmap:ENOMEM:20+", "epoll_ctl:ENOSPC:4", "epoll_ctl:ENOSPC:8"]
)
def test_one_that_lacks_something_says_so_and_leaves_all_as_it_was(lab: Lab, call: str) -> None:
    name, error, number = call.split(":")
    tunnel = lab.tunnel()
    tunnel.session()
    injected = f"inject={name}:error={error}:when={number}"
    wrapper = ("strace", "-qq", "-o", "/dev/null", "-e", f"trace={name}", "-e", injected)
    with undisturbed(tunnel):
        done = attempt(lab, tunnel.a, wrapper=wrapper)
        assert done.returncode == 1, done
        assert done.stderr.startswith("pywgd: "), done


def test_one_that_may_take_too_little_memory_is_refused_by_itself(lab: Lab) -> None:
    tunnel = lab.tunnel()
    tunnel.session()
    with undisturbed(tunnel):
        done = attempt(lab, tunnel.a, PYWG_MEMORY_LIMIT="2")
        assert done.returncode == 1
        assert "out of memory" in done.stderr, done.stderr


def test_who_is_not_root_nor_of_the_same_user_is_refused(lab: Lab) -> None:
    tunnel = lab.tunnel()
    tunnel.session()
    name = tunnel.a.daemon.name
    nobody = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--")
    with undisturbed(tunnel):
        done = attempt(lab, tunnel.a, wrapper=nobody)
        assert done.returncode == 1
        assert "no permission to take over" in done.stderr, done.stderr
        # Whatever the mode of the file has become. That it is let in by nobody it may notice when it
        # asks, or when it waits for the answer.
        socket_path(name).chmod(0o666)
        done = attempt(lab, tunnel.a, wrapper=nobody)
        assert done.returncode == 1
        assert re.search("gave up handing over|lets in root and its own user", done.stderr), done


def test_another_network_namespace_and_nobody_there_are_told(lab: Lab) -> None:
    tunnel = lab.tunnel()
    tunnel.session()
    with undisturbed(tunnel):
        elsewhere = dataclasses.replace(tunnel.a, namespace=tunnel.b.namespace)
        done = attempt(lab, elsewhere)
        assert done.returncode == 1
        assert "another network namespace" in done.stderr, done.stderr
    program = taking()
    done = tunnel.a.namespace.attempt(program.path, *program.arguments, "nobody0")
    assert done.returncode == 1
    assert "nobody to take over from" in done.stderr, done.stderr


# ---- the running one's side of it, spoken to by hand


class Other:
    """A process that takes over, as far as it goes."""

    def __init__(self, daemon: Daemon) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(str(socket_path(daemon.name)))
        self.format = int(ask(daemon.name, "pywg_take_over=0")["pywg_format"])

    def __enter__(self) -> Other:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, what: str) -> None:
        self.socket.sendall(f"{what}={self.format}\n\n".encode())

    def frame(self) -> tuple[bytes, list[int]]:
        """What comes with its descriptors, which are closed."""
        numbers = array.array("i")
        start, control, _, _ = self.socket.recvmsg(8, socket.CMSG_SPACE(4 * 200))
        for level, kind, data in control:
            assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
            numbers.frombytes(data)
        for number in numbers:
            os.close(number)
        assert start[:4] == b"\0pyw"
        length = int.from_bytes(start[4:], "little")
        return self.socket.recv(length, socket.MSG_WAITALL), list(numbers)

    def drain(self) -> int:
        """Takes what comes until the other end is through with it; how much that was."""
        count = 0
        self.socket.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            while piece := self.socket.recv(1 << 16):
                count += len(piece)
        return count


def test_the_words_of_a_take_over(lab: Lab) -> None:
    tunnel = lab.tunnel()
    tunnel.session()
    with undisturbed(tunnel), Other(tunnel.a.daemon) as other:
        other.ask("pywg_take_over")
        hello, queues = other.frame()
        assert tunnel.a.daemon.name.encode() in hello
        assert len(queues) == 2  # one of the TUN, and the UAPI socket
    for wrong in ("", "x", "999", str(2**40)):
        for what in ("pywg_take_over", "pywg_hand_over"):
            answer = ask(tunnel.a.daemon.name, f"{what}={wrong}")
            assert answer == {"pywg_format": str(other.format), "errno": "-93"}


def test_who_does_not_wait_for_what_he_is_told_is_not_listened_to(lab: Lab) -> None:
    tunnel = lab.tunnel()
    tunnel.session()
    with undisturbed(tunnel), Other(tunnel.a.daemon) as other:
        other.socket.sendall(f"pywg_hand_over={other.format}\n\nM".encode())
        assert other.drain() == 0


@pytest.mark.parametrize("how", ["leaves", "says something else", "does nothing", "is too late"])
def test_who_does_not_say_that_it_is_his_in_time_has_nothing(lab: Lab, how: str) -> None:
    tunnel = lab.tunnel()
    tunnel.session()
    with undisturbed(tunnel), Other(tunnel.a.daemon) as other:
        other.ask("pywg_hand_over")
        _, sockets = other.frame()
        assert len(sockets) == 2  # one of each family
        if how == "leaves":
            other.socket.close()
        elif how == "says something else":
            assert other.drain() > 1000
            other.socket.sendall(b"N")
        else:
            started = time.monotonic()
            wait_until(lambda: "goes on" in tunnel.a.daemon.log(), "it is given up")
            assert time.monotonic() - started < 10
            if how == "is too late":
                with pytest.raises(BrokenPipeError):
                    other.socket.sendall(b"M")
        wait_until(lambda: "could not be taken over, and goes on" in tunnel.a.daemon.log(), "told")
    take_over(lab, tunnel.a)  # another can, after all that
    tunnel.ping()


def test_no_secret_is_written_and_none_is_left_with_the_one_that_is_no_more(lab: Lab) -> None:
    """The lab looks for keys in all logs at its end; here also at what a refusal says."""
    tunnel = lab.tunnel(psk=True)
    tunnel.session()
    old = take_over(lab, tunnel.a)
    done = attempt(lab, tunnel.b, PYWG_MEMORY_LIMIT="2")
    said = old.log() + tunnel.a.daemon.log() + done.stderr
    assert tunnel.psk is not None
    for secret in (tunnel.a.key.private, tunnel.b.key.private, tunnel.psk):
        assert secret not in said
    tunnel.ping()
