"""pywg demo: a tunnel between two private namespaces, pinged and measured, and nothing left behind.

Three ways to build it, tried in order. This module chooses; world.py builds the first two,
loopback.py the third.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pywg import _version
from pywg.demo import loopback, world
from pywg.demo.process import Refused
from pywg.demo.reporter import Reporter
from pywg.errors import PywgError
from pywg.native import library

# In the order they are tried: name -> (what it is, what runs it)
TIERS: dict[str, tuple[str, Callable[[float, Reporter], dict[str, Any]]]] = {
    "root": (
        "two network namespaces, as root",
        lambda seconds, reporter: world.run(seconds, reporter, user_namespace=False),
    ),
    "userns": (
        "two network namespaces in an unprivileged user namespace",
        lambda seconds, reporter: world.run(seconds, reporter, user_namespace=True),
    ),
    "loopback": (
        "two interfaces in one process over loopback UDP, without TUN",
        loopback.run,
    ),
}


def run_demo(seconds: float, tier: str | None, reporter: Reporter) -> dict[str, Any]:
    """The outcome of the first tier that works, or of the one asked for."""
    library.load()  # without a core no tier works: say that once
    refused: dict[str, str] = {}
    for name in (tier,) if tier else TIERS:
        what, run = TIERS[name]
        try:
            reporter.note(f"{name}: {what}")
            measured = run(seconds, reporter)
        except Refused as reason:
            reporter.note(f"{name}: not possible here: {reason}")
            refused[name] = str(reason)
            continue
        return {
            "tier": name,
            "refused": refused,
            "version": _version.core_version(),
            "cipher": _version.cipher_path(),
            **measured,
        }
    raise PywgError("; ".join(f"{name}: {reason}" for name, reason in refused.items()))
