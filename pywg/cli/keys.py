"""pywg genkey, genpsk, pubkey: as wg(8)."""

from __future__ import annotations

import os
import stat
import sys

import click

from pywg.errors import KeyFormatError, PywgError
from pywg.keys import PresharedKey, PrivateKey


@click.command()
def genkey() -> None:
    """Print a new private key."""
    warn_if_world_accessible_output()
    click.echo(PrivateKey.generate().to_base64())


@click.command()
def genpsk() -> None:
    """Print a new preshared key."""
    warn_if_world_accessible_output()
    click.echo(PresharedKey.generate().to_base64())


@click.command()
def pubkey() -> None:
    """Read a private key from stdin, print its public key."""
    if sys.stdin.isatty():
        print("Paste the private key, then press Enter and Ctrl-D.", file=sys.stderr)
    text = sys.stdin.buffer.read(4096).decode("ascii", errors="replace").strip()
    try:
        private_key = PrivateKey.from_base64(text)
    except KeyFormatError as error:
        raise PywgError(f"stdin: not a private key: {error}") from None
    click.echo(private_key.public.to_base64())


def warn_if_world_accessible_output() -> None:
    try:
        status = os.fstat(1)
    except OSError:
        return
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o007:
        print(
            "Warning: writing to world accessible file.\n"
            "Consider setting the umask to 077 and trying again.",
            file=sys.stderr,
        )
