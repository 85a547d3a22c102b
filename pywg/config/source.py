"""The file a configuration comes from: its text, who could have written it, and ``Config.load``.

The one module of this room, beside keyfiles.py and document.py, that touches the file system.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from pywg.config import keyfiles
from pywg.config.model import Config, FileOwner, Origin
from pywg.config.parser import parse
from pywg.errors import system_call

_LINKS_MAX = 40  # as the kernel: path_resolution(7)


def load(path: str | Path) -> Config:
    """Reads a file, and the key files that it names. Raises ConfigError for what the file says, and
    PywgError for what cannot be read."""
    text, origin = read_with_origin(path)
    return replace(keyfiles.load(parse(text, str(path))), origin=origin)


# A Config is a value that knows no parser, and the parser makes Configs: they meet here.
Config.load = staticmethod(load)


def folders_to(path: Path) -> list[Path]:
    """Every folder in which a file or link lies that leads to this one: whoever may write one of
    them could put another file in its place."""
    folders: dict[Path, None] = {}

    def walk(path: Path, links: int) -> None:
        for part in (*reversed(path.parents), path):
            folders[part.parent] = None
            if part.is_symlink() and links < _LINKS_MAX:
                walk(part.parent / part.readlink(), links + 1)

    walk(path.absolute(), 0)
    return list(folders)


def read(path: str | Path) -> str:
    """The text of a file. Bytes that are no UTF-8 survive being written again."""
    return read_with_origin(path)[0]


def read_with_origin(path: str | Path) -> tuple[str, Origin]:
    """And who could have written it: asked of the open file, as names may change meanwhile."""
    try:
        with Path(path).open("rb") as file:
            found = os.fstat(file.fileno())
            data = file.read()
        owners = [FileOwner(str(path), found.st_uid, found.st_mode)]
        for folder in folders_to(Path(path)):
            found = folder.stat()
            owners.append(FileOwner(str(folder), found.st_uid, found.st_mode))
    except OSError as error:
        raise system_call(error, str(path)) from None
    return data.decode("utf-8", errors="surrogateescape"), Origin(tuple(owners))
