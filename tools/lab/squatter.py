"""Somebody else on this host who tries for a UDP port all the time, in a process of its own.

    python -m tools.lab.squatter PORT ADDRESS ...

Says `trying` once each address was tried, and `got ADDRESS` for each that it could bind to.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

from tools.lab.namespaces import Namespace
from tools.lab.programs import REPOSITORY

NOBODY = 65534


class Squatter:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def stop(self) -> str:
        """What it has said; it is over then."""
        self._process.send_signal(signal.SIGTERM)
        said, _ = self._process.communicate(timeout=30)
        return said


@contextlib.contextmanager
def squatting(namespace: Namespace, port: int, *addresses: str) -> Iterator[Squatter]:
    """As an ordinary user; when this yields, all addresses were tried."""
    process = namespace.popen(
        [sys.executable, "-m", "tools.lab.squatter", str(port), *addresses],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "trying\n"
        yield Squatter(process)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def attempts(addresses: list[str]) -> list[tuple[socket.socket, str]]:
    """With either option that lets sockets share a port."""
    made = []
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            sock = socket.socket(family, socket.SOCK_DGRAM)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.SOL_SOCKET, option, 1)
            made.append((sock, address))
    return made


def main() -> None:
    port, addresses = int(sys.argv[1]), sys.argv[2:]
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    left, held, has_said = attempts(addresses), [], False
    while True:
        for attempt in list(left):
            sock, address = attempt
            with contextlib.suppress(OSError):
                sock.bind((address, port))
                print("got", address, flush=True)
                held.append(sock)
                left.remove(attempt)
        if not has_said:
            print("trying", flush=True)
            has_said = True


if __name__ == "__main__":
    main()
