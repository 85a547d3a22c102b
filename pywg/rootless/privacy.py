"""Name servers of its own for a mount namespace, and no way to those of the host.

The network namespace stops every packet, but not a socket in the file system: nscd,
systemd-resolved, avahi and the system bus answer names outside the tunnel. So /etc and /run are
each covered by a folder in memory that has what the host's has, but for these. To cover the single
files would not do: the kernel takes a mount away when the host renames or removes what it is on, as
resolver daemons do at each change and start.

In /etc folders are bound, so that links in them with `..` lead where they did, and files are links:
the host may replace them. In /run everything is a link: services come and go there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from pywg.rootless import calls

#: Who answers names, by paths below /run.
RESOLVERS = (
    "nscd",
    "systemd/resolve",
    "systemd/io.systemd.NameService",
    "systemd/userdb/io.systemd.NameServiceSwitch",
    "dbus",
    "avahi-daemon",
)
NSSWITCH = "hosts: files dns\n"
# Databases of nsswitch.conf that the host's answers stay as they are.
_HOSTS = "hosts:"
# Where the host's own folder is seen below ours: one more for each tunnel inside another.
_HOSTS_AT = (".host", *(f".host{depth}" for depth in range(2, 33)))


def resolv_conf(servers: Collection[str], search: Collection[str]) -> str:
    """For resolv.conf(5). Without servers nobody is asked: the C library would ask 127.0.0.1, where
    nobody is either."""
    lines = [f"nameserver {server}" for server in servers]
    if search:
        lines.append("search " + " ".join(search))
    return "".join(f"{line}\n" for line in ("# by pywg: the tunnel's", *lines))


def nsswitch(text: str) -> str:
    """The host's, with names from files and DNS alone."""
    kept = [line for line in text.splitlines() if not line.strip().startswith(_HOSTS)]
    return "".join(f"{line}\n" for line in kept) + NSSWITCH


def hide_resolvers(resolv: str) -> None:
    """For the mount namespace of this process, which has to be its own, and needs capabilities."""
    calls.mount(None, "/", None, calls.MS_REC | calls.MS_PRIVATE)
    switch = ""
    with contextlib.suppress(OSError):
        switch = Path("/etc/nsswitch.conf").read_text(encoding="utf-8")
    etc = Path("/etc")
    runs = [run for run in _ordered(Path("/run"), Path("/var/run")) if run.is_dir()]
    texts = {"resolv.conf": resolv, "nsswitch.conf": nsswitch(switch)}
    staging = next(each for each in (*runs, Path("/dev")) if each.is_dir())
    cover(etc, staging, texts, binds=True)
    for run in runs:
        cover(run, etc, {}, hidden=RESOLVERS)


def _ordered(*folders: Path) -> list[Path]:
    """Each once, links followed."""
    return list(dict.fromkeys(folder.resolve() for folder in folders))


def cover(
    folder: Path,
    staging: Path,
    written: Mapping[str, str],
    hidden: Collection[str] = (),
    *,
    binds: bool = False,
) -> None:
    """Puts a folder in memory over this one: with these texts, without what is hidden. It is made
    over another folder, ``staging``, and moved: below a mount on itself nothing could be bound."""
    in_memory = calls.MS_NOSUID | calls.MS_NODEV
    calls.mount("pywg", staging, "tmpfs", in_memory, "mode=755")
    host = staging / next(name for name in _HOSTS_AT if not (folder / name).exists())
    host.mkdir(0o755)
    calls.mount(folder, host, None, calls.MS_BIND | calls.MS_REC)
    for name, text in written.items():
        (staging / name).write_text(text, encoding="utf-8")
        (staging / name).chmod(0o644)
    _Copy(folder, staging, host.name, {*written, *hidden}, binds).fill("")
    calls.mount(staging, folder, None, calls.MS_MOVE)
    calls.mount(None, folder, None, calls.MS_REMOUNT | calls.MS_BIND | calls.MS_RDONLY | in_memory)


@dataclass(frozen=True, slots=True)
class _Copy:
    """Of ``folder``, made in ``staging``, without what is left out."""

    folder: Path
    staging: Path
    host: str
    left_out: Collection[str]
    binds: bool

    def fill(self, within: str) -> None:
        """Each entry of the folder ``within``; of one in which something is left out, the rest."""
        with os.scandir(self.staging / self.host / within) as entries:
            for entry in entries:
                path = f"{within}/{entry.name}" if within else entry.name
                if path not in self.left_out:
                    self._add(path, is_folder=entry.is_dir(follow_symlinks=False))

    def _add(self, path: str, *, is_folder: bool) -> None:
        ours, theirs = self.staging / path, self.staging / self.host / path
        if theirs.is_symlink():
            ours.symlink_to(theirs.readlink())
        elif is_folder and any(other.startswith(f"{path}/") for other in self.left_out):
            ours.mkdir(0o755)
            self.fill(path)
        elif is_folder and self.binds:
            ours.mkdir(0o755)
            calls.mount(theirs, ours, None, calls.MS_BIND | calls.MS_REC)
        else:
            ours.symlink_to(self.folder / self.host / path)
