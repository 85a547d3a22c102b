"""A VXLAN or Geneve interface whose datagrams go through the tunnel."""

from __future__ import annotations

from tools.lab.namespaces import Namespace, add_address, wait_for_addresses

OVERLAY = "over0"
NETWORK_ID = 7
PORTS = {"vxlan": 4789, "geneve": 6081}


def make_overlay(
    space: Namespace,
    kind: str,
    ends: tuple[str, str],
    *addresses: str,
    checksums: bool,
    mtu: int,
) -> str | None:
    """From the first of these ends to the second, up, with addresses such as 10.88.0.1/24. Answers
    what the kernel said if it has no such interfaces. Without checksums, zero is allowed over IPv6
    both ways."""
    local, remote = ends
    words = ["type", kind, "id", str(NETWORK_ID), "remote", remote, "dstport", str(PORTS[kind])]
    words += ["local", local] if kind == "vxlan" else []
    words += ["udpcsum"] if checksums else ["noudpcsum"]
    if ":" in remote and not checksums:
        words += ["udp6zerocsumtx", "udp6zerocsumrx"]
    made = space.attempt("ip", "link", "add", OVERLAY, *words)
    if made.returncode != 0:
        return made.stderr.strip()
    for address in addresses:
        add_address(space, OVERLAY, address)
    space.ip("link", "set", OVERLAY, "mtu", str(mtu), "up")
    wait_for_addresses(space, addresses)
    return None
