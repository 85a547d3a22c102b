"""Peers by the thousand that never answer, and requests that are as long as that takes."""

from __future__ import annotations

import secrets
import socket
import time

from tools.lab.daemon import Daemon, socket_path
from tools.lab.namespaces import Namespace

# Nobody listens there, and `deafen` sees to it that nobody is told so.
SILENT_PORT = 9


def silent_peers(count: int, address: str, keepalive: int = 25) -> str:
    """Lines of a UAPI "set". Each has an address in 10.100.0.0/14; any number is a public key."""
    return "".join(
        f"public_key={secrets.token_hex(32)}\n"
        f"endpoint={address}:{SILENT_PORT}\n"
        f"persistent_keepalive_interval={keepalive}\n"
        f"replace_allowed_ips=true\nallowed_ip={silent_address(number)}/32\n"
        for number in range(count)
    )


def silent_address(number: int) -> str:
    return f"10.{100 + number // 65536}.{number // 256 % 256}.{number % 256}"


def deafen(namespace: Namespace) -> None:
    """It answers nothing that comes for silent peers."""
    namespace.nft(
        "table inet deaf {\nchain in {\ntype filter hook input priority 0;\n"
        f"udp dport {SILENT_PORT} drop\n}}\n}}\n"
    )


def request(daemon: Daemon, text: str) -> float:
    """How long it took, in seconds; it must succeed. `text` is without the empty line."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(socket_path(daemon.name)))
        began = time.monotonic()
        connection.sendall(text.encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n\n"):
            piece = connection.recv(1 << 20)
            assert piece, "the daemon closed the connection"
            answer += piece
        assert answer.endswith(b"errno=0\n\n"), answer[-100:]
        return time.monotonic() - began
