"""What `pywg exec` and `pywg shell` have in common: options, and tunnels as their words name them.

A failure of pywg's own is 125, as of `docker run` and env(1), so that it cannot be taken for the
command's.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial, wraps
from typing import Any

import click

from pywg.cli.names import config_file, load, log_settings
from pywg.errors import ConfigError, PywgError, hide_keys
from pywg.host.patience import told_when_late
from pywg.rootless import forward
from pywg.rootless.execution import NoTunnel, Tunnels
from pywg.rootless.forward import Forward
from pywg.rootless.keeper import Keeping
from pywg.service.supervisor import Tuning

OWN_FAILURE = 125


def tunnel_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives the command ``wait_s``, ``share`` and ``forwards``."""

    @click.option(
        "--wait",
        "wait_s",
        metavar="SECONDS",
        type=click.FloatRange(0, 86400),
        help="Begin when a peer has answered, and fail if none has by then.",
    )
    @click.option("--share", metavar="NAME", help="Let later commands join this tunnel by NAME.")
    @click.option(
        "-L",
        "here",
        metavar="[udp:][BIND:]PORT:HOST:PORT",
        multiple=True,
        callback=lambda ctx, param, value: [_forward(text, is_reverse=False) for text in value],
        help="Lead a port of this host to a place inside, as ssh does.",
    )
    @click.option(
        "-R",
        "inside",
        metavar="[udp:][BIND:]PORT:HOST:PORT",
        multiple=True,
        callback=lambda ctx, param, value: [_forward(text, is_reverse=True) for text in value],
        help="Lead a port inside to a place that this host reaches.",
    )
    @wraps(command)
    def with_options(
        *arguments: Any, here: list[Forward], inside: list[Forward], **more: Any
    ) -> Any:
        return command(*arguments, forwards=[*here, *inside], **more)

    return with_options


def _forward(text: str, *, is_reverse: bool) -> Forward:
    try:
        return forward.parse(text, is_reverse=is_reverse)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def keepings(
    configs: Sequence[str], tuning: Tuning, wait_s: float | None, share: str | None
) -> list[Keeping]:
    """The innermost is what is shared."""
    level, keep_log = log_settings()
    tuned = Tuning(
        tuning.offload_disable,
        tuning.threads,
        tuning.realtime,
        tuning.memory_limit,
        log_level=level,
        log_fd=2 if keep_log else -1,
    )
    found = []
    for number, argument in enumerate(configs, 1):
        name, path = config_file(argument)
        shared = share if number == len(configs) else None
        found.append(Keeping(name, partial(load, path), tuned, wait_s, shared))
    return found


def run(
    tunnels: list[Keeping],
    share: str | None,
    forwards: Sequence[Forward],
    argv: Callable[[str], Sequence[str]],
) -> int:
    """The exit code of what ``argv`` makes of the tunnel's name."""
    return within(tunnels, share, forwards, lambda opened: opened.run(argv(opened.name), tell))


def within(
    tunnels: list[Keeping],
    share: str | None,
    forwards: Sequence[Forward],
    work: Callable[[Tunnels], int],
) -> int:
    """The exit code of what is done as long as the tunnels are there."""
    with own_failures(), Tunnels() as opened:
        if tunnels:
            with told_when_late(tell, _late(tunnels)):
                opened.open(tunnels, tell)
        else:
            opened.join(share or "", tell)
        opened.forward(forwards)
        return work(opened)
    return OWN_FAILURE


def _late(tunnels: Sequence[Keeping]) -> str:
    what = "host names of endpoints are looked up"
    if any(each.wait_s is not None for each in tunnels):
        what += ", then a peer has to answer"
    return f"waiting for the tunnel: {what}"


@contextlib.contextmanager
def own_failures() -> Iterator[None]:
    """Tells what failed, and leaves it at that."""
    try:
        yield
    except NoTunnel as error:
        for line in error.lines:
            tell(line)
    except ConfigError as error:
        for picture in error.pictures():
            tell(picture)
    except PywgError as error:
        tell(str(error))


def tell(line: str) -> None:
    with contextlib.suppress(OSError):
        print(f"pywg: {hide_keys(line)}", file=sys.stderr, flush=True)
