"""The kill switch: an nft table that lets nothing leave this host beside a tunnel.

It stands in the kernel, so it outlives whatever becomes of our processes. What it lets through: the
tunnel's interface, loopback, what carries the tunnel's mark (its own datagrams, and the look-up of
its endpoints), and what a network cannot do without: DHCP, and IPv6's neighbour discovery. No
connection passes because it was there before. Both families, whatever the tunnel carries.
"""

from __future__ import annotations

import re

from pywg.errors import PywgError
from pywg.host import programs

# After every other chain: nothing is decided behind it, and marks are what they stay.
_PRIORITY = 300
_DISCOVERY = (
    "nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, "
    "mld-listener-report, mld-listener-done, mld2-listener-report"
)
_LAN4 = "10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 169.254.0.0/16, 224.0.0.0/4, 255.255.255.255"
_LAN6 = "fc00::/7, fe80::/10, ff00::/8"


def table(name: str) -> str:
    return f"inet pywg-kill-{name}"


def rules(name: str, mark: int, *, allows_lan: bool) -> str:
    """One transaction, also in place of what stands already: there is no moment without."""
    passes = [
        f'oifname {{ "{name}", "lo" }} accept',
        f"meta mark {mark} accept",
        "udp sport 68 udp dport 67 accept",
        "udp sport 546 udp dport 547 accept",
        f"icmpv6 type {{ {_DISCOVERY} }} accept",
    ]
    if allows_lan:
        passes += [f"ip daddr {{ {_LAN4} }} accept", f"ip6 daddr {{ {_LAN6} }} accept"]
    forwarded = [f'oifname "{name}" accept', f'iifname "{name}" accept']
    chains = {"output": passes, "forward": forwarded}
    lines = [f"add table {table(name)}", f"delete table {table(name)}", f"add table {table(name)}"]
    for chain, accepted in chains.items():
        hook = f"type filter hook {chain} priority {_PRIORITY}; policy drop;"
        lines.append(f"add chain {table(name)} {chain} {{ {hook} }}")
        # For a moment a new chain has its rules and not yet its policy, so the last rule is that.
        lines += [f"add rule {table(name)} {chain} {rule}" for rule in (*accepted, "drop")]
    return "".join(f"{line}\n" for line in lines)


# ---- in the network namespace of this thread


def apply(name: str, mark: int, *, allows_lan: bool) -> None:
    """Raises PywgError: whoever asks for it must not go without."""
    try:
        programs.run(["nft", "-f", "-"], rules(name, mark, allows_lan=allows_lan))
    except PywgError as error:
        raise PywgError(f"{name}: no kill switch without nft: {error}") from None


def remove(name: str) -> None:
    """What is not there is no error."""
    programs.run(["nft", "-f", "-"], f"add table {table(name)}\ndelete table {table(name)}\n")


def stands(name: str, mark: int, *, allows_lan: bool) -> bool:
    """Whether all of it is there."""
    shown = programs.output(["nft", "list", "table", *table(name).split()])
    wanted = rules(name, mark, allows_lan=allows_lan)
    verdicts = re.compile(r"\b(?:accept|drop)$|policy drop;", re.MULTILINE)
    return len(verdicts.findall(shown)) >= len(verdicts.findall(wanted))


def standing() -> list[str]:
    """The names of the tunnels whose kill switch stands here. Raises PywgError where nft does not
    say: none is something else."""
    shown = programs.run(["nft", "list", "tables"])
    return re.findall(r"^table inet pywg-kill-(\S+)$", shown, re.MULTILINE)
