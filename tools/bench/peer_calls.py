"""What calls of Device take that change, or ask for, one peer or all of many.

In this process, in a network namespace of its own, with the link down: what is measured is Python
and the control plane, not what packets wait (that is the rest of scripts/bench_peers).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial
from ipaddress import ip_network

from pywg import (
    AllowedIP,
    Config,
    Device,
    Endpoint,
    InterfaceSection,
    PeerSection,
    PrivateKey,
    PublicKey,
)
from tools.lab.namespaces import Namespace, unique

ONE_BY_ONE = 200


def section(number: int) -> PeerSection:
    network = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}/32"
    return PeerSection(
        PublicKey(number.to_bytes(32, "little")),
        allowed_ips=(AllowedIP(ip_network(network)),),
        endpoint=Endpoint("192.0.2.1", 1 + number % 60_000),
    )


Taken = tuple[float, float]
"""Seconds that passed, and seconds of this process on a core."""


def seconds(call: Callable[[], object]) -> Taken:
    began, computed = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - began, time.process_time() - computed


def median(many: Iterable[Taken]) -> Taken:
    passed, computed = zip(*many, strict=True)
    return statistics.median(passed), statistics.median(computed)


def one_round(count: int) -> dict[str, Taken]:
    """By the name of what was called."""
    interface = InterfaceSection(PrivateKey.generate())
    peers = tuple(section(number) for number in range(1, count + 1))
    half = tuple(section(number) for number in range(count + 1, count + 1 + count // 2))
    more = [section(number) for number in range(3 * count, 3 * count + ONE_BY_ONE)]
    namespace = Namespace("calls")
    try:
        with namespace.entered(), Device(unique("wgca"), uapi_socket=False) as device:

            def applied(*wanted: PeerSection) -> Taken:
                config = Config(interface, wanted)
                return seconds(lambda: device.apply(config))

            found = {
                "apply, all new": applied(*peers),
                "apply, the same": applied(*peers),
                "apply, one other": applied(*peers[1:], more[0]),
                "apply, half others": applied(*peers[count // 2 :], *half),
            }
            added = [seconds(partial(device.add_peer, peer)) for peer in more]
            removed = [seconds(partial(device.remove_peer, peer.public_key)) for peer in more]
            found["add_peer"] = median(added)
            found["add_peer, the longest"] = max(added)
            found["remove_peer"] = median(removed)
            found["counters"] = seconds(device.counters)
            found["get"] = seconds(device.get)
            return found
    finally:
        namespace.close()


def measure(count: int, rounds: int) -> None:
    """Prints a line for each call."""
    all_found = [one_round(count) for _ in range(rounds)]
    print(f"Device with {count} peers; medians of {rounds}")
    for name in all_found[0]:
        passed, computed = median(found[name] for found in all_found)
        print(f"{name:22} {passed * 1e3:9.3f} ms, {computed * 1e3:9.3f} of them on a core")
