"""Zig tests that qemu-user cannot do, by room, with the reason.

What runs without it (x86_64, i686) leaves nothing out. Names are the ends of tests' names, or of
a whole file with a dot behind it.
"""

# Names of tests are as long as they are.
# ruff: noqa: E501

from __future__ import annotations

from tools.targets.machine import BIG_ENDIAN

# reason -> (room, name)
EVERYWHERE: dict[str, list[tuple[str, str]]] = {
    "it does not know SO_MARK": [
        ("io", "the firewall mark is set on open and changed later"),
    ],
    "it does not know SO_ATTACH_REUSEPORT_CBPF": [
        (
            "io",
            "sockets that share a port get each session's datagrams at one of them, by receiver index",
        ),
        (
            "io",
            "sockets take over a port from ours that share it, all of them, but not from a stranger's",
        ),
    ],
    "it cuts off who refused a datagram from what the error queue tells": [
        ("io", "the kernel tells who refused a datagram, once"),
        (
            "io",
            "what the network answers to one datagram costs none of those after it, and is told once",
        ),
    ],
    "it does not know NETLINK_LISTEN_ALL_NSID, and translates only some messages of rtnetlink": [
        ("io", "the monitor follows an interface through two other namespaces and back"),
        ("io", "an interface that moves while it is up is told down, as the kernel takes it down"),
        ("io", "a rule, or a link whose routes go without a word, is told as a change of routes"),
    ],
}
OTHER_BYTE_ORDER: dict[str, list[tuple[str, str]]] = {
    "it hands on the headers of superpackets as they are": [
        (
            "io",
            "a superpacket of UDP goes in whole; refused, it goes packet by packet, and then no more is tried",
        ),
        ("device", "device_test."),
    ],
    "it hands on the size of segments, and what belongs to an error, as they are": [
        ("io", "a train goes out in one message and comes in whole, over both families"),
        ("io", "a source that no interface has any more is dropped, and the datagrams go"),
        ("io", "a source refused under EINVAL costs the source, not GSO"),
        ("io", "trains are cut at 64 segments and at the longest payload"),
        ("io", "an error of before costs nothing when nothing of it waits in the error queue"),
        (
            "io",
            "an error of before that is told although the error queue was emptied costs nothing",
        ),
    ],
    "it hands on attributes and messages of netlink that it does not know as they are": [
        ("io", "MTU, flags, index and segment limit are set and read"),
        (
            "io",
            "what the driver sets is set, by netlink alone where files are closed, and comes back with IPv6",
        ),
        ("io", "the kernel is believed, and another process is not"),
    ],
}


def left_out(arch: str, room: str) -> list[str]:
    """Under qemu-user."""
    tables = [EVERYWHERE, *([OTHER_BYTE_ORDER] if arch in BIG_ENDIAN else [])]
    entries = [entry for reasons in tables for rows in reasons.values() for entry in rows]
    return [name for where, name in entries if where == room]
