"""Several files that change together: all of them, or none.

Invariant: no file that was there is overwritten, unless it is the one to be changed; what is new is
for its owner only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
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
        new = _New(path)
        try:
            if os.path.lexists(path):
                raise FileExistsError
            self._undo.callback(new.remove)
            number = new.opened(os.open(path, flags, 0o600))
            with os.fdopen(number, "wb") as file:
                os.fchmod(number, 0o600)  # whatever the umask is
                file.write(data)
                file.flush()
                os.fsync(number)
        except FileExistsError:
            new.is_ours = False
            raise PywgError(f"{path} is there already, and is not overwritten") from None
        except OSError as error:
            raise system_call(error, str(path)) from None

    def change(self, path: Path, text: str) -> None:
        """A file that is there gets another text."""
        before = read(path)
        if before != text:
            # First, as Ctrl-C may come between any two steps.
            self._undo.callback(_restore, path, before)
            document.write(path, text)

    def change_itself(self, path: Path, before: str, text: str) -> None:
        """The same for a file that ``read_itself`` has read."""
        if before != text:
            self._undo.callback(_restore_itself, path, before)
            document.write_itself(path, text)


def _restore(path: Path, before: str) -> None:
    if read(path) != before:
        document.write(path, before)


def _restore_itself(path: Path, before: str) -> None:
    if read_itself(path) != before:
        document.write_itself(path, before)


def read_itself(path: Path) -> str:
    """A client's file may lie where others write: a link there could lead to any file that root may
    change, and is refused. Raises PywgError."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(path, flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise PywgError(f"{path} is no file that can be changed in its place")
            return file.read().decode("utf-8", errors="surrogateescape")
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise PywgError(f"{path} is a symbolic link: name the file that it leads to") from None
        raise system_call(error, str(path)) from None


class _New:
    """A file that is being made, known before it is there; of that name there was none."""

    def __init__(self, path: Path) -> None:
        self.is_ours = True
        self._path = path
        self._identity: tuple[int, int] | None = None

    def opened(self, number: int) -> int:
        status = os.fstat(number)
        self._identity = status.st_dev, status.st_ino
        return number

    def remove(self) -> None:
        """Only what this process made. Before it is known by its number it is empty."""
        with contextlib.suppress(FileNotFoundError):
            found = self._path.lstat()
            is_same = (found.st_dev, found.st_ino) == self._identity
            is_fresh = self._identity is None and found.st_size == 0 and self.is_ours
            if is_same or is_fresh:
                self._path.unlink()


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
