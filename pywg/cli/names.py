"""What a command line names: an interface, or a file whose stem is one; and shared options."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from pywg.config import NAME_PATTERN
from pywg.device import LogLevel, Offload, default_threads, realtime_by_default
from pywg.errors import PywgError

CONFIG_DIRECTORY = Path("/etc/wireguard")

no_offload_option = click.option(
    "--no-offload",
    metavar="LIST",
    envvar="PYWG_NO_OFFLOAD",
    default="",
    callback=lambda ctx, param, value: parse_offload(value),
    help="Offloads not to use: tun_tso, tun_uso, udp_gso, udp_gro or all, comma separated.",
)

threads_option = click.option(
    "--threads",
    metavar="N",
    envvar="PYWG_THREADS",
    type=click.IntRange(1, 64),
    default=default_threads,
    help="Use up to N cores (default: half of those there are, 1 to 4).",
)

priority_option = click.option(
    "--priority",
    envvar="PYWG_PRIORITY",
    type=click.Choice(["auto", "realtime", "normal"]),
    default="auto",
    help="Before ordinary programs, or as one of them (default: realtime where the threads leave "
    "a core to the others).",
)


def is_realtime(priority: str, threads: int) -> bool:
    return priority == "realtime" or (priority == "auto" and realtime_by_default(threads))


def parse_offload(text: str) -> Offload:
    try:
        return Offload.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def check_name(name: str) -> str:
    if not NAME_PATTERN.fullmatch(name) or name in (".", ".."):
        raise PywgError(
            f'"{name}" cannot name an interface: 1 to 15 of the characters a-z A-Z 0-9 _ = + . -'
        )
    return name


def config_file(argument: str) -> tuple[str, Path]:
    """NAME means /etc/wireguard/NAME.conf; with a slash or .conf it is a path to NAME.conf."""
    if "/" not in argument and not argument.endswith(".conf"):
        name = check_name(argument)
        path = CONFIG_DIRECTORY / f"{name}.conf"
        # Not path.exists(): that cannot tell "absent" from "not for you".
        return name, path
    path = Path(argument)
    if path.suffix != ".conf":
        raise PywgError(f"{argument}: the file has to be called NAME.conf")
    return check_name(path.stem), path


def warn_if_world_accessible(path: Path) -> None:
    """As wg-quick: a folder closed to others protects the file too."""
    try:
        mode = path.stat().st_mode & path.resolve().parent.stat().st_mode
    except OSError:
        return
    if mode & 0o007:
        print(f"Warning: `{path}' is world accessible", file=sys.stderr)


def log_settings() -> tuple[LogLevel, bool]:
    """LOG_LEVEL, and whether it was given: then a background process logs to our stderr."""
    text = os.environ.get("LOG_LEVEL", "")
    level = LogLevel.parse(text)
    return level, bool(text) and level is not LogLevel.SILENT
