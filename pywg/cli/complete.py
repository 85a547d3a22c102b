"""What the shell may complete: names of interfaces and of configuration files.

Knows folders, no command. Whatever goes wrong, there is nothing to complete.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from click import Context, Parameter
from click.shell_completion import CompletionItem

from pywg.config import names
from pywg.wireguard import socket as uapi_socket


def interfaces(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """Userspace interfaces that run."""
    return _matching(uapi_socket.interfaces(), incomplete)


def shown(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """What can stand where `show` takes an interface."""
    return _matching([*uapi_socket.interfaces(), "all", "interfaces"], incomplete)


def configs(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """NAME of /etc/wireguard/NAME.conf; with a slash or a dot, paths."""
    if "/" in incomplete or incomplete.startswith("."):
        return [CompletionItem(incomplete, type="file")]
    return _matching(config_names(names.CONFIG_DIRECTORY), incomplete)


def tunnels(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """What can be taken down: one that runs, by its name or by its file."""
    if "/" in incomplete or incomplete.startswith("."):
        return configs(ctx, param, incomplete)
    return interfaces(ctx, param, incomplete)


def config_names(directory: Path) -> list[str]:
    """Empty for who may not read the folder."""
    try:
        return [path.stem for path in directory.iterdir() if path.suffix == ".conf"]
    except OSError:
        return []


def _matching(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in sorted(set(words)) if word.startswith(incomplete)]
