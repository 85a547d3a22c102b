"""pywg help: what a command says with --help, for those who ask before they type."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from pywg.cli.words import examples


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from pywg.cli import COMMANDS

    if ctx.params.get("words"):
        return []
    return [
        CompletionItem(name, help=text)
        for name, (_, text) in COMMANDS.items()
        if name.startswith(incomplete)
    ]


@click.command(epilog=examples("pywg help set"))
@click.argument("words", metavar="[COMMAND]", nargs=-1, shell_complete=_complete)
@click.pass_context
def help(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Say what a command does; without COMMAND, which commands there are."""
    root = ctx.find_root()
    command: click.Command = root.command
    context = root
    for word in words:
        if not isinstance(command, click.Group):
            break  # `pywg help set peer`: that of `set` has it
        found = command.get_command(context, word)
        if found is None:
            from pywg.cli import unknown

            raise unknown(word)
        command = found
        context = click.Context(command, info_name=word, parent=context)
    click.echo(command.get_help(context))
