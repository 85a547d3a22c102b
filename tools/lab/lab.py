"""Everything one test has made, and its removal in the opposite order, whatever happened in
between."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.lab import programs
from tools.lab.daemon import Daemon, socket_path
from tools.lab.keys import Key, decode, new_key, new_psk
from tools.lab.namespaces import Namespace, cable, unique
from tools.lab.programs import Program
from tools.lab.traffic import ping
from tools.lab.waiting import wait_until

PORT = 51820


@dataclass
class Side:
    """One end of the tunnel."""

    namespace: Namespace
    daemon: Daemon
    key: Key
    outer4: str
    outer6: str
    inner4: str
    inner6: str
    veth: str = "veth"

    def peer_section(
        self, psk: str | None = None, outer: int | None = None, keepalive: int = 0
    ) -> str:
        """This side as a [Peer] of the other; `outer` is the family of its endpoint, if it is to be
        known."""
        lines = [
            "[Peer]",
            f"PublicKey = {self.key.public}",
            f"AllowedIPs = {self.inner4}/32, {self.inner6}/128",
        ]
        if psk:
            lines.append(f"PresharedKey = {psk}")
        if outer:
            lines.append(f"Endpoint = {self.endpoint(outer)}")
        if keepalive:
            lines.append(f"PersistentKeepalive = {keepalive}")
        return "\n".join(lines) + "\n"

    def interface_section(self) -> str:
        return f"[Interface]\nPrivateKey = {self.key.private}\nListenPort = {PORT}\n"

    def endpoint(self, outer: int = 4) -> str:
        return f"{self.outer4}:{PORT}" if outer == 4 else f"[{self.outer6}]:{PORT}"


@dataclass
class Tunnel:
    a: Side
    b: Side
    psk: str | None
    outer: int
    settings: dict[str, str] = field(default_factory=dict)

    def ping(self, count: int = 2, sender: str = "a") -> None:
        here, there = (self.a, self.b) if sender == "a" else (self.b, self.a)
        ping(here.namespace, there.inner4, count)
        ping(here.namespace, there.inner6, count)

    def session(self, sender: str = "a") -> None:
        """A session that both ends have confirmed, and no packet under way any more."""
        here, there = (self.a, self.b) if sender == "a" else (self.b, self.a)
        ping(here.namespace, there.inner4, 1, once=True)

    def configuration(self, side: str) -> str:
        """What was given to this side at the start."""
        return self.settings[side]


class Lab:
    """Makes namespaces and daemons, remembers them and every secret, and takes all of it down."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.stack = contextlib.ExitStack()
        self.daemons: list[Daemon] = []
        self.secrets: list[str] = []

    def close(self) -> None:
        self.stack.close()
        leaked = [str(daemon) for daemon in self.daemons if self._leaks(daemon.log())]
        assert not leaked, f"a secret key stands in the log of {leaked}"

    def _leaks(self, log: str) -> bool:
        return any(secret in log or decode(secret).hex() in log.lower() for secret in self.secrets)

    def namespace(self, role: str) -> Namespace:
        made = Namespace(role)
        self.stack.callback(made.close)
        return made

    def key(self) -> Key:
        key = new_key()
        self.secrets.append(key.private)
        return key

    def preshared_key(self) -> str:
        psk = new_psk()
        self.secrets.append(psk)
        return psk

    def name(self, role: str) -> str:
        """An unused interface name whose socket is removed in the end."""
        name = unique(f"p{role}")
        self.stack.callback(lambda: socket_path(name).unlink(missing_ok=True))
        return name

    def daemon(
        self, program: Program | None, namespace: Namespace, name: str | None = None, **options: Any
    ) -> Daemon:
        made = Daemon(
            program or programs.subject(),
            namespace,
            name or self.name("w"),
            self.directory,
            **options,
        )
        self.daemons.append(made)
        self.stack.callback(made.close)
        return made

    def side(
        self, program: Program | None, number: int, namespace: Namespace, **options: Any
    ) -> Side:
        """A daemon with a fresh key and the addresses of its number; not yet configured, link
        down."""
        return Side(
            namespace,
            self.daemon(program, namespace, **options),
            self.key(),
            f"192.0.2.{number}",
            f"2001:db8::{number}",
            f"10.99.0.{number}",
            f"fd99::{number}",
        )

    def cabled(self) -> tuple[Namespace, Namespace]:
        """Namespaces a and b with the cable of the drawing in conftest.py."""
        a, b = self.namespace("a"), self.namespace("b")
        cable(
            (a, "veth", ["192.0.2.1/24", "2001:db8::1/64"]),
            (b, "veth", ["192.0.2.2/24", "2001:db8::2/64"]),
        )
        return a, b

    def tunnel(
        self,
        a: Program | None = None,
        b: Program | None = None,
        *,
        outer: int = 4,
        psk: bool = False,
        knows: str = "ab",
        keepalive: int = 0,
        beats: str = "ab",
        mtu: int | None = None,
        **options: Any,
    ) -> Tunnel:
        """The whole drawing. `knows`: which sides are told the other's endpoint; `beats`: which
        have the persistent keepalive."""
        spaces = self.cabled()
        left = self.side(a, 1, spaces[0], **options)
        right = self.side(b, 2, spaces[1], **options)
        shared = self.preshared_key() if psk else None
        tunnel = Tunnel(left, right, shared, outer)
        for label, here, there in (("a", left, right), ("b", right, left)):
            tunnel.settings[label] = here.interface_section() + there.peer_section(
                shared, outer if label in knows else None, keepalive if label in beats else 0
            )
            here.daemon.setconf(tunnel.settings[label])
            here.daemon.up(f"{here.inner4}/24", f"{here.inner6}/64", mtu=mtu)
        return tunnel


def handshake_seconds(side: Side, peer: Side) -> int:
    """When the last handshake with the peer completed, in Unix seconds; 0 if never."""
    return int(side.daemon.peer(peer.key.public)["handshake"])


def wait_for_session(side: Side, peer: Side, seconds: float = 5) -> None:
    wait_until(lambda: handshake_seconds(side, peer) > 0, f"{side.daemon} shook hands", seconds)
