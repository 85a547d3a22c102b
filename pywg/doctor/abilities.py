"""What this host lets a tunnel do: TUN, capabilities, namespaces for ordinary users, buffers, the
clock. Pure."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

from pywg.doctor.facts import Host, Tun
from pywg.doctor.finding import Finding, error, note, ok, warning
from pywg.errors import NEEDS_PRIVILEGE, NO_TUN
from pywg.rootless import refusal

NET_ADMIN = 12
#: What core/io/udp.zig asks for.
BUFFER = 7 << 20
_DAY_S = 86400.0
#: Nobody has this version before that; a clock that was never set is in 1970.
EARLIEST_S = datetime(2024, 1, 1, tzinfo=UTC).timestamp()


def judge(host: Host, says: refusal.Facts) -> Iterator[Finding]:
    """``says``: what the host says of namespaces and /dev/net/tun."""
    yield tun(host.tun, says)
    yield capabilities(host)
    yield user_namespaces(host, says)
    yield buffers(host)
    yield clock(host)


def tun(found: Tun, says: refusal.Facts) -> Finding:
    if found.os_errno is None:
        return note(
            "tun-driver",
            "the TUN driver is not loaded; that is tried when a tunnel comes up",
            "/proc/misc has no tun",
            "modprobe tun",
        )
    if found.os_errno == 0:
        return ok("tun", "/dev/net/tun can be opened")
    why = refusal.explain(replace(says, step="/dev/net/tun", os_errno=found.os_errno))
    is_missing = why.reason == "no tun"
    said = errno.errorcode.get(found.os_errno, str(found.os_errno))
    return error(
        "tun-missing" if is_missing else "tun-closed",
        why.cause,
        f"open /dev/net/tun: {said}",
        why.remedy or NO_TUN,
    )


def capabilities(host: Host) -> Finding:
    if host.capabilities >> NET_ADMIN & 1:
        return ok("net-admin", "interfaces can be made and set here", "CAP_NET_ADMIN is in effect")
    if not host.is_root:
        return note(
            "not-root",
            "an ordinary user: `pywg up` needs root, `pywg exec` and `pywg proxy` do not",
            "CAP_NET_ADMIN is not in effect",
            "sudo",
        )
    return error(
        "no-net-admin",
        "root without the right to make interfaces, as in a container",
        "CAP_NET_ADMIN is not in effect",
        f"in Docker: --cap-add NET_ADMIN; else {NEEDS_PRIVILEGE}",
    )


def user_namespaces(host: Host, says: refusal.Facts) -> Finding:
    """Which only `pywg exec` and its like need, and root needs none."""
    refused = (
        says.max_user_namespaces == 0
        or says.unprivileged_userns_clone == 0
        or says.apparmor_restricts
        or not says.is_mapped
    )
    if not refused:
        return ok("user-namespaces", "nothing is seen that forbids `pywg exec` to ordinary users")
    why = refusal.explain(replace(says, step="user namespace", os_errno=errno.EPERM))
    tell = note if host.is_root else warning
    return tell(
        "user-namespaces-off",
        f"no `pywg exec` for ordinary users: {why.cause}",
        _seen(says),
        why.remedy,
    )


def _seen(says: refusal.Facts) -> str:
    if says.max_user_namespaces == 0:
        return "user.max_user_namespaces = 0"
    if not says.is_mapped:
        return "/proc/self/uid_map has no number for this user"
    if says.unprivileged_userns_clone == 0:
        return "kernel.unprivileged_userns_clone = 0"
    return "kernel.apparmor_restrict_unprivileged_userns = 1"


def buffers(host: Host) -> Finding:
    """With NET_ADMIN a socket gets what it asks for (core/io/udp.zig, growBuffer)."""
    sizes = {"net.core.rmem_max": host.rmem_max, "net.core.wmem_max": host.wmem_max}
    small = {name: size for name, size in sizes.items() if size is not None and size < BUFFER}
    if not small or host.capabilities >> NET_ADMIN & 1:
        return ok("buffers", f"UDP sockets get the {BUFFER >> 20} MiB that they ask for")
    return note(
        "buffers-small",
        "without CAP_NET_ADMIN, UDP sockets get less than they ask for: bursts may be lost",
        ", ".join(f"{name} = {size}" for name, size in small.items()),
        f"sudo sysctl -w {' '.join(f'{name}={BUFFER}' for name in small)}",
    )


def clock(host: Host) -> Finding:
    """Timestamps of handshakes only ever grow: a peer refuses those of a clock that was set back
    (whitepaper section 5.1)."""
    now = datetime.fromtimestamp(max(host.now_s, 0), UTC)
    if host.now_s < max(EARLIEST_S, host.built_s - _DAY_S):
        known = datetime.fromtimestamp(max(EARLIEST_S, host.built_s), UTC)
        return error(
            "clock-behind",
            "the clock is behind: peers that have heard of a later time refuse handshakes",
            f"it says {now:%Y-%m-%d}, and pywg's own files are of {known:%Y-%m-%d}"
            if host.built_s > EARLIEST_S
            else f"it says {now:%Y-%m-%d}",
            "timedatectl set-ntp true",
        )
    return ok("clock", "the clock is not known to be behind", f"it says {now:%Y-%m-%d %H:%M} UTC")
