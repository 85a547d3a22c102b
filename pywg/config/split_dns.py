"""`DNS = 10.0.0.1, ~corp.example`: only names in these domains are asked for at these servers.

The `~` is systemd-resolved's: a domain with it routes questions, and is not searched. `~.` is all
names, as is a DNS without any `~`.
"""

from __future__ import annotations

from collections.abc import Sequence

ROUTING = "~"
EVERYTHING = "~."


def is_split(domains: Sequence[str]) -> bool:
    """Whether the servers are for some names alone."""
    return EVERYTHING not in domains and any(map(is_routing, domains))


def is_routing(domain: str) -> bool:
    return domain.startswith(ROUTING)


def searched(domains: Sequence[str]) -> tuple[str, ...]:
    """Those that a short name is tried in."""
    return tuple(domain for domain in domains if not is_routing(domain))


def bare(domain: str) -> str:
    return domain.removeprefix(ROUTING)
