"""pywg init: the words and options of making a server's file."""

from __future__ import annotations

from pathlib import Path

import click

from pywg.cli.names import config_file, is_name
from pywg.cli.words import examples, refuse_keys
from pywg.config import names as config_names
from pywg.enroll import begin, files, server
from pywg.errors import hide_keys
from pywg.keys import PrivateKey


@click.command(
    epilog=examples(
        "pywg init wg0 --endpoint vpn.example.com",
        "pywg peer add wg0 phone --qr terminal",
        "pywg up wg0",
    )
)
@click.argument("name", metavar="NAME|FILE")
@click.option("--endpoint", metavar="HOST[:PORT]", help="Where clients find this host.")
@click.option(
    "--address",
    metavar="NET|auto|none",
    default=begin.AUTO,
    help="IPv4 network of the tunnel, or this host's address in it (default: a random one).",
)
@click.option(
    "--address6",
    metavar="NET|auto|none",
    default=begin.AUTO,
    help="The same of IPv6 (default: a random one, of fd00::/8).",
)
@click.option(
    "--listen-port",
    metavar="N",
    type=click.IntRange(1, 65535),
    default=begin.LISTEN_PORT,
    help=f"UDP port (default: {begin.LISTEN_PORT}).",
)
@click.option("--dns", metavar="LIST", multiple=True, help="Name servers and domains for clients.")
def init(
    *,
    name: str,
    endpoint: str | None,
    address: str,
    address6: str,
    listen_port: int,
    dns: tuple[str, ...],
) -> None:
    """Make a server's file: its key, its addresses, and what its clients are to be told. NAME means
    /etc/wireguard/NAME.conf."""
    refuse_keys(endpoint or "", address, address6, *dns)
    interface, path = config_file(name)
    plan = begin.Plan(
        begin.addresses(address, address6, begin.randomness()),
        listen_port,
        server.endpoint(endpoint, listen_port) if endpoint else None,
        server.dns(dns),
    )
    private_key = PrivateKey.generate()
    if is_name(name):
        files.make_folder(config_names.CONFIG_DIRECTORY)
    with files.all_or_nothing() as made:
        made.create(path, begin.text(plan, private_key).encode())
    found = ", ".join(map(str, plan.addresses))
    print(f"{path}: made, for this user only: {found}, UDP port {listen_port}")
    print(f"public key: {private_key.public}")
    for line in begin.what_next(interface, _shown(name, path), plan):
        print(line)


def _shown(name: str, path: Path) -> str:
    """As the next command has to name it."""
    return name if is_name(name) else hide_keys(str(path))
