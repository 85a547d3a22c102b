"""Name servers of a tunnel: who is told about them on this host, and telling him.

Three ways: resolvconf, as wg-quick; systemd-resolved; or the plain file, see resolv_file.py.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from pywg.host import resolv_conf as resolv_file
from pywg.config import IPAddress
from pywg.errors import PywgError
from pywg.plan import Dns, SetDns, UnsetDns

ETC = Path("/etc")
RESOLVED_DIRECTORY = Path("/run/systemd/resolve")
# Where systemd-resolved listens.
RESOLVED_SERVERS = ("127.0.0.53", "127.0.0.54")


def find(name: str, netns: str | None = None) -> Dns:
    """Who manages names here. A network namespace has a file of its own, which `ip netns exec`
    puts in the place of /etc/resolv.conf."""
    if netns is not None:
        return _file(ETC / "netns" / netns / "resolv.conf")
    if shutil.which("resolvconf"):
        return Dns("resolvconf", f"{_prefix()}{name}")
    if shutil.which("resolvectl") and _resolved_is_asked():
        return Dns("resolved", name)
    return _file(ETC / "resolv.conf")


def _file(path: Path) -> Dns:
    reason = resolv_file.why_not(path)
    return Dns("none", reason) if reason else Dns("file", str(path))


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


# ---- deeds


def set_up(step: SetDns) -> None:
    """Also in place of what was set for this tunnel before."""
    text = text_of(step.servers, step.search)
    match step.manager:
        case "resolvconf":
            _run(["resolvconf", "-a", step.target, "-m", "0", "-x"], text)
        case "resolved":
            _set_resolved(step)
        case _:
            resolv_file.add(Path(step.target), step.name, text)


def tear_down(step: UnsetDns) -> None:
    """What is not there is no error."""
    match step.manager:
        case "resolvconf":
            _run(["resolvconf", "-d", step.target, "-f"])
        case "resolved":
            # With the interface its settings have gone.
            if step.target in (name for _, name in socket.if_nameindex()):
                _run(["resolvectl", "revert", step.target])
        case _:
            resolv_file.remove(Path(step.target), step.name)


def _set_resolved(step: SetDns) -> None:
    """`~.`: every name is asked for here, as `resolvconf -x` means it."""
    _run(["resolvectl", "dns", step.target, *step.servers])
    try:
        _run(["resolvectl", "domain", step.target, "~.", *step.search])
        _run(["resolvectl", "default-route", step.target, "true"])
    except PywgError:
        _run(["resolvectl", "revert", step.target])
        raise


def current(name: str) -> tuple[tuple[IPAddress, ...], tuple[str, ...]]:
    """For saving: the servers and search domains that resolvconf has for this tunnel now."""
    target = f"{_prefix()}{name}"
    try:
        text = _run(["resolvconf", "-l", target])
    except PywgError:
        text = _read(ETC / "resolvconf" / "run" / "interface" / target)
    lines = (line.split() for line in text.splitlines())
    search = tuple(word for line in lines if line[:1] == ["search"] for word in line[1:])
    servers = []
    for server in servers_in(text):
        with contextlib.suppress(ValueError):
            servers.append(ip_address(server))
    return tuple(servers), search


def _run(command: list[str], text: str = "") -> str:
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PywgError(f"{command[0]}: {error}") from None
    if done.returncode != 0:
        said = next(iter(done.stderr.strip().splitlines()), f"failed with {done.returncode}")
        raise PywgError(f"{' '.join(command[:3])}: {said}")
    return done.stdout


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
