"""pywg genkey, genpsk, pubkey: as wg(8)."""

from __future__ import annotations

import sys

import click

from pywg.cli.stdout import warn_if_world_accessible_output
from pywg.cli.wg_verb import one_of_wg
from pywg.errors import KeyFormatError, PywgError
from pywg.keys import BASE64_LENGTH, PresharedKey, PrivateKey

STDIN_MAX = 4096


@one_of_wg("", 0, 0, "umask 077; pywg genkey > private.key   # a file for your eyes only")
def genkey(words: tuple[str, ...]) -> None:
    """Print a new private key."""
    warn_if_world_accessible_output()
    click.echo(PrivateKey.generate().to_base64())


@one_of_wg("", 0, 0, "umask 077; pywg genpsk > preshared.key")
def genpsk(words: tuple[str, ...]) -> None:
    """Print a new preshared key."""
    warn_if_world_accessible_output()
    click.echo(PresharedKey.generate().to_base64())


@one_of_wg("", 0, 0, "pywg pubkey < private.key > public.key")
def pubkey(words: tuple[str, ...]) -> None:
    """Read a private key from stdin, print its public key."""
    if sys.stdin.isatty():
        print("Paste the private key, then press Enter and Ctrl-D.", file=sys.stderr)
    data = sys.stdin.buffer.read(STDIN_MAX)
    # As wg: the key comes first, and only space and zeros may follow.
    text = data[:BASE64_LENGTH].decode("ascii", errors="replace")
    if data[BASE64_LENGTH:].strip(b" \t\n\v\f\r\0"):
        raise PywgError("stdin: something follows the key")
    try:
        private_key = PrivateKey.from_base64(text)
    except KeyFormatError as error:
        raise PywgError(f"stdin: not a private key: {error}") from None
    click.echo(private_key.public.to_base64())
