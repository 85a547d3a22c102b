"""(Config, Facts) to the steps of `up`, in wg-quick's order. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pywg.config import Config, IPInterface, IPNetwork
from pywg.plan.facts import Facts, Location
from pywg.plan.steps import (
    AddAddress,
    AddRoute,
    AddRule,
    Configure,
    CreateInterface,
    LinkUp,
    MoveInterface,
    Note,
    RunHook,
    SetDns,
    SetFirewall,
    SetValidMark,
    Step,
)

MTU_DEFAULT = 1500
OVERHEAD = 80  # IPv6 40, UDP 8, WireGuard 32: what wg-quick takes off
FIRST_TABLE = 51820


def plan(name: str, config: Config, facts: Facts, location: Location = Location()) -> list[Step]:  # noqa: B008
    """The steps of `up`, in order."""
    interface = config.interface
    moved = (
        [MoveInterface(name, location.socket_netns, location.netns)] if location.is_split else []
    )
    return [
        CreateInterface(name, location.backend),
        *moved,
        *hooks(name, interface.pre_up),
        Configure(name, mark_of(config, facts)),
        *_addresses(name, config, facts),
        LinkUp(name, choose_mtu(config, facts)),
        *_dns(name, config, facts),
        *_routes(name, config, facts),
        *hooks(name, interface.post_up),
    ]


def hooks(name: str, commands: Iterable[str]) -> list[RunHook]:
    return [RunHook(name, command.replace("%i", name)) for command in commands]


def _addresses(name: str, config: Config, facts: Facts) -> Iterator[Step]:
    for address in config.interface.addresses:
        if address.version == 6 and not facts.ipv6:
            yield Note(name, f"IPv6 is disabled here: no address {address}")
        else:
            yield AddAddress(name, address)


def choose_mtu(config: Config, facts: Facts) -> int:
    """The one given; else the smallest on the way to an endpoint, less the overhead."""
    if config.interface.mtu is not None:
        return config.interface.mtu
    outer = min(facts.endpoint_mtus, default=facts.default_route_mtu or MTU_DEFAULT)
    return outer - OVERHEAD


def _dns(name: str, config: Config, facts: Facts) -> Iterator[Step]:
    """Search domains alone set nothing, as with wg-quick."""
    servers = tuple(str(server) for server in config.interface.dns_servers)
    if not servers:
        return
    if facts.dns.manager == "none":
        yield Note(name, f"DNS is not set: {facts.dns.target}")
        return
    search = config.interface.dns_search
    yield SetDns(name, facts.dns.manager, facts.dns.target, servers, search)


# ---- routes


def _routes(name: str, config: Config, facts: Facts) -> Iterator[Step]:
    table = config.interface.table
    if table == "off":
        return
    mark = mark_of(config, facts)
    networks = routes(config) if table == "auto" else allowed_networks(config)
    for network in networks:
        if network.version == 6 and not facts.ipv6:
            yield Note(name, f"IPv6 is disabled here: no route {network}")
        elif table != "auto":
            yield AddRoute(name, network, table)
        elif network.prefixlen == 0 and mark is not None:
            yield from _default_route(name, config, facts, network, mark)
        else:
            yield AddRoute(name, network)


def _default_route(
    name: str, config: Config, facts: Facts, network: IPNetwork, mark: int
) -> Iterator[Step]:
    """Everything but what is marked, the tunnel's own datagrams, goes into the tunnel; only more
    exact routes of the main table go first."""
    version = network.version
    first, second = _priorities(facts.rule_priorities[version])
    yield AddRoute(name, network, mark)
    yield AddRule(name, version, first, mark)
    yield AddRule(name, version, second)
    if version == 4 and not facts.valid_mark:
        yield SetValidMark(name)
    if facts.firewall is None:
        yield Note(name, f"neither nft nor iptables is here: no IPv{version} guard for {name}")
        return
    own = tuple(str(item.ip) for item in config.interface.addresses if item.version == version)
    yield SetFirewall(name, facts.firewall, version, mark, own)


def _priorities(present: tuple[int, ...]) -> tuple[int, int]:
    """Of two more rules, as the kernel would give them: each goes before the second of all."""
    first = _next_priority(present)
    return first, _next_priority((*present[:1], first, *present[1:]))


def _next_priority(present: tuple[int, ...]) -> int:
    return max(present[1] - 1, 0) if len(present) > 1 else 0


def mark_of(config: Config, facts: Facts) -> int | None:
    """What the device marks its datagrams with: as the file says, or, where a default route needs
    one, the number of the first free table."""
    if config.interface.fwmark:
        return config.interface.fwmark
    if config.interface.table != "auto" or not _has_default_route(config, facts):
        return None
    table = FIRST_TABLE
    while table in facts.used_tables:
        table += 1
    return table


def _has_default_route(config: Config, facts: Facts) -> bool:
    return any(
        network.prefixlen == 0 and (network.version == 4 or facts.ipv6)
        for network in allowed_networks(config)
    )


def routes(config: Config) -> list[IPNetwork]:
    """Allowed networks, longest prefix first, without those the interface already routes."""
    present = [address.network for address in config.interface.addresses if _connected(address)]
    return [network for network in allowed_networks(config) if not _covered(network, present)]


def allowed_networks(config: Config) -> list[IPNetwork]:
    """Longest first, so no route that is added covers one that comes after it."""
    peers = {peer.public_key: peer for peer in config.peers}.values()  # a later section wins
    wanted = {allowed.network for peer in peers for allowed in peer.allowed_ips}
    return sorted(wanted, key=lambda item: (-item.prefixlen, item.version, item))


def _connected(address: IPInterface) -> bool:
    """Whether the kernel adds a route for this address's network: for an IPv4 /32 it does not."""
    return address.version == 6 or address.network.prefixlen < 32


def _covered(network: IPNetwork, present: Iterable[IPNetwork]) -> bool:
    """A default route never is: it goes to a table of its own."""
    return network.prefixlen > 0 and any(
        known.version == network.version
        and known.prefixlen <= network.prefixlen
        and network.network_address in known
        for known in present
    )
