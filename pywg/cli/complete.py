"""What the shell may complete: names of interfaces, peers, tunnels, namespaces and files.

Knows what there is, and the words of `set`, but no command. Whatever goes wrong, there is nothing
to complete; nothing is imported before it is asked for, since every command has this module.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from click import Context, Parameter
from click.shell_completion import CompletionItem

from pywg.errors import PywgError

Complete = Callable[[Context, Parameter, str], list[CompletionItem]]
FILE = "file"
DEVICES = Path("/sys/class/net")


def _nothing_if_it_fails(complete: Complete) -> Complete:
    @functools.wraps(complete)
    def careful(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            return complete(ctx, param, incomplete)
        except (PywgError, OSError):
            return []

    return careful


@_nothing_if_it_fails
def interfaces(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """WireGuard interfaces that run."""
    return matching(_running(), incomplete)


def interface(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """Of a verb that takes one word."""
    return [] if ctx.params.get("words") else interfaces(ctx, param, incomplete)


@_nothing_if_it_fails
def shown(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """What can stand where `show` takes an interface."""
    return matching([*_running(), "all", "interfaces"], incomplete)


def configs(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """NAME of /etc/wireguard/NAME.conf, or a path: any, where there is a slash or a dot, and where
    there is no such NAME."""
    from pywg.config import names

    found = matching(config_names(names.CONFIG_DIRECTORY), incomplete)
    if not found or "/" in incomplete or incomplete.startswith("."):
        return a_file(incomplete)
    return found


def tunnels(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """What can be taken down: one that runs, by its name or by its file."""
    if "/" in incomplete or incomplete.startswith("."):
        return a_file(incomplete)
    return interfaces(ctx, param, incomplete)


def interface_then_file(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """NAME FILE."""
    match ctx.params.get("words") or ():
        case ():
            return interfaces(ctx, param, incomplete)
        case (_,):
            return a_file(incomplete)
        case _:
            return []


@_nothing_if_it_fails
def words_of_set(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """NAME, then what may follow the words that are there."""
    from pywg.wireguard import setconf

    name, *words = ctx.params.get("words") or ("",)
    if not name:
        return interfaces(ctx, param, incomplete)
    match setconf.what_follows(words):
        case "file":
            return a_file(incomplete)
        case "peer":
            return peers(name, incomplete)
        case following:
            return matching(following, incomplete)


def peers(interface: str, incomplete: str) -> list[CompletionItem]:
    """Their names, and the public keys of all. Raises PywgError."""
    from pywg import wireguard
    from pywg.tunnel.names import names_of

    names = {str(key): name for key, name in names_of(interface).items()}
    keys = [str(peer.public_key) for peer in wireguard.get(interface).peers]
    # A name of several words is not one of the shell's: its key stands for it.
    short = [names[key] for key in keys if key in names and names[key].isascii()]
    one_word = [name for name in short if not set(name) & set(" \t'\"\\$`;&|<>()*?[]#~!{}")]
    return matching([*one_word, *keys], incomplete, names)


@_nothing_if_it_fails
def namespaces(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """As `ip netns list`."""
    from pywg.host.netns import DIRECTORY

    return matching([path.name for path in DIRECTORY.iterdir()], incomplete)


def offloads(ctx: Context, param: Parameter, incomplete: str) -> list[CompletionItem]:
    """Of a list with commas, the last."""
    from pywg.native.options import Offload

    before, comma, last = incomplete.rpartition(",")
    known = [name.lower() for name in Offload.__members__ if name != "NONE"]
    said = before.split(",")
    return [
        CompletionItem(f"{before}{comma}{name}")
        for name in known
        if name.startswith(last) and name not in said
    ]


def config_names(directory: Path) -> list[str]:
    """Empty for who may not read the folder."""
    try:
        return [path.stem for path in directory.iterdir() if path.suffix == ".conf"]
    except OSError:
        return []


def a_file(incomplete: str) -> list[CompletionItem]:
    """The shell knows them better."""
    return [CompletionItem(incomplete, type=FILE)]


def matching(
    words: Iterable[str], incomplete: str, meanings: Mapping[str, str] | None = None
) -> list[CompletionItem]:
    """Those that begin so, each once; shells that can show what they mean."""
    known = meanings or {}
    return [
        CompletionItem(word, help=known.get(word))
        for word in sorted(set(words))
        if word.startswith(incomplete)
    ]


def _running() -> list[str]:
    from pywg.wireguard import socket as uapi_socket

    return [*_of_kernel(), *uapi_socket.interfaces()]


def _of_kernel() -> list[str]:
    """Without netlink, whose library takes longer to load than anybody waits for a word."""
    found = []
    for path in DEVICES.glob("*/uevent"):
        with contextlib.suppress(OSError):  # gone meanwhile
            if "DEVTYPE=wireguard" in path.read_text().split():
                found.append(path.parent.name)
    return found
