"""pywg peer rotate: the words and options of changing keys of a client that is connected."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import click

from pywg.cli.names import warn_if_world_accessible
from pywg.cli.peer_files import (
    Delivery,
    apply_option,
    called,
    carry_out,
    changing,
    delivery_options,
    load,
    peer_argument,
    public_key_option,
    server_argument,
    wish_options,
)
from pywg.cli.words import examples, refuse_keys, tell
from pywg.enroll import client, files, rotation, running, server
from pywg.enroll.client import Wish
from pywg.enroll.server import Server
from pywg.keys import PublicKey
from pywg.wireguard import changes


@click.command(
    epilog=examples(
        "pywg peer rotate wg0 laptop --psk --client laptop.conf --apply",
        "pywg peer rotate wg0 laptop --key --apply",
        "pywg peer rotate wg0 laptop --finish",
    )
)
@server_argument
@peer_argument
@click.option("--psk", "what", flag_value="psk", help="Another preshared key.")
@click.option("--key", "what", flag_value="key", help="Another key pair of the client.")
@click.option(
    "--finish", "what", flag_value="finish", help="Wait for the client's new key, and take it."
)
@click.option(
    "--wait",
    "wait_s",
    metavar="SECONDS",
    type=click.FloatRange(0, 86400),
    help="With --finish: how long (default: until it comes).",
)
@click.option(
    "--client",
    "client_file",
    metavar="FILE",
    help="The client's file, changed in place, instead of a new one.",
)
@wish_options
@public_key_option
@delivery_options
@apply_option
def rotate(
    *,
    where: str,
    word: str,
    what: str | None,
    wait_s: float | None,
    client_file: str | None,
    wish_of: Callable[[Server], Wish],
    given: PublicKey | None,
    goes: Delivery,
    applies: bool,
) -> None:
    """Change keys of a client while it is connected.

    With --psk both ends change within a minute of each other. With --key the client's next key
    stands beside the old one; --finish waits until the client has it. No session is dropped."""
    refuse_keys(client_file or "")
    if what is None:
        raise click.UsageError("say what: --psk, --key or --finish")
    if what == "finish":
        finish(where, word, wait_s)
        return
    if client_file is not None and (goes.out or goes.code or given):
        raise click.UsageError("--client changes a file; --out, --qr, --public-key are for another")
    with changing(where) as (found, made):
        one = server.find(found, word)
        rotated = (
            rotation.of_psk(found, one)
            if what == "psk"
            else rotation.of_key_pair(found, one, client.keys(given, with_psk=False))
        )
        if client_file is None:
            text = client.file(found, rotated.for_client, wish_of(found), rotated.keys)
            show = goes.give(made, text, called(found, one))
        else:
            path = Path(client_file)
            warn_if_world_accessible(path)
            text = files.read_itself(path)
            changed = rotation.client_text(text, path, found, one, rotated)
            made.change_itself(path, text, changed)
            show = _told(path)
        made.change(found.path, rotated.text)
        goes.print_file(text)
        carry_out(found, changes.of_peer(rotated.section), applies=applies)
    tell(f"{found.path}: {called(found, one)} has {rotated.what}")
    show()
    for line in _what_next(what, f"{where} {word}", applies=applies):
        tell(line)


def _told(path: Path) -> Callable[[], None]:
    return lambda: tell(f"{path}: has the new key")


def _what_next(what: str, peer: str, *, applies: bool) -> Iterator[str]:
    if what == "psk":
        here = "" if applies else "pywg reload here, and "
        yield (
            f"next, within {rotation.WINDOW_SECONDS} seconds of each other: {here}the client's "
            "file to the client, and pywg reload there"
        )
        return
    if not applies:
        yield "next: pywg reload here; then"
    yield f"next: pywg peer rotate {peer} --finish, and while that waits, the client's file to the"
    yield "client, and pywg reload there"


def finish(where: str, word: str, wait_s: float | None) -> None:
    """Waits for the next key of a peer, then lets it take over in file and device."""
    from pywg import wireguard

    found = load(where)
    old, new = rotation.pair(found, word)
    tell("waiting for the client's new key; Ctrl-C changes nothing")
    endpoint = running.wait_until_heard(found.name, new.public_key, wait_s)
    with changing(where) as (now, made):
        old, new = rotation.pair(now, str(old.public_key))
        # First, as the client waits; if the file cannot be written, to finish again is right.
        wireguard.change(now.name, rotation.takeover(old, new, endpoint))
        made.change(now.path, rotation.finished(now, old, new))
    wireguard.change(found.name, rotation.settled(old, new))
    tell(f"{found.path}: {called(found, old)} has its new key; the old one is of no use any more")
