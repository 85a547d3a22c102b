"""Telling the service manager how far we are: sd_notify(3) without libsystemd.

Knows the socket in ``NOTIFY_SOCKET`` and nothing else. Where there is none, nothing is told; a
manager that cannot be reached is no reason to fail.
"""

from __future__ import annotations

import os
import socket


def ready(status: str = "") -> bool:
    """All steps are done; what is ordered after the service may start."""
    return _tell("READY=1", status)


def stopping(status: str = "") -> bool:
    return _tell("STOPPING=1", status)


def status(text: str) -> bool:
    """One line for `systemctl status`."""
    return _tell("", text)


def _tell(state: str, text: str) -> bool:
    lines = [state] if state else []
    if text:
        lines.append("STATUS=" + " ".join(text.split()))  # a line break would begin another message
    return send("\n".join(lines))


def send(message: str) -> bool:
    """True when the manager has it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return False
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
            manager.connect(address)
            manager.sendall(message.encode("utf-8"))
    except OSError:
        return False
    return True
