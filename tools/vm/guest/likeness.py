"""An interface of ours beside one of the kernel's driver: what `ip -d link` and the settings in
/proc/sys/net say of them. Each difference that stays is accepted below, with its reason."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tools.lab.namespaces import run
from tools.vm.guest import place
from tools.vm.guest.backends import link

KERNELS, OURS = "wgkernel", "wg0"
CONF = Path("/proc/sys/net")
ABSENT = "-"
# A difference that stays: what differs -> why. A name may be a pattern.
ACCEPTED = {
    "linkinfo.*": "it is a TUN: kind, queues and owner are what `ip -d` tells of one",
    "ifindex": "each interface has a number of its own",
    "ifname": "each interface has a name of its own",
    "ipv6.accept_ra": "what comes out of a tunnel configures nothing",
    "gso_max_segs": "one superpacket fits one train",
    "m??_mtu": "the limits of a TUN; the MTU itself is the same",
    "qdisc": "packets wait for a TUN to be read, and fairly; the driver has no queue",
    "txqlen": "the length of that queue, of superpackets",
}


def likeness() -> str:
    place.settle(0)
    place.write_config(0)
    place.systemctl("reload", place.unit(0))  # a case before may have set an MTU
    run("ip", "link", "add", KERNELS, "type", "wireguard")
    try:
        run("ip", "link", "set", KERNELS, "up")
        theirs, ours = described(KERNELS), described(OURS)
    finally:
        run("ip", "link", "del", KERNELS)
    rows = [
        (key, theirs.get(key, ABSENT), ours.get(key, ABSENT), reason(key))
        for key in sorted(theirs.keys() | ours.keys())
        if theirs.get(key, ABSENT) != ours.get(key, ABSENT)
    ]
    print("| attribute | kernel's driver | pywg | accepted because |\n|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    left = [f"{key} {theirs_} there, {ours_} here" for key, theirs_, ours_, why in rows if not why]
    assert not left, f"unlike the kernel's: {'; '.join(left)}"
    return f"alike but for {len(rows)} differences that are accepted, each with its reason"


def reason(key: str) -> str:
    """Why a difference is accepted, or nothing."""
    return next(
        (why for name, why in ACCEPTED.items() if fnmatchcase(key, name)),
        "",
    )


def described(name: str) -> dict[str, str]:
    """Every attribute of the link, and every setting the kernel has for it in conf/."""
    found = dict(flat("", link(name)))
    for family in ("ipv4", "ipv6"):
        for path in sorted((CONF / family / "conf" / name).iterdir()):
            if path.is_file():
                found[f"{family}.{path.name}"] = text_of(path)
    found["addresses"] = " ".join(
        line.split()[3].rpartition("/")[0]
        for line in run("ip", "-o", "-6", "address", "show", "dev", name, "scope", "link")
        .splitlines()
    ) or ABSENT  # fmt: skip
    return found


def text_of(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ABSENT


def flat(prefix: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        pairs = value.items()
        return [one for key, inner in pairs for one in flat(f"{prefix}{key}.", inner)]
    text = ",".join(sorted(map(str, value))) if isinstance(value, list) else str(value)
    return [(prefix.rstrip("."), text)]
