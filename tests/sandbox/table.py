"""The table of system calls in docs/security.md, as values.

A row has names of calls, and "anything" or what some of their arguments must be. A call that has
several rows may be made in any of these ways. Of names joined by "or" an architecture has one, or
the first is meant. Numbers of calls are the architecture's; all other numbers are here, as the
kernel's headers have them for x86-64, ARM and RISC-V.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from .bpf import Call

DOCUMENT = Path(__file__).parents[2] / "docs" / "security.md"
HEAD = "| what it may call | with |\n|---|---|\n"

# Where an argument is that a row names, counted from 0.
ARGUMENTS = {
    "futex": {"operation": 1},
    "socket": {"domain": 0, "type": 1, "protocol": 2},
    "setsockopt": {"level": 1, "option": 2},
    "getsockopt": {"level": 1, "option": 2},
    "fcntl": {"command": 1},
    "ioctl": {"request": 1},
    "mmap": {"protection": 2, "flags": 3},
    "mremap": {"flags": 3},
    "sched_setscheduler": {"process": 0, "policy": 1},
    "shutdown": {"how": 1},
    "tkill": {"signal": 1},
}
VALUES = {
    "0": 0,
    "AF_INET": 2,
    "AF_INET6": 10,
    "AF_NETLINK": 16,
    "SOCK_DGRAM": 2,
    "SOCK_RAW": 3,
    "SOCK_CLOEXEC": 0o2000000,
    "SOCK_NONBLOCK": 0o4000,
    "NETLINK_ROUTE": 0,
    "SOL_IP": 0,
    "SOL_SOCKET": 1,
    "SOL_UDP": 17,
    "SOL_IPV6": 41,
    "SOL_NETLINK": 270,
    "SO_SNDBUF": 7,
    "SO_RCVBUF": 8,
    "SO_REUSEPORT": 15,
    "SO_PEERCRED": 17,
    "SO_BINDTODEVICE": 25,
    "SO_SNDBUFFORCE": 32,
    "SO_RCVBUFFORCE": 33,
    "SO_MARK": 36,
    "SO_ATTACH_REUSEPORT_CBPF": 51,
    "IP_PKTINFO": 8,
    "IP_MTU_DISCOVER": 10,
    "IP_RECVERR": 11,
    "IP_RECVTOS": 13,
    "IPV6_MTU_DISCOVER": 23,
    "IPV6_RECVERR": 25,
    "IPV6_V6ONLY": 26,
    "IPV6_RECVPKTINFO": 49,
    "IPV6_RECVTCLASS": 66,
    "UDP_SEGMENT": 103,
    "UDP_GRO": 104,
    "NETLINK_LISTEN_ALL_NSID": 8,
    "F_DUPFD_CLOEXEC": 1030,
    "TUNSETOFFLOAD": 0x400454D0,
    "TUNGETIFF": 0x800454D2,
    "TUNSETQUEUE": 0x400454D9,
    "TUNGETDEVNETNS": 0x54E3,
    "SIOCGIFINDEX": 0x8933,
    "PROT_READ": 1,
    "PROT_WRITE": 2,
    "MAP_PRIVATE": 2,
    "MAP_ANONYMOUS": 32,
    "MREMAP_MAYMOVE": 1,
    "FUTEX_WAIT": 0,
    "FUTEX_WAIT_PRIVATE": 128,
    "FUTEX_WAKE_PRIVATE": 129,
    "SCHED_OTHER": 0,
    "SCHED_RR": 2,
    "SCHED_RESET_ON_FORK": 0x40000000,
    "SHUT_RDWR": 2,
    "SIGABRT": 6,
}


def documented(text: str, numbers: Mapping[str, int]) -> set[Call]:
    """What the document's table lets through, by the numbers of one architecture."""
    return {call for row in rows(text) for call in calls(*row, numbers)}


def rows(text: str) -> list[tuple[str, str]]:
    _, head, rest = text.partition(HEAD)
    assert head, f"{DOCUMENT} has no table of calls"
    lines = rest.partition("\n\n")[0].splitlines()
    found = [re.fullmatch(r"\| ([^|]+) \| ([^|]+) \|", line) for line in lines]
    assert all(found), lines
    return [(row[1], row[2]) for row in found if row]


def calls(names: str, conditions: str, numbers: Mapping[str, int]) -> Iterator[Call]:
    """Of one row. Of an architecture that lacks a call, none."""
    for alternatives in names.split(", "):
        words = [word.strip("`") for word in alternatives.split(" or ")]
        present = [word for word in words if word in numbers]
        if present:
            for arguments in combinations(words[-1], conditions):
                yield numbers[present[0]], frozenset(arguments)


def combinations(call: str, conditions: str) -> Iterator[tuple[tuple[int, int], ...]]:
    if conditions == "anything":
        yield ()
        return
    columns = []
    for condition in conditions.split("; "):
        name, _, values = condition.partition(": ")
        place = ARGUMENTS[call][name]
        columns.append([(place, value(words.strip("`"))) for words in values.split(", ")])
    yield from itertools.product(*columns)


def value(words: str) -> int:
    return sum(VALUES[word] for word in words.split("+"))
