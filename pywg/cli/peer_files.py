"""What `pywg peer` and its verbs have in common: how a server's file is named, and where a client's
file goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from pywg.cli import complete
from pywg.cli.names import config_file, is_name, warn_if_world_accessible
from pywg.cli.stdout import wants_color, warn_if_world_accessible_output
from pywg.cli.terminal import Terminal
from pywg.cli.words import refuse_keys, tell
from pywg.config import PeerSection
from pywg.enroll import client, files, qr, running, server
from pywg.enroll.client import Wish
from pywg.enroll.files import Files
from pywg.enroll.server import Server
from pywg.errors import KeyFormatError, PywgError
from pywg.keys import PublicKey
from pywg.wireguard.changes import Changes

STDOUT = "-"


def offered(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of the peers in the server's file that was named before, for the shell."""
    try:
        names = load(ctx.params.get("where", "")).names.values()
    except PywgError:
        return []
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


server_argument = click.argument("where", metavar="SERVER", shell_complete=complete.configs)
peer_argument = click.argument("word", metavar="NAME", shell_complete=offered)
new_peer_argument = click.argument("word", metavar="NAME")
apply_option = click.option(
    "--apply", "applies", is_flag=True, help="Tell the running tunnel, too; other sessions go on."
)


# ---- the server's file


def locate(where: str) -> tuple[str, Path]:
    """The interface, and the file that it runs from, or would."""
    name, path = config_file(where)
    if is_name(where):
        from pywg.tunnel.names import file_of

        path = file_of(name)
    return name, path


def load(where: str) -> Server:
    return server.load(*locate(where))


@contextmanager
def changing(where: str) -> Iterator[tuple[Server, Files]]:
    """A server's file as it is, and what changes it and others, all or nothing. Nobody else of us
    changes it meanwhile."""
    name, path = locate(where)
    warn_if_world_accessible(path)
    with files.locked(path), files.all_or_nothing() as made:
        yield server.load(name, path), made


def carry_out(found: Server, wanted: Changes, *, applies: bool) -> None:
    """What the file says by now, on the running tunnel if that is asked for."""
    if applies:
        running.apply(found, wanted, Terminal())
    elif found.config.interface.save_config:
        tell(
            f"[!] {found.path} has SaveConfig: if {found.name} runs, `pywg down` will write what "
            "runs over this change; --apply is what keeps it"
        )
    elif running.is_there(found.name):
        tell(f"{found.name} runs without this change: pywg reload {found.name} (or --apply)")


def called(found: Server, one: PeerSection) -> str:
    return found.names.get(one.public_key) or one.public_key.short


def addresses(one: PeerSection) -> str:
    return ", ".join(map(str, one.networks)) or "no addresses"


# ---- what a client is told


def wish_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives the command ``wish_of``, which reads the options as they are meant for a server."""

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
        route_all: bool,
        routes: tuple[str, ...],
        keepalive: int,
        endpoint: str | None,
        dns: tuple[str, ...],
        **more: Any,
    ) -> Any:
        refuse_keys(endpoint or "", *routes, *dns)
        if route_all and routes:
            raise click.UsageError("--route-all and --routes exclude each other")

        def wish_of(found: Server) -> Wish:
            return Wish(
                client.EVERYTHING if route_all else server.networks(routes, "routes"),
                keepalive,
                server.endpoint(endpoint, found.port) if endpoint else None,
                server.dns(dns) if dns else None,
            )

        return command(wish_of=wish_of, **more)

    return with_wish


public_key_option = click.option(
    "--public-key",
    "given",
    metavar="KEY",
    callback=lambda ctx, param, value: None if value is None else _public_key(value),
    help="Of a client that has made its own key pair; its private key stays there.",
)


def _public_key(text: str) -> PublicKey:
    try:
        return PublicKey.from_base64(text)
    except KeyFormatError as error:
        raise click.BadParameter(str(error)) from None


# ---- where its file goes


@dataclass(frozen=True, slots=True)
class Delivery:
    """To a file or to stdout, and as a QR code."""

    out: str | None
    code: qr.Target | None

    def give(self, made: Files, text: str, name: str) -> Callable[[], None]:
        """Makes the files; what it gives back tells of them, and prints a code: once nothing can
        fail any more."""
        path = Path(client.file_name(name) if self.out in (None, STDOUT) else str(self.out))
        image = None if self.code is None else self.code.path
        if self.out != STDOUT:
            made.create(path, text.encode())
        if self.code is not None and image is not None:
            made.create(image, qr.image(text, self.code.kind))

        def show() -> None:
            if self.out != STDOUT:
                tell(f"{path}: made, for this user only; take it to the client, and remove it here")
            if image is not None:
                tell(f"{image}: made, for this user only; whoever sees it has the key")
            elif self.code is not None:
                print(qr.terminal(text, color=wants_color()), end="")

        return show

    def print_file(self, text: str) -> None:
        """To stdout, if that is where it goes: while all can be taken back, as the key is nowhere
        else. Raises OSError."""
        if self.out == STDOUT:
            warn_if_world_accessible_output()
            print(text, end="", flush=True)


def delivery_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives the command ``goes``."""

    @click.option(
        "--out", metavar="FILE|-", help="Where the client's file goes (default: NAME.conf here)."
    )
    @click.option(
        "--qr", "code", metavar="terminal|png:FILE|svg:FILE", help="The client's file as a QR code."
    )
    @wraps(command)
    def with_delivery(*, out: str | None, code: str | None, **more: Any) -> Any:
        refuse_keys(out or "", code or "")
        if code is not None:
            qr.require()
        goes = Delivery(out, None if code is None else qr.target(code))
        return command(goes=goes, **more)

    return with_delivery
