"""One running WireGuard daemon: its pid, its log, its UAPI socket, and wg spoken to it."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.lab.namespaces import Namespace, add_address, run, wait_for_addresses
from tools.lab.programs import Program
from tools.lab.waiting import wait_until

SOCKETS = Path("/var/run/wireguard")
IPV6_MTU_MIN = 1280  # below it an interface has no IPv6
_serial = itertools.count(1)

# Outgoing packets nobody asked for: the kernel's own router solicitations and multicast reports.
UNSOLICITED = {
    "multicast",
    "no_peer",
    "no_endpoint",
    "staging_full",
    "handshake_gave_up",
    "peer_removed",
}


def socket_path(name: str) -> Path:
    return SOCKETS / f"{name}.sock"


def ask(name: str, request: str) -> dict[str, str]:
    """One UAPI request; of keys that come more than once the last wins."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(socket_path(name)))
        connection.sendall(f"{request}\n\n".encode())
        answer = b""
        while not answer.endswith(b"\n\n"):
            piece = connection.recv(65536)
            if not piece:
                break
            answer += piece
    return dict(line.split("=", 1) for line in answer.decode().splitlines() if line)


def is_listening(name: str) -> bool:
    """Whether somebody answers at the socket; a client that says nothing must harm nobody."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(socket_path(name)))
        except OSError:
            return False
        return True


def make_stale(name: str) -> None:
    """The socket that a killed daemon leaves is there. `wg show` of anybody on this machine removes
    one that nobody listens on."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as left:
        left.bind(str(socket_path(name)))
    assert socket_path(name).exists()


def pid_of(name: str) -> int | None:
    """The process whose last argument is this interface name: how a daemon in the background is
    found."""
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with contextlib.suppress(OSError):
                words = (place / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                if words[-1] == name.encode() and int(place.name) != os.getpid():
                    return int(place.name)
    return None


class Daemon:
    """Started by the constructor in the foreground; ready when the constructor returns."""

    def __init__(
        self,
        program: Program,
        namespace: Namespace,
        name: str,
        log_directory: Path,
        *,
        no_offload: str = "",
        environment: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
        log_level: str = "verbose",
    ) -> None:
        self.program = program
        self.namespace = namespace
        self.name = name
        self.log_path = log_directory / f"{name}.{next(_serial)}.log"
        surroundings = {**os.environ, "LOG_LEVEL": log_level, **(environment or {})}
        surroundings.pop("WG_PROCESS_FOREGROUND", None)
        if no_offload:
            surroundings["PYWG_NO_OFFLOAD"] = no_offload
        with self.log_path.open("wb") as log:
            self.process = namespace.popen(
                [*wrapper, program.path, *program.arguments, name],
                env=surroundings,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self._wait_ready()
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"{self.program.label} {self.name}"

    def _wait_ready(self) -> None:
        def ready() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"{self} ended with {self.process.returncode}: {self.log()}")
            return is_listening(self.name)

        wait_until(ready, f"{self} listens at {socket_path(self.name)}", seconds=30)

    # What it says.

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def show(self, what: str) -> list[list[str]]:
        """The lines of `wg show NAME what`, split at tabs."""
        return [line.split("\t") for line in self.wg("show", self.name, what).splitlines()]

    def peer(self, public_key: str) -> dict[str, str]:
        """One peer from `wg show dump`, by column name."""
        columns = ("public", "psk", "endpoint", "allowed_ips", "handshake", "rx", "tx", "keepalive")
        for line in self.show("dump")[1:]:
            if line[0] == public_key:
                return dict(zip(columns, line, strict=True))
        raise AssertionError(f"{self} has no peer {public_key}")

    def report(self) -> dict[str, str]:
        """pywgd's own report of offloads and drops."""
        answer = ask(self.name, "pywg_get=1")
        assert answer.get("errno") == "0", answer
        return answer

    def drops(self) -> dict[str, int]:
        """Packets refused by reason, without the packets the kernel sends on its own account."""
        counters = {
            key[8:]: int(value)
            for key, value in self.report().items()
            if key.startswith("dropped_")
        }
        return {reason: count for reason, count in counters.items() if reason not in UNSOLICITED}

    # What is told to it.

    def wg(self, *argv: str, text: str | None = None, check: bool = True) -> str:
        return run("wg", *argv, text=text, check=check)

    def set(self, *argv: str) -> None:
        self.wg("set", self.name, *argv)

    def setconf(self, text: str) -> None:
        self.wg("setconf", self.name, "/dev/stdin", text=text)

    def up(self, *addresses: str, mtu: int | None = None) -> None:
        """Gives the interface its addresses and sets the link up."""
        for address in addresses:
            add_address(self.namespace, self.name, address)
        if mtu is not None:
            self.namespace.ip("link", "set", self.name, "mtu", str(mtu))
        self.namespace.ip("link", "set", self.name, "up")
        if mtu is None or mtu >= IPV6_MTU_MIN:
            wait_for_addresses(self.namespace, addresses)

    # Its end.

    def wait(self, seconds: float = 5) -> int:
        """Its exit code, once it ends by itself."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self} still runs after {seconds:g} s") from None

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Ends it however it is, and removes its socket if it died without doing so."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(2)
            except subprocess.TimeoutExpired:
                self.kill()
        with contextlib.suppress(FileNotFoundError):
            if not is_listening(self.name):
                socket_path(self.name).unlink()
