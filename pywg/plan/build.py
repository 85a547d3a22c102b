"""(Config, Facts) to the steps of `up`, in wg-quick's order. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from ipaddress import ip_network

from pywg.config import Config, IPInterface, IPNetwork, PeerSection, Table, split_dns
from pywg.config.model import without
from pywg.errors import ConfigError, PywgError
from pywg.plan.facts import Facts, Location
from pywg.plan.steps import (
    AddAddress,
    AddRoute,
    AddRule,
    BlockRoute,
    Configure,
    CreateInterface,
    EnableIpv6,
    LinkUp,
    MoveInterface,
    Note,
    RunHook,
    SetDns,
    SetFirewall,
    SetKillSwitch,
    SetOwners,
    SetValidMark,
    Step,
)

MTU_DEFAULT = 1500
OVERHEAD = 80  # IPv6 40, UDP 8, WireGuard 32: what wg-quick takes off
FIRST_TABLE = 51820
# What each costs, and how to mend it.
NO_IPV6 = (
    "IPv6 is disabled here, so the tunnel carries none (to have it: "
    "sysctl net.ipv6.conf.all.disable_ipv6=0, and no ipv6.disable=1 at boot)"
)
UNGUARDED = (
    "neighbours can reach the tunnel's addresses beside it, and a strict rp_filter drops what "
    "peers answer"
)
ANYWHERE = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


def plan(name: str, config: Config, facts: Facts, location: Location = Location()) -> list[Step]:  # noqa: B008
    """The steps of `up`, in order."""
    return [
        *switching(name, config, mark_of(config, facts)),
        *making(name, location),
        *hooks(name, config.interface.pre_up),
        *setting(name, config, facts),
        *hooks(name, config.interface.post_up),
    ]


def switching(name: str, config: Config, mark: int | None) -> list[Step]:
    """The kill switch, before anything else. Raises PywgError for a tunnel that cannot have one."""
    wanted = config.interface.kill_switch
    if wanted in (None, "off"):
        return []
    if mark is None or not default_networks(config):
        raise PywgError(
            f"{config.path}: KillSwitch is for a tunnel that carries everything of a family: "
            "AllowedIPs with 0.0.0.0/0 or ::/0, and Table = auto, or a FwMark"
        )
    return [SetKillSwitch(name, mark, wanted == "lan")]


def check_owners(config: Config) -> None:
    """Raises ConfigError for a tunnel that cannot tell who goes through it."""
    interface = config.interface
    for key, chosen in (("Only", interface.only), ("Except", interface.excepted)):
        if not chosen:
            continue
        at = chosen[0].position
        if interface.only and interface.excepted:
            raise ConfigError(config.path, at.line, at.column, "either Only or Except, not both")
        if interface.table != "auto" or not default_networks(config):
            raise ConfigError(
                config.path,
                at.line,
                at.column,
                f"{key}: is for a tunnel that carries everything of a family: "
                "AllowedIPs with 0.0.0.0/0 or ::/0, and Table = auto",
            )


def making(name: str, location: Location) -> list[Step]:
    """The interface. Nothing is asked of the host before PreUp, which may change any answer."""
    if location.is_split:
        moved = [MoveInterface(name, location.socket_netns, location.netns)]
    else:
        moved = []
    return [CreateInterface(name, location.backend), *moved]


def setting(name: str, config: Config, facts: Facts) -> list[Step]:
    """All that depends on the host."""
    return [
        Configure(name, mark_of(config, facts)),
        *_beside_others(name, config, facts),
        *_ipv6(name, config, facts),
        *_addresses(name, config, facts),
        LinkUp(name, choose_mtu(config, facts), config.interface.mtu is None),
        *_dns(name, config, facts),
        *_owners(name, config, facts),
        *_routes(name, config, facts),
    ]


def hooks(name: str, commands: Iterable[str]) -> list[RunHook]:
    return [RunHook(name, command.replace("%i", name)) for command in commands]


def _beside_others(name: str, config: Config, facts: Facts) -> Iterator[Step]:
    """Of two tunnels that carry everything the later one's rules go first, and its own datagrams,
    which they pass over, meet those of the earlier one. A kill switch lets only its own tunnel
    through."""
    for other in facts.switched:
        yield Note(
            name,
            f"the kill switch of {other} lets nothing into {name}, which carries nothing until it "
            f"is gone (pywg unblock {other})",
        )
    if facts.others and config.interface.kill_switch not in (None, "off"):
        others = " and ".join(facts.others)
        yield Note(
            name,
            f"the kill switch of {name} lets nothing of {others} out, which carries nothing until "
            f"it is gone (pywg unblock {name})",
        )
    if facts.carriers and config.interface.table == "auto" and default_networks(config):
        others = " and ".join(facts.carriers)
        yield Note(
            name,
            f"{others} carries everything here: {name} goes inside it, unless its endpoint is in "
            f"a local network (to have {name} alone, take {others} down first)",
        )


def _ipv6(name: str, config: Config, facts: Facts) -> Iterator[Step]:
    """A tunnel that is asked to carry IPv6 is given it."""
    if facts.ipv6 != "off":
        return
    wanted = (*config.interface.addresses, *allowed_networks(config))
    if any(item.version == 6 for item in wanted):
        yield EnableIpv6(name)


def _can_have(version: int, facts: Facts) -> bool:
    return version == 4 or facts.ipv6 in ("on", "off")


def _addresses(name: str, config: Config, facts: Facts) -> Iterator[Step]:
    for address in config.interface.addresses:
        if not _can_have(address.version, facts):
            yield Note(name, f"no address {address}: {NO_IPV6}")
        else:
            yield AddAddress(name, address)


def choose_mtu(config: Config, facts: Facts) -> int:
    """The one given; else what the way to the endpoints leaves."""
    if config.interface.mtu is not None:
        return config.interface.mtu
    return inner_mtu(facts.endpoint_mtus, facts.default_route_mtu)


def inner_mtu(endpoint_mtus: Iterable[int], default_route_mtu: int | None) -> int:
    """The smallest on the way to an endpoint, less the overhead."""
    return min(endpoint_mtus, default=default_route_mtu or MTU_DEFAULT) - OVERHEAD


def _dns(name: str, config: Config, facts: Facts) -> Iterator[Step]:
    """Search domains alone set nothing, as with wg-quick."""
    servers = tuple(str(server) for server in config.interface.dns_servers)
    if not servers:
        return
    if facts.dns.manager == "none":
        yield Note(
            name,
            f"DNS is not set: {facts.dns.target}: names are asked for as before, beside the tunnel "
            f"(mend that, then: pywg reload {name})",
        )
        return
    search = config.interface.dns_search
    if split_dns.is_split(search) and not facts.dns.splits:
        yield Note(name, unsplit(servers, search))
        search = split_dns.searched(search)
    yield SetDns(name, facts.dns.manager, facts.dns.target, servers, search)


def unsplit(servers: Iterable[str], domains: Iterable[str]) -> str:
    """That all names are asked for where only some were to be."""
    names = " and ".join(split_dns.bare(item) for item in domains if split_dns.is_routing(item))
    return (
        f"DNS: this host cannot tell names apart: all are asked for at {', '.join(servers)}, not "
        f"only those in {names}: what others alone know is not found, and every name is seen there "
        "(mend it with systemd-resolved, or with openresolv and a resolver of this host's own)"
    )


def _owners(name: str, config: Config, facts: Facts) -> Iterator[Step]:
    """Before the rules that lead into the tunnel, or it would be everybody's until then."""
    check_owners(config)
    interface, mark = config.interface, mark_of(config, facts)
    chosen = interface.only or interface.excepted
    if chosen and mark is not None:
        yield SetOwners(
            name,
            mark,
            bool(interface.only),
            tuple(map(str, chosen)),
            tuple(str(address.ip) for address in interface.addresses),
            tuple(map(str, interface.dns_servers)),
        )


# ---- routes


def _routes(name: str, config: Config, facts: Facts) -> Iterator[Step]:
    table = config.interface.table
    if table == "off":
        return
    mark = mark_of(config, facts)
    defaults = default_networks(config) if table == "auto" and mark is not None else frozenset()
    led = set()
    for network in routes(config) if table == "auto" else allowed_networks(config):
        is_first, version = network in defaults and network.version not in led, network.version
        if is_first:
            led.add(version)
        if not _can_have(version, facts):
            if is_first and facts.ipv6 == "locked":
                yield from _block(name, facts, mark or 0)
            elif network not in defaults or facts.ipv6 == "absent":
                yield Note(name, f"no route {network}: {NO_IPV6}")
            continue
        if is_first:
            yield from _lead_in(name, config, facts, version, mark or 0)
        yield AddRoute(name, network, mark if network in defaults else _number(table))


def _number(table: Table) -> int | None:
    return table if isinstance(table, int) else None


def _lead_in(name: str, config: Config, facts: Facts, version: int, mark: int) -> Iterator[Step]:
    """Everything but what is marked, the tunnel's own datagrams, goes into the tunnel; only more
    exact routes of the main table go first."""
    if version == 4 and not facts.valid_mark:
        yield SetValidMark(name)
    if facts.firewall is None:
        yield Note(
            name,
            f"neither nft nor iptables is here: no IPv{version} guard for {name}: {UNGUARDED} "
            f"(install nftables, then: pywg reload {name})",
        )
    else:
        own = tuple(str(item.ip) for item in config.interface.addresses if item.version == version)
        yield SetFirewall(name, facts.firewall, version, mark, own)
    yield from _rules(name, version, facts, mark)


def _rules(name: str, version: int, facts: Facts, mark: int) -> Iterator[Step]:
    """Before the route, or what is for the local network would enter the tunnel until the second
    rule is there; undone backwards, the rule that leads into the tunnel goes first of all."""
    first, second = _priorities(facts.rule_priorities[version])
    yield AddRule(name, version, second)
    yield AddRule(name, version, first, mark)


def _block(name: str, facts: Facts, mark: int) -> Iterator[Step]:
    """Else it would leave beside a tunnel that was to carry it."""
    locked = f"net.ipv6.conf.{name}.disable_ipv6 is 1 and cannot be written"
    yield Note(
        name,
        f"{locked}: IPv6 is blocked, but for local networks, until {name} is down (to carry it, "
        "make /proc/sys/net writable)",
    )
    yield from _rules(name, 6, facts, mark)
    yield BlockRoute(name, ANYWHERE[6], mark)


def _priorities(present: tuple[int, ...]) -> tuple[int, int]:
    """Of two more rules, as the kernel would give them: each goes before the second of all."""
    first = _next_priority(present)
    return first, _next_priority((*present[:1], first, *present[1:]))


def _next_priority(present: tuple[int, ...]) -> int:
    return max(present[1] - 1, 0) if len(present) > 1 else 0


def mark_of(config: Config, facts: Facts) -> int | None:
    """What the device marks its datagrams with: as the file says, or, where a default route needs
    one, the number of the first free table."""
    given = config.interface.fwmark or facts.fwmark
    if given:
        return given
    if config.interface.table != "auto" or not _has_default_route(config, facts):
        return None
    table = FIRST_TABLE
    while table in facts.used_tables:
        table += 1
    return table


def _has_default_route(config: Config, facts: Facts) -> bool:
    return any(
        network.version == 4 or facts.ipv6 != "absent" for network in default_networks(config)
    )


def default_networks(config: Config) -> frozenset[IPNetwork]:
    """Default routes among AllowedIPs, and what ExcludedIPs leave of one."""
    return frozenset(
        part
        for peer in _last_sections(config)
        for allowed in peer.allowed_ips
        if allowed.network.prefixlen == 0
        for part in without([allowed.network], peer.excluded_ips)
    )


def routes(config: Config) -> list[IPNetwork]:
    """Allowed networks, longest prefix first, without those the interface already routes. Default
    routes go to a table of their own, where nothing covers them."""
    present = {address.network for address in config.interface.addresses if _connected(address)}
    lengths = {(known.version, known.prefixlen) for known in present}
    defaults = default_networks(config)
    return [
        network
        for network in allowed_networks(config)
        if network in defaults or not _covered(network, present, lengths)
    ]


def allowed_networks(config: Config) -> list[IPNetwork]:
    """Longest first, so no route that is added covers one that comes after it."""
    wanted = {network for peer in _last_sections(config) for network in peer.networks}
    return sorted(
        wanted, key=lambda item: (-item.prefixlen, item.version, int(item.network_address))
    )


def _last_sections(config: Config) -> Iterable[PeerSection]:
    """Of several sections of a peer the last one counts."""
    return {peer.public_key: peer for peer in config.peers}.values()


def _connected(address: IPInterface) -> bool:
    """Whether the kernel adds a route for this address's network: for an IPv4 /32 it does not."""
    return address.version == 6 or address.network.prefixlen < 32


def _covered(
    network: IPNetwork, present: Collection[IPNetwork], lengths: Iterable[tuple[int, int]]
) -> bool:
    """Whether it lies in one of those ``present``, whose versions and lengths are ``lengths``: few,
    however many there are of either."""
    return any(
        network.supernet(new_prefix=length) in present
        for version, length in lengths
        if version == network.version and length <= network.prefixlen
    )
