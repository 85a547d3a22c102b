"""Programs of an ordinary user, on a host whose /dev/net/tun is open to all, as udev leaves it.

`python -m tools.lab.ordinary UID PROGRAM ...` becomes that program: in a mount namespace of its own
with such a node, and, where interpreter and repository lie in a folder that is closed to others,
with a way to them. `start` does so inside a namespace of the lab.

`Place` is a host of his with a file, and the far end of its tunnel.
"""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.lab.lab import Lab, Side
from tools.lab.namespaces import Namespace
from tools.lab.programs import REPOSITORY

#: Another one for each process, so that runs side by side do not meet.
UID = 100_000 + os.getpid()
HOME = tempfile.gettempdir()
CLONE_NEWNS = 0x00020000
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def folder() -> Iterator[Path]:
    """Of this user's own; removed again."""
    with tempfile.TemporaryDirectory(prefix="pywg-ordinary-", dir=HOME) as made:
        os.chown(made, UID, UID)
        yield Path(made)


def start(namespace: Namespace, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """As Namespace.popen, by this user."""
    environment = {**os.environ, "HOME": HOME, **options.pop("env", {})}
    with namespace.entered():
        return subprocess.Popen(words(argv), env=environment, cwd=REPOSITORY, **options)


@contextmanager
def started(
    namespace: Namespace, argv: Sequence[str], **options: Any
) -> Iterator[subprocess.Popen[Any]]:
    """As `start`; it is killed at the end, if it has not ended."""
    with start(namespace, argv, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def words(argv: Sequence[str], uid: int = UID) -> list[str]:
    return [sys.executable, "-m", "tools.lab.ordinary", str(uid), *argv]


def pywg(*arguments: str) -> list[str]:
    """The command line of the Python package."""
    return [sys.executable, "-m", "pywg", *arguments]


# ---- the place


@dataclass
class Place:
    host: Namespace
    far: Side
    folder: Path
    file: Path

    def run(
        self, argv: list[str], text: str | None = None, seconds: float = 60
    ) -> subprocess.CompletedProcess[str]:
        with started(
            self.host,
            argv,
            stdin=subprocess.PIPE if text is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            out, error = process.communicate(text, timeout=seconds)
            return subprocess.CompletedProcess(argv, process.returncode, out, error)


def make_place(
    lab: Lab, folder: Path, *, allowed: str = "0.0.0.0/0, ::/0", dns: bool = True
) -> Place:
    host, b = lab.cabled()
    far = lab.side(None, 2, b)
    key = lab.key()
    far.daemon.setconf(
        far.interface_section()
        + f"[Peer]\nPublicKey = {key.public}\nAllowedIPs = 10.99.0.1/32, fd99::1/128\n"
    )
    far.daemon.up(f"{far.inner4}/24", f"{far.inner6}/64")
    file = folder / "work.conf"
    file.write_text(
        f"[Interface]\nPrivateKey = {key.private}\nAddress = 10.99.0.1/24, fd99::1/64\n"
        + (f"DNS = {far.inner4}\n" if dns else "")
        + f"[Peer]\nPublicKey = {far.key.public}\nAllowedIPs = {allowed}\n"
        f"Endpoint = {far.endpoint()}\n"
    )
    file.chmod(0o644)
    return Place(host, far, folder, file)


# ---- becoming one


def become(uid: int, argv: Sequence[str]) -> None:
    """Does not return."""
    _check(_libc.unshare(CLONE_NEWNS), "unshare")
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    _open_way([Path(sys.base_prefix), Path(sys.prefix), REPOSITORY])
    Path("/dev/net").mkdir(exist_ok=True)
    _mount("none", "/dev/net", "tmpfs", 0)
    os.mknod("/dev/net/tun", stat.S_IFCHR | 0o666, os.makedev(10, 200))
    Path("/dev/net/tun").chmod(0o666)
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    os.execvp(argv[0], list(argv))  # noqa: S606


def _open_way(needed: Sequence[Path]) -> None:
    """Covers each folder on the way that others may not enter with one that has only what is
    needed."""
    closed: dict[Path, list[Path]] = {}
    for path in dict.fromkeys(needed):
        above = next((each for each in reversed(path.parents) if _is_closed(each)), None)
        if above is not None:
            closed.setdefault(above, []).append(path)
    for above, paths in closed.items():
        held = [(path, os.open(path, os.O_PATH)) for path in paths]
        _mount("none", str(above), "tmpfs", 0)
        above.chmod(0o755)
        for path, descriptor in held:
            path.mkdir(parents=True, exist_ok=True)
            _mount(f"/proc/self/fd/{descriptor}", str(path), None, _MS_BIND)
            os.close(descriptor)


def _is_closed(path: Path) -> bool:
    return not path.stat().st_mode & 0o001


def _mount(source: str | None, target: str, kind: str | None, flags: int) -> None:
    encoded = [word if word is None else word.encode() for word in (source, target, kind)]
    _check(_libc.mount(*encoded, ctypes.c_ulong(flags), None), f"mount {target}")


def _check(answer: int, what: str) -> None:
    if answer != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2:])
