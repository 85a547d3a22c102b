"""What is left of a tunnel that nobody recorded, such as wg-quick's: its rules and its guard.

As wg-quick finds it: rules by the mark of the interface, if it has a default route.
"""

from __future__ import annotations

from collections.abc import Iterator

from pywg import wireguard
from pywg.config import Config
from pywg.errors import PywgError
from pywg.host import firewall, owners
from pywg.host.network import Network
from pywg.plan.steps import DeleteRule, RemoveFirewall, RemoveOwners, Step


def leftovers(name: str, config: Config | None, kernel: Network) -> list[Step]:
    """The steps that remove them, in the network namespace of this thread."""
    return [*_rules(name, config, kernel), *_guards(name)]


def _rules(name: str, config: Config | None, kernel: Network) -> Iterator[Step]:
    mark = _mark_of_default_route(name)
    if mark is None or (config is not None and config.interface.table != "auto"):
        return
    for version in (4, 6):
        for rule in kernel.rules(version):
            if rule.is_inverted and rule.mark == mark and rule.table == mark:
                yield DeleteRule(name, version, rule.priority, mark)
            elif rule.suppresses_defaults and rule.mark is None:
                yield DeleteRule(name, version, rule.priority)


def _mark_of_default_route(name: str) -> int | None:
    try:
        status = wireguard.get(name)
    except PywgError:
        return None
    networks = (network for peer in status.peers for network in peer.allowed_ips)
    if status.fwmark and any(network.prefixlen == 0 for network in networks):
        return status.fwmark
    return None


def _guards(name: str) -> Iterator[Step]:
    for tool, version, owner in firewall.found(name):
        yield RemoveFirewall(name, tool, version, owner)
    if owners.is_there(name):
        yield RemoveOwners(name)
