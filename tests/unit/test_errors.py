"""Every status of the core becomes one line with a cause and a remedy."""

from __future__ import annotations

import ctypes
import errno
import re
from ctypes import CDLL
from pathlib import Path
from typing import Any, cast

import pytest

from pywg import errors
from pywg.errors import CoreLoadError, DeviceError, PermissionDenied, Status
from pywg.native import abi, library
from pywg.native.device import Device
from pywg.native.options import LogLevel, Offload

HEADER = (Path(__file__).parents[2] / "core" / "include" / "pywg.h").read_text()


def test_status_values_are_those_of_the_header() -> None:
    found = {
        name: int(value) for name, value in re.findall(r"#define PYWG_(\w+) \((-\d+)\)", HEADER)
    }
    assert {**found, "OK": 0, "HANDED_OVER": 1} == {status.name: status.value for status in Status}
    for status in Status:
        assert getattr(abi, f"PYWG_{status.name}") == status


def test_every_constant_and_function_of_the_header_is_declared() -> None:
    constants = re.findall(r"#define (PYWG_\w+) \(?(-?\d+)u?\)?", HEADER)
    assert len(constants) > 20
    for name, value in constants:
        assert getattr(abi, name) == int(value)
    functions = re.findall(r"^(?!typedef)[\w ]+[ *](pywg_\w+)\(([^;]*)\);", HEADER, re.MULTILINE)
    assert [name for name, _ in functions] == list(abi.FUNCTIONS)
    for name, parameters in functions:
        count = 0 if parameters == "void" else parameters.count(",") + 1
        assert len(abi.FUNCTIONS[name][1]) == count, name


@pytest.mark.parametrize(
    "struct",
    ["diagnostic", "device_options", "peer_counters", "event", "now", "endpoint", "packet"],
)
def test_structs_have_the_fields_of_the_header_in_order(struct: str) -> None:
    body = re.search(rf"typedef struct pywg_{struct} {{(.*?)}}", HEADER, re.DOTALL)
    assert body is not None
    fields = re.findall(r"(\w+)(?:\[\d+\])?;", re.sub(r"/\*.*?\*/", "", body[1], flags=re.DOTALL))
    assert [name for name, _ in getattr(abi, f"pywg_{struct}")._fields_] == fields


def test_struct_sizes_on_64_bits() -> None:
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        pytest.skip("sizes are those of 64-bit machines")
    assert ctypes.sizeof(abi.pywg_diagnostic) == 280
    assert ctypes.sizeof(abi.pywg_device_options) == 72
    assert ctypes.sizeof(abi.pywg_peer_counters) == 80
    assert ctypes.sizeof(abi.pywg_event) == 80
    assert ctypes.sizeof(abi.pywg_endpoint) == 24
    assert ctypes.sizeof(abi.pywg_packet) == 56
    assert ctypes.sizeof(abi.pywg_interface_options) == 32


@pytest.mark.parametrize("status", [status for status in Status if status != Status.OK])
@pytest.mark.parametrize("os_errno", [0, errno.EPERM, errno.ENOENT, errno.EIO, 9999])
def test_every_status_is_one_line_about_the_interface(status: Status, os_errno: int) -> None:
    error = DeviceError.explain(status, os_errno, "", "wg0")
    assert str(error).startswith("wg0: ")
    assert "\n" not in str(error)
    assert (error.status, error.os_errno) == (status, os_errno)
    assert "NAME" not in str(error)


@pytest.mark.parametrize(
    ("status", "os_errno", "cause", "remedy"),
    [
        (Status.PERMISSION, errno.EPERM, "permission denied", "sudo"),
        (Status.PERMISSION, errno.EACCES, "permission denied", "chmod 666 /dev/net/tun"),
        (Status.NOT_FOUND, errno.ENOENT, "no /dev/net/tun", "mknod /dev/net/tun c 10 200"),
        (Status.NOT_FOUND, errno.ENODEV, "no TUN driver", "--device /dev/net/tun"),
        (Status.NAME_IN_USE, 0, "the name is in use", "ip link delete dev wg0"),
        (Status.NAME_IN_USE, errno.EBUSY, "another process", "pywg down wg0"),
        (Status.ADDRESS_IN_USE, errno.EADDRINUSE, "listen port is taken", "ss -ulpn"),
        (Status.LIMIT, errno.EMFILE, "too many open files", "ulimit -n"),
        (Status.INVALID_ARGUMENT, 0, "not allowed", "1 to 15"),
        (Status.CLOSED, 0, "closed", "open a new one"),
    ],
)
def test_causes_and_remedies(status: Status, os_errno: int, cause: str, remedy: str) -> None:
    error = DeviceError.explain(status, os_errno, "", "wg0")
    assert cause in str(error)
    assert remedy in error.hint


def test_what_the_core_says_is_kept() -> None:
    error = DeviceError.explain(Status.CONFIGURATION, 0, "line 3: unknown key", "wg0")
    assert str(error) == "wg0: line 3: unknown key"
    error = DeviceError.explain(Status.SYSTEM, errno.EIO, "read of the TUN failed", "wg0")
    assert str(error) == "wg0: read of the TUN failed"
    error = DeviceError.explain(Status.NAME_IN_USE, 0, "wg0 is there: remove it", "wg0")
    assert str(error) == "wg0: wg0 is there: remove it"
    assert "ip link delete dev wg0" in error.hint


def test_an_unknown_errno_is_spelled_out() -> None:
    assert "Input/output error" in str(DeviceError.explain(Status.SYSTEM, errno.EIO))
    assert "status -99" in str(DeviceError.explain(-99))


def test_permission_has_its_own_type() -> None:
    assert isinstance(DeviceError.explain(Status.PERMISSION), PermissionDenied)
    assert not isinstance(DeviceError.explain(Status.SYSTEM), PermissionDenied)


def test_system_calls_name_the_file_and_the_remedy() -> None:
    error = errors.system_call(PermissionError(errno.EACCES, "x"), "/etc/wireguard/wg0.conf")
    assert str(error) == "/etc/wireguard/wg0.conf: Permission denied (run it with sudo)"


def test_a_missing_core_says_where_it_looked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYWG_CORE", str(tmp_path / "none.so"))
    with pytest.raises(CoreLoadError, match=r"none\.so.*pip install"):
        library.find()


def test_another_abi_is_refused_with_the_file_name() -> None:
    class Function:
        def __call__(self) -> int:
            return 7

    class Library:
        pywg_abi_version = Function()

    with pytest.raises(CoreLoadError, match=r"/x/libpywg\.so has ABI 7, this package needs ABI 1"):
        library.check_version(cast(CDLL, Library()), Path("/x/libpywg.so"))


def test_a_library_without_version_is_no_core() -> None:
    with pytest.raises(CoreLoadError, match="is not a pywg core"):
        library.check_version(cast(CDLL, object()), Path("/x/libpywg.so"))


def test_the_checkout_is_searched_after_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYWG_CORE", raising=False)
    packaged, checkout = library.candidates()
    assert packaged.parts[-3:] == ("pywg", "_native", "libpywg.so")
    assert checkout.parts[-3:] == ("zig-out", "lib", "libpywg.so")


class FakeCore:
    """pywg_device_* in Python: opens with a status, then answers texts."""

    def __init__(self, status: int = 0, os_errno: int = 0, text: bytes = b"") -> None:
        self.status, self.os_errno, self.text = status, os_errno, text
        self.calls: list[tuple[object, ...]] = []
        self.answer = b"listen_port=1\n" * 4000  # longer than the first buffer

    def pywg_device_open(self, options: Any, handle: Any, diagnostic: Any) -> int | Status:
        given = options._obj
        self.calls.append(("open", given.name, given.mtu, given.no_uapi, given.offload_disable))
        diagnostic._obj.os_errno, diagnostic._obj.text = self.os_errno, self.text
        handle._obj.value = 42
        return self.status

    def pywg_device_set(
        self, handle: ctypes.c_void_p, text: bytes, length: int, diagnostic: Any
    ) -> Status:
        self.calls.append(("set", text))
        assert length == len(text)
        return Status.CONFIGURATION if text == b"bad" else Status.OK

    def pywg_device_get(
        self, handle: ctypes.c_void_p, buffer: Any, capacity: int, length: Any
    ) -> Status:
        length._obj.value = len(self.answer)
        if capacity < len(self.answer):
            return Status.BUFFER_TOO_SMALL
        ctypes.memmove(buffer, self.answer, len(self.answer))
        return Status.OK

    def pywg_device_report(
        self, handle: ctypes.c_void_p, buffer: Any, capacity: int, length: Any
    ) -> Status:
        return Status.OK  # nothing to tell

    def pywg_device_run(self, handle: ctypes.c_void_p, diagnostic: Any) -> int | Status:
        self.calls.append(("run",))
        return self.status

    def pywg_device_stop(self, handle: ctypes.c_void_p) -> Status:
        self.calls.append(("stop",))
        return Status.OK

    def pywg_device_close(self, handle: ctypes.c_void_p) -> None:
        self.calls.append(("close",))


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> FakeCore:
    fake = FakeCore()
    monkeypatch.setattr(library, "load", lambda: fake)
    return fake


def test_a_device_that_does_not_open_raises_the_diagnostic(core: FakeCore) -> None:
    core.status, core.os_errno = Status.NOT_FOUND, errno.ENOENT
    with pytest.raises(DeviceError, match="wg0: there is no /dev/net/tun"):
        Device("wg0")
    assert core.calls == [("open", b"wg0", 0, 0, 0)]


def test_a_device_passes_its_options_and_closes_once(core: FakeCore) -> None:
    device = Device("wg0", mtu=1300, uapi_socket=False, offload_disable=Offload.UDP_GSO)
    device.close()
    device.close()
    assert core.calls == [("open", b"wg0", 1300, 1, 4), ("stop",), ("close",)]
    with pytest.raises(DeviceError, match="closed"):
        device.get()


def test_a_configuration_that_is_refused_closes_the_device(core: FakeCore) -> None:
    with pytest.raises(DeviceError):
        Device("wg0", "bad")
    assert core.calls[-1] == ("close",)


def test_long_answers_are_asked_for_again(core: FakeCore) -> None:
    assert Device("wg0").get().listen_port == 1


def test_a_device_runs_in_a_thread_for_the_length_of_the_block(core: FakeCore) -> None:
    with Device("wg0") as device:
        device.wait()
    assert core.calls[1:] == [("run",), ("stop",), ("close",)]


def test_what_ended_the_thread_is_raised_by_wait(core: FakeCore) -> None:
    device = Device("wg0")
    core.status = Status.SYSTEM
    ended = []
    device.start(finished=lambda: ended.append(True))
    with pytest.raises(DeviceError, match="system call failed"):
        device.wait()
    assert ended == [True]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Offload.NONE),
        ("tun_tso", Offload.TUN_TSO),
        ("udp_gso, udp_gro", Offload.UDP_GSO | Offload.UDP_GRO),
        ("all", Offload.ALL),
    ],
)
def test_offloads_are_named(text: str, expected: Offload) -> None:
    assert Offload.parse(text) == expected


def test_an_unknown_offload_is_named() -> None:
    with pytest.raises(ValueError, match=r'"tso".*tun_tso'):
        Offload.parse("tso")


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("verbose", LogLevel.VERBOSE),
        ("debug", LogLevel.VERBOSE),
        ("silent", LogLevel.SILENT),
        ("error", LogLevel.ERROR),
        ("", LogLevel.ERROR),
    ],
)
def test_log_levels_are_wireguard_gos(text: str, level: LogLevel) -> None:
    assert LogLevel.parse(text) == level
