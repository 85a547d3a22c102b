"""The last good list, on disk: what a gateway goes on with when it starts while its store is away.

A line of JSON for the source, then one for each text of the store that was changed, the later one
counts. Appended as changes come, and written anew when most of it is outdated. Invariant: nobody
but root reads it; it has public keys and references, no secret.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO

from pywg.config.names import check_name
from pywg.sources.values import Entry, Said, read

DIRECTORY = Path("/var/lib/pywg")
#: So many outdated lines, and as many as there are texts, are borne with.
OUTDATED = 10_000
_VERSION = 1


def path_of(name: str) -> Path:
    return DIRECTORY / f"{check_name(name)}.peers"


class Cache:
    """Of one interface and one source. Raises OSError where it cannot be written."""

    def __init__(self, path: Path, source: str) -> None:
        self._path = path
        self._source = source
        self._file: IO[str] | None = None
        self._lines = 0

    def load(self) -> dict[str, dict[str, Entry]]:
        """Text of the store -> its entries. Empty if there is none of this source; what a crash
        has left of the last line is passed by."""
        found: dict[str, dict[str, Entry]] = {}
        with (
            contextlib.suppress(OSError),
            self._path.open(encoding="utf-8", errors="replace") as file,
        ):
            try:
                head = json.loads(file.readline())
                if head != self._head():
                    return {}
            except ValueError:
                return {}
            for line in file:
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    name, entries = _of_line(json.loads(line))
                    found.pop(name, None)
                    if entries:
                        found[name] = entries
        return found

    def write(self, texts: Mapping[str, Mapping[str, Entry]]) -> None:
        """All of it, by a new file in the place of the old one."""
        self.close()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".peers-new")
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = os.fdopen(descriptor, "w", encoding="utf-8")
        self._file.write(json.dumps(self._head()) + "\n")
        self._file.writelines(_line(name, entries) for name, entries in texts.items())
        self._file.flush()
        temporary.replace(self._path)
        self._lines = len(texts)

    def append(
        self,
        changes: Iterable[tuple[str, Mapping[str, Entry]]],
        count: int,
        texts: Callable[[], Mapping[str, Mapping[str, Entry]]],
    ) -> None:
        """``texts`` gives all ``count`` there are after the changes; the first time all are written
        anew, as another source may have been before."""
        lines = [_line(name, entries) for name, entries in changes]
        if self._file is None or self._lines + len(lines) > 2 * count + OUTDATED:
            self.write(texts())
            return
        self._file.writelines(lines)
        self._file.flush()
        self._lines += len(lines)

    def forget(self) -> None:
        """What is no longer kept is not to be believed either."""
        with contextlib.suppress(OSError, ValueError):
            self.close()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _head(self) -> dict[str, object]:
        return {"version": _VERSION, "source": self._source}


def _line(name: str, entries: Mapping[str, Entry]) -> str:
    told = [entry.to_json() for entry in entries.values()]
    return json.dumps({"name": name, "peers": told}, ensure_ascii=True) + "\n"


def _of_line(said: dict[str, object]) -> tuple[str, dict[str, Entry]]:
    name, peers = said["name"], said["peers"]
    if not isinstance(name, str) or not isinstance(peers, list):
        raise TypeError
    if not peers:
        return name, {}
    found: Said = read(name, json.dumps({"peers": peers}))
    return name, dict(found.entries)
