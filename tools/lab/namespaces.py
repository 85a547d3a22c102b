"""Network namespaces and the cables between them.

A thread can step into a namespace; sockets and processes it makes there stay there. So a test talks
from inside a namespace without leaving its own process. Names carry our pid, so that runs side by
side do not meet and the leftovers of a killed run can be told from the living.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tools.lab.waiting import wait_until

CLONE_NEWNET = 0x40000000
RTF_LOCAL = 0x80000000
PREFIX = "pywgtest"
# Ports that tests name; the kernel must not choose one of them for a socket without a port.
NAMED_PORTS = "51000-51999"
_libc = ctypes.CDLL(None, use_errno=True)
_serial = itertools.count(1)
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def unique(prefix: str) -> str:
    """An interface name no other run uses: at most 15 characters, pid and serial number in base
    36."""
    name = prefix + _base36(os.getpid()) + "n" + _base36(next(_serial))
    assert len(name) <= 15, name
    return name


def _base36(number: int) -> str:
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
        if number == 0:
            return digits


def run(
    *argv: str, check: bool = True, text: str | None = None, timeout: float = 30, **more: Any
) -> str:
    """Runs a program to its end; its standard output, or an error that shows what it said."""
    done = subprocess.run(
        argv, input=text, capture_output=True, text=True, timeout=timeout, check=False, **more
    )
    if check and done.returncode != 0:
        raise AssertionError(
            f"{' '.join(argv)} gave {done.returncode}: {done.stderr.strip() or done.stdout.strip()}"
        )
    said: str = done.stdout
    return said


@contextlib.contextmanager
def inside(path: str) -> Iterator[None]:
    """As Namespace.entered, of one that somebody else has made."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        away = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(away)
        finally:
            os.close(away)
        try:
            yield
        finally:
            _setns(home)
    finally:
        os.close(home)


class Namespace:
    """One network namespace, alive until close()."""

    def __init__(self, role: str) -> None:
        self.name = f"{PREFIX}-{os.getpid()}-{role}{next(_serial)}"
        self.path = f"/run/netns/{self.name}"
        run("ip", "netns", "add", self.name)
        with self.entered():
            Path("/proc/sys/net/ipv4/ip_local_reserved_ports").write_text(NAMED_PORTS)
        self.ip("link", "set", "lo", "up")

    def __repr__(self) -> str:
        return self.name

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is inside; whatever it opens or starts meanwhile belongs to the namespace."""
        with inside(self.path):
            yield

    def run(self, *argv: str, **options: Any) -> str:
        with self.entered():
            return run(*argv, **options)

    def attempt(
        self, *argv: str, text: str | None = None, timeout: float = 30
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program that may fail; the test looks at what it answered."""
        with self.entered():
            return subprocess.run(
                argv, input=text, capture_output=True, text=True, timeout=timeout, check=False
            )

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Starts a program here that dies with us, even if we are killed."""
        with self.entered():
            return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *argv], **options)

    def socket(
        self, family: int = socket.AF_INET, kind: int = socket.SOCK_DGRAM, protocol: int = 0
    ) -> socket.socket:
        with self.entered():
            return socket.socket(family, kind, protocol)

    def ip(self, *argv: str) -> str:
        return run("ip", "-n", self.name, *argv)

    def link(self, interface: str) -> dict[str, Any] | None:
        """What `ip -s -d link show` knows of an interface, or None."""
        shown = subprocess.run(
            ["ip", "-n", self.name, "-s", "-d", "-j", "link", "show", "dev", interface],
            capture_output=True,
            text=True,
            check=False,
        )
        return json.loads(shown.stdout)[0] if shown.returncode == 0 else None

    def nft(self, rules: str) -> None:
        self.run("nft", "-f", "-", text=rules)

    def close(self) -> None:
        for pid in run("ip", "netns", "pids", self.name, check=False).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        run("ip", "netns", "del", self.name, check=False)


def cable(
    left: tuple[Namespace, str, Sequence[str]], right: tuple[Namespace, str, Sequence[str]]
) -> None:
    """A veth pair, up at both ends: each is a namespace, a name and its addresses."""
    ends = f"{left[1]} netns {left[0].name} type veth peer name {right[1]} netns {right[0].name}"
    run("ip", "link", "add", *ends.split())
    for namespace, name, addresses in (left, right):
        for address in addresses:
            add_address(namespace, name, address)
        namespace.ip("link", "set", name, "up")
    for namespace, name, addresses in (left, right):
        wait_for_link(namespace, name)
        wait_for_addresses(namespace, addresses)


def wait_for_link(namespace: Namespace, name: str) -> None:
    """The kernel shows routes and addresses with what it notices of a link a moment later."""
    wait_until(lambda: (namespace.link(name) or {})["operstate"] == "UP", f"{name} is up")


def wait_for_addresses(namespace: Namespace, addresses: Sequence[str]) -> None:
    """The kernel gives an IPv6 address its route some time after the link is up, by a work queue,
    even without duplicate address detection; what arrives before is lost."""
    wanted = {
        ipaddress.IPv6Interface(address).ip.packed.hex() for address in addresses if ":" in address
    }

    def local() -> set[str]:
        with namespace.entered():
            table = Path("/proc/thread-self/net/ipv6_route").read_text()
        routes = [line.split() for line in table.splitlines()]
        return {route[0] for route in routes if int(route[8], 16) & RTF_LOCAL}

    wait_until(lambda: wanted <= local(), f"{namespace} takes packets to {addresses}")


def add_address(namespace: Namespace, interface: str, address: str) -> None:
    """An address that may be used once the link is up: no duplicate address detection."""
    nodad = ["nodad"] if ":" in address else []
    namespace.ip("address", "add", address, "dev", interface, *nodad)


def sweep() -> None:
    """Removes namespaces of runs that were killed before they could do it themselves."""
    if shutil.which("ip") is None:
        return
    for line in run("ip", "netns", "list", check=False).splitlines():
        found = re.match(rf"({PREFIX}-(\d+)-\w+)", line)
        if found is None or Path(f"/proc/{found[2]}").exists():
            continue
        for pid in run("ip", "netns", "pids", found[1], check=False).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        run("ip", "netns", "del", found[1], check=False)


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"setns: {os.strerror(code)}")
