"""Name servers of a tunnel: which service of this host is told about them, and telling it.

Three ways: resolvconf, as wg-quick; systemd-resolved; or the plain file, see resolv_conf.py.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, NamedTuple, assert_never

from pywg.config import IPAddress, split_dns
from pywg.errors import HostError
from pywg.host import programs, resolv_conf

ETC = Path("/etc")
RESOLVED_DIRECTORY = Path("/run/systemd/resolve")
RESOLVCONF_DIRECTORY = Path("/run/resolvconf")
# Of Debian's resolvconf, and of openresolv in its versions: a file for each interface.
RESOLVCONF_ENTRIES = ("interface", "interfaces", "keys")
# Where systemd-resolved listens.
RESOLVED_SERVERS = ("127.0.0.53", "127.0.0.54")
LOOPBACK = ("127.", "::1")


Manager = Literal["resolvconf", "resolved", "file"]


class Found(NamedTuple):
    """Which service manages resolv.conf here, and the name under which it knows a tunnel.

    ``file``: no service does, and ``target`` is the path. ``none``: ``target`` says why name
    servers cannot be set.
    """

    manager: Manager | Literal["none"]
    target: str


def find(name: str, netns: str | None = None, *, wants_split: bool = False) -> Found:
    """The best way there is on this host."""
    return ways(name, netns, wants_split=wants_split)[0]


def ways(name: str, netns: str | None = None, *, wants_split: bool = False) -> list[Found]:
    """All there are, the one to try first in front; the last one may be none. Whether one works
    shows when it is used. A network namespace has a file of its own, which `ip netns exec` puts in
    the place of /etc/resolv.conf."""
    if netns is not None:
        return [_file(ETC / "netns" / netns / "resolv.conf")]
    found = []
    if shutil.which("resolvconf"):
        found.append(Found("resolvconf", f"{_prefix()}{name}"))
    if shutil.which("resolvectl") and _resolved_is_asked():
        found.append(Found("resolved", name))
    if wants_split:
        found.sort(key=lambda way: not splits(way))
    return [*found, _file(ETC / "resolv.conf")]


def splits(way: Found) -> bool:
    """Whether it can ask servers for some names alone. openresolv can where it tells a resolver of
    this host's own, which is all that programs ask; other resolvconfs do not read its file."""
    if way.manager != "resolvconf":
        return way.manager == "resolved"
    asked = servers_in(_read(ETC / "resolv.conf"))
    is_local = all(item.startswith(LOOPBACK) and item not in RESOLVED_SERVERS for item in asked)
    return bool(asked) and is_local and (ETC / "resolvconf.conf").exists()


def _file(path: Path) -> Found:
    reason = resolv_conf.why_not(path)
    return Found("none", reason) if reason else Found("file", str(path))


def _prefix() -> str:
    """Debian's resolvconf orders by interface names: ours should come first, as `tun.wg0`. What is
    a link to somebody else's program has no such file."""
    program = shutil.which("resolvconf")
    if program is None or Path(program).is_symlink():
        return ""
    try:
        lines = (ETC / "resolvconf" / "interface-order").read_text().splitlines()
    except OSError:
        return ""
    found = (re.fullmatch(r"([A-Za-z0-9-]+)\*", line.strip()) for line in lines)
    return next((f"{match[1]}." for match in found if match), "")


def _resolved_is_asked() -> bool:
    """That it runs is not enough: programs must be led to it."""
    path = ETC / "resolv.conf"
    if not RESOLVED_DIRECTORY.is_dir():
        return False
    if path.resolve().is_relative_to(RESOLVED_DIRECTORY):
        return True
    return any(server in RESOLVED_SERVERS for server in servers_in(_read(path)))


def servers_in(text: str) -> list[str]:
    words = (line.split() for line in text.splitlines())
    return [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]


def text_of(servers: Sequence[str], search: Sequence[str]) -> str:
    lines = [f"nameserver {server}" for server in servers]
    if search:
        lines.append(f"search {' '.join(search)}")
    return "".join(f"{line}\n" for line in lines)


def add(
    name: str, manager: Manager, target: str, servers: Sequence[str], search: Sequence[str]
) -> None:
    """For the tunnel ``name``, also in place of what was set for it before. With a `~` in the
    domains (split_dns.py), the servers are for these names alone: not by a file."""
    match manager:
        case "resolvconf":
            _tell_resolvconf(target, servers, search)
        case "resolved":
            _set_resolved(target, servers, search)
        case "file":
            resolv_conf.add(Path(target), name, text_of(servers, split_dns.searched(search)))
        case _:
            assert_never(manager)


def remove(name: str, manager: Manager, target: str) -> None:
    """What is not there is no error."""
    match manager:
        case "resolvconf":
            programs.run(["resolvconf", "-d", target, "-f"])
        case "resolved":
            # With the interface its settings have gone.
            if target in (name for _, name in socket.if_nameindex()):
                programs.run(["resolvectl", "revert", target])
        case "file":
            resolv_conf.remove(Path(target), name)
        case _:
            assert_never(manager)


def stands(
    name: str, manager: Manager, target: str, servers: Sequence[str], search: Sequence[str]
) -> bool:
    """Whether what ``add`` has set is what programs here still get."""
    match manager:
        case "resolvconf":
            # What it makes of it is for it to decide; whether it still knows us, and is heard, can
            # be seen.
            known = _entries()
            is_known = not known or any((folder / target).exists() for folder in known)
            return is_known and _is_led_to(target, servers)
        case "resolved":
            asked = programs.output(["resolvectl", "dns", target]).split()
            return set(servers) <= set(asked)
        case "file":
            text = text_of(servers, split_dns.searched(search))
            return resolv_conf.stands(Path(target), name, text)
        case _:
            assert_never(manager)


def _tell_resolvconf(target: str, servers: Sequence[str], search: Sequence[str]) -> None:
    """It may note what it is told and fail, or not reach the file that programs read. What is
    private is asked for names in its search domains alone."""
    command = ["resolvconf", "-a", target]
    is_split = split_dns.is_split(search)
    domains = [split_dns.bare(item) for item in search] if is_split else split_dns.searched(search)
    try:
        text = text_of(servers, domains)
        programs.run([*command, "-m", "0", "-p" if is_split else "-x"], text)
        if not _is_led_to(target, servers):
            raise HostError(f"{' '.join(command)}: {ETC / 'resolv.conf'} stays as it was")
    except HostError:
        with contextlib.suppress(HostError):
            programs.run(["resolvconf", "-d", target, "-f"])
        raise


def _is_led_to(target: str, servers: Sequence[str]) -> bool:
    """Whether programs ask one of these, or a server on this host, which resolvconf tells. As far
    as can be seen: a resolvconf of another kind is believed."""
    if not any(folder.joinpath(target).exists() for folder in _entries()):
        return True
    asked = servers_in(_read(ETC / "resolv.conf"))
    return any(server in servers or server.startswith(LOOPBACK) for server in asked)


def _entries() -> list[Path]:
    """The folders in which resolvconf keeps what it was told."""
    folders = (RESOLVCONF_DIRECTORY / entry for entry in RESOLVCONF_ENTRIES)
    return [folder for folder in folders if folder.is_dir()]


def _set_resolved(target: str, servers: Sequence[str], search: Sequence[str]) -> None:
    """`~.`: every name is asked for here, as `resolvconf -x` means it."""
    is_split = split_dns.is_split(search)
    domains = search if is_split else (split_dns.EVERYTHING, *split_dns.searched(search))
    programs.run(["resolvectl", "dns", target, *servers])
    try:
        programs.run(["resolvectl", "domain", target, *domains])
        programs.run(["resolvectl", "default-route", target, "false" if is_split else "true"])
    except HostError:
        with contextlib.suppress(HostError):
            programs.run(["resolvectl", "revert", target])
        raise


def current(name: str) -> tuple[tuple[IPAddress, ...], tuple[str, ...]]:
    """For saving: the servers and search domains that resolvconf has for this tunnel now."""
    target = f"{_prefix()}{name}"
    # Debian's resolvconf lists those of all interfaces, whichever one it is asked for.
    known = [folder / target for folder in _entries() if (folder / target).exists()]
    text = _read(known[0]) if known else programs.output(["resolvconf", "-l", target])
    lines = (line.split() for line in text.splitlines())
    search = tuple(word for line in lines if line[:1] == ["search"] for word in line[1:])
    servers = []
    for server in servers_in(text):
        with contextlib.suppress(ValueError):
            servers.append(ip_address(server))
    return tuple(servers), search


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
