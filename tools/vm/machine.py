"""qemu without KVM: boots the two disks and hands on, line by line, what the guest says.

What the guest writes to Debian's disk goes to a file without a name that ends with qemu; a reboot
of the guest is the same qemu, so it finds there what it wrote.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tools.vm.image import Image

KERNEL = "root=/dev/vda rw console=ttyS0 quiet loglevel=3 systemd.show_status=0 panic=-1"
# Page tables that are changed at each system call cost most of what is emulated.
FAST = "mitigations=off audit=0"


def command(image: Image, payload: Path, words: str) -> list[str]:
    qemu = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max,la57=off", "-smp", "2"]
    qemu += ["-m", "1024", "-nographic", "-nodefaults", "-serial", "stdio", "-net", "none"]
    qemu += ["-kernel", str(image.kernel), "-initrd", str(image.initrd)]
    qemu += ["-append", f"{KERNEL} {FAST} {words}"]
    for disk in (image.disk, payload):
        qemu += ["-drive", f"file={disk},format=raw,if=virtio,snapshot=on"]
    return ["setpriv", "--pdeathsig", "KILL", "--", *qemu]


def boot(image: Image, payload: Path, words: str, seconds: float) -> Iterator[str]:
    """The lines of the guest until it is off. ``words`` go to the kernel's command line. Raises
    TimeoutError after ``seconds``; qemu has ended then, too."""
    machine = subprocess.Popen(
        command(image, payload, words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "TMPDIR": str(payload.parent)},
    )
    assert machine.stdout is not None
    try:
        yield from lines(machine.stdout.fileno(), time.monotonic() + seconds)
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
