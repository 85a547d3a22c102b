"""pywg peer: the words and options of a server's clients."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

import click

from pywg.cli.peer_files import (
    Delivery,
    addresses,
    apply_option,
    called,
    carry_out,
    changing,
    delivery_options,
    load,
    new_peer_argument,
    peer_argument,
    public_key_option,
    server_argument,
    wish_options,
)
from pywg.cli.rotate import rotate
from pywg.cli.words import examples, refuse_keys, tell
from pywg.config import PeerSection
from pywg.enroll import client, peers, running, server
from pywg.enroll.client import Wish
from pywg.enroll.server import Server
from pywg.keys import PublicKey
from pywg.wireguard import changes
from pywg.wireguard.addresses import endpoint_text
from pywg.wireguard.status import PeerStatus


@click.group(
    epilog=examples(
        "pywg peer add wg0 laptop --apply",
        "pywg peer list wg0",
    )
)
def peer() -> None:
    """The peers of a server's file: add, list, rename, remove, rotate.

    SERVER is NAME of /etc/wireguard/NAME.conf, or a file. A peer is called by its name or by its
    public key.
    """


peer.add_command(rotate)


@peer.command(
    epilog=examples(
        "pywg peer add wg0 phone --route-all --qr terminal --apply",
    )
)
@server_argument
@new_peer_argument
@click.option(
    "--allowed-ips", metavar="LIST", multiple=True, help="Networks that the client leads to."
)
@wish_options
@click.option("--psk/--no-psk", "with_psk", default=True, help="A preshared key, too (default).")
@public_key_option
@delivery_options
@apply_option
def add(
    *,
    where: str,
    word: str,
    allowed_ips: tuple[str, ...],
    wish_of: Callable[[Server], Wish],
    with_psk: bool,
    given: PublicKey | None,
    goes: Delivery,
    applies: bool,
) -> None:
    """Add a client with the next free addresses, and make its file."""
    refuse_keys(*allowed_ips)
    with changing(where) as (found, made):
        name = server.new_name(found, word)
        keys = client.keys(given, with_psk=with_psk)
        behind = server.networks(allowed_ips, "allowed-ips")
        section = client.section(found, name, keys, behind)
        text = client.file(found, section, wish_of(found), keys)
        show = goes.give(made, text, name)
        made.change(found.path, peers.added(found, section))
        goes.print_file(text)
        carry_out(found, changes.of_peer(section), applies=applies)
    tell(f"{found.path}: added {name}, {addresses(section)}")
    show()


@peer.command(
    "list",
    short_help="Print the peers of a server's file.",
    epilog=examples(
        "pywg peer list wg0 --json",
    ),
)
@server_argument
@click.option("--json", "as_json", is_flag=True, help="One JSON list, without secrets.")
def list_(*, where: str, as_json: bool) -> None:
    """Print the peers of a server's file, and what the running tunnel knows of them."""
    found = load(where)
    status = running.status(found.name)
    by_key = {one.public_key: one for one in found.config.peers}
    if as_json:
        shown = [to_json(found, one, status.get(key)) for key, one in by_key.items()]
        click.echo(json.dumps(shown, indent=2))
        return
    rows = [row(found, one, status.get(key)) for key, one in by_key.items()]
    for line in _table([("name", "key", "addresses", "endpoint", "latest handshake"), *rows]):
        print(line)


def to_json(found: Server, one: PeerSection, status: PeerStatus | None) -> dict[str, Any]:
    """The words of `show --json`, and what only a file knows; absent things are left out."""
    shown: dict[str, Any] = {
        "publicKey": str(one.public_key),
        "allowedIps": list(map(str, one.networks)),
        "running": status is not None,
    }
    if one.public_key in found.names:
        shown["name"] = found.names[one.public_key]
    if one.replaces is not None:
        shown["replaces"] = str(one.replaces)
    if status is not None and status.endpoint is not None:
        shown["endpoint"] = endpoint_text(status.endpoint)
    if status is not None and status.last_handshake_ns:
        shown["latestHandshake"] = status.last_handshake_ns // 1_000_000_000
    return shown


def row(
    found: Server, one: PeerSection, status: PeerStatus | None, now_s: int | None = None
) -> tuple[str, ...]:
    """What a person is shown of a peer."""
    name = found.names.get(one.public_key, "-")
    if one.replaces is not None:
        name = f"{found.names.get(one.replaces, '-')} (next key)"
    endpoint = endpoint_text(status.endpoint) if status and status.endpoint else "-"
    then_s = status.last_handshake_ns // 1_000_000_000 if status else 0
    ago = _ago(then_s, int(time.time()) if now_s is None else now_s)
    return name, one.public_key.short, addresses(one), endpoint, ago


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
        "  ".join(word.ljust(width) for word, width in zip(one, widths, strict=True)).rstrip()
        for one in all_rows
    ]


@peer.command(
    epilog=examples(
        "pywg peer rename wg0 laptop ada",
    )
)
@server_argument
@peer_argument
@click.argument("new", metavar="NEW")
def rename(*, where: str, word: str, new: str) -> None:
    """Give a peer another name."""
    with changing(where) as (found, made):
        one = server.find(found, word)
        name = new if found.names.get(one.public_key) == new else server.new_name(found, new)
        made.change(found.path, peers.renamed(found, one, name))
    tell(f"{found.path}: {called(found, one)} is called {name} now")


@peer.command(
    epilog=examples(
        "pywg peer remove wg0 laptop --apply",
    )
)
@server_argument
@peer_argument
@apply_option
def remove(*, where: str, word: str, applies: bool) -> None:
    """Take a peer out of a server's file."""
    with changing(where) as (found, made):
        one = server.find(found, word)
        made.change(found.path, peers.removed(found, one))
        carry_out(found, peers.removal(found, one), applies=applies)
    tell(f"{found.path}: removed {called(found, one)}, {addresses(one)}")
