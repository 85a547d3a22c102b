"""pywg peer: the words and options of a server's clients."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click

from pywg.cli import complete
from pywg.cli.init import refuse_keys, tell
from pywg.cli.keys import warn_if_world_accessible_output
from pywg.cli.names import config_file, is_name
from pywg.cli.terminal import Terminal
from pywg.config import PeerSection
from pywg.enroll import client, files, peers, qr, rotation, running, server
from pywg.enroll.client import Keys, Wish
from pywg.enroll.files import Files
from pywg.enroll.server import Server
from pywg.errors import KeyFormatError, PywgError
from pywg.keys import PresharedKey, PrivateKey, PublicKey
from pywg.wireguard import changes
from pywg.wireguard.addresses import endpoint_text
from pywg.wireguard.status import PeerStatus

STDOUT = "-"

apply_option = click.option(
    "--apply", "applies", is_flag=True, help="Tell the running tunnel, too; other sessions go on."
)
server_argument = click.argument("where", metavar="SERVER", shell_complete=complete.configs)
peer_argument = click.argument("word", metavar="NAME")


@click.group()
def peer() -> None:
    """The peers of a server's file. SERVER is NAME of /etc/wireguard/NAME.conf, or a file; a peer
    is called by its name or its public key.

    \b
    Example: pywg peer add wg0 laptop --apply
             pywg peer list wg0
    """


def load(where: str) -> Server:
    name, path = config_file(where)
    if is_name(where):
        from pywg.tunnel.names import file_of

        path = file_of(name)
    return server.load(name, path)


# ---- add


def wish_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives the command ``wish``."""

    @click.option(
        "--allowed-ips", metavar="LIST", multiple=True, help="Networks that the client leads to."
    )
    @click.option("--route-all", is_flag=True, help="The client sends everything through here.")
    @click.option(
        "--routes", metavar="LIST", multiple=True, help="Networks that it sends through here, too."
    )
    @click.option(
        "--keepalive",
        metavar="SECONDS",
        type=click.IntRange(0, 65535),
        default=client.KEEPALIVE_SECONDS,
        help=f"How often the client says that it is there (default: {client.KEEPALIVE_SECONDS}, "
        "for NAT; 0: never).",
    )
    @click.option("--endpoint", metavar="HOST[:PORT]", help="Where this client finds the server.")
    @click.option("--dns", metavar="LIST", multiple=True, help="Its name servers and domains.")
    @wraps(command)
    def with_wish(
        *,
        allowed_ips: tuple[str, ...],
        route_all: bool,
        routes: tuple[str, ...],
        keepalive: int,
        endpoint: str | None,
        dns: tuple[str, ...],
        **more: Any,
    ) -> Any:
        refuse_keys(endpoint or "", *allowed_ips, *routes, *dns)
        if route_all and routes:
            raise click.UsageError("--route-all and --routes exclude each other")

        def wish_of(found: Server) -> Wish:
            port = found.config.interface.listen_port or 0
            return Wish(
                server.networks(allowed_ips, "allowed-ips"),
                client.EVERYTHING if route_all else server.networks(routes, "routes"),
                keepalive,
                server.endpoint(endpoint, port) if endpoint else None,
                server.dns(dns) if dns else None,
            )

        return command(wish_of=wish_of, **more)

    return with_wish


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where a client's file goes: to a file or to stdout, and as a QR code."""

    out: str | None
    code: qr.Target | None

    def give(self, made: Files, text: str, path: Path) -> Callable[[], None]:
        """Writes the files; what it gives back prints the rest, once nothing can fail any more."""
        if self.out != STDOUT:
            made.create(path, text.encode())
        if self.code is not None and self.code.path is not None:
            made.create(self.code.path, qr.image(text, self.code.kind))
        drawn = qr.terminal(text) if self.code and self.code.kind == "terminal" else ""

        def show() -> None:
            if self.out == STDOUT:
                warn_if_world_accessible_output()
                print(text, end="")
            else:
                tell(f"{path}: made, for this user only; it is to be with the client alone")
            if self.code is not None and self.code.path is not None:
                tell(f"{self.code.path}: made, for this user only; whoever sees it has the key")
            print(drawn, end="")

        return show


def delivery(out: str | None, code: str | None) -> Delivery:
    refuse_keys(out or "", code or "")
    if code is not None:
        qr.require()
    return Delivery(out, None if code is None else qr.target(code))


def out_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives the command ``out`` and ``code``."""
    command = click.option(
        "--qr", "code", metavar="terminal|png:FILE|svg:FILE", help="The client's file as a QR code."
    )(command)
    return click.option(
        "--out", metavar="FILE|-", help="Where the client's file goes (default: NAME.conf here)."
    )(command)


def public_key_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--public-key",
        "given",
        metavar="KEY",
        callback=lambda ctx, param, value: None if value is None else _public_key(value),
        help="Of a client that has made its own key pair; its private key stays there.",
    )(command)


def _public_key(text: str) -> PublicKey:
    try:
        return PublicKey.from_base64(text)
    except KeyFormatError as error:
        raise click.BadParameter(str(error)) from None


@peer.command()
@server_argument
@peer_argument
@wish_options
@click.option("--psk/--no-psk", "with_psk", default=True, help="A preshared key, too (default).")
@public_key_option
@out_options
@apply_option
def add(
    *,
    where: str,
    word: str,
    wish_of: Callable[[Server], Wish],
    with_psk: bool,
    given: PublicKey | None,
    out: str | None,
    code: str | None,
    applies: bool,
) -> None:
    """Add a client with the next free addresses, and make its file.

    \b
    Example: pywg peer add wg0 phone --route-all --qr terminal --apply
    """
    goes = delivery(out, code)
    with files.locked(config_file(where)[1]), files.all_or_nothing() as made:
        found = load(where)
        name = server.new_name(found, word)
        keys = client.keys(given, with_psk=with_psk)
        wish = wish_of(found)
        section = client.section(found, name, wish, keys)
        show = goes.give(made, client.file(found, section, wish, keys), _path(out, name))
        made.change(found.path, peers.added(found, section))
        carry_out(found, changes.of_peer(section), applies)
    tell(f"{found.path}: added {name}, {_addresses(section)}")
    show()


def _path(out: str | None, name: str) -> Path:
    return Path(client.file_name(name) if out in (None, STDOUT) else str(out))


def carry_out(found: Server, wanted: changes.Changes, applies: bool) -> None:
    if applies:
        running.apply(found, wanted, Terminal())
    elif peers.saves_itself(found.config):
        tell(
            f"[!] {found.path} has SaveConfig: if {found.name} runs, `pywg down` will write what "
            "runs over this change; --apply is what keeps it"
        )


def _addresses(section: PeerSection) -> str:
    return ", ".join(map(str, section.networks)) or "no addresses"


# ---- list


@peer.command("list")
@server_argument
@click.option("--json", "as_json", is_flag=True, help="One JSON list, without secrets.")
def list_(*, where: str, as_json: bool) -> None:
    """Print the peers of a server's file, and what the running tunnel knows of them.

    \b
    Example: pywg peer list wg0 --json
    """
    found = load(where)
    status = running.status(found.name)
    by_key = {one.public_key: one for one in found.config.peers}
    if as_json:
        shown = [_to_json(found, one, status.get(key)) for key, one in by_key.items()]
        click.echo(json.dumps(shown, indent=2))
        return
    rows = [_row(found, one, status.get(key)) for key, one in by_key.items()]
    for line in _table([("name", "key", "addresses", "endpoint", "latest handshake"), *rows]):
        print(line)


def _to_json(found: Server, one: PeerSection, status: PeerStatus | None) -> dict[str, Any]:
    """``endpoint`` and ``lastHandshake`` (Unix seconds): of the running tunnel, where it knows."""
    shown: dict[str, Any] = {
        "name": found.names.get(one.public_key),
        "publicKey": str(one.public_key),
        "allowedIps": list(map(str, one.networks)),
        "running": status is not None,
    }
    if one.replaces is not None:
        shown["replaces"] = str(one.replaces)
    if status is not None and status.endpoint is not None:
        shown["endpoint"] = endpoint_text(status.endpoint)
    if status is not None and status.last_handshake_ns:
        shown["lastHandshake"] = status.last_handshake_ns // 1_000_000_000
    return shown


def _row(found: Server, one: PeerSection, status: PeerStatus | None) -> tuple[str, ...]:
    name = found.names.get(one.public_key, "-")
    if one.replaces is not None:
        name = f"{found.names.get(one.replaces, '-')} (next key)"
    endpoint = endpoint_text(status.endpoint) if status and status.endpoint else "-"
    seconds = status.last_handshake_ns // 1_000_000_000 if status else 0
    return name, one.public_key.short, _addresses(one), endpoint, _ago(seconds, int(time.time()))


def _ago(then_s: int, now_s: int) -> str:
    if not then_s:
        return "-"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if now_s - then_s >= size:
            return f"{(now_s - then_s) // size} {unit} ago"
    return f"{max(0, now_s - then_s)} s ago"


def _table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    all_rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*all_rows, strict=True)]
    return [
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
        for row in all_rows
    ]


# ---- rename, remove


@peer.command()
@server_argument
@peer_argument
@click.argument("new", metavar="NEW")
def rename(*, where: str, word: str, new: str) -> None:
    """Give a peer another name.

    \b
    Example: pywg peer rename wg0 laptop ada
    """
    with files.locked(config_file(where)[1]), files.all_or_nothing() as made:
        found = load(where)
        one = server.find(found, word)
        name = new if found.names.get(one.public_key) == new else server.new_name(found, new)
        made.change(found.path, peers.renamed(found, one, name))
    tell(f"{found.path}: {_called(found, one)} is called {name} now")


@peer.command()
@server_argument
@peer_argument
@apply_option
def remove(*, where: str, word: str, applies: bool) -> None:
    """Take a peer out of a server's file.

    \b
    Example: pywg peer remove wg0 laptop --apply
    """
    with files.locked(config_file(where)[1]), files.all_or_nothing() as made:
        found = load(where)
        one = server.find(found, word)
        made.change(found.path, peers.removed(found, one))
        carry_out(found, changes.removing(one.public_key), applies)
    tell(f"{found.path}: removed {_called(found, one)}, {_addresses(one)}")


def _called(found: Server, one: PeerSection) -> str:
    return found.names.get(one.public_key) or one.public_key.short


# ---- rotate


@peer.command()
@server_argument
@peer_argument
@click.option("--psk", "what", flag_value="psk", help="Another preshared key.")
@click.option("--key", "what", flag_value="key", help="Another key pair for the client.")
@click.option(
    "--finish", "what", flag_value="finish", help="Wait for the client's new key, and take it."
)
@click.option(
    "--client", "client_file", metavar="FILE", help="The client's file, to be changed in place."
)
@public_key_option
@out_options
@click.option(
    "--wait",
    "wait_s",
    metavar="SECONDS",
    type=click.FloatRange(0, 86400),
    help="With --finish: how long (default: until it comes).",
)
@apply_option
def rotate(
    *,
    where: str,
    word: str,
    what: str | None,
    client_file: str | None,
    given: PublicKey | None,
    out: str | None,
    code: str | None,
    wait_s: float | None,
    applies: bool,
) -> None:
    """Change keys of a client while it is connected.

    \b
    Example: pywg peer rotate wg0 laptop --psk --client laptop.conf --apply
             pywg peer rotate wg0 laptop --key --apply
             pywg peer rotate wg0 laptop --finish
    """
    if what is None:
        raise click.UsageError("say what: --psk, --key or --finish")
    if what == "finish":
        finish(where, word, wait_s)
        return
    if client_file is not None and (out or code):
        raise click.UsageError("--client changes that file; --out and --qr are for a new one")
    goes = delivery(out, code)
    refuse_keys(client_file or "")
    with files.locked(config_file(where)[1]), files.all_or_nothing() as made:
        found = load(where)
        one = server.find(found, word)
        rotated = _psk(found, one) if what == "psk" else _key_pair(found, one, given)
        show = _give(made, goes, found, one, rotated, client_file)
        made.change(found.path, rotated.text)
        carry_out(found, changes.of_peer(rotated.section), applies)
    tell(f"{found.path}: {rotated.said.format(name=_called(found, one))}")
    show()
    for line in _what_next(what, where, word, applies):
        tell(line)


@dataclass(frozen=True, slots=True)
class Rotated:
    """``text``: of the server's file. ``section``: what of it is new. ``keys``: those of the
    client, as far as they are new."""

    text: str
    section: PeerSection
    keys: Keys
    said: str


def _psk(found: Server, one: PeerSection) -> Rotated:
    psk = PresharedKey.generate()
    text = rotation.with_psk(found, one, psk)
    section = rotation.with_other_psk(one, psk)
    return Rotated(text, section, Keys(one.public_key, None, psk), "{name} has another PSK")


def _key_pair(found: Server, one: PeerSection, given: PublicKey | None) -> Rotated:
    keys = client.keys(given, with_psk=False)
    text, section = rotation.begun(found, one, keys.public)
    keys = Keys(keys.public, keys.private, one.preshared_key)
    return Rotated(text, section, keys, "{name} has a next key; the old one is good until then")


def _give(
    made: Files,
    goes: Delivery,
    found: Server,
    one: PeerSection,
    rotated: Rotated,
    client_file: str | None,
) -> Callable[[], None]:
    keys = rotated.keys
    if client_file is None:
        new = rotation.as_client(one, keys)
        text = client.file(found, new, Wish(), keys)
        return goes.give(made, text, _path(goes.out, _called(found, one)))
    path = Path(client_file)
    made.change(path, _changed(path, found, one, keys))
    return lambda: tell(f"{path}: has the new key")


def _changed(path: Path, found: Server, one: PeerSection, keys: Keys) -> str:
    from pywg.config import read

    private: PrivateKey | None = keys.private
    return client.with_new_keys(
        read(path),
        str(path),
        found.public_key,
        one.public_key,
        private=private,
        preshared=None if private else keys.preshared,
    )


def _what_next(what: str, where: str, word: str, applies: bool) -> Iterable[str]:
    server_too = "" if applies else "pywg reload here, and "
    if what == "psk":
        yield (
            f"now, within {rotation.WINDOW_SECONDS} seconds of each other: {server_too}"
            "on the client its new file and pywg reload; what is connected stays so"
        )
        return
    if not applies:
        yield "now: pywg reload here"
    yield f'now: pywg peer rotate {where} "{word}" --finish, and while it waits, on the client'
    yield "  its new file and pywg reload"


def finish(where: str, word: str, wait_s: float | None) -> None:
    from pywg import wireguard

    found = load(where)
    old = server.find(found, word)
    new = found.next_key_of(old)
    if new is None:
        raise PywgError(f"{_called(found, old)} has no next key: pywg peer rotate --key makes one")
    tell("waiting until the client comes with its new key (Ctrl-C: later is as good)")
    endpoint = running.wait_until_heard(found.name, new.public_key, wait_s)
    with files.locked(found.path), files.all_or_nothing() as made:
        now = load(where)
        made.change(now.path, rotation.finished(now, old, new))
        wireguard.change(found.name, rotation.takeover(old, new, endpoint))
    wireguard.change(found.name, rotation.settled(old, new))
    sys.stderr.flush()
    tell(f"{found.path}: {_called(found, old)} has its new key; the old one is of no use any more")
