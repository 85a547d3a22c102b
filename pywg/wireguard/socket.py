"""A client for the sockets in /var/run/wireguard: whatever userspace WireGuard listens there.

Knows the socket; the text is uapi.py's.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path

from pywg.errors import UapiError
from pywg.wireguard import uapi
from pywg.wireguard.changes import Changes
from pywg.wireguard.status import InterfaceStatus, Report

SOCKET_DIRECTORY = Path("/var/run/wireguard")
TIMEOUT_S = 10.0
SET_TIMEOUT_S = 60.0  # a device may take its time over ten thousand peers


def socket_path(name: str) -> Path:
    return SOCKET_DIRECTORY / f"{name}.sock"


def interfaces(timeout_s: float = TIMEOUT_S) -> list[str]:
    """Names with a socket that somebody listens on. Left-over files are passed by.

    In the order of the folder, which is the order of `wg show`. One that has no room for another
    caller, and makes none in this time, is one that somebody listens on.
    """
    try:
        paths = [Path(entry.path) for entry in os.scandir(SOCKET_DIRECTORY)]
    except OSError:
        return []
    return [path.stem for path in paths if path.suffix == ".sock" and _listens(path, timeout_s)]


def is_alive(name: str) -> bool:
    """Whether somebody listens on the socket of this name."""
    return _listens(socket_path(name))


def owner(name: str) -> int:
    """The process that listens on the socket of this name; 0 if nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(TIMEOUT_S)
        try:
            client.connect(os.fspath(socket_path(name)))
            credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        except OSError:
            return 0
    return int.from_bytes(credentials[:4], sys.byteorder)


def _listens(path: Path, timeout_s: float = TIMEOUT_S) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(timeout_s)
        try:
            client.connect(os.fspath(path))
        except TimeoutError:
            return True
        except OSError as error:
            # Not ours to talk to, but somebody's: it is listed, and asking it says why not.
            # EAGAIN: it lives, with more callers than it listens for.
            return error.errno in (errno.EACCES, errno.EPERM, errno.EAGAIN)
    return True


def get(name: str) -> InterfaceStatus:
    """What the device behind NAME's socket does."""
    return uapi.parse_get(request(name, "get=1\n\n"))


def fwmark(name: str) -> int:
    """What it marks its datagrams with; 0 is nothing."""
    return uapi.parse_get(uapi.of_device(request(name, "get=1\n\n"))).fwmark


def change(name: str, changes: Changes) -> None:
    """`set` on the device behind NAME's socket. Some implementations keep what came before an
    error; pywg's takes all or nothing."""
    request(name, f"set=1\n{uapi.changes_text(changes)}\n", SET_TIMEOUT_S)


def report(name: str) -> Report:
    """pywg's own figures; another implementation answers with an error."""
    return uapi.parse_report(request(name, "pywg_get=1\n\n"))


def request(name: str, text: str, timeout_s: float = TIMEOUT_S) -> str:
    """One question, one answer without its errno line; a non-zero errno is raised."""
    path = socket_path(name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(timeout_s)
        try:
            client.connect(os.fspath(path))
            client.sendall(text.encode("utf-8", errors="surrogateescape"))
            answer = _read_answer(client)
        except TimeoutError:
            raise UapiError(f"{name}: no answer on {path}", errno.ETIMEDOUT) from None
        except OSError as error:
            raise _unreachable(name, path, error) from None
    if not answer:
        raise UapiError(f"{name}: the device hung up without an answer", errno.EPROTO)
    body, _, code = answer.rstrip("\n").rpartition("errno=")
    try:
        number = abs(int(code))  # `set` answers a negative number, `get` a positive one
    except ValueError:
        raise UapiError(f"{name}: the answer does not end with errno=") from None
    if number:
        raise UapiError(f"{name}: the device answered: {os.strerror(number)}", number)
    return body


def _read_answer(client: socket.socket) -> str:
    """Until the empty line that ends an answer, or until the other end hangs up."""
    answer = bytearray()
    while not answer.endswith(b"\n\n"):
        chunk = client.recv(1 << 16)
        if not chunk:
            break
        answer += chunk
    return answer.decode("utf-8", errors="replace")


def _unreachable(name: str, path: Path, error: OSError) -> UapiError:
    code = error.errno or 0
    match code:
        case errno.ENOENT | errno.ECONNREFUSED:
            text = f"{name}: no userspace WireGuard interface of this name runs"
            return UapiError(f"{text} (those that do: pywg show interfaces)", code)
        case errno.EACCES | errno.EPERM:
            return UapiError(f"{path}: permission denied (run it with sudo)", code)
        case _:
            return UapiError(f"{path}: {os.strerror(code) if code else error}", code)
