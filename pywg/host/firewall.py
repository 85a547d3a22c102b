"""The guard of a tunnel with a default route: texts for nft and iptables, and their programs.

Two things, as wg-quick does them. Packets to the tunnel's addresses that come in elsewhere are
dropped: else somebody on the local network could probe for what goes on inside. And the answers to
our own datagrams are given the mark these carried, for the reverse path filter of the kernel.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from typing import Literal

from pywg.host import programs

Tool = Literal["nft", "iptables"]

OURS = "pywg"


def find_tool() -> Tool | None:
    if shutil.which("nft"):
        return "nft"
    return "iptables" if shutil.which("iptables-restore") else None


# ---- nft


def nft_rules(name: str, version: int, mark: int, addresses: Sequence[str]) -> str:
    """One transaction. The first two lines remove a table of this name if there is one."""
    family = _family(version)
    table = f"{family} pywg-{name}"
    lines = [
        f"add table {table}",
        f"delete table {table}",
        f"add table {table}",
        f"add chain {table} preraw {{ type filter hook prerouting priority -300; }}",
        f"add chain {table} premangle {{ type filter hook prerouting priority -150; }}",
        f"add chain {table} postmangle {{ type filter hook postrouting priority -150; }}",
    ]
    lines += [
        f'add rule {table} preraw iifname != "{name}" {family} daddr {address} '
        "fib saddr type != local drop"
        for address in addresses
    ]
    lines += [
        f"add rule {table} postmangle meta l4proto udp mark {mark} ct mark set mark",
        f"add rule {table} premangle meta l4proto udp meta mark set ct mark",
    ]
    return "".join(f"{line}\n" for line in lines)


def nft_removal(version: int, table: str) -> str:
    """Adding what is there does nothing: so removing what is not there is no error."""
    return f"add table {_family(version)} {table}\ndelete table {_family(version)} {table}\n"


def _family(version: int) -> str:
    return "ip" if version == 4 else "ip6"


# ---- iptables


def iptables_rules(name: str, version: int, mark: int, addresses: Sequence[str]) -> str:
    marker = f'-m comment --comment "{comment(OURS, name)}"'
    lines = ["*raw"]
    lines += [
        f"-I PREROUTING ! -i {name} -d {address} -m addrtype ! --src-type LOCAL -j DROP {marker}"
        for address in addresses
    ]
    lines += [
        "COMMIT",
        "*mangle",
        f"-I POSTROUTING -m mark --mark {mark} -p udp -j CONNMARK --save-mark {marker}",
        f"-I PREROUTING -p udp -j CONNMARK --restore-mark {marker}",
        "COMMIT",
    ]
    return "".join(f"{line}\n" for line in lines)


def iptables_removal(saved: str, text: str) -> str:
    """What takes the rules with this comment out of the output of iptables-save; empty when there
    is none."""
    lines, found = [], False
    for line in saved.splitlines():
        if line.startswith("-A ") and f'--comment "{text}"' in line:
            found = True
            lines.append(f"-D {line.removeprefix('-A ')}")
        elif line.startswith("*") or line == "COMMIT":
            lines.append(line)
    return "".join(f"{line}\n" for line in lines) if found else ""


def comment(owner: str, name: str) -> str:
    return f"{'wg-quick(8)' if owner == 'wg-quick' else owner} rule for {name}"


# ---- in the network namespace of this thread


def apply(tool: Tool, name: str, version: int, mark: int, addresses: Sequence[str]) -> None:
    """Also in place of what guards this tunnel already."""
    if tool == "nft":
        programs.run(["nft", "-f", "-"], nft_rules(name, version, mark, addresses))
    else:
        remove(tool, name, version)
        programs.run(
            [_iptables(version, "restore"), "-n"], iptables_rules(name, version, mark, addresses)
        )


def remove(tool: Tool, name: str, version: int, owner: str = OURS) -> None:
    """What is not there is no error."""
    if tool == "nft":
        programs.run(["nft", "-f", "-"], nft_removal(version, f"{owner}-{name}"))
        return
    saved = programs.output([_iptables(version, "save")])
    removal = iptables_removal(saved, comment(owner, name))
    if removal:
        programs.run([_iptables(version, "restore"), "-n"], removal)


def stands(tool: Tool, name: str, version: int, mark: int, addresses: Sequence[str]) -> bool:
    """Whether all of what ``apply`` makes is there."""
    if tool == "nft":
        shown = programs.output(["nft", "list", "table", _family(version), f"{OURS}-{name}"])
        present = re.findall(r"^\t\t(?!type )\S.*", shown, re.MULTILINE)
        wanted = nft_rules(name, version, mark, addresses).count("add rule")
    else:
        saved = programs.output([_iptables(version, "save")])
        present = iptables_removal(saved, comment(OURS, name)).split("-D ")[1:]
        wanted = iptables_rules(name, version, mark, addresses).count("-I ")
    return len(present) >= wanted


def found(name: str) -> Iterator[tuple[Tool, int, str]]:
    """What guards this tunnel, ours or wg-quick's: tool, IP version, owner."""
    tables = programs.output(["nft", "list", "tables"]).splitlines() if shutil.which("nft") else []
    for version in (4, 6):
        saved = (
            programs.output([_iptables(version, "save")]) if shutil.which("iptables-save") else ""
        )
        for owner in (OURS, "wg-quick"):
            if f"table {_family(version)} {owner}-{name}" in tables:
                yield "nft", version, owner
            if iptables_removal(saved, comment(owner, name)):
                yield "iptables", version, owner


def _iptables(version: int, verb: str) -> str:
    return f"{'iptables' if version == 4 else 'ip6tables'}-{verb}"
