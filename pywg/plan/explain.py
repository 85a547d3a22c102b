"""Why each step is done, in one sentence. Pure: a step in, a text out.

For ``pywg up --explain``. What a step does is said by its command; here is only what for.
"""

from __future__ import annotations

from typing import assert_never

from pywg.plan import steps
from pywg.plan.steps import Step


def reason(step: Step) -> str:  # noqa: PLR0912 - one case for each kind
    match step:
        case steps.Note():
            return "it is said because it is not done"
        case steps.RunHook():
            return "a hook of the file: what it changes, only another hook takes back"
        case steps.CreateInterface():
            if step.backend == "kernel":
                return "the kernel's own driver makes the interface and moves its packets"
            return "a process of its own makes the interface and moves its packets"
        case steps.DeleteInterface():
            return "its addresses and routes go with it, and the process that hosts it ends"
        case steps.MoveInterface():
            return "its sockets stay in the network namespace in which it was made"
        case steps.Configure():
            return f"keys and peers, beside what PreUp has set{_marked(step.mark)}"
        case steps.Reconfigure():
            return f"peers that stay keep their sessions{_marked(step.mark)}"
        case steps.RestoreConfiguration():
            return "keys and peers become what they were"
        case steps.EnableIpv6():
            return "new interfaces have no IPv6 here, and this one is to carry it"
        case steps.AddAddress():
            return "programs send from it into the tunnel, and peers answer to it"
        case steps.DeleteAddress():
            return "the tunnel does not have it any more"
        case steps.LinkUp():
            return _of_link(step)
        case steps.LinkDown():
            return "nothing goes into the tunnel any more"
        case steps.AddRoute():
            return _of_route(step)
        case steps.DeleteRoute():
            return "these addresses are not reached by the tunnel any more"
        case steps.BlockRoute():
            return "the tunnel was to carry it and cannot: else it would leave in clear"
        case steps.UnblockRoute():
            return "it goes again where it went before the tunnel"
        case steps.AddRule():
            return _of_rule(step)
        case steps.DeleteRule():
            return "packets are routed as before the tunnel"
        case steps.SetValidMark():
            return "a strict reverse path filter would drop the answers of peers without it"
        case steps.RestoreValidMark():
            return "it was off before the tunnel"
        case steps.SetFirewall():
            return (
                f"the guard, IPv{step.version}: nobody beside the tunnel may reach its addresses, "
                "and answers to its datagrams carry its mark"
            )
        case steps.RemoveFirewall():
            return f"the guard of IPv{step.version} guards nothing any more"
        case steps.SetKillSwitch():
            local = ", except to the local network" if step.allows_lan else ""
            return f"nothing may leave this host beside the tunnel{local}, until it is taken down"
        case steps.RemoveKillSwitch():
            return "traffic may leave beside the tunnel again"
        case steps.SetOwners():
            who = "only theirs goes" if step.is_only else "all but theirs goes"
            return f"of what has no more exact route, {who} through the tunnel"
        case steps.RemoveOwners():
            return "everybody's packets go the same way again"
        case steps.SetDns():
            return "names are asked for through the tunnel, of its own name servers"
        case steps.UnsetDns():
            return "names are asked for as before the tunnel"
        case steps.Replace() as replaced:
            return reason(replaced.new)
        case steps.TakeBack():
            undo = step.step.undo()
            return "nothing is left of it" if undo is None else reason(undo)
        case steps.Ensure():
            return reason(step.step)
        case _:
            assert_never(step)


def _marked(mark: int | None) -> str:
    return "" if mark is None else f"; what it sends to peers carries the mark {mark}"


def _of_link(step: steps.LinkUp) -> str:
    if step.is_chosen:
        return "the MTU is what the way to the peers leaves inside a WireGuard datagram"
    return "the MTU is the one of the file; from now on the tunnel takes packets"


def _of_route(step: steps.AddRoute) -> str:
    if step.table is None:
        return "AllowedIPs: what is sent there goes to a peer"
    return (
        f"AllowedIPs, in the table {step.table}: it stands beside the routes of this host and "
        "replaces none"
    )


def _of_rule(step: steps.AddRule) -> str:
    if step.mark is None:
        return "more exact routes of this host, such as the local network, go before the tunnel"
    return "all but the tunnel's own datagrams, which carry its mark, goes into the tunnel"
