"""Handles, locks and callbacks of Device and Interface, over a core that only counts. No root."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from ctypes import c_uint8
from typing import Any

import pytest

import pywg
from pywg.config import parse
from pywg.errors import ConfigError, DeviceError, Status, UapiError
from pywg.keys import PublicKey
from pywg.native import abi, interface, library
from pywg.native.device import Device, realtime_by_default
from pywg.native.events import of_record
from pywg.native.interface import Interface
from pywg.wireguard.status import InterfaceStatus

KEY = (c_uint8 * 32)(*range(32))


class Core:
    """Answers OK to everything."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.during: dict[str, Callable[[], object]] = {}

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*arguments: object) -> int:
            self.calls.append(name)
            self.during.get(name, lambda: None)()
            return 0

        return call


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Core:
    made = Core()
    monkeypatch.setattr(library, "load", lambda: made)
    return made


def test_a_signal_handler_may_stop_in_the_middle_of_a_call(core: Core) -> None:
    device = Device("wg0")
    core.during["pywg_device_set"] = device.stop  # as a handler that runs in this thread
    thread = threading.Thread(target=lambda: device.set("listen_port=1\n"), daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive(), "stop waits for the call it interrupted"
    device.close()
    assert core.calls[-1] == "pywg_device_close"


def test_names_are_looked_up_before_the_device_is_told(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Device, "get", lambda self: InterfaceStatus())
    config = parse(f"[Peer]\nPublicKey={'A' * 43}=\nEndpoint=localhost:5\n")
    device = Device("wg0", config)
    assert core.calls[-1] == "pywg_device_set"
    with pytest.raises(ConfigError, match=r"cannot resolve nx\.invalid"):
        device.set(parse(f"[Peer]\nPublicKey={'A' * 43}=\nEndpoint=nx.invalid:5\n"))
    assert core.calls.count("pywg_device_set") == 1
    device.close()


def test_an_interface_says_who_looks_names_up(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Interface, "get", lambda self: InterfaceStatus())
    config = parse(f"[Peer]\nPublicKey={'A' * 43}=\nEndpoint=localhost:5\n")
    with pytest.raises(UapiError, match=r"pywg\.resolve\(config\) looks names up"):
        Interface(config)
    assert Interface(pywg.resolve(config)) is not None


def test_a_forked_child_does_not_stop_the_device_of_its_parent(core: Core) -> None:
    device = Device("wg0")
    device._leave_to_parent()  # as after a fork
    device.stop()
    device.close()
    # In a child this gives back descriptors, and leaves the rest to the parent.
    assert core.calls == ["pywg_device_open", "pywg_device_close"]


def test_a_device_without_a_thread_is_closed_again(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="new thread"), Device("wg0"):
        pass
    assert core.calls[-1] == "pywg_device_close"


def test_a_device_runs_with_the_threads_it_gets(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, ended = threading.Thread.start, threading.Event()

    def refuse_the_third(thread: threading.Thread) -> None:
        if thread.name.startswith("pywg ") and thread.name.endswith(" 2"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_the_third)
    device = Device("wg0", threads=4)
    monkeypatch.setattr(device, "_granted_threads", lambda: 4)
    device.start(ended.set)
    assert ended.wait(5)
    device.close()
    assert core.calls.count("pywg_device_run") == 2


@pytest.mark.parametrize("refused", [False, True])
def test_only_the_threads_of_a_realtime_device_come_first(
    core: Core, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    asked = []

    def set_scheduler(pid: int, policy: int, parameter: os.sched_param) -> None:
        asked.append((pid, policy, parameter.sched_priority, threading.current_thread().name))
        if refused:
            raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", set_scheduler)
    for realtime in (False, True):
        ended = threading.Event()
        device = Device("wg0", realtime=realtime)
        device.start(ended.set)
        assert ended.wait(5)
        device.close()
    assert asked == [(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, 1, "pywg wg0 0")]
    assert core.calls.count("pywg_device_run") == 2


def test_threads_that_fill_all_cores_are_not_realtime_by_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    assert [realtime_by_default(threads) for threads in (1, 2, 3)] == [True, False, False]


def test_mtu_0_is_the_default_for_buffers_too(core: Core) -> None:
    assert Interface(mtu=0).mtu == 1420


@pytest.mark.parametrize("data", [None, "x" * 8, b"short", 8, [1] * 8 + ["x"]])
def test_entropy_that_is_not_bytes_fails(data: object) -> None:
    assert fill(lambda length: data) == (1, bytes(8))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_entropy_function_that_raises_fails(error: type[BaseException]) -> None:
    def entropy(length: int) -> None:
        raise error

    assert fill(entropy) == (1, bytes(8))


def test_entropy_may_be_any_bytes() -> None:
    assert fill(lambda length: b"\1" * length) == (0, b"\1" * 8)
    assert fill(lambda length: bytearray(b"\2" * length)) == (0, b"\2" * 8)


def fill(entropy: Callable[[int], Any]) -> tuple[int, bytes]:
    room = (ctypes.c_uint8 * 8)()
    callback: Any = interface._entropy_callback(entropy)
    return callback(None, room, 8), bytes(room)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threads": 65}, "threads 65 is out of range: 1 to 64"),
        ({"threads": 0}, "threads 0 is out of range"),
        ({"threads": (1 << 32) + 1}, "threads 4294967297 is out of range"),
        ({"mtu": (1 << 32) + 1420}, "mtu 4294968716 is out of range"),
        ({"mtu": -1}, "mtu -1 is out of range"),
        ({"memory_limit": -1}, "memory_limit -1 is out of range"),
        ({"memory_limit": 1 << 64}, "memory_limit 18446744073709551616 is out of range"),
        ({"tun_fd": (1 << 32) + 5}, "tun_fd 4294967301 is out of range"),
        ({"offload_disable": -1}, "offload_disable -1 is out of range"),
        ({"udp4_fd": 1 << 31}, "udp4_fd 2147483648 is out of range"),
        ({"udp6_fd": 0}, "udp6_fd is standard input"),
    ],
)
def test_a_value_that_c_would_cut_is_refused(
    core: Core, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(DeviceError, match=words) as caught:
        Device("wg0", **options)
    assert (caught.value.status, caught.value.hint) == (Status.INVALID_ARGUMENT, "")
    assert core.calls == []


def test_a_name_is_not_cut_at_a_nul(core: Core) -> None:
    with pytest.raises(DeviceError, match="NUL"):
        Device("wg\0x")
    assert core.calls == []


def test_a_number_that_is_none_is_a_type_error(core: Core) -> None:
    options: dict[str, Any] = {"threads": "2"}
    with pytest.raises(TypeError):
        Device("wg0", **options)


def test_the_advice_for_a_value_of_whatever_kind_names_no_other() -> None:
    error = DeviceError.explain(Status.INVALID_ARGUMENT, 0, "threads 65 is out of range", "wg0")
    assert (str(error), error.hint) == ("wg0: threads 65 is out of range", "")


@pytest.mark.parametrize(
    ("raw", "event"),
    [
        ({"kind": abi.PYWG_EVENT_LOST, "lost": 1 << 40}, pywg.EventsLost(1 << 40)),
        (
            {"kind": abi.PYWG_EVENT_TROUBLE, "public_key": KEY, "os_errno": 111},
            pywg.PeerTrouble(PublicKey(bytes(KEY)), errno.ECONNREFUSED),
        ),
        ({"kind": abi.PYWG_EVENT_STALE, "public_key": KEY}, pywg.PeerStale(PublicKey(bytes(KEY)))),
        (
            {
                "kind": abi.PYWG_EVENT_ENDPOINT,
                "public_key": KEY,
                "endpoint": abi.pywg_endpoint(
                    family=6, port=9, scope_id=3, address=(c_uint8 * 16)(0xFE, 0x80)
                ),
            },
            pywg.EndpointChanged(PublicKey(bytes(KEY)), pywg.Endpoint("fe80::%3", 9)),
        ),
        (
            {
                "kind": abi.PYWG_EVENT_STEPPED_DOWN,
                "offload": 4,
                "os_errno": 5,
                "endpoint": abi.pywg_endpoint(
                    family=4, port=9, address=(c_uint8 * 16)(192, 0, 2, 1)
                ),
            },
            pywg.OffloadSteppedDown(pywg.Offload.UDP_GSO, 5, pywg.Endpoint("192.0.2.1", 9)),
        ),
        (
            {"kind": abi.PYWG_EVENT_STEPPED_DOWN, "offload": 1, "os_errno": 22},
            pywg.OffloadSteppedDown(pywg.Offload.TUN_TSO, 22, None),
        ),
        ({"kind": 77}, None),
    ],
)
def test_a_record_of_the_core_becomes_an_event(
    raw: dict[str, Any], event: pywg.Event | None
) -> None:
    assert of_record(abi.pywg_event(**raw)) == event
