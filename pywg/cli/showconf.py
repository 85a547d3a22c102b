"""pywg showconf: a running interface as a file for setconf, byte for byte as wg(8) writes it."""

from __future__ import annotations

from collections.abc import Iterator

import click

from pywg.cli import complete
from pywg.cli.wg_verb import one_of_wg, status_of
from pywg.config import check_name
from pywg.wireguard.addresses import endpoint_text, network_text
from pywg.wireguard.status import InterfaceStatus, PeerStatus


@one_of_wg("NAME", 1, 1, "sudo pywg showconf wg0", complete=complete.interface)
def showconf(words: tuple[str, ...]) -> None:
    """Print a running interface as a file for setconf, with its keys."""
    click.echo(configuration(status_of(check_name(words[0]))), nl=False)


def configuration(status: InterfaceStatus) -> str:
    blocks = [_interface_lines(status), *(_peer_lines(peer) for peer in status.peers)]
    texts = ["".join(f"{line}\n" for line in block) for block in blocks]
    # wg ends the first block with an empty line even where no peer follows.
    return texts[0] + "\n" + "\n".join(texts[1:])


def _interface_lines(status: InterfaceStatus) -> Iterator[str]:
    yield "[Interface]"
    if status.listen_port:
        yield f"ListenPort = {status.listen_port}"
    if status.fwmark:
        yield f"FwMark = 0x{status.fwmark:x}"
    if status.private_key is not None:
        yield f"PrivateKey = {status.private_key.to_base64()}"


def _peer_lines(peer: PeerStatus) -> Iterator[str]:
    yield "[Peer]"
    yield f"PublicKey = {peer.public_key}"
    if peer.preshared_key is not None:
        yield f"PresharedKey = {peer.preshared_key.to_base64()}"
    if peer.allowed_ips:
        yield f"AllowedIPs = {', '.join(map(network_text, peer.allowed_ips))}"
    if peer.endpoint is not None:
        yield f"Endpoint = {endpoint_text(peer.endpoint)}"
    if peer.persistent_keepalive:
        yield f"PersistentKeepalive = {peer.persistent_keepalive}"
