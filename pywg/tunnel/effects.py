"""Which steps are still in effect on this host. Asks; changes and decides nothing.

For what others have taken away since: a link that was down has lost its routes, a flushed firewall
its guard, and so on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from pywg.host import dns, firewall, kill_switch, network, owners
from pywg.host.network import Network
from pywg.plan import steps
from pywg.plan.steps import Lasting, Step
from pywg.tunnel.apply import IPV6, VALID_MARK, owner_rules


def in_effect(name: str, done: Iterable[Step], kernel: Network) -> list[Step]:
    """Those of ``done`` whose effect is there. This thread is in the interface's namespace."""
    seen = Effects(name, kernel)
    return [step for step in done if not isinstance(step, Lasting) or seen.has(step)]


class Effects:
    """What can be seen of a tunnel at one moment."""

    def __init__(self, name: str, kernel: Network) -> None:
        self._kernel = kernel
        self._link = (kernel.is_up(name), kernel.mtu(name))
        self._addresses = frozenset(kernel.addresses(name, of_kernel=True))
        self._routes = kernel.routes(name)
        self._rules = {
            (version, rule.priority, rule.mark)
            for version in (4, 6)
            for rule in kernel.rules(version)
            if rule.suppresses_defaults or (rule.is_inverted and rule.table == rule.mark)
        }

    def has(self, step: Lasting) -> bool:
        match step:
            case steps.LinkUp():
                return self._link == (True, step.mtu)
            case steps.EnableIpv6():
                return (IPV6 / step.name / "disable_ipv6").read_text().strip() == "0"
            case steps.AddAddress():
                return step.address in self._addresses
            case steps.AddRoute():
                return (step.network, step.table or network.MAIN) in self._routes
            case steps.BlockRoute():
                return step.network in self._kernel.blocked(step.table)
            case steps.AddRule():
                return (step.version, step.priority, step.mark) in self._rules
            case steps.SetValidMark():
                return VALID_MARK.read_text().strip() == "1"
            case steps.SetFirewall():
                return firewall.stands(
                    step.tool, step.name, step.version, step.mark, step.addresses
                )
            case steps.SetKillSwitch():
                return kill_switch.stands(step.name, step.mark, allows_lan=step.allows_lan)
            case steps.SetOwners():
                return owners.stands(step.name, owner_rules(step))
            case steps.SetDns():
                return dns.stands(step.name, step.manager, step.target, step.servers, step.search)
            case _:
                assert_never(step)
