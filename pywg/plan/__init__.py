"""Decides what `pywg up` and `pywg reload` do: (Config, Facts) to a list of Steps. Does none of it.

Every Step prints as the line wg-quick would echo and knows the Step that undoes it. Knows no
kernel: Facts come in, perform.py carries Steps out.
"""

from pywg.plan.build import choose_mtu, mark_of, plan, routes
from pywg.plan.change import change
from pywg.plan.execute import execute
from pywg.plan.facts import Dns, Facts, Place
from pywg.plan.steps import (
    AddAddress,
    AddRoute,
    AddRule,
    Configure,
    CreateInterface,
    DeleteAddress,
    DeleteInterface,
    DeleteRoute,
    DeleteRule,
    LinkDown,
    LinkUp,
    MoveInterface,
    Note,
    RemoveFirewall,
    RestoreValidMark,
    RunHook,
    SetDns,
    SetFirewall,
    SetValidMark,
    Step,
    UnsetDns,
)

__all__ = [
    "AddAddress",
    "AddRoute",
    "AddRule",
    "Configure",
    "CreateInterface",
    "DeleteAddress",
    "DeleteInterface",
    "DeleteRoute",
    "DeleteRule",
    "Dns",
    "Facts",
    "LinkDown",
    "LinkUp",
    "MoveInterface",
    "Note",
    "Place",
    "RemoveFirewall",
    "RestoreValidMark",
    "RunHook",
    "SetDns",
    "SetFirewall",
    "SetValidMark",
    "Step",
    "UnsetDns",
    "change",
    "choose_mtu",
    "execute",
    "mark_of",
    "plan",
    "routes",
]
