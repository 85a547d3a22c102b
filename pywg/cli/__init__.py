"""The command `pywg`: a table of subcommands, each in a module that is imported when it is called.

Exit codes: 0 done, 1 failed, 2 usage. An error is one line on stderr that starts with ``pywg:``.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence

import click

from pywg._version import __version__
from pywg.errors import PywgError, system_call

# name -> (module, what `pywg --help` says)
COMMANDS = {
    "up": ("pywg.cli.up", "Bring a tunnel up from a wg-quick file."),
    "down": ("pywg.cli.down", "Take a tunnel down."),
    "show": ("pywg.cli.show", "Show what runs."),
    "run": ("pywg.cli.run", "Host an interface without configuring it, as wireguard-go does."),
    "demo": ("pywg.cli.demo", "Build a tunnel between two private namespaces and measure it."),
    "genkey": ("pywg.cli.keys", "Print a new private key."),
    "genpsk": ("pywg.cli.keys", "Print a new preshared key."),
    "pubkey": ("pywg.cli.keys", "Read a private key, print its public key."),
}


class _Table(click.Group):
    """Looks subcommands up in COMMANDS."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=_Table,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, "--version", message="pywg %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Userspace WireGuard."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the answer is the exit code."""
    try:
        result = cli.main(
            args=None if arguments is None else list(arguments),
            prog_name="pywg",
            standalone_mode=False,
        )
    except click.UsageError as error:
        return _fail(error.format_message(), 2)
    except click.ClickException as error:
        return _fail(error.format_message(), 1)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", 1)
    except PywgError as error:
        return _fail(str(error), 1)
    except BrokenPipeError:
        # The reader (`| head`) has gone. Python would complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except OSError as error:
        return _fail(str(system_call(error, error.filename or "system call")), 1)
    return result if isinstance(result, int) else 0


def run_main() -> None:
    """The console script. SIGTERM becomes an exception, so that what was begun is undone."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(main())


def _terminate(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _fail(message: str, code: int) -> int:
    line = " ".join(message.split("\n"))
    print(f"pywg: {line}", file=sys.stderr)
    return code
