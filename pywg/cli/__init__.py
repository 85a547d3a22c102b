"""The command `pywg`: a table of subcommands, each in a module that is imported when it is called.

Exit codes: 0 done, 1 failed, 2 usage. An error is one line on stderr that starts with ``pywg:``;
one in a file is followed by the line of the file and a caret.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Sequence

import click

from pywg.cli.words import did_you_mean, examples
from pywg.errors import ConfigError, PywgError, hide_keys, system_call

# name -> (module, what `pywg --help` says)
COMMANDS = {
    "init": ("pywg.cli.init", "Make a server's file."),
    "peer": ("pywg.cli.peer", "Keep the clients of a server: files, names, keys."),
    "up": ("pywg.cli.up", "Bring a tunnel up from a wg-quick file."),
    "down": ("pywg.cli.down", "Take a tunnel down."),
    "unblock": ("pywg.cli.unblock", "Take a kill switch away."),
    "reload": ("pywg.cli.reload", "Change a tunnel to what its file says now, sessions kept."),
    "upgrade": ("pywg.cli.upgrade", "Let this version go on with a tunnel, nothing dropped."),
    "save": ("pywg.cli.save", "Write what runs to its file."),
    "doctor": ("pywg.cli.doctor", "Look for what is wrong here, and say what mends it."),
    "check": ("pywg.cli.check", "Say what up would say of files, and touch nothing."),
    "fmt": ("pywg.cli.fmt", "Write files in their canonical spelling."),
    "strip": ("pywg.cli.strip", "Print what wg reads of a wg-quick file."),
    "show": ("pywg.cli.show", "Show what runs."),
    "top": ("pywg.cli.top", "Show what peers do, live."),
    "events": ("pywg.cli.events", "Tell what happens, in lines of JSON."),
    "exporter": ("pywg.cli.exporter", "Serve metrics to Prometheus."),
    "showconf": ("pywg.cli.showconf", "Print a running interface as a file for setconf."),
    "set": ("pywg.cli.set", "Change a running interface: port, mark, keys, peers."),
    "setconf": ("pywg.cli.setconf", "Set a running interface from a file."),
    "addconf": ("pywg.cli.addconf", "Add a file to a running interface."),
    "syncconf": (
        "pywg.cli.syncconf",
        "Set a running interface from a file, without dropping sessions.",
    ),
    "run": ("pywg.cli.run", "Host an interface without configuring it, as wireguard-go does."),
    "exec": ("pywg.cli.exec", "Run a command in a tunnel of its own, without root."),
    "shell": ("pywg.cli.shell", "Run your shell in a tunnel of its own, without root."),
    "proxy": ("pywg.cli.proxy", "SOCKS5 and HTTP proxies into a tunnel of its own, without root."),
    "demo": ("pywg.cli.demo", "Build a tunnel between two private namespaces and measure it."),
    "genkey": ("pywg.cli.keys", "Print a new private key."),
    "genpsk": ("pywg.cli.keys", "Print a new preshared key."),
    "pubkey": ("pywg.cli.keys", "Read a private key, print its public key."),
    "install-units": ("pywg.cli.install_units", "Install the systemd units."),
    "completion": ("pywg.cli.completion", "Print a completion script for bash, zsh or fish."),
    "man": ("pywg.cli.man", "Print the manual page."),
    "help": ("pywg.cli.help", "Say what a command does, as --help behind it does."),
}
# What programs like this one call them.
SYNONYMS = {
    "start": "up",
    "connect": "up",
    "stop": "down",
    "disconnect": "down",
    "restart": "reload",
    "status": "show",
    "list": "show",
    "ls": "show",
    "keygen": "genkey",
    "version": "--version",
}


class _Table(click.Group):
    """Looks subcommands up in COMMANDS."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(
            importlib.import_module(module), cmd_name.replace("-", "_")
        )
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            raise unknown(name)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def unknown(name: str) -> click.UsageError:
    """There is no command of this name, but perhaps one that is meant."""
    hint = did_you_mean(name, [*COMMANDS, "--version"], SYNONYMS)
    return click.UsageError(f'there is no command "{name}"{hint} (all of them: pywg --help)')


def _print_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from pywg.cli.version import text

        click.echo(text())
        ctx.exit()


@click.group(
    cls=_Table,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "sudo pywg up ./wg0.conf           # a tunnel from a file of wg-quick",
        "sudo pywg show                    # what runs",
        "pywg exec work.conf -- ssh host   # one program in a tunnel, without root",
        "pywg help up                      # what a command does",
    ),
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the versions of package, core and Python, and what they run on.",
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Userspace WireGuard."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the answer is the exit code."""
    if "_PYWG_COMPLETE" in os.environ:  # a shell asks what may come next
        importlib.import_module("pywg.cli.completion").prepare()
    try:
        result = cli.main(
            args=None if arguments is None else list(arguments),
            prog_name="pywg",
            standalone_mode=False,
        )
    except click.UsageError as error:
        return _fail(with_help(error), 2)
    except click.ClickException as error:
        return _fail(error.format_message(), 1)
    except (click.Abort, KeyboardInterrupt) as signalled:
        name = str(signalled.__cause__ or signalled)  # of the signal; Ctrl-C has none
        return _fail(f"interrupted by {name}" if name else "interrupted", 1)
    except ConfigError as error:
        for picture in error.pictures():
            with contextlib.suppress(OSError):
                print(f"pywg: {picture}", file=sys.stderr)
        return 1
    except PywgError as error:
        return _fail(str(error), 1)
    except BrokenPipeError:
        # The reader (`| head`) has gone. Python would complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except OSError as error:
        return _fail(str(system_call(error, error.filename or "system call")), 1)
    return result if isinstance(result, int) else 0


def with_help(error: click.UsageError) -> str:
    """What was wrong, and where to read what is right."""
    if isinstance(error, click.NoSuchOption):  # click has said it in several ways
        hint = did_you_mean(error.option_name, error.possibilities or ())
        message = f'there is no option "{error.option_name}"{hint}'
    else:
        message = error.format_message().removesuffix(".")
    if error.ctx is None or "--help)" in message:
        return message
    return f"{message} (see: {error.ctx.command_path} --help)"


def run_main() -> None:
    """The console script. SIGTERM becomes an exception, so that what was begun is undone."""
    open_closed_streams()
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # not after nohup
        signal.signal(signal.SIGHUP, _terminate)
    code = main()
    # What is done is done: a signal while Python cleans up must not make it look like a failure.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        sys.stdout.flush()
    except OSError:  # told already; Python would tell it again, with a code of its own
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


def open_closed_streams() -> None:
    """A stream the caller closed (`2>&-`) would be None, and its number the next socket's.

    Stdout can then not be written to: that a key went nowhere has to be an error.
    """
    for fd, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, flags)  # the lowest number that is free: this one
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _terminate(number: int, frame: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def _fail(message: str, code: int) -> int:
    line = hide_keys(" ".join(message.split("\n")))
    with contextlib.suppress(OSError):  # the code still says it
        print(f"pywg: {line}", file=sys.stderr)
    return code
