"""Who goes through a tunnel: an nft table that tells packets apart by the owner of their socket.

Packets that are to go beside the tunnel are given its mark, as its own datagrams have it: by that
they take the way that there was before, and pass a kill switch. They got their source address when
they were still bound for the tunnel, so it is exchanged as they leave (masquerade). Their
connections carry the mark too: answers are not taken for forged by a strict reverse path filter,
and what is sent when the socket is closed already goes the way that the rest went.

Invariant: with or without this table, whoever is to go through the tunnel does; without it the
others do too. So a table that somebody flushes leaks nothing.
"""

from __future__ import annotations

import grp
import pwd
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pywg.config import Config
from pywg.config.model import Owner, OwnerKind
from pywg.errors import ConfigError, PywgError
from pywg.host import programs

CGROUPS = Path("/sys/fs/cgroup")
# Behind the guard, which gives UDP the mark of its connection, or none.
_MANGLE = -149
_SOURCE_NAT = 100
# To conntrack, the middle of a TCP connection that it has not seen before is new, too.
_BEGINNINGS = ("meta l4proto != tcp", "tcp flags & (fin|syn|rst|ack) == syn")
_DNS_PORTS = "{ 53, 853 }"


def table(name: str) -> str:
    return f"inet pywg-owners-{name}"


def rules(
    name: str,
    mark: int,
    owners: Sequence[str],
    *,
    is_only: bool,
    addresses: Sequence[str],
    servers: Sequence[str],
) -> str:
    """One transaction, also in place of what stands already. ``owners`` are ``user:1000`` and the
    like; ``addresses`` those of the tunnel, ``servers`` the name servers behind it."""
    inside = f'{{ "{name}", "lo" }}'
    chains = {
        "beside": ("", [f"meta mark set {mark} ct mark set {mark}"]),
        "through": ("", [f"ct mark {mark} ct mark set 0"]),
        "output": (
            f"type route hook output priority {_MANGLE};",
            [
                f"meta mark {mark} accept",
                'oifname "lo" accept',
                # Whoever sends to many by a device of his choice is not to be routed again.
                f'oifname != "{name}" fib daddr type {{ broadcast, multicast }} accept',
                *(f"{match} goto through" for match in _to_servers(servers)),
                # What began inside the tunnel cannot be given another address any more.
                *(
                    f"{family} saddr {{ {own} }} ct status & confirmed == confirmed "
                    f"ct mark != {mark} goto through"
                    for family, own in _by_family(addresses)
                ),
                *_by_owner(mark, owners, is_only=is_only),
            ],
        ),
        "prerouting": (
            f"type filter hook prerouting priority {_MANGLE};",
            [
                *(f"iifname != {inside} {rule}" for rule in _incoming(mark, is_only=is_only)),
                f"iifname != {inside} ct mark {mark} meta mark set {mark}",
            ],
        ),
        "postrouting": (
            f"type nat hook postrouting priority {_SOURCE_NAT};",
            [
                f"oifname != {inside} meta mark {mark} {family} saddr {{ {own} }} masquerade"
                for family, own in _by_family(addresses)
            ],
        ),
    }
    lines = [f"add table {table(name)}", f"delete table {table(name)}", f"add table {table(name)}"]
    for chain, (hook, _) in chains.items():
        lines.append(f"add chain {table(name)} {chain} {{ {hook} }}")
    for chain, (_, wanted) in chains.items():
        lines += [f"add rule {table(name)} {chain} {rule}" for rule in wanted]
    return "".join(f"{line}\n" for line in lines)


def _by_owner(mark: int, owners: Sequence[str], *, is_only: bool) -> list[str]:
    """What has no owner: a socket that is closed and still sends, or the kernel itself."""
    chosen, others = ("through", "beside") if is_only else ("beside", "through")
    found = [
        *(f"{_match(owner)} goto {chosen}" for owner in owners),
        f"meta skuid >= 0 goto {others}",
        f"ct mark {mark} goto beside",
    ]
    if is_only:  # the kernel's own connections are none of theirs; a rest of theirs is not new
        found += [f"ct state new {kind} goto beside" for kind in _BEGINNINGS]
    return found


def _incoming(mark: int, *, is_only: bool) -> list[str]:
    """With Only, what others begin is answered on the way it came, and so is what is forwarded. Of
    a connection that is older than the table nobody knows yet whose it is: only this packet is let
    in."""
    if not is_only:
        return []
    return [
        f"ct state new meta mark set {mark}",
        *(f"ct state new {kind} ct mark set {mark}" for kind in _BEGINNINGS),
        f"ct state new fib daddr type != local ct mark set {mark}",
    ]


def _match(owner: str) -> str:
    kind, _, which = owner.partition(":")
    if kind == "cgroup":
        level = len(Path(which).parts)
        return f'socket cgroupv2 level {level} "{which}"'
    return f"meta {'skuid' if kind == 'user' else 'skgid'} {which}"


def _to_servers(servers: Sequence[str]) -> list[str]:
    """Name servers are the same for all, so all ask them where they can be reached."""
    return [
        f"{family} daddr {{ {those} }} meta l4proto {{ tcp, udp }} th dport {_DNS_PORTS}"
        for family, those in _by_family(servers)
    ]


def _by_family(addresses: Sequence[str]) -> list[tuple[str, str]]:
    found = {
        "ip": [address for address in addresses if ":" not in address],
        "ip6": [address for address in addresses if ":" in address],
    }
    return [(family, ", ".join(those)) for family, those in found.items() if those]


# ---- names to numbers


def numeric(config: Config) -> Config:
    """With numbers in the place of names. Raises ConfigError for whom there is not."""
    interface = config.interface
    only = tuple(_numeric(owner, "Only", config.path) for owner in interface.only)
    excepted = tuple(_numeric(owner, "Except", config.path) for owner in interface.excepted)
    return replace(config, interface=replace(interface, only=only, excepted=excepted))


def _numeric(owner: Owner, key: str, path: str) -> Owner:
    at, name = owner.position, owner.name
    try:
        if owner.kind != "cgroup":
            return replace(owner, name=_id(owner.kind, name))
        _check_cgroup(name)
        return owner
    except LookupError as error:
        raise ConfigError(path, at.line, at.column, f"{key}: {error.args[0]}") from None


def _id(kind: OwnerKind, name: str) -> str:
    if name.isdigit():
        return name
    try:
        return str(pwd.getpwnam(name).pw_uid if kind == "user" else grp.getgrnam(name).gr_gid)
    except KeyError:
        hint = f"make it: {kind}add {name}; or give its number"
        raise LookupError(f"there is no {kind} {name} ({hint})") from None


def _check_cgroup(name: str) -> None:
    if not (CGROUPS / "cgroup.controllers").exists():
        raise LookupError(f"{CGROUPS} is no cgroup v2 (mount it there, or name a user or a group)")
    if not (CGROUPS / name / "cgroup.procs").exists():
        hint = "see: systemd-cgls; start the service first, or name its slice"
        raise LookupError(f"there is no cgroup {name} below {CGROUPS} ({hint})")


def cgroups(config: Config) -> list[Path]:
    """Those that are named. One that is removed and made again is another one to nft."""
    named = (*config.interface.only, *config.interface.excepted)
    return [CGROUPS / owner.name for owner in named if owner.kind == "cgroup"]


# ---- in the network namespace of this thread


def apply(name: str, text: str) -> None:
    """``text`` is what ``rules`` gives. Raises PywgError: else who is to go beside the tunnel would
    be refused, or seen where he does not want to be."""
    try:
        programs.run(["nft", "-f", "-"], text)
    except PywgError as error:
        raise PywgError(f"{name}: no Only or Except without nft: {error}") from None


def remove(name: str) -> None:
    """What is not there is no error."""
    programs.run(["nft", "-f", "-"], f"add table {table(name)}\ndelete table {table(name)}\n")


def stands(name: str, text: str) -> bool:
    """Whether all of it is there. Of a cgroup that was made anew nft shows no path: the rule means
    the old one. For one that is not there nothing can be done."""
    shown = programs.output(["nft", "list", "table", *table(name).split()])
    present = re.findall(r"^\t\t(?!type )\S.*", shown, re.MULTILINE)
    paths = re.findall(r'cgroupv2 level \d+ "([^"]*)"', text)
    known = all(f'"{path}"' in shown for path in paths if (CGROUPS / path).exists())
    return len(present) >= text.count("add rule") and known


def is_there(name: str) -> bool:
    """Whether anything of it is."""
    return f"table {table(name)}" in programs.output(["nft", "list", "tables"]).splitlines()
