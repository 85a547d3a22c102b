"""Whom a store is believed to be, and who we are to it: certificates of a source."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from pywg.config.model import PeerSource
from pywg.errors import PywgError, system_call

_SECRET_MAX = 4096


def context(source: PeerSource) -> ssl.SSLContext | None:
    """None for a source without TLS. Raises PywgError for files that are none."""
    if not source.is_tls:
        return None
    try:
        made = ssl.create_default_context(cafile=source.ca)
        if source.cert is not None and source.key is not None:
            made.load_cert_chain(source.cert, source.key)
    except ssl.SSLError as error:
        raise PywgError(f"ca=, cert=, key=: expected PEM files: {error.reason}") from None
    except OSError as error:
        files = ", ".join(str(one) for one in (source.ca, source.cert, source.key) if one)
        raise system_call(error, files) from None
    return made


def secret(path: Path) -> str:
    """The first line of a file that holds a password or a token. Raises PywgError."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise PywgError(f"{path} can be read by others: chmod 600")
            lines = file.read(_SECRET_MAX).decode("utf-8", errors="replace").splitlines()
    except OSError as error:
        raise system_call(error, str(path)) from None
    if not lines or not lines[0].strip():
        raise PywgError(f"{path} is empty: expected one line")
    return lines[0].strip()


def login(path: Path) -> tuple[str, str]:
    """USER:PASSWORD. Raises PywgError."""
    user, colon, password = secret(path).partition(":")
    if not colon:
        raise PywgError(f"{path}: expected USER:PASSWORD in one line")
    return user, password
