"""Endpoint names while a tunnel is up: asked for beside it, since what is asked through a tunnel
that is dead is never answered.

/etc/hosts first. Then the name servers that would count without the tunnel, by sockets that carry
its mark and so take the way of its own datagrams. Everything is read anew for each question: a
network that comes brings its name servers. Invariant: the tunnel's own name servers are not asked,
unless they were the host's before it came.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any, Self

from pywg.config import Endpoint, Family, IPAddress
from pywg.errors import PywgError
from pywg.host import destinations, dns, resolv_conf, resolver

# These are no names of the DNS (RFC 6761, RFC 6762): another service of this host knows them.
LOCAL_DOMAINS = ("local", "localhost")


@dataclass(frozen=True, slots=True)
class Outside:
    """How to ask beside the tunnel ``name``.

    ``before`` is what /etc/resolv.conf said before it came: for services whose files we do not
    know. ``own`` are the name servers that the tunnel brings.
    """

    name: str
    before: str = ""
    own: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """From what ``dataclasses.asdict`` made of it."""
        return cls(values["name"], values["before"], tuple(values["own"]))

    def look_up(
        self, endpoint: Endpoint, family: Family = "auto", mark: int | None = None
    ) -> tuple[Endpoint, ...]:
        """As resolver.look_up. Without a name server to ask, the C library is asked instead."""
        if not resolver.is_name(endpoint):
            return resolver.look_up(endpoint, family)
        host = endpoint.host.rstrip(".")
        found: Iterable[IPAddress] = _of_family(in_hosts_file(host), family)
        text = "" if found else self.resolv_conf()
        if not found and (not text or host.rpartition(".")[2] in LOCAL_DOMAINS):
            return resolver.look_up(endpoint, family)
        try:
            found = found or _asked(endpoint.host, family, text, mark)
        except socket.gaierror as error:
            if "." in host or error.errno not in resolver.FINAL:
                raise
            return resolver.look_up(endpoint, family)  # LLMNR or the like may know it
        ordered = destinations.in_order(found, mark)
        return tuple(replace(endpoint, host=str(address)) for address in ordered)

    def asking(self, mark: int | None) -> resolver.LookUp:
        """``look_up`` with this mark."""
        return lambda endpoint, family: self.look_up(endpoint, family, mark)

    def resolv_conf(self) -> str:
        """The resolv.conf that counts; empty if it would name no server."""
        text = without_tunnel(self.name)
        before = dns.servers_in(self.before)
        own = set(self.own) - set(before)
        servers = [server for server in dns.servers_in(text) if server not in own]
        known = [server for server in dict.fromkeys([*servers, *before]) if _is_address(server)]
        lines = [f"nameserver {server}" for server in known]
        rest = [line for line in text.splitlines() if line.split()[:1] != ["nameserver"]]
        return "\n".join([*rest, *lines]) + "\n" if lines else ""


def present(name: str, own: Iterable[IPAddress]) -> Outside:
    """To be asked before the tunnel's name servers are told to anybody."""
    text = without_tunnel(name) if own else ""
    return Outside(name, text, tuple(map(str, own)))


def without_tunnel(name: str) -> str:
    """What /etc/resolv.conf would say without this tunnel, as far as that can be found out."""
    path = dns.ETC / "resolv.conf"
    with contextlib.suppress(PywgError, OSError):
        text = resolv_conf.without(path, name)
        if text is None:
            text = _of_resolvconf(name) or path.read_text(errors="replace")
        stub = any(server in dns.RESOLVED_SERVERS for server in dns.servers_in(text))
        if stub:  # who is asked there asks the tunnel
            text = (dns.RESOLVED_DIRECTORY / "resolv.conf").read_text(errors="replace")
        return text
    return ""


def _of_resolvconf(name: str) -> str:
    """What resolvconf was told by others; empty unless it was told by the tunnel too."""
    for folder in (dns.RESOLVCONF_DIRECTORY / entry for entry in dns.RESOLVCONF_ENTRIES):
        entries = sorted(folder.iterdir()) if folder.is_dir() else []
        others = [entry for entry in entries if entry.name.rpartition(".")[2] != name]
        if len(others) < len(entries):
            return "\n".join(entry.read_text(errors="replace") for entry in others)
    return ""


def in_hosts_file(host: str) -> list[IPAddress]:
    """The addresses that /etc/hosts has for a name."""
    try:
        text = (dns.ETC / "hosts").read_text(errors="replace")
    except OSError:
        return []
    words = (line.partition("#")[0].lower().split() for line in text.splitlines())
    return list(_addresses(line[0] for line in words if host.lower() in line[1:]))


def _addresses(texts: Iterable[str]) -> Iterator[IPAddress]:
    for text in texts:
        with contextlib.suppress(ValueError):
            yield ip_address(text)


def _is_address(text: str) -> bool:
    return any(_addresses([text]))


def _of_family(found: Iterable[IPAddress], family: Family) -> list[IPAddress]:
    version = {"auto": None, "ipv4": 4, "ipv6": 6}[family]
    return [address for address in found if version in (None, address.version)]


def _asked(host: str, family: Family, text: str, mark: int | None) -> list[IPAddress]:
    from pywg.host import marked_dns

    versions = {"auto": (6, 4), "ipv4": (4,), "ipv6": (6,)}[family]
    return marked_dns.addresses(host, versions, text, mark)
