"""Decides what `pywg up` does: (Config, Facts) to a list of Steps. Does none of it.

Every Step prints as the line wg-quick would echo and knows the Step that undoes it. Knows no
kernel: Facts come in, network.py carries Steps out.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from pywg.config import Config, IPInterface, IPNetwork
from pywg.errors import ConfigError

MTU_DEFAULT = 1500
OVERHEAD = 80  # IPv6 40, UDP 8, WireGuard 32: what wg-quick takes off


@dataclass(frozen=True, slots=True)
class Facts:
    """What the plan has to know about this host."""

    endpoint_mtus: tuple[int, ...] = ()  # of the route or device to each endpoint
    default_route_mtu: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do to the interface ``name``."""

    name: str

    def undo(self) -> Step | None:
        return None


@dataclass(frozen=True, slots=True)
class CreateInterface(Step):
    """Start the process that hosts the device."""

    def undo(self) -> Step:
        return DeleteInterface(self.name)

    def __str__(self) -> str:
        return f"pywg run {self.name}"


@dataclass(frozen=True, slots=True)
class DeleteInterface(Step):
    def __str__(self) -> str:
        return f"ip link delete dev {self.name}"


@dataclass(frozen=True, slots=True)
class AddAddress(Step):
    address: IPInterface

    def undo(self) -> Step:
        return DeleteAddress(self.name, self.address)

    def __str__(self) -> str:
        return f"ip -{self.address.version} address add {self.address} dev {self.name}"


@dataclass(frozen=True, slots=True)
class DeleteAddress(Step):
    address: IPInterface

    def __str__(self) -> str:
        return f"ip -{self.address.version} address delete {self.address} dev {self.name}"


@dataclass(frozen=True, slots=True)
class LinkUp(Step):
    mtu: int

    def undo(self) -> Step:
        return LinkDown(self.name)

    def __str__(self) -> str:
        return f"ip link set mtu {self.mtu} up dev {self.name}"


@dataclass(frozen=True, slots=True)
class LinkDown(Step):
    def __str__(self) -> str:
        return f"ip link set down dev {self.name}"


@dataclass(frozen=True, slots=True)
class AddRoute(Step):
    network: IPNetwork

    def undo(self) -> Step:
        return DeleteRoute(self.name, self.network)

    def __str__(self) -> str:
        return f"ip -{self.network.version} route add {self.network} dev {self.name}"


@dataclass(frozen=True, slots=True)
class DeleteRoute(Step):
    network: IPNetwork

    def __str__(self) -> str:
        return f"ip -{self.network.version} route delete {self.network} dev {self.name}"


def plan(name: str, config: Config, facts: Facts) -> list[Step]:
    """The steps of `up`, in order."""
    refuse_default_route(name, config)
    return [
        CreateInterface(name),
        *(AddAddress(name, address) for address in config.interface.addresses),
        LinkUp(name, choose_mtu(config, facts)),
        *(AddRoute(name, network) for network in routes(config)),
    ]


def refuse_default_route(name: str, config: Config) -> None:
    """A /0 needs policy routing, or the tunnel's own datagrams would enter the tunnel."""
    for peer in config.peers:
        for allowed in peer.allowed_ips:
            if allowed.network.prefixlen == 0:
                raise ConfigError(
                    config.path,
                    allowed.position.line,
                    allowed.position.column,
                    f"AllowedIPs: {allowed} sends everything through the tunnel, which `pywg up` "
                    "does not do yet; run: "
                    f"WG_QUICK_USERSPACE_IMPLEMENTATION=pywgd wg-quick up {name}",
                )


def choose_mtu(config: Config, facts: Facts) -> int:
    """The one given; else the smallest on the way to an endpoint, less the overhead."""
    if config.interface.mtu is not None:
        return config.interface.mtu
    outer = min(facts.endpoint_mtus, default=facts.default_route_mtu or MTU_DEFAULT)
    return outer - OVERHEAD


def routes(config: Config) -> list[IPNetwork]:
    """Allowed networks, longest prefix first, without those the interface already routes."""
    peers = {peer.public_key: peer for peer in config.peers}.values()  # a later section wins
    wanted = {allowed.network for peer in peers for allowed in peer.allowed_ips}
    present = [address.network for address in config.interface.addresses if _connected(address)]
    # Longest first, so no route that is added covers one that comes after it.
    ordered = sorted(wanted, key=lambda item: (-item.prefixlen, item.version, item))
    return [network for network in ordered if not _covered(network, present)]


def _connected(address: IPInterface) -> bool:
    """Whether the kernel adds a route for this address's network: for an IPv4 /32 it does not."""
    return address.version == 6 or address.network.prefixlen < 32


def _covered(network: IPNetwork, present: Iterable[IPNetwork]) -> bool:
    return any(
        known.version == network.version
        and known.prefixlen <= network.prefixlen
        and network.network_address in known
        for known in present
    )


def execute(
    steps: Sequence[Step], perform: Callable[[Step], None], echo: Callable[[Step], None]
) -> None:
    """All or nothing: when a step fails, or Ctrl-C comes, the earlier ones are undone.

    A step that is interrupted half-way may have worked: it is undone too. Then a second
    Ctrl-C changes nothing.
    """
    begun: list[Step] = []
    try:
        for step in steps:
            echo(step)
            begun.append(step)
            try:
                perform(step)
            except Exception:
                begun.pop()  # it says that it did nothing
                raise
    except BaseException:
        with _undisturbed():
            for step in reversed(begun):
                undo = step.undo()
                if undo is None:
                    continue
                # One that fails must not keep the others from running, nor hide the first error.
                with contextlib.suppress(Exception):
                    echo(undo)
                with contextlib.suppress(Exception):
                    perform(undo)
        raise


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignores signals that end the process. A mask would not do: another thread may take one."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers, and only it is interrupted
        return
    ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [(number, signal.signal(number, signal.SIG_IGN)) for number in ending]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
