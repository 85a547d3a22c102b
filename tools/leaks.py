"""Whether anything leaves in clear beside a tunnel with a kill switch, whatever happens to it.

    scripts/leaks

Prints the table of docs/security.md. A host whose tunnel carries everything sends 20 000 datagrams
a second, as fast as that goes here, of both families (tools/lab/ways.py), while the tunnel comes,
changes, is broken and goes. One sniffer is on the host and sees what leaves by the uplink, another
is at the far end of it. Ends with 1 if anything left in clear. Needs root.

      host (tools/lab/host.py)                          far end
    +-----------------------------+                   +-----------------------------+
    |  sender, sniffer            |                   |                    sniffer  |
    |     |                       |                   |                       |     |
    |  the tunnel, 10.9.0.2/24    |                   |  TUN of a daemon            |
    |     |        fd99::2/64     |      uplink       |     |                       |
    |  veth 192.0.2.1, 2001:db8::1 ===================== 192.0.2.2, 2001:db8::2     |
    +-----------------------------+                   +-----------------------------+
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.lab import programs
from tools.lab.daemon import Daemon, socket_path
from tools.lab.host import Host, hosted
from tools.lab.keys import new_key
from tools.lab.namespaces import Namespace, add_address, cable, sweep, unique
from tools.lab.seclusion import seclude
from tools.lab.waiting import wait_until
from tools.lab.ways import (
    ARRIVING,
    CLEAR,
    LEAVING,
    PER_SECOND,
    REFUSED,
    TARGETS,
    TUNNEL,
    UPLINK,
    Sender,
    Sniffer,
)

SECONDS = 60.0  # for what takes a moment, on a machine that is busy elsewhere
LASTS_S = 0.5  # each phase at least, at the pace that is asked for
STOPPED_S = 2.0
WORDS = {CLEAR: "in clear", TUNNEL: "through the tunnel", REFUSED: "nowhere"}
PEER_PORT = 51820
FAR = tuple(index for index, target in enumerate(TARGETS) if target.kind in ("far", "connected"))
NEAR = tuple(index for index, target in enumerate(TARGETS) if target.kind == "near")


# ---- the place


class Place:
    """A host, the daemon that its tunnel leads to, and files for this tunnel."""

    def __init__(self, host: Host, daemon: Daemon) -> None:
        self.host = host
        self.name = unique("l")
        ours, theirs = new_key(), new_key()
        self._private, self._peer = ours.private, theirs.public
        daemon.setconf(
            f"[Interface]\nPrivateKey = {theirs.private}\nListenPort = {PEER_PORT}\n"
            f"[Peer]\nPublicKey = {ours.public}\nAllowedIPs = 0.0.0.0/0, ::/0\n"
        )
        daemon.up()

    def config(self, *interface: str, networks: str = "0.0.0.0/0, ::/0") -> str:
        """The path of the tunnel's file, which has these lines now."""
        lines = "\n".join(interface)
        text = (
            f"[Interface]\nPrivateKey = {self._private}\nAddress = 10.9.0.2/24, fd99::2/64\n"
            f"{lines}\n[Peer]\nPublicKey = {self._peer}\nAllowedIPs = {networks}\n"
            f"Endpoint = 192.0.2.2:{PEER_PORT}\n"
        )
        return str(self.host.config(self.name, text))

    def up_again(self) -> None:
        """After the end of the hosting process, which may not have come yet."""
        wait_until(lambda: not self.host.hosts_of(self.name), "its process ends", SECONDS)
        self.host.pywg("up", f"{self.host.directory}/{self.name}.conf")

    def kill(self) -> None:
        self.host.kill_host(self.name)
        wait_until(lambda: self.host.namespace.link(self.name) is None, "it is gone", SECONDS)


@contextlib.contextmanager
def placed(directory: Path) -> Iterator[Place]:
    with hosted(directory) as host:
        # Datagrams come out of the tunnel one by one, so that a sniffer knows them.
        peer = unique("lp")
        daemon = Daemon(programs.subject(), host.far, peer, directory, no_offload="all")
        try:
            yield Place(host, daemon)
        finally:
            daemon.close()
            socket_path(peer).unlink(missing_ok=True)


class Hook:
    """A command that says that it runs, and waits until it may go on."""

    def __init__(self, path: Path) -> None:
        self._began, self._may = path.with_suffix(".began"), path.with_suffix(".may")
        began, may = shlex.quote(str(self._began)), shlex.quote(str(self._may))
        self.command = f"touch {began}; while [ ! -e {may} ]; do sleep 0.01; done; rm {may} {began}"

    def wait(self) -> None:
        wait_until(self._began.exists, f"{self._began.stem} runs", SECONDS)

    def go_on(self) -> None:
        self._may.touch()


# ---- what is seen


@dataclass(frozen=True)
class Phase:
    """The rounds from ``begin`` to ``end``, which took so many seconds."""

    title: str
    begin: int
    end: int
    seconds: float


@dataclass(frozen=True)
class Row:
    """What became of the datagrams of one family that were sent in one phase."""

    phase: str
    version: int
    per_second: float
    sent: int
    refused: int
    tunnel: int
    clear: int


class Watch:
    """A sender and two sniffers at work. What was sent in a phase counts for it, whenever it
    leaves."""

    def __init__(self, sender: Sender, near: Sniffer, far: Sniffer) -> None:
        self._sender, self._near, self._far = sender, near, far
        self.phases: list[Phase] = []

    def goes(self, fate: int, *targets: int) -> None:
        """Waits until the datagrams of each of these targets do, of those sent from now on: in
        clear or through the tunnel to the far end, or nowhere."""
        begin = self._sender.now()
        worker = self._sender if fate == REFUSED else self._far

        def has_gone(target: int) -> bool:
            return worker.count(target, begin, self._sender.now(), fate) > 0

        for target in targets:
            what = f"{TARGETS[target]} goes {WORDS[fate]}"
            wait_until(functools.partial(has_gone, target), what, SECONDS)

    @contextlib.contextmanager
    def phase(self, title: str) -> Iterator[None]:
        begin, began = self._sender.now(), time.monotonic()
        yield
        self.lasts(LASTS_S, begin)
        self.phases.append(Phase(title, begin, self._sender.now(), time.monotonic() - began))

    def lasts(self, seconds: float, begin: int | None = None) -> None:
        """Until so many rounds have passed as so many seconds should have."""
        first = self._sender.now() if begin is None else begin
        end = first + int(seconds * PER_SECOND / len(TARGETS))
        wait_until(lambda: self._sender.now() > end, "enough is sent", SECONDS)

    def ways(self, target: int) -> list[int]:
        """Those that datagrams of this target took, in the order in which they were sent."""
        return self._near.ways(target)

    def rows(self) -> list[Row]:
        """Of each phase and family; after the end, when nothing is under way any more."""
        return [self._row(phase, version) for phase in self.phases for version in (4, 6)]

    def _row(self, phase: Phase, version: int) -> Row:
        targets = [index for index, target in enumerate(TARGETS) if target.version == version]
        sent = (phase.end - phase.begin) * len(targets)

        def count(worker: Sender | Sniffer, fate: int) -> int:
            return sum(worker.count(index, phase.begin, phase.end, fate) for index in targets)

        return Row(
            phase.title,
            version,
            sent / phase.seconds,
            sent,
            count(self._sender, REFUSED),
            count(self._near, TUNNEL),
            max(count(self._near, CLEAR), count(self._far, CLEAR)),
        )


@contextlib.contextmanager
def watched(place: Place, source: Namespace | None = None) -> Iterator[Watch]:
    """The sender is on the host, or elsewhere. Everything arrives in clear when the block begins:
    nothing waits for a neighbour any more."""
    with (
        Sniffer(place.host.namespace, LEAVING) as near,
        Sniffer(place.host.far, ARRIVING) as far,
        Sender(source or place.host.namespace) as sender,
    ):
        watch = Watch(sender, near, far)
        watch.goes(CLEAR, *range(len(TARGETS)))
        yield watch


# ---- what happens to a tunnel with a kill switch

SWITCH = "#!pywg KillSwitch = on"


def everything(place: Place) -> Watch:
    """Each phase begins when the switch stands, and ends before anybody is told that it is gone."""
    with watched(place) as watch:
        a_first_up_that_fails(place, watch)
        up(place, watch)
        reloads(place, watch)
        the_network_changes(place, watch)
        it_is_broken_and_comes_again(place, watch)
        down(place, watch)
        unblock(place, watch)
    return watch


def a_first_up_that_fails(place: Place, watch: Watch) -> None:
    before, after = Hook(place.host.directory / "preup"), Hook(place.host.directory / "postup")
    path = place.config(
        SWITCH, f"PreUp = {before.command}", f"PostUp = {after.command}", "PostUp = false"
    )
    process = place.host.start("up", path)
    before.wait()
    with watch.phase("first `up`, to be rolled back"):
        before.go_on()
        after.wait()
        watch.goes(TUNNEL, *FAR)
    after.go_on()
    said = process.communicate(timeout=SECONDS)[0]
    assert process.returncode == 1, said
    watch.goes(CLEAR, *FAR)


def up(place: Place, watch: Watch) -> None:
    hook = Hook(place.host.directory / "preup")
    process = place.host.start("up", place.config(SWITCH, f"PreUp = {hook.command}"))
    hook.wait()
    with watch.phase("`up`, while PreUp runs"):
        watch.goes(REFUSED, *FAR)
    with watch.phase("`up`, the rest"):
        hook.go_on()
        said = process.communicate(timeout=SECONDS)[0]
        assert process.returncode == 0, said
        watch.goes(TUNNEL, *FAR)


def reloads(place: Place, watch: Watch) -> None:
    more = "0.0.0.0/0, ::/0, 10.77.0.0/16, fd77::/32"
    for title, lines, networks in (
        ("another FwMark", ["FwMark = 0x1234"], "0.0.0.0/0, ::/0"),
        ("more networks", [], more),
        ("DNS and MTU", ["DNS = 10.9.0.1", "MTU = 1300"], more),
        ("all as before", [], "0.0.0.0/0, ::/0"),
    ):
        with watch.phase(f"`reload`, {title}"):
            place.config(SWITCH, *lines, networks=networks)
            place.host.pywg("reload", place.name)
            watch.goes(TUNNEL, *FAR)


def the_network_changes(place: Place, watch: Watch) -> None:
    host = place.host.namespace
    with watch.phase("uplink down and up"):
        host.ip("link", "set", UPLINK, "down")
        host.ip("link", "set", UPLINK, "up")
        host.ip("address", "add", "2001:db8::1/64", "dev", UPLINK, "nodad")
        host.ip("route", "add", "default", "via", "192.0.2.2")
        host.ip("-6", "route", "add", "default", "via", "2001:db8::2")
        watch.goes(TUNNEL, *FAR)
    with watch.phase("another default route"):
        for verb in ("add", "delete"):
            host.ip("route", verb, "default", "via", "192.0.2.2", "metric", "7")
            host.ip("-6", "route", verb, "default", "via", "2001:db8::2", "metric", "7")
            watch.goes(TUNNEL, *FAR)
    with watch.phase("the tunnel's link down, and healed"):
        host.ip("link", "set", place.name, "down")
        watch.goes(TUNNEL, *FAR)
    with watch.phase("hosting process stopped, as in suspend, and continued"):
        hosts = place.host.hosts_of(place.name)
        signals(hosts, signal.SIGSTOP)
        watch.lasts(STOPPED_S)
        signals(hosts, signal.SIGCONT)
        watch.goes(TUNNEL, *FAR)


def signals(processes: Sequence[int], number: signal.Signals) -> None:
    for pid in processes:
        os.kill(pid, number)


def it_is_broken_and_comes_again(place: Place, watch: Watch) -> None:
    with watch.phase("interface deleted"):
        place.host.namespace.ip("link", "delete", place.name)
        watch.goes(REFUSED, *FAR)
    with watch.phase("`up` again"):
        place.up_again()
        watch.goes(TUNNEL, *FAR)
    with watch.phase("kill -9 of the hosting process"):
        place.kill()
        watch.goes(REFUSED, *FAR)
    with watch.phase("`up` again, which fails and is rolled back"):
        path = place.config(SWITCH, "PostUp = false")
        assert place.host.attempt(sys.executable, "-m", "pywg", "up", path).returncode == 1
        watch.goes(REFUSED, *FAR)


def down(place: Place, watch: Watch) -> None:
    hook = Hook(place.host.directory / "postdown")
    place.config(SWITCH, f"PostDown = {hook.command}")
    place.up_again()
    watch.goes(TUNNEL, *FAR)
    with watch.phase("`down`, to the end of PostDown"):
        process = place.host.start("down", place.name)
        hook.wait()
        watch.goes(REFUSED, *FAR)
    hook.go_on()
    said = process.communicate(timeout=SECONDS)[0]
    assert f"the kill switch of {place.name} is gone" in said
    watch.goes(CLEAR, *FAR)


def unblock(place: Place, watch: Watch) -> None:
    place.host.pywg("up", place.config(SWITCH))
    place.kill()
    with watch.phase("killed, to `unblock`"):
        watch.goes(REFUSED, *FAR)
    answer = place.host.attempt(sys.executable, "-m", "pywg", "unblock", place.name)
    assert f"the kill switch of {place.name} is gone" in answer.stderr
    watch.goes(CLEAR, *FAR)
    place.host.pywg("down", place.name)


def forwarding(place: Place) -> Watch:
    """The same for what comes from a guest behind the host."""
    host, guest = place.host.namespace, Namespace("g")
    try:
        cable((guest, UPLINK, ["10.66.0.2/24", "fd66::2/64"]), (host, "guest", []))
        for family, address in (("ipv4", "10.66.0.1/24"), ("ipv6", "fd66::1/64")):
            add_address(host, "guest", address)
            guest.ip("route", "add", "default", "via", address.partition("/")[0])
            host.run("sysctl", "-q", f"net.{family}.conf.all.forwarding=1")
        with watched(place, guest) as watch:
            place.host.pywg("up", place.config(SWITCH))
            with watch.phase("forwarded, while the tunnel is up"):
                watch.goes(TUNNEL, *FAR)
            with watch.phase("forwarded, kill -9 of the hosting process"):
                place.kill()
            place.host.pywg("down", place.name)
            watch.goes(CLEAR, *FAR)
    finally:
        guest.close()
    return watch


# ---- the table


def table(rows: Sequence[Row]) -> str:
    """In Markdown."""
    lines = [
        "| phase | family | per second | sent | refused | into the tunnel | in clear |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.phase} | IPv{row.version} | {row.per_second:.0f} | {row.sent} | {row.refused} "
        f"| {row.tunnel} | {row.clear} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="leaks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root: it makes network namespaces and TUN interfaces")
    sweep()
    seclude()
    with (
        tempfile.TemporaryDirectory(prefix="pywg-leaks-") as directory,
        placed(Path(directory)) as place,
    ):
        rows = [*everything(place).rows(), *forwarding(place).rows()]
    print(table(rows))
    return 1 if any(row.clear for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
