"""What a command line names: an interface, or a file whose stem is one."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from pywg.cli.words import did_you_mean
from pywg.config import Config, check_name
from pywg.config.names import CONFIG_DIRECTORY
from pywg.errors import PywgError, hide_keys
from pywg.native.options import LogLevel


def config_file(argument: str) -> tuple[str, Path]:
    """NAME means /etc/wireguard/NAME.conf; with a slash or .conf it is a path to NAME.conf."""
    if is_name(argument):
        name = check_name(argument)
        path = CONFIG_DIRECTORY / f"{name}.conf"
        # Not path.exists(): that cannot tell "absent" from "not for you".
        return name, path
    path = Path(argument)
    if path.suffix != ".conf":
        raise PywgError(f"{argument}: the file has to be called NAME.conf")
    return check_name(path.stem), path


def is_name(argument: str) -> bool:
    """Whether it is the name of an interface, and no path."""
    return "/" not in argument and not argument.endswith(".conf")


def load(path: Path) -> Config:
    """A configuration to be carried out; its warnings are told."""
    warn_if_world_accessible(path)
    with telling_what_is_missing(path):
        config = Config.load(path)
    for warning in config.warnings:
        print(hide_keys(str(warning)), file=sys.stderr)
    return config


@contextlib.contextmanager
def telling_what_is_missing(path: Path) -> Iterator[None]:
    """For who reads a file that is not there, but another one that may be meant."""
    try:
        yield
    except PywgError:
        if not _is_absent(path):
            raise
        raise PywgError(f"{path}: there is no such file{_meant(path)}") from None


def _is_absent(path: Path) -> bool:
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except OSError:
        pass
    return False


def _meant(path: Path) -> str:
    if path.parent != CONFIG_DIRECTORY:
        return ""
    if Path(path.name).is_file():
        return f"; did you mean ./{path.name}?"
    if Path(path.stem).is_file():
        return f"; the file {path.stem} has to be called NAME.conf"
    known = (each.stem for each in CONFIG_DIRECTORY.glob("*.conf"))
    return did_you_mean(path.stem, known) or "; a file elsewhere is given by its path: ./NAME.conf"


def warn_if_world_accessible(path: Path) -> None:
    """As wg-quick: a folder closed to others protects the file too."""
    try:
        mode = path.stat().st_mode & path.resolve().parent.stat().st_mode
    except OSError:
        return
    if mode & 0o007:
        print(hide_keys(f"Warning: `{path}' is world accessible"), file=sys.stderr)


def log_settings() -> tuple[LogLevel, bool]:
    """LOG_LEVEL, and whether it was given: then a background process logs to our stderr."""
    text = os.environ.get("LOG_LEVEL", "")
    level = LogLevel.parse(text)
    return level, bool(text) and level is not LogLevel.SILENT
