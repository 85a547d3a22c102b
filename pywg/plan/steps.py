"""The steps of `up`, `down` and `reload`: what each is called by ip(8) and others, its undo, and
when `down` takes it back.

``Step`` is the closed union of all of them; tunnel/apply.py has one case for each. Every field of a
step that lasts is a number, a text, an address, a network or a tuple of texts: codec.py writes them
down. Invariant: no step holds a key.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, assert_never

from pywg.config import IPInterface, IPNetwork, split_dns
from pywg.plan.facts import Backend, DnsManager, FirewallTool


class Phase(IntEnum):
    """When `down` takes an effect back, in wg-quick's order."""

    RULES = 0
    INTERFACE = 1  # with it, or by deleting it
    NAMES = 2
    FIREWALL = 3
    KILL_SWITCH = 4  # after all else, hooks too


@dataclass(frozen=True, slots=True)
class _Step:
    """One thing to do for the interface ``name``."""

    name: str

    phase: ClassVar[Phase] = Phase.INTERFACE

    def undo(self) -> Step | None:
        return None

    def outlives(self) -> bool:
        """Whether what it did stays when the interface is deleted."""
        return self.phase is not Phase.INTERFACE


@dataclass(frozen=True, slots=True)
class Note(_Step):
    """Something that is not done; the user is to know."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class RunHook(_Step):
    """PreUp, PostUp, PreDown or PostDown, %i replaced. What it did only another hook can undo."""

    command: str

    def __str__(self) -> str:
        return self.command


# ---- the interface


@dataclass(frozen=True, slots=True)
class CreateInterface(_Step):
    """Start the process that hosts the device, or have the kernel make it."""

    backend: Backend = "userspace"

    def undo(self) -> Step:
        return DeleteInterface(self.name)

    def __str__(self) -> str:
        if self.backend == "kernel":
            return f"ip link add {self.name} type wireguard"
        return f"pywg run {self.name}"


@dataclass(frozen=True, slots=True)
class DeleteInterface(_Step):
    def __str__(self) -> str:
        return f"ip link delete dev {self.name}"


@dataclass(frozen=True, slots=True)
class MoveInterface(_Step):
    """From the namespace of its sockets to its own; deleted there, it needs no moving back."""

    socket_netns: str | None
    netns: str | None

    def __str__(self) -> str:
        origin = "" if self.socket_netns is None else f" -n {self.socket_netns}"
        return f"ip{origin} link set {self.name} netns {self.netns or '$$'}"


@dataclass(frozen=True, slots=True)
class Configure(_Step):
    """Keys, peers and the mark of what it sends, beside what PreUp has set. The text is with who
    performs it."""

    mark: int | None = None

    def __str__(self) -> str:
        return f"wg addconf {self.name} /dev/stdin"


@dataclass(frozen=True, slots=True)
class Reconfigure(_Step):
    """Changes in place: peers that stay keep their sessions."""

    mark: int | None = None

    def undo(self) -> Step:
        return RestoreConfiguration(self.name)

    def __str__(self) -> str:
        return f"wg syncconf {self.name} /dev/stdin"


@dataclass(frozen=True, slots=True)
class RestoreConfiguration(_Step):
    """What Reconfigure found."""

    def __str__(self) -> str:
        return f"wg syncconf {self.name} /dev/stdin"


@dataclass(frozen=True, slots=True)
class EnableIpv6(_Step):
    """For this interface alone, where new ones have none. It goes with the interface."""

    def __str__(self) -> str:
        return f"sysctl -q net.ipv6.conf.{self.name}.disable_ipv6=0"


@dataclass(frozen=True, slots=True)
class AddAddress(_Step):
    address: IPInterface

    def undo(self) -> Step:
        return DeleteAddress(self.name, self.address)

    def __str__(self) -> str:
        return f"ip -{self.address.version} address add {self.address} dev {self.name}"


@dataclass(frozen=True, slots=True)
class DeleteAddress(_Step):
    address: IPInterface

    def __str__(self) -> str:
        return f"ip -{self.address.version} address delete {self.address} dev {self.name}"


@dataclass(frozen=True, slots=True)
class LinkUp(_Step):
    mtu: int
    is_chosen: bool = False  # by the way to the endpoints: it follows that

    def undo(self) -> Step:
        return LinkDown(self.name)

    def __str__(self) -> str:
        return f"ip link set mtu {self.mtu} up dev {self.name}"


@dataclass(frozen=True, slots=True)
class LinkDown(_Step):
    def __str__(self) -> str:
        return f"ip link set down dev {self.name}"


# ---- routes and rules


@dataclass(frozen=True, slots=True)
class AddRoute(_Step):
    network: IPNetwork
    table: int | None = None  # None is the main one

    def undo(self) -> Step:
        return DeleteRoute(self.name, self.network, self.table)

    def __str__(self) -> str:
        return _route("add", self.name, self.network, self.table)


@dataclass(frozen=True, slots=True)
class DeleteRoute(_Step):
    network: IPNetwork
    table: int | None = None

    def __str__(self) -> str:
        return _route("delete", self.name, self.network, self.table)


@dataclass(frozen=True, slots=True)
class BlockRoute(_Step):
    """What should go into the tunnel and cannot is refused, and does not leave in clear."""

    phase = Phase.RULES
    network: IPNetwork
    table: int

    def undo(self) -> Step:
        return UnblockRoute(self.name, self.network, self.table)

    def __str__(self) -> str:
        return _unreachable("add", self.network, self.table)


@dataclass(frozen=True, slots=True)
class UnblockRoute(_Step):
    phase = Phase.RULES

    network: IPNetwork
    table: int

    def __str__(self) -> str:
        return _unreachable("delete", self.network, self.table)


@dataclass(frozen=True, slots=True)
class AddRule(_Step):
    """With a mark: all but what carries it looks in that table. Without: of the main table, all
    but default routes."""

    phase = Phase.RULES
    version: int
    priority: int
    mark: int | None = None

    def undo(self) -> Step:
        return DeleteRule(self.name, self.version, self.priority, self.mark)

    def __str__(self) -> str:
        return _rule("add", self.version, self.mark)


@dataclass(frozen=True, slots=True)
class DeleteRule(_Step):
    phase = Phase.RULES

    version: int
    priority: int
    mark: int | None = None

    def __str__(self) -> str:
        return _rule("delete", self.version, self.mark)


@dataclass(frozen=True, slots=True)
class SetValidMark(_Step):
    """Reverse path filters look at marks too, or they would drop the answers of peers."""

    def undo(self) -> Step:
        return RestoreValidMark(self.name)

    def __str__(self) -> str:
        return "sysctl -q net.ipv4.conf.all.src_valid_mark=1"


@dataclass(frozen=True, slots=True)
class RestoreValidMark(_Step):
    """For an `up` that fails. `down` leaves it, as wg-quick does: others may rely on it by now."""

    def __str__(self) -> str:
        return "sysctl -q net.ipv4.conf.all.src_valid_mark=0"


# ---- firewall and names


@dataclass(frozen=True, slots=True)
class SetFirewall(_Step):
    """Only the tunnel may deliver to its addresses; answers to our datagrams carry our mark."""

    phase = Phase.FIREWALL
    tool: FirewallTool
    version: int
    mark: int
    addresses: tuple[str, ...] = ()

    def undo(self) -> Step:
        return RemoveFirewall(self.name, self.tool, self.version)

    def __str__(self) -> str:
        return "nft -f -" if self.tool == "nft" else _iptables(self.tool, self.version)


@dataclass(frozen=True, slots=True)
class RemoveFirewall(_Step):
    phase = Phase.FIREWALL

    tool: FirewallTool
    version: int
    owner: str = "pywg"  # or wg-quick

    def __str__(self) -> str:
        if self.tool == "nft":
            family = "ip" if self.version == 4 else "ip6"
            return f"nft delete table {family} {self.owner}-{self.name}"
        return _iptables(self.tool, self.version)


@dataclass(frozen=True, slots=True)
class SetKillSwitch(_Step):
    """Nothing leaves beside the tunnel, from before its first step to after its last."""

    phase = Phase.KILL_SWITCH

    mark: int
    allows_lan: bool = False

    def undo(self) -> Step:
        return RemoveKillSwitch(self.name)

    def __str__(self) -> str:
        return f"nft -f - # kill switch of {self.name}"


@dataclass(frozen=True, slots=True)
class RemoveKillSwitch(_Step):
    phase = Phase.KILL_SWITCH

    def __str__(self) -> str:
        return f"nft delete table inet pywg-kill-{self.name}"


@dataclass(frozen=True, slots=True)
class SetOwners(_Step):
    """Whose packets go beside the tunnel: those of ``owners``, or of all but them."""

    phase = Phase.FIREWALL

    mark: int
    is_only: bool
    owners: tuple[str, ...]
    addresses: tuple[str, ...] = ()  # of the tunnel
    servers: tuple[str, ...] = ()  # name servers behind it

    def undo(self) -> Step:
        return RemoveOwners(self.name)

    def __str__(self) -> str:
        which = "only" if self.is_only else "except"
        return f"nft -f - # {which} {', '.join(self.owners)}"


@dataclass(frozen=True, slots=True)
class RemoveOwners(_Step):
    phase = Phase.FIREWALL

    def __str__(self) -> str:
        return f"nft delete table inet pywg-owners-{self.name}"


@dataclass(frozen=True, slots=True)
class SetDns(_Step):
    phase = Phase.NAMES
    manager: DnsManager
    target: str
    servers: tuple[str, ...]
    search: tuple[str, ...] = ()  # with a `~` in it, the servers are for these names alone

    def undo(self) -> Step:
        return UnsetDns(self.name, self.manager, self.target)

    def __str__(self) -> str:
        match self.manager:
            case "resolvconf":
                flag = "-p" if split_dns.is_split(self.search) else "-x"
                return f"resolvconf -a {self.target} -m 0 {flag}"
            case "resolved":
                return f"resolvectl dns {self.target} {' '.join(self.servers)}"
            case "file":
                return f"write {self.target}"
            case _:
                assert_never(self.manager)


@dataclass(frozen=True, slots=True)
class UnsetDns(_Step):
    phase = Phase.NAMES

    manager: DnsManager
    target: str

    def __str__(self) -> str:
        match self.manager:
            case "resolvconf":
                return f"resolvconf -d {self.target} -f"
            case "resolved":
                return f"resolvectl revert {self.target}"
            case "file":
                return f"restore {self.target}"
            case _:
                assert_never(self.manager)


# ---- changes


@dataclass(frozen=True, slots=True)
class Replace(_Step):
    """``new`` in the place of ``old``, where doing the new one is enough to end the old one."""

    old: Step
    new: Step

    def undo(self) -> Step:
        return Replace(self.name, self.new, self.old)

    def __str__(self) -> str:
        return str(self.new)


@dataclass(frozen=True, slots=True)
class TakeBack(_Step):
    """The undo of ``step``, which knows what to do when it is taken back itself."""

    step: Step

    def undo(self) -> Step:
        return self.step

    def __str__(self) -> str:
        return str(self.step.undo())


@dataclass(frozen=True, slots=True)
class Ensure(_Step):
    """Does ``step`` again if it is no longer done. The kernel takes more than it is told to:
    with an IPv4 address those that came after it in its network, with the last all routes."""

    step: Step

    def __str__(self) -> str:
        return str(self.step)


Step = (
    Note
    | RunHook
    | CreateInterface
    | DeleteInterface
    | MoveInterface
    | Configure
    | Reconfigure
    | RestoreConfiguration
    | EnableIpv6
    | AddAddress
    | DeleteAddress
    | LinkUp
    | LinkDown
    | AddRoute
    | DeleteRoute
    | BlockRoute
    | UnblockRoute
    | AddRule
    | DeleteRule
    | SetValidMark
    | RestoreValidMark
    | SetFirewall
    | RemoveFirewall
    | SetKillSwitch
    | RemoveKillSwitch
    | SetOwners
    | RemoveOwners
    | SetDns
    | UnsetDns
    | Replace
    | TakeBack
    | Ensure
)

# Those whose effect stays, so that a later reload can change it.
Lasting = (
    EnableIpv6
    | AddAddress
    | LinkUp
    | AddRoute
    | BlockRoute
    | AddRule
    | SetValidMark
    | SetFirewall
    | SetKillSwitch
    | SetOwners
    | SetDns
)


def _route(verb: str, name: str, network: IPNetwork, table: int | None) -> str:
    where = "" if table is None else f" table {table}"
    return f"ip -{network.version} route {verb} {network} dev {name}{where}"


def _unreachable(verb: str, network: IPNetwork, table: int) -> str:
    return f"ip -{network.version} route {verb} unreachable {network} table {table}"


def _rule(verb: str, version: int, mark: int | None) -> str:
    if mark is None:
        return f"ip -{version} rule {verb} table main suppress_prefixlength 0"
    return f"ip -{version} rule {verb} not fwmark {mark} table {mark}"


def _iptables(tool: FirewallTool, version: int) -> str:
    program = tool if version == 4 else tool.replace("iptables", "ip6tables")
    return f"{program}-restore -n"
