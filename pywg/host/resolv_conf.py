"""A resolv.conf that nobody manages: replaced while tunnels are up, then put back as it was.

Several tunnels lie on a stack: the file says what the last one wants, and whichever goes, the
others stay. What was there before the first is written down before anything is changed, and on
disk, since the file itself outlives a power cut. Invariant: what somebody else has written since
is his: it is never overwritten when a tunnel goes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import quote

from pywg.errors import HostError, system_call

DIRECTORY = Path("/var/lib/pywg")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
HEADER = "# From pywg, for {names}. What was here before comes back with `pywg down`.\n"


@dataclass(frozen=True, slots=True)
class Content:
    """What a path holds: a file, a link, or (with neither) nothing."""

    text: str | None = None  # latin-1, so that any bytes come back
    link: str | None = None


@dataclass(slots=True)
class Stack:
    """Of one path."""

    original: Content = field(default_factory=Content)
    tunnels: dict[str, str] = field(default_factory=dict)  # name -> text; the last one wins
    # What we left in the file, or were about to leave: the old and the new one.
    written: list[str] = field(default_factory=list)
    boot: str = ""

    def is_ours(self, content: Content) -> bool:
        return content.text is not None and content.text in self.written

    def wanted(self) -> Content:
        if not self.tunnels:
            return self.original
        *_, text = self.tunnels.values()
        return Content(HEADER.format(names=", ".join(self.tunnels)) + text)


def why_not(path: Path) -> str:
    """Why this file cannot be replaced; empty if it can."""
    parent = next(place for place in path.parents if place.exists())
    is_file = path.is_file() and not path.is_symlink()
    if os.access(path if is_file else parent, os.W_OK):
        return ""
    return f"there is no resolvconf, and {path} cannot be written"


def add(path: Path, name: str, text: str) -> None:
    """``text`` for as long as the tunnel ``name`` lives, or instead of what it wanted before."""
    with _locked(path) as stack:
        present = _look(path)
        if not stack.is_ours(present):
            stack.original = present
        boot = _boot()
        if stack.boot != boot:
            stack.tunnels, stack.boot = {}, boot  # they died when the machine went down
        before = dict(stack.tunnels)
        stack.tunnels.pop(name, None)
        stack.tunnels[name] = text.encode().decode("latin-1")
        _change(path, stack, present)
        try:
            _put(path, stack.wanted())
        except OSError:
            stack.tunnels = before
            _save(path, stack)
            raise


def stands(path: Path, name: str, text: str) -> bool:
    """Whether the file is what the tunnels want, and this is what the tunnel ``name`` wants."""
    with _locked(path) as stack:
        is_noted = stack.tunnels.get(name) == text.encode().decode("latin-1")
        return is_noted and _look(path) == stack.wanted()


def without(path: Path, name: str) -> str | None:
    """What the file would say without this tunnel and those that came after it; None if this
    tunnel has not changed it."""
    _, stack = _load(_record_of(path))
    if name not in stack.tunnels:
        return None
    present = _look(path)
    if not stack.is_ours(present):
        return _text(path, present)
    below = list(stack.tunnels)[: list(stack.tunnels).index(name)]
    return stack.tunnels[below[-1]] if below else _text(path, stack.original)


def remove(path: Path, name: str) -> None:
    """Nothing happens if it never was added."""
    with _locked(path) as stack:
        if name not in stack.tunnels:
            return
        present = _look(path)
        del stack.tunnels[name]
        if stack.is_ours(present):
            if stack.tunnels:
                _change(path, stack, present)
            _put(path, stack.wanted())
        _save(path, stack)


def changed_by(name: str) -> list[Path]:
    """The files that this tunnel changed: for a `down` that finds no record."""
    found = []
    for record in DIRECTORY.glob("*.json"):
        path, stack = _load(record)
        if name in stack.tunnels:
            found.append(path)
    return found


# ---- the record


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[Stack]:
    """The stack of a path; two commands at once come one after the other."""
    try:
        DIRECTORY.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(DIRECTORY / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        doing = f"cannot note what {path} was in {DIRECTORY}"
        raise HostError(str(system_call(error, doing))) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield _load(_record_of(path))[1]
    except OSError as error:
        raise HostError(str(system_call(error, str(path)))) from None
    finally:
        os.close(lock)


def _record_of(path: Path) -> Path:
    return DIRECTORY / f"{quote(str(path), safe='')}.json"


def _load(record: Path) -> tuple[Path, Stack]:
    try:
        data = json.loads(record.read_text())
        original = Content(**data.pop("original"))
        return Path(data.pop("path")), Stack(original, **data)
    except FileNotFoundError:
        return Path(), Stack()
    except (ValueError, TypeError, KeyError, AttributeError):
        raise HostError(f"{record} is damaged; look at it, remove it, and try again") from None


def _change(path: Path, stack: Stack, present: Content) -> None:
    """To be called before the file is changed: so it is known as ours whatever happens then."""
    kept = [present.text] if present.text is not None and stack.is_ours(present) else []
    stack.written = [*kept, stack.wanted().text or ""]
    _save(path, stack)


def _save(path: Path, stack: Stack) -> None:
    """Gone with the last tunnel."""
    record = _record_of(path)
    if not stack.tunnels:
        record.unlink(missing_ok=True)
        return
    temporary = record.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({"path": str(path), **asdict(stack)}, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(record)


def _boot() -> str:
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


# ---- the file


def _look(path: Path) -> Content:
    if path.is_symlink():
        return Content(link=str(path.readlink()))
    try:
        return Content(path.read_bytes().decode("latin-1"))
    except FileNotFoundError:
        return Content()


def _text(path: Path, content: Content) -> str:
    if content.link is not None:
        return (path.parent / content.link).read_text(errors="replace")
    return content.text or ""


def _put(path: Path, wanted: Content) -> None:
    """A file that is there is written where it is: it keeps its owner, its mode and its labels,
    and it may be a mount. A link gives way to a file, and comes back."""
    present = _look(path)
    if wanted == present:
        return
    if wanted.link is not None:
        link = wanted.link
        _rename_over(path, lambda new: new.symlink_to(link))
    elif wanted.text is None:
        path.unlink()
    elif present.text is None:
        text = wanted.text
        path.parent.mkdir(parents=True, exist_ok=True)
        _rename_over(path, lambda new: _write(new, text, os.O_CREAT | os.O_EXCL))
    else:
        _write(path, wanted.text, 0)


def _rename_over(path: Path, make: Callable[[Path], None]) -> None:
    temporary = path.with_name(f".{path.name}.pywg")
    temporary.unlink(missing_ok=True)
    make(temporary)
    temporary.replace(path)


def _write(path: Path, text: str, flags: int) -> None:
    """The new bytes first, then the length: a reader never finds an empty file."""
    data = text.encode("latin-1")
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, 0o644)
    try:
        if flags:
            os.fchmod(descriptor, 0o644)  # whatever our umask
        os.pwrite(descriptor, data, 0)
        os.ftruncate(descriptor, len(data))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
