"""What the verbs of wg(8) have in common: words instead of options, and 1 for wrong usage.

Knows no interface.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from pywg.cli.words import examples
from pywg.errors import PywgError, hide_keys

if TYPE_CHECKING:  # a key needs no interface
    from pywg.wireguard.changes import Changes
    from pywg.wireguard.status import InterfaceStatus

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def one_of_wg(
    metavar: str,
    least: int,
    most: int | None,
    *lines: str,
    complete: Complete | None = None,
) -> Callable[[Callable[[tuple[str, ...]], None]], click.Command]:
    """Makes a command of a function that takes all its words.

    A word may begin with a minus (``allowed-ips -10.0.0.0/8``). Their number is checked here, since
    a program that calls `wg` knows 1 for all that can go wrong. ``lines`` are the examples of its
    help; ``complete`` tells what can come next.
    """

    def decorate(body: Callable[[tuple[str, ...]], None]) -> click.Command:
        def checked(words: tuple[str, ...]) -> None:
            if len(words) < least or (most is not None and len(words) > most):
                usage = f"usage: pywg {body.__name__} {metavar}".rstrip()
                raise PywgError(f"{usage} (see: pywg {body.__name__} --help)")
            body(words)

        checked.__doc__ = body.__doc__
        argument = click.argument(
            "words",
            nargs=-1,
            type=click.UNPROCESSED,
            metavar=metavar,
            shell_complete=complete,
        )
        settings = {"ignore_unknown_options": True, "allow_interspersed_args": False}
        command = click.command(body.__name__, context_settings=settings, epilog=examples(*lines))
        return command(argument(checked))

    return decorate


def change(name: str, changes: Changes) -> None:
    """Changes a running interface; a wait for it is told."""
    from pywg import wireguard
    from pywg.host.patience import told_when_late

    with told_when_late(warn, f"pywg: waiting for {name} to take it"):
        wireguard.change(name, changes)


def status_of(name: str) -> InterfaceStatus:
    """What a running interface does; a wait for it is told."""
    from pywg import wireguard
    from pywg.host.patience import told_when_late

    with told_when_late(warn, f"pywg: waiting for {name} to answer"):
        return wireguard.get(name)


def warn(message: str) -> None:
    print(hide_keys(message), file=sys.stderr)
