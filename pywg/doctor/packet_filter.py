"""What becomes of one packet in a ruleset of nftables, as far as that can be said without being the
kernel. Pure.

Of a packet only some things are known; a rule that asks for another may match or not. So a chain
has several possible ends, and only what all of them say is said. Expressions that are not known
here (`limit`, `fib`, those of iptables) may match or not, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, Literal

End = Literal["accept", "drop", "return"]
# family (4 or 6), l4proto, sport, dport, saddr, daddr, iifname, oifname, mark, ct state. Where the
# interface it comes by is not known: "not iifname", those it does not come by.
Packet = Mapping[str, Any]

_DEPTH_MAX = 16  # as nftables: jumps in jumps
_FAMILIES = {"inet": (4, 6), "ip": (4,), "ip6": (6,)}
_NUMBERS = {"udp": 17, "tcp": 6}


@dataclass(frozen=True, slots=True)
class Chain:
    name: str  # family, table and chain, as nft wants them
    family: str
    hook: str
    policy: End
    rules: tuple[tuple[Mapping[str, Any], ...], ...]


@dataclass(frozen=True, slots=True)
class Ruleset:
    chains: Mapping[str, Chain] = field(default_factory=dict)
    sets: Mapping[str, list[Any]] = field(default_factory=dict)
    translates: bool = False  # whether a rule gives packets another source address

    @classmethod
    def of(cls, objects: Iterable[Mapping[str, Any]]) -> Ruleset:
        """From what `nft -j list ruleset` prints."""
        chains: dict[str, Mapping[str, Any]] = {}
        rules: dict[str, list[tuple[Mapping[str, Any], ...]]] = {}
        sets: dict[str, list[Any]] = {}
        translates = False
        for item in objects:
            for kind, what in item.items():
                if kind == "chain":
                    chains[_name(what, what["name"])] = what
                elif kind == "rule":
                    expressions = tuple(what.get("expr", ()))
                    rules.setdefault(_name(what, what["chain"]), []).append(expressions)
                    # What iptables wrote is an xt expression to nft, which says its name alone.
                    translates = translates or any(
                        word in str(expressions) for word in ("masquerade", "snat", "MASQUERADE")
                    )
                elif kind in ("set", "map"):
                    sets[_name(what, what["name"])] = what.get("elem", [])
        made = {
            name: Chain(
                name,
                what["family"],
                what.get("hook", "") if what.get("type", "filter") == "filter" else "",
                "drop" if what.get("policy") == "drop" else "accept",
                tuple(rules.get(name, ())),
            )
            for name, what in chains.items()
        }
        return cls(made, sets, translates)


def _name(what: Mapping[str, Any], last: str) -> str:
    return f"{what['family']} {what['table']} {last}"


def dropping(ruleset: Ruleset, hook: str, packet: Packet) -> list[str]:
    """The chains of a hook that drop the packet whatever is not known of it."""
    return [chain.name for chain, found in _at(ruleset, hook, packet) if found == {"drop"}]


def doubtful(ruleset: Ruleset, hook: str, packet: Packet) -> list[str]:
    """The chains whose policy is to drop, and of whose rules it cannot be said whether one accepts
    the packet."""
    return [
        chain.name
        for chain, found in _at(ruleset, hook, packet)
        if chain.policy == "drop" and found == {"accept", "drop"}
    ]


def _at(ruleset: Ruleset, hook: str, packet: Packet) -> Iterator[tuple[Chain, set[End]]]:
    for chain in ruleset.chains.values():
        if chain.hook == hook and packet["family"] in _FAMILIES.get(chain.family, ()):
            found = _ends(ruleset, chain, packet, 0)
            if "return" in found:
                found = (found - {"return"}) | {chain.policy}
            yield chain, found


def _ends(ruleset: Ruleset, chain: Chain, packet: Packet, depth: int) -> set[End]:
    found: set[End] = set()
    if depth > _DEPTH_MAX:
        return {"accept", "drop", "return"}
    for expressions in chain.rules:
        ends, goes_on = _of_rule(ruleset, chain, expressions, packet, depth)
        found |= ends
        if not goes_on:
            return found
    return found | {"return"}


def _of_rule(
    ruleset: Ruleset,
    chain: Chain,
    expressions: Iterable[Mapping[str, Any]],
    packet: Packet,
    depth: int,
) -> tuple[set[End], bool]:
    """How the chain may end in this rule, and whether the next one may be reached."""
    is_sure = True
    for expression in expressions:
        kind = next(iter(expression), "")
        what: Any = expression.get(kind)
        if kind == "match":
            matches = _matches(ruleset, chain, what, packet)
            if matches is False:
                return set(), True
            is_sure = is_sure and matches is True
        elif kind in ("accept", "drop", "reject", "return", "jump", "goto"):
            ends, goes_on = _of_verdict(ruleset, chain, expression, packet, depth)
            return ends, goes_on or not is_sure
        elif kind == "vmap":
            ends, goes_on = _of_vmap(ruleset, chain, what, packet, depth)
            if not goes_on and is_sure:
                return ends, False
            return ends, True
        elif kind not in ("counter", "log", "mangle", "comment", "notrack"):
            is_sure = False
    return set(), True


def _of_verdict(
    ruleset: Ruleset, chain: Chain, verdict: Mapping[str, Any], packet: Packet, depth: int
) -> tuple[set[End], bool]:
    ((kind, what),) = verdict.items()
    if kind == "accept":
        return {"accept"}, False
    if kind in ("drop", "reject"):
        return {"drop"}, False
    if kind == "return":
        return {"return"}, False
    family, table, _ = chain.name.split(" ", 2)
    target = ruleset.chains.get(f"{family} {table} {what['target']}")
    if target is None:
        return {"accept", "drop"}, True
    found = _ends(ruleset, target, packet, depth + 1)
    if kind == "goto":
        return found, False
    return found - {"return"}, "return" in found


def _of_vmap(
    ruleset: Ruleset, chain: Chain, what: Mapping[str, Any], packet: Packet, depth: int
) -> tuple[set[End], bool]:
    value = _value(what.get("key"), packet)
    entries = _elements(ruleset, chain, what.get("data"))
    found: set[End] = set()
    for entry in entries:
        key, verdict = entry if isinstance(entry, list) and len(entry) == 2 else (None, None)
        if not isinstance(verdict, Mapping):
            return {"accept", "drop"}, True
        same = None if value is None else _equal(value, key)
        if same is False:
            continue
        ends, goes_on = _of_verdict(ruleset, chain, verdict, packet, depth)
        found |= ends
        if same:
            return found, goes_on
    return found, True


# ---- matches: True, False, or None where it cannot be said


def _matches(
    ruleset: Ruleset, chain: Chain, what: Mapping[str, Any], packet: Packet
) -> bool | None:
    if _is_of_another_protocol(what.get("left"), packet):
        return False
    value = _value(what.get("left"), packet)
    right = what.get("right")
    operator = what.get("op", "==")
    if value is None:
        is_other = _is_of_another_interface(
            what.get("left"), _elements(ruleset, chain, right), packet
        )
        return operator == "!=" if is_other else None
    if operator in ("==", "in", "!="):
        found = _any(_equal(value, item) for item in _elements(ruleset, chain, right))
        return found if operator != "!=" or found is None else not found
    if isinstance(value, int) and isinstance(right, int):
        compared = {"<": value < right, ">": value > right, "<=": value <= right}
        return {**compared, ">=": value >= right}.get(str(operator))
    return None


def _is_of_another_protocol(left: Any, packet: Packet) -> bool:
    """A field of TCP is in no UDP datagram, and nft makes that a match of its own."""
    protocol = _inside(left, "payload").get("protocol")
    if protocol in ("tcp", "udp", "sctp", "dccp", "icmp", "icmpv6", "udplite", "esp", "ah"):
        return bool(protocol != packet["l4proto"])
    return protocol in ("ip", "ip6") and (protocol == "ip") != (packet["family"] == 4)


def _is_of_another_interface(left: Any, names: Iterable[Any], packet: Packet) -> bool:
    is_asked = _inside(left, "meta").get("key") in ("iif", "iifname")
    others = packet.get("not iifname", ())
    return is_asked and all(name in others for name in names)


def _value(left: Any, packet: Packet) -> Any:
    meta = _inside(left, "meta").get("key")
    if meta in ("l4proto", "iifname", "oifname", "mark"):
        return packet.get(meta)
    if meta in ("iif", "oif"):
        return packet.get(f"{meta}name")
    if meta == "nfproto":
        return "ipv4" if packet["family"] == 4 else "ipv6"
    if meta == "protocol":
        return "ip" if packet["family"] == 4 else "ip6"
    if _inside(left, "ct").get("key") == "state":
        return packet.get("ct state")
    payload = _inside(left, "payload")
    if payload.get("protocol") in ("ip", "ip6"):
        name = "l4proto" if payload.get("field") in ("protocol", "nexthdr") else payload["field"]
        return packet.get(name)
    if payload.get("protocol") in ("udp", "th"):
        return packet.get(payload["field"])
    return None


def _inside(value: Any, key: str) -> Mapping[str, Any]:
    found = value.get(key) if isinstance(value, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _elements(ruleset: Ruleset, chain: Chain, right: Any) -> list[Any]:
    """Of a set, of a list of flags, or the one value there is."""
    if isinstance(right, Mapping) and "set" in right:
        inner = right["set"]
        return inner if isinstance(inner, list) else [inner]
    if isinstance(right, str) and right.startswith("@"):
        family, table, _ = chain.name.split(" ", 2)
        return ruleset.sets.get(f"{family} {table} {right[1:]}", [])
    return right if isinstance(right, list) else [right]


def _any(found: Iterable[bool | None]) -> bool | None:
    answers = list(found)
    return True if True in answers else None if None in answers else False


def _equal(value: Any, item: Any) -> bool | None:
    if isinstance(item, Mapping):
        if "elem" in item:
            return _equal(value, item["elem"].get("val"))
        if "range" in item:
            return _within(value, item["range"])
        if "prefix" in item:
            return _in_network(value, item["prefix"])
        return None
    if isinstance(item, str) and isinstance(value, str):
        return _same_text(value, item)
    if isinstance(value, int) and isinstance(item, int):
        return value == item
    if isinstance(item, int) and isinstance(value, str) and value in _NUMBERS:
        return _NUMBERS[value] == item
    return None


def _same_text(value: str, item: str) -> bool | None:
    """A `*` stands for the rest of an interface's name."""
    if item.endswith("*"):
        return value.startswith(item[:-1])
    try:
        return ip_address(value) == ip_address(item)
    except ValueError:
        return value == item


def _within(value: Any, bounds: Any) -> bool | None:
    first, last = bounds
    if isinstance(value, int) and isinstance(first, int) and isinstance(last, int):
        return first <= value <= last
    try:
        low, high, address = (int(ip_address(text)) for text in (first, last, value))
    except ValueError:
        return None
    return low <= address <= high


def _in_network(value: Any, prefix: Mapping[str, Any]) -> bool | None:
    try:
        return ip_address(value) in ip_network(f"{prefix['addr']}/{prefix['len']}", strict=False)
    except (ValueError, KeyError):
        return None
