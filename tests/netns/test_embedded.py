"""A device that a program of another has in itself: forked children, descriptors to take over."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tools.lab.namespaces import Namespace, unique

NAME = unique("wgem")

BEGIN = """
import ctypes, os, socket, struct, sys, fcntl
from pathlib import Path
import pywg
from pywg.errors import DeviceError, Status
name = sys.argv[1]
SOCKET = Path(f"/var/run/wireguard/{name}.sock")


def interface_is_there():
    return name in [link for _, link in socket.if_nameindex()]
"""

FORKED = (
    BEGIN
    + """
from pywg.native import library
with pywg.Device(name, "listen_port=0\\n") as device:
    core, handle = library.load(), device._handle
    child = os.fork()
    if child == 0:
        said = [core.pywg_device_run(handle, None), core.pywg_device_stop(handle),
                core.pywg_device_set(handle, b"", 0, None),
                core.pywg_device_report(handle, None, 0, ctypes.byref(ctypes.c_size_t()))]
        core.pywg_device_close(handle)
        try:
            device.get()
        except DeviceError as error:
            said.append(error.status)
        device.stop()
        device.close()
        os._exit(0 if said == [Status.FORKED] * 5 else 1)
    print("child", os.waitpid(child, 0)[1])
    device.set("listen_port=4711\\n")
    print("runs", not device.wait(0), device.get().listen_port)
    print("there", interface_is_there(), SOCKET.exists())
print("gone", interface_is_there(), SOCKET.exists())
"""
)

GIVEN = (
    BEGIN
    + """
def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def attempt(**options):
    try:
        device = pywg.Device(name, **options)
    except DeviceError as error:
        return error.status.name if hasattr(error.status, "name") else Status(error.status).name
    device.close()
    return "OK"


tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1001))  # TUNSETIFF
listener = socket.socket(socket.AF_UNIX)
SOCKET.parent.mkdir(exist_ok=True)
listener.bind(str(SOCKET))
listener.listen()
plain = os.open("/dev/null", os.O_RDWR)
# Each failure leaves all with the caller: what is wrong comes first, in the middle and last.
given = listener.fileno()
print(attempt(tun_fd=tun, uapi_fd=given, mtu=7), is_open(tun), is_open(given))
print(attempt(tun_fd=plain, uapi_fd=given), is_open(plain), is_open(given))
print(attempt(tun_fd=tun, uapi_fd=plain), is_open(tun), is_open(plain))
print(attempt(tun_fd=tun, uapi_fd=given, memory_limit=1), is_open(tun))
print("there", interface_is_there(), SOCKET.exists())
# Success takes both.
listener.detach()
print(attempt(tun_fd=tun, uapi_fd=given), is_open(tun), is_open(given))
print("gone", interface_is_there(), SOCKET.exists())
"""
)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    made = Namespace("embedded")
    try:
        yield made
    finally:
        made.close()


def said(namespace: Namespace, program: str) -> list[str]:
    return namespace.run(sys.executable, "-c", program, NAME).splitlines()


def test_a_forked_child_has_no_part_in_its_parents_device(namespace: Namespace) -> None:
    assert said(namespace, FORKED) == [
        "child 0",
        "runs True 4711",
        "there True True",
        "gone False False",
    ]


def test_descriptors_are_the_callers_until_the_device_is_open(namespace: Namespace) -> None:
    assert said(namespace, GIVEN) == [
        "INVALID_ARGUMENT True True",
        "INVALID_ARGUMENT True True",
        "INVALID_ARGUMENT True True",
        "OUT_OF_MEMORY True",
        "there True True",
        "OK False False",
        "gone False False",
    ]
