"""The preshared keys that entries refer to: in files of this host, or encrypted with its keys.

A token is one of Fernet, by cryptography, which is installed only where it is wanted. The file of
its keys has one on each line, so that they can be exchanged: all are tried. Invariant: no message
holds a key, and a reference that leads nowhere is an error, never a peer without its key.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pywg.errors import KeyFormatError, PywgError, system_call
from pywg.keys import PresharedKey
from pywg.sources.values import Entry

MISSING = 'encrypted preshared keys need cryptography: pip install "pywg-tunnel[peers]"'
_SIZE_MAX = 4096


def check_installed() -> None:
    """Raises PywgError with the line that installs it."""
    try:
        import cryptography.fernet  # noqa: F401
    except ImportError:
        raise PywgError(MISSING) from None


class PresharedKeys:
    """Of this host. Read anew each time, as files may have changed."""

    def __init__(self, folder: Path, fernet: Path | None) -> None:
        """``folder`` is that of the interface's file: names of files count from there."""
        self._folder = folder
        self._fernet = fernet

    def of(self, entry: Entry) -> PresharedKey | None:
        """None for an entry that has none. Raises PywgError."""
        if entry.preshared_file:
            return _key(_read(self._folder / entry.preshared_file), entry.preshared_file)
        if entry.preshared_encrypted:
            return _key(self._decrypted(entry.preshared_encrypted), "presharedKeyEncrypted")
        return None

    def _decrypted(self, token: str) -> str:
        if self._fernet is None:
            raise PywgError(
                "presharedKeyEncrypted: no file of keys is named: add fernet=FILE to the source"
            )
        check_installed()
        from cryptography.fernet import Fernet, InvalidToken, MultiFernet

        try:
            keys = [Fernet(line) for line in _read(self._fernet).split()]
            return MultiFernet(keys).decrypt(token.encode()).decode("ascii")
        except InvalidToken:
            raise PywgError(
                f"presharedKeyEncrypted: no key of {self._fernet} opens it: encrypt it anew"
            ) from None
        except ValueError:
            raise PywgError(f"{self._fernet}: expected keys of Fernet, a line each") from None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode) and mode & 0o077:
                raise PywgError(f"{path} can be read by others: chmod 600")
            return file.read(_SIZE_MAX).decode("ascii", errors="replace")
    except OSError as error:
        raise system_call(error, str(path)) from None


def _key(text: str, told: str) -> PresharedKey:
    try:
        return PresharedKey.from_base64(text.strip())
    except KeyFormatError as error:
        raise PywgError(f"{told}: no preshared key: {error}") from None
