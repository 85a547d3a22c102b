"""The whole examination: facts are gathered, judged, and what could not be seen is told.

Raises nothing that the host could cause: what cannot be looked at is a finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pywg.config import Config
from pywg.doctor import (
    abilities,
    file,
    filters,
    gather,
    kernels,
    path,
    peers,
    routing,
    running,
    view,
)
from pywg.doctor.facts import Around, Host, Tunnel
from pywg.doctor.finding import Finding, error, note, warning
from pywg.doctor.packet_filter import Ruleset
from pywg.errors import PywgError
from pywg.host import netns, owners, ruleset
from pywg.host.network import Network
from pywg.plan.build import choose_mtu, setting
from pywg.plan.facts import Facts, Location
from pywg.plan.steps import Note, SetKillSwitch, Step
from pywg.tunnel import gather as plan_facts
from pywg.tunnel import names, record
from pywg.tunnel.effects import in_effect
from pywg.tunnel.location import locate
from pywg.tunnel.running import check_home, is_alive
from pywg.tunnel.up import check as refuse
from pywg.wireguard import socket as uapi_socket

Answer = TypeVar("Answer")
_NO_MARK = "only CAP_NET_ADMIN may send with the tunnel's mark"


def examine(name: str | None = None, config_path: Path | None = None) -> list[Finding]:
    """Of this host; with a ``name`` also of this tunnel if it runs, else of its file, which is the
    one that `up` was given or ``config_path``."""
    found = list(of_host())
    if name is not None:
        found += _Examination(name, config_path).all()
    return found


def of_host() -> Iterator[Finding]:
    host = gather.host()
    yield from abilities.judge(host, gather.says())
    yield from kernels.judge(host)
    yield from filters.conntrack(host)


class _Examination:
    """Of one tunnel; ``findings`` grow as it goes on."""

    def __init__(self, name: str, config_path: Path | None) -> None:
        self.name = name
        self.path = config_path
        self.host: Host = gather.host()
        self.findings: list[Finding] = []

    def all(self) -> list[Finding]:
        found = self._seen("the record of the tunnel", lambda: record.read(self.name))
        try:
            if found is not None:
                check_home(found)
        except PywgError as elsewhere:
            self.findings.append(error("elsewhere", str(elsewhere)))
            return self.findings
        location = Location() if found is None else found.location
        is_up = bool(self._seen("the tunnel", lambda: is_alive(self.name, location)))
        file_path = self._file(is_up)
        config = None
        if file_path is not None:
            self.findings += file.check(file_path)
            config = self._seen("the file", lambda: Config.load(file_path), quietly=True)
        if config is not None and not is_up:
            location = self._seen("its network namespaces", lambda: locate(config)) or location
            self._of_file(config, location)
        elif is_up:
            self._of_running(config, location)
        return self.findings

    # What is there

    def _file(self, is_up: bool) -> Path | None:
        """A file that was named counts, else that of `up`; of a running tunnel there need be
        none."""
        if self.path is not None:
            return self.path
        found = self._seen("the record of the tunnel", lambda: names.file_of(self.name))
        if found is None or (is_up and not found.exists()):
            return None
        return found

    def _seen(
        self, what: str, ask: Callable[[], Answer], *, quietly: bool = False
    ) -> Answer | None:
        """The answer; None where it cannot be had, which is told unless it is told already."""
        try:
            return ask()
        except (PywgError, OSError) as problem:
            told = unseen(what, str(problem), is_root=self.host.is_root)
            if not quietly and told not in self.findings:
                self.findings.append(told)
        return None

    # One that does not run

    def _of_file(self, config: Config, location: Location) -> None:
        try:
            refuse(self.name, config, location)
            owners.numeric(config)
        except PywgError as refusal:
            # What is wrong with the file alone is told already.
            if not any(item.text in str(refusal) for item in self.findings if item.severity):
                self.findings.append(error("refused", f"`pywg up` would refuse: {refusal}"))
        tunnel = self._seen("its endpoints", lambda: view.of_file(self.name, config, location))
        if tunnel is None:
            return
        numeric = _with_addresses(config, tunnel)
        facts = self._seen(
            "what `up` asks of this host",
            lambda: plan_facts.facts(self.name, numeric, location, is_there=False),
        )
        if facts is not None:
            tunnel = replace(tunnel, mtu=choose_mtu(numeric, facts))
            self.findings += _notes(self.name, numeric, facts)
        self._around(tunnel, location)

    # One that runs

    def _of_running(self, config: Config | None, location: Location) -> None:
        tunnel = self._seen(
            "the tunnel",
            lambda: view.of_running(self.name, config, location, is_root=self.host.is_root),
        )
        if tunnel is None:
            if self.host.is_root:
                self.findings.append(running.deaf(self.name))
            return
        kept = self._device(location)
        switch = next((step for step in kept if isinstance(step, SetKillSwitch)), None)
        if switch is not None:
            tunnel = replace(tunnel, switch="lan" if switch.allows_lan else "on")
        self.findings += peers.judge(tunnel, self.host.now_s)
        self._around(tunnel, location)

    def _device(self, location: Location) -> set[Step]:
        """The steps of `up` that are in effect."""
        if uapi_socket.is_alive(self.name):
            report = self._seen("its offloads", lambda: uapi_socket.report(self.name))
            if report is not None:
                self.findings += running.judge(self.name, report)
        with netns.entered(location.netns), Network() as kernel:
            if not kernel.is_up(self.name):
                self.findings.append(running.down(self.name))
                return set()
            found = self._seen("the record of the tunnel", lambda: record.read(self.name))
            if found is None:
                return set()
            done = [step for step in found.steps if step not in found.left_out]
            kept = set(in_effect(self.name, done, kernel))
        self.findings += running.undone(self.name, [step for step in done if step not in kept])
        return kept

    # Both

    def _around(self, tunnel: Tunnel, location: Location) -> None:
        around = self._seen(
            "the ways to its endpoints", lambda: self._facts_around(tunnel, location)
        )
        if around is None:
            return
        self.findings += path.judge(tunnel, around)
        self.findings += routing.judge(tunnel, around)
        self._filters(tunnel, around, location)

    def _facts_around(self, tunnel: Tunnel, location: Location) -> Around:
        """Datagrams with a mark take root: without, they would go another way."""
        may_mark = not tunnel.mark or bool(self.host.capabilities >> abilities.NET_ADMIN & 1)
        if not may_mark:
            self.findings.append(
                unseen("the MTU of the way to its endpoints", _NO_MARK, is_root=False)
            )
        return gather.around(tunnel, location, probes=may_mark)

    def _filters(self, tunnel: Tunnel, around: Around, location: Location) -> None:
        with netns.entered(location.socket_netns):
            objects = self._seen("the firewall (nft list ruleset)", ruleset.read)
            if ruleset.has_legacy_tables():
                self.findings.append(
                    unseen("rules of iptables-legacy", "nft does not show them", is_root=True)
                )
        if objects is None:
            return
        rules = Ruleset.of(objects)
        devices = {host: way.device for host, way in around.ways.items() if way.device}
        self.findings += filters.judge(tunnel, rules, devices)
        forwards = around.forwarding.get(4) is True
        self.findings += filters.translation(tunnel, rules, forwards=forwards)


def unseen(what: str, why: str, *, is_root: bool) -> Finding:
    mend = "" if is_root else "sudo pywg doctor"
    return note("unseen", f"{what}: not looked at", why, mend)


def _with_addresses(config: Config, tunnel: Tunnel) -> Config:
    """With those endpoints that were found, and without the others."""
    pairs = zip(config.peers, tunnel.peers, strict=True)
    found = tuple(replace(section, endpoint=peer.endpoint) for section, peer in pairs)
    return replace(config, peers=found)


def _notes(name: str, config: Config, facts: Facts) -> Iterator[Finding]:
    """What `up` would warn of on this host."""
    try:
        steps = setting(name, config, facts)
    except PywgError:
        return  # the file is told of already
    yield from (warning("plan", str(step)) for step in steps if isinstance(step, Note))
