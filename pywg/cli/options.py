"""The options that several commands share: where a tunnel lives, and how its device runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from pywg.cli import complete
from pywg.cli.words import Word
from pywg.config import Config, peer_source
from pywg.config.model import PeerSource
from pywg.config.values import BadValue
from pywg.monitor import place
from pywg.monitor.place import Place
from pywg.native.device import default_threads, realtime_by_default
from pywg.native.options import Offload
from pywg.plan.facts import Location
from pywg.service.supervisor import Tuning
from pywg.tunnel.location import locate


def location_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives the command ``location_of``: a file's own settings yield to options and environment."""

    @click.option(
        "--backend",
        type=Word(["auto", "userspace", "kernel"]),
        envvar="PYWG_BACKEND",
        help="Who hosts the interface: this program, or the kernel's driver. auto: this program.",
    )
    @click.option(
        "--netns",
        "inner",
        metavar="NAME",
        help="Network namespace of the interface.",
        shell_complete=complete.namespaces,
    )
    @click.option(
        "--socket-netns",
        "outer",
        metavar="NAME",
        help="Network namespace of its UDP sockets.",
        shell_complete=complete.namespaces,
    )
    @wraps(command)
    def with_location(
        *arguments: Any, backend: str | None, inner: str | None, outer: str | None, **more: Any
    ) -> Any:
        def location_of(config: Config) -> Location:
            return locate(config, backend, inner, outer)

        return command(*arguments, location_of=location_of, **more)

    return with_location


no_offload_option = click.option(
    "--no-offload",
    metavar="LIST",
    envvar="PYWG_NO_OFFLOAD",
    default="",
    callback=lambda ctx, param, value: parse_offload(value),
    shell_complete=complete.offloads,
    help="Offloads not to use, comma separated: tun_tso, tun_uso, tun_tunnel, udp_gso, udp_gro; "
    "or all.",
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
    type=Word(["auto", "realtime", "normal"]),
    default="auto",
    help="Before ordinary programs, or as one of them (default: realtime where the threads leave "
    "a core to the others).",
)

memory_limit_option = click.option(
    "--memory-limit",
    metavar="MIB",
    envvar="PYWG_MEMORY_LIMIT",
    type=click.IntRange(1, 1 << 20),
    help="What buffers and peers may take together (default: no limit).",
)


log_format_option = click.option(
    "--log-format",
    envvar="LOG_FORMAT",
    type=Word(["text", "json"]),
    default="text",
    help="How lines of the log are written where they go to stderr.",
)


def metrics_place(ctx: click.Context, param: click.Parameter, value: str | None) -> Place | None:
    """The callback of an option that says where metrics are served."""
    if value is None:
        return None
    try:
        return place.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def peer_source_of(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> PeerSource | None:
    """The callback of an option that says where peers are listed."""
    if value is None:
        return None
    try:
        return peer_source.parse(value)
    except BadValue as error:
        raise click.BadParameter(str(error)) from None


def is_realtime(priority: str, threads: int) -> bool:
    return priority == "realtime" or (priority == "auto" and realtime_by_default(threads))


def parse_offload(text: str) -> Offload:
    try:
        return Offload.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def tuning_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command these options, as one argument ``tuning``."""

    @wraps(command)
    def with_tuning(
        *, no_offload: Offload, threads: int, priority: str, memory_limit: int | None, **rest: Any
    ) -> None:
        realtime = is_realtime(priority, threads)
        limit = (memory_limit or 0) << 20
        return command(tuning=Tuning(int(no_offload), threads, realtime, limit), **rest)

    for option in (no_offload_option, memory_limit_option, priority_option, threads_option):
        with_tuning = option(with_tuning)
    return with_tuning
