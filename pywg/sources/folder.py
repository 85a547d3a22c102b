"""A folder of files, one for each peer or for several: *.conf with [Peer], *.json with objects.

Told of changes by inotify(7), and looked at again every so often, for file systems that tell of
none. Only files that are other ones are read: by inode, size and times.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterable
from pathlib import Path

from pywg.host.inotify import FINISHED, Notifier
from pywg.sources.news import NO_TEXT, Away, Hear, News, Part, Same, Whole

ENDINGS = (".conf", ".json")
#: Of one file, which may have many peers.
SIZE_MAX = 64 << 20
#: The link that a ConfigMap of Kubernetes exchanges: each of its files is another one then.
_CONFIG_MAP = "..data"
Stamp = tuple[int, int, int, int]


class Folder:
    """One folder; what lies in folders below is not looked at."""

    def __init__(self, path: Path, interval_s: float) -> None:
        self._path = path
        self._interval_s = interval_s
        self._stamps: dict[str, Stamp] = {}
        self._device = 0
        self._is_new = True

    def run(self, hear: Hear) -> None:
        notifier = _notifier()
        while True:
            if notifier is not None:
                notifier.add(self._path)
            hear(self.look())
            self._until_due(notifier, hear)

    def _until_due(self, notifier: Notifier | None, hear: Hear) -> None:
        """Until all is to be looked at again; meanwhile changed files are told of."""
        while select.select([] if notifier is None else [notifier], [], [], self._interval_s)[0]:
            assert notifier is not None  # noqa: S101
            names = {os.fsdecode(name) for name in notifier.drain()}
            if self._is_new or names & {"", _CONFIG_MAP}:
                return
            news = self.look_at(self._is_ours(names))
            if not isinstance(news, Same):
                hear(news)

    def _is_ours(self, names: Iterable[str]) -> set[str]:
        return {name for name in names if name.endswith(ENDINGS) and not name.startswith(".")}

    def look(self) -> News:
        """At the whole folder."""
        try:
            found = self._names()
        except OSError as error:
            return Away(f"{self._path}: {os.strerror(error.errno or 0)}")
        if found is None:
            return Away(f"{self._path}: another file system is there now, and it is empty")
        changed = self.look_at({*found, *self._stamps})
        if isinstance(changed, Part) and self._is_new:
            self._is_new = False
            return Whole({name: text for name, text in changed.texts.items() if text is not None})
        if self._is_new:
            self._is_new = False
            return Whole({})
        return changed

    def _names(self) -> set[str] | None:
        """None for an empty folder where another one was: something is not mounted."""
        device = self._path.stat().st_dev
        names = self._is_ours(entry.name for entry in os.scandir(self._path))
        if not names and self._device not in (0, device):
            return None
        self._device = device
        return names

    def look_at(self, names: Iterable[str]) -> Part | Same:
        """At some files of it."""
        texts: dict[str, str | None] = {}
        for name in sorted(names):
            stamp = self._stamp(name)
            if stamp == self._stamps.get(name):
                continue
            if stamp is None:
                del self._stamps[name]
                texts[name] = None
            else:
                self._stamps[name] = stamp
                texts[name] = self._read(name)
        return Part(texts) if texts else Same()

    def _stamp(self, name: str) -> Stamp | None:
        try:
            found = (self._path / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            return self._stamps.get(name)  # it may be there: its peers stay
        return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    def _read(self, name: str) -> str:
        """What cannot be read is told of as a text that says nothing valid."""
        try:
            with (self._path / name).open("rb") as file:
                data = file.read(SIZE_MAX + 1)
        except OSError as error:
            return f"{NO_TEXT}{os.strerror(error.errno or 0)}"
        if len(data) > SIZE_MAX:
            return f"{NO_TEXT}more than {SIZE_MAX} bytes"
        return data.decode("utf-8", errors="replace")


def _notifier() -> Notifier | None:
    """None where this process can have no more of them."""
    try:
        return Notifier(FINISHED)
    except OSError:
        return None
