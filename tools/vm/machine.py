"""qemu without KVM: boots the two disks and hands on, line by line, what the guest says.

When the guest reboots, qemu ends and another begins: as after the power was off. Debian's disk is a
copy for this run, so the second boot finds what the first has written.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.vm import results
from tools.vm.image import Image

KERNEL = "root=/dev/vda rw console=ttyS0 quiet loglevel=3 systemd.show_status=0 panic=-1"
# As with the processor, which is the plainest that qemu knows: what starts fastest is taken.
# Page tables that are changed at each system call cost most of what is emulated.
FAST = "mitigations=off audit=0"


BOOTS = 2


def command(image: Image, disks: Sequence[Path], monitor: Path, words: str) -> list[str]:
    qemu = [
        "qemu-system-x86_64",
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "qemu64",
        "-smp",
        "2",
        "-no-reboot",
    ]
    qemu += ["-m", "1024", "-nographic", "-nodefaults", "-serial", "stdio", "-net", "none"]
    qemu += ["-kernel", str(image.kernel), "-initrd", str(image.initrd)]
    qemu += ["-monitor", f"unix:{monitor},server=on,wait=off"]
    qemu += ["-append", f"{KERNEL} {FAST} {words}"]
    for disk in disks:
        qemu += ["-drive", f"file={disk},format=raw,if=virtio,cache=unsafe"]
    return ["setpriv", "--pdeathsig", "KILL", "--", *qemu]


def boots(image: Image, payload: Path, words: str, seconds: float) -> Iterator[str]:
    """The lines of the guest from both boots. ``words`` go to the kernel's command line; the disk's
    copy is made beside ``payload``. Raises TimeoutError after ``seconds``; qemu has ended then,
    too."""
    disk = payload.with_name("debian.img")
    # With its holes; shutil.copy would fill them.
    subprocess.run(
        ["cp", "--sparse=always", "--reflink=auto", str(image.disk), str(disk)], check=True
    )
    deadline = time.monotonic() + seconds
    for _ in range(BOOTS):
        monitor = payload.with_name("monitor")
        for line in boot(command(image, (disk, payload), monitor, words), deadline):
            yield line
            if wish := results.ASLEEP.search(line):
                asleep = (monitor, int(wish[1]))
                threading.Thread(target=wake, args=asleep, daemon=True).start()


def wake(monitor: Path, seconds: int) -> None:
    """A guest that is about to be suspended, when it has been so for that long. Ends with qemu."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(monitor))
        answer(connection)
        while b"suspended" not in tell(connection, b"info status"):
            time.sleep(0.5)
        time.sleep(seconds)
        tell(connection, b"system_wakeup")


def tell(monitor: socket.socket, command: bytes) -> bytes:
    monitor.sendall(command + b"\n")
    return answer(monitor)


def answer(monitor: socket.socket) -> bytes:
    """All up to where qemu asks for the next command."""
    said = b""
    while not said.endswith(b"(qemu) "):
        piece = monitor.recv(4096)
        if not piece:
            raise ConnectionError("qemu has ended")
        said += piece
    return said


def boot(qemu: list[str], deadline: float) -> Iterator[str]:
    machine = subprocess.Popen(
        qemu, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert machine.stdout is not None
    try:
        yield from lines(machine.stdout.fileno(), deadline)
        machine.wait(30)
    finally:
        machine.kill()
        machine.wait()
        machine.stdout.close()


def lines(descriptor: int, deadline: float) -> Iterator[str]:
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError("the virtual machine is still on")
            piece = os.read(descriptor, 1 << 16)
            *whole, rest = (rest + piece).split(b"\n")
            yield from (line.decode(errors="replace").rstrip("\r") for line in whole)
            if not piece:
                return
