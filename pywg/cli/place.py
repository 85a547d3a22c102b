"""The options that say where a tunnel lives: backend and network namespaces."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from pywg.host import netns
from pywg.config import Config
from pywg.plan import Place


def place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives the command ``place_of``: a file's own settings yield to options and environment."""

    @click.option(
        "--backend",
        type=click.Choice(["auto", "userspace", "kernel"]),
        envvar="PYWG_BACKEND",
        help="Who hosts the interface: this program, or the kernel's driver. auto: this program.",
    )
    @click.option("--netns", "inner", metavar="NAME", help="Network namespace of the interface.")
    @click.option(
        "--socket-netns", "outer", metavar="NAME", help="Network namespace of its UDP sockets."
    )
    @wraps(command)
    def with_place(
        *arguments: Any, backend: str | None, inner: str | None, outer: str | None, **more: Any
    ) -> Any:
        def place_of(config: Config) -> Place:
            return choose(config, backend, inner, outer)

        return command(*arguments, place_of=place_of, **more)

    return with_place


def choose(
    config: Config, backend: str | None = None, inner: str | None = None, outer: str | None = None
) -> Place:
    """Raises if a namespace is not there."""
    interface = config.interface
    chosen = backend or interface.backend or "auto"
    place = Place(
        "kernel" if chosen == "kernel" else "userspace",
        inner or interface.netns,
        outer or interface.socket_netns,
    )
    netns.check(place.netns)
    netns.check(place.socket_netns)
    return place
