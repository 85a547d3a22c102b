"""pywg completion: the script that makes a shell ask `pywg` itself what can come next."""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class

from pywg.cli.words import Word, examples

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_PYWG_COMPLETE"  # what click looks for, by the name of the program


@click.command(
    epilog=examples(
        "pywg completion bash > /etc/bash_completion.d/pywg",
        "pywg completion zsh > /usr/local/share/zsh/site-functions/_pywg",
        "pywg completion fish > ~/.config/fish/completions/pywg.fish",
    )
)
@click.argument("shell", type=Word(SHELLS))
def completion(shell: str) -> None:
    """Print the completion script for a shell. A new shell then completes commands, options,
    interfaces, peers and files.
    """
    click.echo(script(shell))


def script(shell: str) -> str:
    from pywg.cli import cli

    kind = get_completion_class(shell)
    if kind is None:  # one of SHELLS is always there
        raise click.BadParameter(shell)
    # Not the subclass's own: for bash that asks which bash runs here, which may be none.
    return ShellComplete.source(kind(cli, {}, "pywg", VARIABLE)).strip()
