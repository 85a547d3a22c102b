"""The hub in one namespace, all its peers in another, played by ends.c.

      namespace a                                    namespace b
    +-----------------------------+     veth      +----------------------------------+
    |  10.200.0.1  TUN <-> hub 192.0.2.1 <===> 192.0.2.2 <-> ends 198.18.0.1 + i     |
    +-----------------------------+               +----------------------------------+

End i has the inner address 10.64.0.1 + i. 10.63.0.0/16 leads nowhere: what is sent there through
the hub ends in its kernel's routing, which costs little. The hub's kernel forwards from TUN to TUN.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from tools.bench.hub.figures import Trial
from tools.bench.tunnel.contestants import Contestant, relabel
from tools.bench.tunnel.underlays import Underlay
from tools.build import checks
from tools.lab.keys import Key, decode, new_key
from tools.lab.lab import PORT, Lab
from tools.lab.namespaces import Namespace, run

OUTER_FIRST = IPv4Address("198.18.0.1")
INNER_FIRST = IPv4Address("10.64.0.1")
SETCONF_SECONDS = 120
SHAKE_SECONDS = 60
SOURCE = Path(__file__).with_name("ends.c")
# How many trains or datagrams are under way at once. What goes through a TUN must leave room in its
# queue of 500; what comes in by UDP, in a socket buffer of 7 MiB.
WINDOWS = {"in": 1024, "relay": 384, "out": 256}
TRAINS_WINDOW = 64


class Failed(AssertionError):
    """A measurement that did not come about."""


@functools.cache
def program() -> Path:
    """ends.c, compiled once for each process, into a folder that goes with it: runs side by side do
    not overwrite what another one runs."""
    folder = tempfile.TemporaryDirectory(prefix="pywg-ends-")
    atexit.register(folder.cleanup)
    return checks.build_ends(Path(folder.name), SOURCE)


_known: list[Key] = []


def keys(count: int) -> list[Key]:
    """The same ends in every turn of a run."""
    _known.extend(new_key() for _ in range(count - len(_known)))
    return _known[:count]


@dataclass
class Ends:
    """The program, with a session in every end."""

    process: subprocess.Popen[str]
    count: int

    def ask(self, words: str) -> dict[str, float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # then there is no answer
            self.process.stdin.write(f"{words}\n")
            self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"the ends have ended before they answered ({self.process.wait(5)})")
        return {name: float(value) for name, value in (word.split("=") for word in line.split())}

    def trial(
        self,
        way: str,
        sizes: Sequence[int],
        packets: int,
        *,
        flows: int | None = None,
        train: int = 1,
    ) -> Trial:
        window = WINDOWS[way] if train == 1 else TRAINS_WINDOW
        wanted = ",".join(map(str, sizes))
        flows = flows or max(self.count, 1024)
        found = self.ask(f"run {way} {flows} {train} {window} {packets} {wanted}")
        return Trial(
            int(found["sent"]),
            int(found["through"]),
            found["seconds"],
            found["hub_cpu"],
            found["own_cpu"],
        )


@contextlib.contextmanager
def hub(
    contestant: Contestant,
    peers: int,
    underlay: Underlay,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Ends]:
    """A hub that has a session with each of so many peers. All of it is gone in the end."""
    with tempfile.TemporaryDirectory(prefix="pywg-hub-") as directory:
        lab = Lab(Path(directory))
        try:
            yield _ready(lab, contestant, peers, underlay, environment)
        finally:
            lab.close()


def _ready(
    lab: Lab,
    contestant: Contestant,
    peers: int,
    underlay: Underlay,
    environment: Mapping[str, str] | None,
) -> Ends:
    a, b = lab.cabled()
    underlay.apply((a, b))
    daemon = lab.daemon(relabel(contestant), a, log_level="silent", environment=environment)
    own, theirs = new_key(), keys(peers)
    run(
        *("wg", "setconf", daemon.name, "/dev/stdin"),
        text=_configuration(own, theirs),
        timeout=SETCONF_SECONDS,
    )
    daemon.up("10.200.0.1/32", mtu=1420)
    _routes(a, b, daemon.name)
    path = lab.directory / "keys"
    path.touch(mode=0o600)
    path.write_text(
        "".join(f"{decode(key).hex()}\n" for key in [own.public, *(key.private for key in theirs)])
    )
    words = [str(program()), f"/run/netns/{a.name}", str(daemon.pid), daemon.name, str(path)]
    process = b.popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    ends = Ends(process, peers)
    lab.stack.callback(_end, process)
    ends.answer()
    shaken = ends.ask(f"shake {SHAKE_SECONDS}")
    if shaken["sessions"] < peers:
        raise Failed(f"{shaken['sessions']:.0f} of {peers} peers have a session")
    _drop_data(b)
    return ends


def _drop_data(b: Namespace) -> None:
    """What the kernel of the ends does with a datagram runs in the system call of the hub that
    sends it, and is charged to the hub. So data messages are dropped as soon as the veth has
    counted them; other messages still arrive."""
    chain = "type filter hook ingress device veth priority 0"
    b.nft(
        f"table netdev bench {{\nchain ends {{\n{chain}\nmeta l4proto udp @th,64,8 4 drop\n}}\n}}"
    )


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _configuration(own: Key, theirs: Sequence[Key]) -> str:
    sections = [f"[Interface]\nPrivateKey = {own.private}\nListenPort = {PORT}\n"]
    for number, key in enumerate(theirs):
        sections.append(
            f"[Peer]\nPublicKey = {key.public}\nAllowedIPs = {INNER_FIRST + number}/32\n"
            f"Endpoint = {OUTER_FIRST + number}:{PORT}\n"
        )
    return "".join(sections)


def _routes(a: Namespace, b: Namespace, name: str) -> None:
    for space in (a, b):
        for place, value in (
            ("ip_forward", 1),
            ("conf/all/rp_filter", 0),
            ("conf/default/rp_filter", 0),
            ("conf/all/send_redirects", 0),
        ):
            _set(space, place, value)
    for place in (f"conf/{name}/rp_filter", f"conf/{name}/send_redirects", "conf/veth/rp_filter"):
        _set(a, place, 0)
    a.ip("route", "add", "10.64.0.0/10", "dev", name)
    a.ip("route", "add", "blackhole", "10.63.0.0/16")
    a.ip("route", "add", "198.18.0.0/16", "via", "192.0.2.2")
    b.ip("route", "add", "local", "198.18.0.0/16", "dev", "lo")


def _set(space: Namespace, place: str, value: int) -> None:
    with space.entered():
        Path(f"/proc/sys/net/ipv4/{place}").write_text(str(value))
