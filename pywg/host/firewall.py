"""The guard of a tunnel with a default route: texts for nft and iptables, and their programs.

Two things, as wg-quick does them. Packets to the tunnel's addresses that come in elsewhere are
dropped: else somebody on the local network could probe for what goes on inside. And the answers to
our own datagrams are given the mark these carried, for the reverse path filter of the kernel.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pywg.host import programs

Tool = Literal["nft", "iptables", "iptables-nft", "iptables-legacy"]

OURS = "pywg"
# The two programs that call themselves iptables; rules of one are not those of the other.
VARIANTS: tuple[Tool, ...] = ("iptables-nft", "iptables-legacy")
#: What another program may take to let go of the lock of the tables.
LOCK_WAIT_S = 5


def tools() -> list[Tool]:
    """Those that are here, the one to try first in front. Whether one works shows when it is used.

    A variant goes by its own name: what `iptables` leads to may change while a tunnel is up.
    """
    found: list[Tool] = ["nft"] if shutil.which("nft") else []
    plain = _file("iptables")
    variants = [tool for tool in VARIANTS if _file(tool)]
    led_to: list[Tool] = [tool for tool in variants if _file(tool) == plain]
    if plain and not led_to:
        led_to = ["iptables"]
    return [*found, *led_to, *(tool for tool in variants if tool not in led_to)]


def _file(tool: Tool) -> Path | None:
    """The program behind all links."""
    path = shutil.which(f"{tool}-restore")
    return None if path is None else Path(path).resolve()


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
        _restore(tool, version, iptables_rules(name, version, mark, addresses))


def remove(tool: Tool, name: str, version: int, owner: str = OURS) -> None:
    """What is not there is no error."""
    if tool == "nft":
        programs.run(["nft", "-f", "-"], nft_removal(version, f"{owner}-{name}"))
        return
    saved = programs.run([_iptables(tool, version, "save")])
    removal = iptables_removal(saved, comment(owner, name))
    if removal:
        _restore(tool, version, removal)


def stands(tool: Tool, name: str, version: int, mark: int, addresses: Sequence[str]) -> bool:
    """Whether all of what ``apply`` makes is there."""
    if tool == "nft":
        shown = programs.output(["nft", "list", "table", _family(version), f"{OURS}-{name}"])
        present = re.findall(r"^\t\t(?!type )\S.*", shown, re.MULTILINE)
        wanted = nft_rules(name, version, mark, addresses).count("add rule")
    else:
        saved = programs.output([_iptables(tool, version, "save")])
        present = iptables_removal(saved, comment(OURS, name)).split("-D ")[1:]
        wanted = iptables_rules(name, version, mark, addresses).count("-I ")
    return len(present) >= wanted


def found(name: str) -> Iterator[tuple[Tool, int, str]]:
    """What guards this tunnel, ours or wg-quick's: tool, IP version, owner."""
    for tool in tools():
        for version in (4, 6):
            for owner in (OURS, "wg-quick"):
                if _is_there(tool, name, version, owner):
                    yield tool, version, owner


def _is_there(tool: Tool, name: str, version: int, owner: str) -> bool:
    if tool == "nft":
        table = f"table {_family(version)} {owner}-{name}"
        return table in programs.output(["nft", "list", "tables"]).splitlines()
    saved = programs.output([_iptables(tool, version, "save")])
    return bool(iptables_removal(saved, comment(owner, name)))


def _restore(tool: Tool, version: int, rules: str) -> None:
    programs.run([_iptables(tool, version, "restore"), "-w", str(LOCK_WAIT_S), "-n"], rules)


def _iptables(tool: Tool, version: int, verb: str) -> str:
    program = tool if version == 4 else tool.replace("iptables", "ip6tables")
    return f"{program}-{verb}"
