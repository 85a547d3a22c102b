"""What a program must not do with an interface or a device, or does without thinking: fork,
threads, copies, calls from within. No nonce is used twice, and nothing ends the program.

In C by tests/data/misuse.c, under valgrind too; in Python here.
"""

from __future__ import annotations

import copy
import os
import pickle
import secrets
import shutil
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pywg.errors import DeviceError, Status
from pywg.keys import PrivateKey
from pywg.native.device import Device
from pywg.native.interface import Interface, Packet, Verdict
from tools.lab.embedder import VALGRIND, compiled

ROOT = Path(__file__).parents[2]
INNER = bytes.fromhex("4500001c 00000000 40110000 0a000001 0a000002 00070007 00080000")
WORDS = ["fork", "threads", "buffers", "lengths", "batches", "entropy"]
WORDS += ["handles", "closing", "keys"]
HERE, THERE = ("192.0.2.1", 1), ("192.0.2.1", 2)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("ziglang")
    return compiled("misuse.c", tmp_path_factory.mktemp("misuse"))


def test_in_c(program: Path) -> None:
    done = subprocess.run([program], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout.split()) == (0, WORDS), done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="needs valgrind (Debian: valgrind)")
def test_in_c_under_valgrind(program: Path) -> None:
    watched = [*VALGRIND, str(program)]
    done = subprocess.run(watched, capture_output=True, text=True, check=False, timeout=600)
    assert (done.returncode, done.stdout.split()) == (0, WORDS), done.stdout + done.stderr


def text(own: PrivateKey, peer: PrivateKey, inner: str, port: int) -> str:
    return (
        f"private_key={own.to_hex()}\npublic_key={peer.public.to_hex()}\n"
        f"endpoint=192.0.2.1:{port}\nallowed_ip={inner}/32\n"
    )


def pair(entropy: Callable[[int], bytes] | None = None) -> tuple[Interface, Interface]:
    """Two that have a session."""
    ours, theirs = PrivateKey.generate(), PrivateKey.generate()
    a = Interface(text(ours, theirs, "10.0.0.2", 2), entropy=entropy)
    b = Interface(text(theirs, ours, "10.0.0.1", 1))
    assert a.seal([INNER])[0].verdict is Verdict.STAGED
    for sender, address, receiver in [(a, HERE, b), (b, THERE, a), (a, HERE, b)]:
        receiver.receive([(datagram.data, address) for datagram in sender.poll()])
    return a, b


@pytest.fixture
def sealing() -> Iterator[Interface]:
    a, b = pair()
    with a, b:
        assert a.seal([INNER])[0].verdict is Verdict.SEALED
        yield a


def in_child(body: Callable[[], object]) -> str:
    """What ``body`` returns or raises in a forked child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = repr(body())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        said = stream.read()
    assert os.waitpid(child, 0)[1] == 0
    return said


CALLS: dict[str, Callable[[Interface], object]] = {
    "seal": lambda interface: interface.seal([INNER]),
    "receive": lambda interface: interface.receive([(bytes(32), HERE)]),
    "poll": lambda interface: interface.poll(),
    "expire": lambda interface: interface.expire(),
    "deadline": lambda interface: interface.deadline(),
    "dropped": lambda interface: interface.dropped(),
    "get_text": lambda interface: interface.get_text(),
    "set": lambda interface: interface.set("listen_port=1\n"),
}


@pytest.mark.parametrize("call", CALLS)
def test_an_interface_is_refused_in_a_forked_child(sealing: Interface, call: str) -> None:
    said = in_child(lambda: CALLS[call](sealing))
    assert said.startswith("DeviceError: ") and "after fork" in said
    assert sealing.seal([INNER])[0].verdict is Verdict.SEALED


def test_the_core_itself_refuses_a_child_that_python_knows_nothing_of(sealing: Interface) -> None:
    handle = sealing._handle

    def body() -> list[Packet]:
        sealing._handle, sealing._was_forked = handle, False
        return sealing.seal([INNER])

    assert "after fork" in in_child(body)


def test_a_child_closes_what_is_not_its_own_and_opens_another(sealing: Interface) -> None:
    def body() -> str:
        sealing.close()
        with Interface(text(PrivateKey.generate(), PrivateKey.generate(), "10.0.0.2", 1)) as own:
            return own.seal([INNER])[0].verdict.name

    assert in_child(body) == "'STAGED'"
    assert sealing.seal([INNER])[0].verdict is Verdict.SEALED


def test_a_child_forked_in_the_middle_of_a_call_does_not_wait_for_it() -> None:
    asked, go_on = threading.Event(), threading.Event()

    def answer(length: int) -> bytes:
        if threading.current_thread().name == "polling":
            asked.set()
            go_on.wait(30)
        return secrets.token_bytes(length)

    with Interface(entropy=answer) as interface:
        interface.set(text(PrivateKey.generate(), PrivateKey.generate(), "10.0.0.2", 1))
        interface.seal([INNER])
        polling = threading.Thread(target=interface.poll, name="polling")
        polling.start()
        assert asked.wait(30)
        assert "after fork" in in_child(interface.poll)
        go_on.set()
        polling.join()


def test_threads_that_seal_with_one_interface_use_no_counter_twice(sealing: Interface) -> None:
    counters: list[int] = []

    def body() -> None:
        for _ in range(100):
            sealed = sealing.seal([INNER] * 8)
            counters.extend(struct.unpack_from("<Q", packet.data, 8)[0] for packet in sealed)

    many = [threading.Thread(target=body) for _ in range(4)]
    for thread in many:
        thread.start()
    for thread in many:
        thread.join()
    assert len(counters) == len(set(counters)) == 4 * 100 * 8


def test_closing_while_threads_call_ends_them_with_an_error() -> None:
    a, b = pair()
    errors: list[DeviceError] = []
    began = threading.Barrier(5)

    def body() -> None:
        began.wait()
        try:
            while True:
                a.seal([INNER] * 8)
        except DeviceError as error:
            errors.append(error)

    many = [threading.Thread(target=body) for _ in range(4)]
    for thread in many:
        thread.start()
    began.wait()
    a.close()
    b.close()
    for thread in many:
        thread.join()
    assert [error.status for error in errors] == [Status.CLOSED] * 4


def test_an_entropy_function_that_calls_back_is_told_so() -> None:
    told: list[str] = []
    own: list[Interface] = []

    def curious(length: int) -> bytes:
        for interface in own:
            try:
                interface.deadline()
            except DeviceError as error:
                told.append(str(error))
        return secrets.token_bytes(length)

    a, b = pair(curious)
    with a, b:
        own.append(a)
        a.set(text(PrivateKey.generate(), PrivateKey.generate(), "10.0.0.3", 3))
        a.seal([INNER[:16] + bytes([10, 0, 0, 3]) + INNER[20:]])
        assert len(a.poll()) == 1
    assert told


COPIES: dict[str, Callable[[object], object]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
}


@pytest.mark.parametrize("way", COPIES)
def test_an_interface_is_not_copied(sealing: Interface, way: str) -> None:
    with pytest.raises(TypeError, match=r"cannot be copied or pickled.*same keys"):
        COPIES[way](sealing)
    assert sealing.seal([INNER])[0].verdict is Verdict.SEALED


@pytest.mark.parametrize("way", COPIES)
def test_a_device_is_not_copied(way: str) -> None:
    device = Device.__new__(Device)  # making one takes root
    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        COPIES[way](device)
