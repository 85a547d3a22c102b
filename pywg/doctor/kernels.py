"""Kernels with known faults, and what older ones lack. Pure.

Each row cites where this project says so. Distributions repair their kernels without another
number, and some faults need a driver: so all of it is a note.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pywg.doctor.facts import Host
from pywg.doctor.finding import Finding, note, ok

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """Of the kernels from ``first`` on, before ``fixed``; only beside an interface of ``kind``, if
    one is named."""

    word: str
    first: Version
    fixed: Version
    text: str
    mend: str
    cite: str
    kind: str = ""


FAULTS = (
    Fault(
        "kernel-udp-segment",
        (7, 0),
        (7, 1, 5),
        "some drivers lose or damage trains of datagrams (UDP_SEGMENT); pywg finds that out by "
        "itself, within seconds",
        "pywg up --no-offload udp_gso, or a newer kernel",
        "docs/traps.md, Kernel offloads",
    ),
    Fault(
        "kernel-tun-gso",
        (6, 6, 44),
        (6, 6, 45),
        "it refuses good superpackets into TUN; pywg writes single packets after three of them",
        "a newer kernel (fixed by 89add40066f9)",
        "core/io/tun.zig",
    ),
    Fault(
        "kernel-tun-gso",
        (6, 10, 3),
        (6, 10, 4),
        "it refuses good superpackets into TUN; pywg writes single packets after three of them",
        "a newer kernel (fixed by 89add40066f9)",
        "core/io/tun.zig",
    ),
    Fault(
        "kernel-uso-vxlan",
        (6, 2),
        (6, 8, 5),
        "superpackets of UDP break a VXLAN above the tunnel",
        "pywg up --no-offload tun_uso, or a newer kernel",
        "docs/traps.md, TUN",
        kind="vxlan",
    ),
)
# docs/USAGE.md, "Offloads": since which kernel there is each.
OFFLOADS = {
    "udp_gso": (4, 18),
    "udp_gro": (5, 12),
    "tun_uso": (6, 2),
    "tun_tunnel": (6, 17),
}


def judge(host: Host) -> Iterator[Finding]:
    version = parsed(host.release)
    if version is None:
        yield note("kernel-unknown", "the version of the kernel cannot be read", host.release)
        return
    faults = [fault for fault in FAULTS if _has(fault, version, host)]
    for fault in faults:
        seen = f"Linux {host.release} ({fault.cite})"
        yield note(fault.word, fault.text, seen, fault.mend)
    lacking = [name for name, since in OFFLOADS.items() if version < since]
    if lacking:
        yield note(
            "kernel-old",
            f"this kernel has no {', '.join(lacking)}: slower, and right",
            f"Linux {host.release} (docs/USAGE.md, Offloads)",
            f"Linux {'.'.join(map(str, OFFLOADS[lacking[-1]]))} has all of them",
        )
    elif not faults:
        yield ok("kernel", "no known fault of this kernel", f"Linux {host.release}")


def parsed(release: str) -> Version | None:
    """``6.6.44-generic`` is (6, 6, 44)."""
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release)
    return None if found is None else tuple(int(part or 0) for part in found.groups())


def _has(fault: Fault, version: Version, host: Host) -> bool:
    return fault.first <= version < fault.fixed and (not fault.kind or fault.kind in host.kinds)
