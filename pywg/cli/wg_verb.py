"""What the verbs of wg(8) have in common: words instead of options, and 1 for wrong usage.

Knows no interface.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import click
from click.shell_completion import CompletionItem

from pywg.cli import complete
from pywg.errors import PywgError, hide_keys


def one_of_wg(
    metavar: str, least: int, most: int | None
) -> Callable[[Callable[[tuple[str, ...]], None]], click.Command]:
    """Makes a command of a function that takes all its words.

    A word may begin with a minus (``allowed-ips -10.0.0.0/8``). Their number is checked here, since
    a program that calls `wg` knows 1 for all that can go wrong.
    """

    def decorate(body: Callable[[tuple[str, ...]], None]) -> click.Command:
        def checked(words: tuple[str, ...]) -> None:
            if len(words) < least or (most is not None and len(words) > most):
                raise PywgError(f"usage: pywg {body.__name__} {metavar}".rstrip())
            body(words)

        checked.__doc__ = body.__doc__
        argument = click.argument(
            "words",
            nargs=-1,
            type=click.UNPROCESSED,
            metavar=metavar,
            shell_complete=_interface_then_file if most != 0 else None,
        )
        settings = {"ignore_unknown_options": True, "allow_interspersed_args": False}
        return click.command(body.__name__, context_settings=settings)(argument(checked))

    return decorate


def _interface_then_file(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    if ctx.params.get("words"):
        return [CompletionItem(incomplete, type="file")]
    return complete.interfaces(ctx, param, incomplete)


def warn(message: str) -> None:
    print(hide_keys(message), file=sys.stderr)
