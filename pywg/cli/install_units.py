"""pywg install-units: the systemd units of service/units, with the paths of this installation, and
the manual page they refer to.

Knows files, not systemd: it starts and enables nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import sysconfig
from pathlib import Path

import click

from pywg.cli.man import page
from pywg.cli.words import examples
from pywg.errors import system_call
from pywg.native import daemon

UNITS = ("pywg@.service", "pywgd@.service")
SOURCE = Path(__file__).resolve().parents[1] / "service" / "units"
UNIT_DIRECTORY = Path("lib/systemd/system")
MAN_DIRECTORY = Path("share/man/man1")
PREFIX = Path("/usr/local")  # systemd looks for units in /usr/local/lib/systemd/system


@click.command(
    "install-units",
    epilog=examples(
        "sudo pywg install-units",
        "sudo systemctl daemon-reload",
        "sudo systemctl enable --now pywg@wg0",
    ),
)
@click.option(
    "--prefix",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    default=PREFIX,
    show_default=True,
    help="Write to DIR/lib/systemd/system, and the manual page to DIR/share/man/man1.",
)
@click.option("--print", "only_print", is_flag=True, help="Show the units and write nothing.")
def install_units(prefix: Path, only_print: bool) -> None:
    """Install the systemd units pywg@.service and pywgd@.service, and the manual page."""
    directory = prefix.absolute() / UNIT_DIRECTORY
    texts = {directory / name: unit_text(name) for name in UNITS}
    if only_print:
        click.echo("\n".join(f"# {path}\n{text}" for path, text in texts.items()), nl=False)
        return
    texts[prefix.absolute() / MAN_DIRECTORY / "pywg.1"] = page()
    for path, text in texts.items():
        write(path, text)
        click.echo(path)
    print("Next: systemctl daemon-reload", file=sys.stderr)


def unit_text(name: str) -> str:
    """A unit with the programs of this installation in it."""
    text = (SOURCE / name).read_text(encoding="utf-8")
    return text.replace("@pywgd@", command(pywgd())).replace("@pywg@", command(pywg()))


def pywg() -> list[str]:
    """The script beside this Python, so that a unit works from a virtual environment too."""
    script = Path(sysconfig.get_path("scripts")) / "pywg"
    if os.access(script, os.X_OK):
        return [str(script)]
    found = shutil.which("pywg")
    return [str(Path(found).absolute())] if found else [sys.executable, "-m", "pywg"]


def pywgd() -> list[str]:
    """The native daemon of this package, or what is called so."""
    for path in daemon.candidates():
        if os.access(path, os.X_OK):
            return [str(path)]
    found = shutil.which("pywgd")
    return [str(Path(found).absolute())] if found else [*pywg(), "run"]


def command(words: list[str]) -> str:
    """As systemd.service(5) reads a command line."""
    return " ".join(_quote(word) for word in words)


def _quote(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if set(escaped) & set(" \t'\"\\;") else escaped


def write(path: Path, text: str) -> None:
    """Whole or not at all: systemd may read it at any time."""
    scratch = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        scratch.write_text(text, encoding="utf-8")
        scratch.chmod(0o644)
        scratch.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise system_call(error, str(path)) from None
