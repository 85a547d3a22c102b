"""Where a proxy listens, and who may use it. Deciding is pure; ``credentials`` reads a file."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from pywg.errors import PywgError, system_call
from pywg.rootless.forward import LOOPBACK

#: The environment variable with USER:PASSWORD.
VARIABLE = "PYWG_PROXY_AUTH"
_UNIX = "unix:"
_FORM = "ADDRESS:PORT, PORT, or unix:PATH"


@dataclass(frozen=True, slots=True)
class Place:
    """Addresses and a port, or, where there are none, the path of a unix socket."""

    hosts: tuple[str, ...] = ()
    port: int = 0
    path: str = ""

    @property
    def is_remote(self) -> bool:
        """Whether other machines could reach it."""
        return not all(ip_address(host).is_loopback for host in self.hosts)

    def __str__(self) -> str:
        if self.path:
            return _UNIX + self.path
        host = self.hosts[0]
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


def parse_place(text: str) -> Place:
    """Raises ValueError. Names are not looked up, but for localhost. Port 0 is one that is free."""
    if text.startswith(_UNIX):
        path = text.removeprefix(_UNIX)
        if not path or len(os.fsencode(path)) > 107:
            raise ValueError(f'"{path}" is no path of a unix socket: 1 to 107 bytes')
        return Place(path=path)
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise ValueError(f'"{text}" is not {_FORM}')
    if host in ("", "localhost"):
        # Of a free port, one: the other address would have another port.
        return Place(LOOPBACK if int(port) else LOOPBACK[:1], int(port))
    brackets = "[]" if ":" in host else ""
    try:
        if host[:1] + host[-1:] != brackets and (brackets or "[" in host):
            raise ValueError
        return Place((str(ip_address(host.strip("[]"))),), int(port))
    except ValueError:
        raise ValueError(f'"{text}" is not {_FORM} (an IPv6 address in brackets)') from None


@dataclass(frozen=True, slots=True)
class Credentials:
    """One user and his password, which is not kept."""

    digest: bytes = field(repr=False)

    @classmethod
    def of(cls, user: bytes, password: bytes) -> Credentials:
        return cls(_digest(user, password))

    def are(self, user: bytes, password: bytes) -> bool:
        """In a time that does not tell how much of it is right."""
        return hmac.compare_digest(self.digest, _digest(user, password))


def _digest(user: bytes, password: bytes) -> bytes:
    return hashlib.sha256(len(user).to_bytes(2) + user + password).digest()


def parse_credentials(text: str, where: str) -> Credentials:
    """USER:PASSWORD. Raises PywgError, which does not repeat them."""
    user, colon, password = text.strip("\r\n").partition(":")
    raw = user.encode("utf-8", "surrogateescape"), password.encode("utf-8", "surrogateescape")
    if not colon or "\n" in password or not all(0 < len(each) < 256 for each in raw):
        raise PywgError(f"{where}: has to be one line USER:PASSWORD, 1 to 255 bytes each")
    return Credentials.of(*raw)


def credentials(path: Path | None) -> Credentials | None:
    """Of a file, or of the environment, from which they are taken away."""
    text = os.environ.pop(VARIABLE, None)
    if path is None:
        return None if text is None else parse_credentials(text, VARIABLE)
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            if os.fstat(file.fileno()).st_mode & (stat.S_IRWXO | stat.S_IWGRP):
                raise PywgError(f"{path}: others may read or write it (chmod 600 {path})")
            return parse_credentials(file.read(2048), str(path))
    except OSError as error:
        raise system_call(error, str(path)) from None
