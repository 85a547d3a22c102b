"""Key material that lies in files of its own: PrivateKeyFile and PresharedKeyFile.

A relative name counts from the folder of the configuration file.
"""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pywg.config.model import Config, ConfigWarning, Position
from pywg.errors import KeyFormatError, PywgError, system_call
from pywg.keys import PresharedKey, PrivateKey

Key = TypeVar("Key", PrivateKey, PresharedKey)
_SIZE_MAX = 4096


def load(config: Config) -> Config:
    """The same configuration with the keys of its files in place."""
    folder = Path(config.path).parent
    warnings = list(config.warnings)

    def key(path: Path, kind: type[Key]) -> Key:
        return _read(folder / path, kind, config.path, warnings)

    interface = config.interface
    if interface.private_key_file is not None:
        interface = replace(interface, private_key=key(interface.private_key_file, PrivateKey))
    peers = tuple(
        peer
        if peer.preshared_key_file is None
        else replace(peer, preshared_key=key(peer.preshared_key_file, PresharedKey))
        for peer in config.peers
    )
    return replace(config, interface=interface, peers=peers, warnings=tuple(warnings))


def _read(path: Path, kind: type[Key], told_in: str, warnings: list[ConfigWarning]) -> Key:
    try:
        with path.open("rb") as file:
            mode = path.stat().st_mode
            data = file.read(_SIZE_MAX)
    except OSError as error:
        raise system_call(error, str(path)) from None
    if stat.S_ISREG(mode) and mode & 0o077:
        message = f"{path} can be read by others: chmod 600"
        warnings.append(ConfigWarning(told_in, Position(1, 1), message))
    try:
        return kind.from_base64(data.decode("ascii", errors="replace").strip())
    except KeyFormatError as error:
        raise PywgError(f"{path}: no key: {error}") from None
