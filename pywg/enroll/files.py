"""Several files that change together: all of them, or none.

Invariant: no file that was there is overwritten, unless it is the one to be changed; what is new is
for its owner only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from pywg.config import document, read
from pywg.errors import PywgError, system_call

FOLDER_MODE = 0o700


class Files:
    """What was done so far, to be undone if what follows fails."""

    def __init__(self, undo: contextlib.ExitStack) -> None:
        self._undo = undo

    def create(self, path: Path, data: bytes) -> None:
        """Raises PywgError if there is such a file, or a link of that name."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            number = os.open(path, flags, 0o600)
            self._undo.callback(path.unlink, missing_ok=True)
            with os.fdopen(number, "wb") as file:
                os.fchmod(number, 0o600)  # whatever the umask is
                file.write(data)
                file.flush()
                os.fsync(number)
        except FileExistsError:
            raise PywgError(f"{path} is there already, and is not overwritten") from None
        except OSError as error:
            raise system_call(error, str(path)) from None

    def change(self, path: Path, text: str) -> None:
        """A file that is there gets another text."""
        before = read(path)
        if before != text:
            document.write(path, text)
            self._undo.callback(document.write, path, before)


@contextlib.contextmanager
def all_or_nothing() -> Iterator[Files]:
    """If the block fails, no file has changed."""
    with contextlib.ExitStack() as undo:
        yield Files(undo)
        undo.pop_all()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One at a time changes the files of this folder: from reading one to writing it."""
    try:
        number = os.open(path.resolve().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise system_call(error, str(path)) from None
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno != errno.ENOLCK:  # of a file system that has no locks
                raise system_call(error, str(path)) from None
        yield
    finally:
        os.close(number)


def make_folder(path: Path) -> None:
    """For keys: closed to others."""
    try:
        path.mkdir(FOLDER_MODE, exist_ok=True)
    except OSError as error:
        raise system_call(error, str(path)) from None
