"""Why this host lets an ordinary user have no namespace or no TUN, and the line that mends it.

``explain`` is pure: facts to a Refusal. The steps are those that the helper names.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pywg.errors import NO_TUN, TUN_NOT_OURS, PywgError
from pywg.rootless.messages import Failed

Reason = Literal[
    "no tun",
    "tun not openable",
    "user namespaces off",
    "user namespaces used up",
    "other namespaces off",
    "apparmor",
    "apparmor of a container",
    "seccomp",
    "unmapped user",
    "other",
]

_DENIED = frozenset({errno.EPERM, errno.EACCES})
_TUN_MISSING = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR})


@dataclass(frozen=True, slots=True)
class Facts:
    """What the kernel refused, and what this host says of itself. None is what it does not say."""

    step: str
    os_errno: int
    text: str = ""
    tun_mode: int | None = None  # permission bits of /dev/net/tun
    max_user_namespaces: int | None = None
    unprivileged_userns_clone: int | None = None  # Debian's own switch
    apparmor_restricts: bool = False  # Ubuntu: only programs with a profile may
    apparmor_profile: str = ""  # of this process
    has_seccomp_filter: bool = False
    is_mapped: bool = True  # whether this user has a number in the user namespace it is in


@dataclass(frozen=True, slots=True)
class Refusal:
    reason: Reason
    cause: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.cause} ({self.remedy})" if self.remedy else self.cause


class Refused(PywgError):
    """This host does not allow a tunnel without root; ``refusal`` says why, and what would help."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


PROFILE_REMEDY = (
    "pywg exec --print-apparmor-profile | sudo tee /etc/apparmor.d/pywg && "
    "sudo apparmor_parser -r /etc/apparmor.d/pywg"
)
SECCOMP_REMEDY = "docker run --security-opt seccomp=unconfined --device /dev/net/tun"


def explain(facts: Facts) -> Refusal:
    """What a refused step means, the most probable cause first."""
    if facts.step == "/dev/net/tun":
        return _of_tun(facts)
    if facts.step in ("user namespace", "uid_map"):
        return _of_user_namespace(facts)
    return _of_what_is_inside(facts)


def _of_tun(facts: Facts) -> Refusal:
    if facts.os_errno in _TUN_MISSING:
        return Refusal("no tun", "there is no usable /dev/net/tun", NO_TUN)
    if facts.os_errno not in _DENIED:
        return _other(facts)
    if facts.apparmor_restricts and facts.tun_mode is not None and facts.tun_mode & 0o006 == 0o006:
        return _apparmor()
    if facts.tun_mode is not None and facts.tun_mode & 0o006 == 0o006:
        # Open to everybody by its mode: it is the container's list of devices.
        remedy = "give the container the device: --device /dev/net/tun"
        return Refusal("tun not openable", "/dev/net/tun is not for this container", remedy)
    return Refusal("tun not openable", "/dev/net/tun is not open to this user", TUN_NOT_OURS)


def _of_user_namespace(facts: Facts) -> Refusal:
    off = "user namespaces are switched off here"
    if facts.max_user_namespaces == 0:
        remedy = "sudo sysctl -w user.max_user_namespaces=15000"
        return Refusal("user namespaces off", off, remedy)
    if facts.os_errno in (errno.ENOSPC, errno.EUSERS):
        remedy = "sudo sysctl -w user.max_user_namespaces=15000"
        return Refusal("user namespaces used up", "no more user namespaces are to be had", remedy)
    if facts.os_errno in (errno.EINVAL, errno.ENOSYS):
        remedy = "boot a kernel with CONFIG_USER_NS"
        return Refusal("user namespaces off", "this kernel has no user namespaces", remedy)
    if facts.os_errno not in _DENIED:
        return _other(facts)
    if not facts.is_mapped:
        return Refusal(
            "unmapped user",
            "this user has no number in the user namespace it is in",
            "map it there first: unshare --map-current-user",
        )
    if facts.unprivileged_userns_clone == 0:
        remedy = "sudo sysctl -w kernel.unprivileged_userns_clone=1"
        return Refusal("user namespaces off", off, remedy)
    if facts.apparmor_restricts:
        return _apparmor()
    if facts.has_seccomp_filter:
        return Refusal(
            "seccomp", "the seccomp filter of this container forbids namespaces", SECCOMP_REMEDY
        )
    return _other(facts, "user namespaces are not allowed here, or not in a chroot")


def _of_what_is_inside(facts: Facts) -> Refusal:
    if facts.os_errno in (errno.ENOSPC, errno.EUSERS):
        return Refusal(
            "other namespaces off",
            "no more network or mount namespaces are to be had",
            "sudo sysctl -w user.max_net_namespaces=15000 user.max_mnt_namespaces=15000",
        )
    if facts.os_errno in _DENIED:
        if facts.apparmor_restricts:
            return _apparmor()
        if facts.step == "mount" and facts.apparmor_profile not in ("", "unconfined"):
            return Refusal(
                "apparmor of a container",
                f"the AppArmor profile {facts.apparmor_profile} forbids to mount",
                "docker run --security-opt apparmor=unconfined",
            )
        if facts.has_seccomp_filter:
            return Refusal(
                "seccomp", "the seccomp filter of this container forbids it", SECCOMP_REMEDY
            )
    return _other(facts)


def _apparmor() -> Refusal:
    cause = "AppArmor allows namespaces only to programs that have a profile"
    return Refusal("apparmor", cause, PROFILE_REMEDY)


def _other(facts: Facts, cause: str = "") -> Refusal:
    said = facts.text or os.strerror(facts.os_errno)
    return Refusal("other", cause or f"inside the namespace, {facts.step}: {said}", "")


def profile(path: str) -> str:
    """For AppArmor 4: the program at this path, and what it starts, may make user namespaces."""
    return (
        "abi <abi/4.0>,\n"
        "include <tunables/global>\n"
        "\n"
        f'profile pywg "{path}" flags=(unconfined) {{\n'
        "  userns,\n"
        "  include if exists <local/pywg>\n"
        "}\n"
    )


# ---- what this host says


def error(failed: Failed) -> PywgError:
    """For a step that the helper could not do."""
    return Refused(explain(gather(failed)))


def gather(failed: Failed) -> Facts:
    return Facts(
        failed.step,
        failed.os_errno,
        failed.text,
        tun_mode=_mode("/dev/net/tun"),
        max_user_namespaces=_number("/proc/sys/user/max_user_namespaces"),
        unprivileged_userns_clone=_number("/proc/sys/kernel/unprivileged_userns_clone"),
        apparmor_restricts=_number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == 1,
        apparmor_profile=_text("/proc/self/attr/current").partition(" ")[0],
        has_seccomp_filter="\nSeccomp:\t2" in _text("/proc/self/status"),
        is_mapped=_is_mapped(os.geteuid(), _text("/proc/self/uid_map")),
    )


def _is_mapped(uid: int, uid_map: str) -> bool:
    """Whether a number is one of those that ``/proc/self/uid_map`` has."""
    ranges = [line.split() for line in uid_map.splitlines()]
    return any(int(first) <= uid < int(first) + int(count) for first, _, count in ranges)


def _mode(path: str) -> int | None:
    try:
        return stat.S_IMODE(Path(path).stat().st_mode)
    except OSError:
        return None


def _text(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text(encoding="utf-8", errors="replace").rstrip("\0\n")
    return ""


def _number(path: str) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None
