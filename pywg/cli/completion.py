"""pywg completion: the script that makes a shell ask `pywg` itself what can come next.

The scripts for zsh and fish are click's. That for bash is ours: bash cuts words at `=` and `:`,
which keys and addresses have, so it is given the line as it was typed.
"""

from __future__ import annotations

import os

import click
from click.shell_completion import (
    BashComplete,
    ShellComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

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


BASH = """\
%(complete_func)s() {
    local response completion type value
    response=$(COMP_WORDS="${COMP_LINE:0:COMP_POINT}" %(complete_var)s=bash_complete "$1")
    while IFS=',' read -r type value; do
        case $type in
            dir) COMPREPLY=(); compopt -o dirnames ;;
            file) COMPREPLY=(); compopt -o default ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done <<< "$response"
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class Bash(BashComplete):
    """Reads the line up to the cursor, of which bash then replaces the last word, or what is behind
    the last `=` or `:` in it."""

    source_template = BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)
        incomplete = "" if line[-1:].isspace() or not words else words.pop()
        return words[1:], incomplete


def prepare() -> None:
    """For a shell that asks now: before the command line is read."""
    add_completion_class(Bash, "bash")


def script(shell: str) -> str:
    from pywg.cli import cli

    prepare()

    kind = get_completion_class(shell)
    if kind is None:  # one of SHELLS is always there
        raise click.BadParameter(shell)
    # Not the subclass's own: for bash that asks which bash runs here, which may be none.
    text = ShellComplete.source(kind(cli, {}, "pywg", VARIABLE)).strip()
    # A value may have commas of its own.
    return text.replace('string split ","', 'string split --max 1 ","')
