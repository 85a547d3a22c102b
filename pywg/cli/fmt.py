"""pywg fmt: files in their one canonical spelling."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

import click

from pywg.cli.words import examples
from pywg.config import read
from pywg.config.document import write
from pywg.config.format import formatted, without_secrets
from pywg.errors import ConfigError, PywgError, hide_keys

STDIN = "-"


@click.command(
    epilog=examples(
        "pywg fmt --diff /etc/wireguard/wg0.conf",
        "pywg fmt /etc/wireguard/wg0.conf",
    )
)
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--check", is_flag=True, help="Write nothing; fail if a file would change.")
@click.option("--diff", is_flag=True, help="Write nothing; print what would change, keys hidden.")
def fmt(files: tuple[str, ...], check: bool, diff: bool) -> int:
    """Write files in their canonical spelling: what they mean, comments and order stay.

    A file keeps its mode and its owner. FILE - is stdin, written to stdout. A file with mistakes
    is left as it is.
    """
    failed = False
    changes = False
    for file in files:
        try:
            before = _read(file)
            after = formatted(before, file)
        except PywgError as error:
            _complain(error)
            failed = True
            continue
        changes = changes or before != after
        if diff:
            click.echo(_difference(file, before, after), nl=False)
        elif check and before != after:
            click.echo(hide_keys(file))
        elif not check:
            failed = not _write(file, before, after) or failed
    return int(failed or (check and changes))


def _read(file: str) -> str:
    if file != STDIN:
        return read(file)
    return sys.stdin.buffer.read().decode("utf-8", errors="surrogateescape")


def _write(file: str, before: str, after: str) -> bool:
    if file == STDIN:
        sys.stdout.flush()
        sys.stdout.buffer.write(after.encode("utf-8", errors="surrogateescape"))
        return True
    try:
        if before != after:
            write(Path(file), after)
    except PywgError as error:
        _complain(error)
        return False
    return True


def _difference(file: str, before: str, after: str) -> str:
    name = hide_keys(file)
    old, new = (without_secrets(text).splitlines(keepends=True) for text in (before, after))
    lines = difflib.unified_diff(old, new, name, f"{name} (formatted)")
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def _complain(error: PywgError) -> None:
    pictures = error.pictures() if isinstance(error, ConfigError) else [str(error)]
    for picture in pictures:
        print(f"pywg: {hide_keys(picture)}", file=sys.stderr)
