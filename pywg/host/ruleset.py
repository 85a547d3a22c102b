"""The whole ruleset of nftables as nft's JSON, libnftables-json(5). Only asks."""

from __future__ import annotations

import json
import shutil
from typing import Any

from pywg.errors import HostError
from pywg.host import programs, sysctl


def read() -> list[dict[str, Any]]:
    """Its objects, in nft's order. Raises HostError where nft is missing, broken, or not for us."""
    if shutil.which("nft") is None:
        raise HostError("there is no nft (install nftables)")
    text = programs.run(["nft", "-j", "list", "ruleset"])
    try:
        found: list[dict[str, Any]] = json.loads(text or "{}").get("nftables", [])
    except (ValueError, AttributeError):
        raise HostError("nft -j list ruleset: no JSON") from None
    return found


def has_legacy_tables() -> bool:
    """Whether there are rules of iptables-legacy, which nft does not see."""
    return any(
        sysctl.read(f"thread-self/net/{name}_tables_names").strip() for name in ("ip", "ip6")
    )
