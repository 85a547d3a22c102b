"""pywg exec: one command in a tunnel of its own, without root."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pywg.cli import complete, execution
from pywg.cli.options import tuning_options
from pywg.cli.words import examples
from pywg.rootless import refusal
from pywg.rootless.forward import Forward
from pywg.service.supervisor import Tuning

_COMMAND = "pywg.command"


class _Divided(click.Command):
    """All behind the first `--` is the command's, its own options and `--` too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.meta[_COMMAND] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "-- COMMAND..."]


def _print_profile(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(refusal.profile(str(Path(sys.argv[0]).resolve())), nl=False)
        ctx.exit()


@click.command(
    cls=_Divided,
    epilog=examples(
        "pywg exec work.conf -- curl https://intranet.example/",
        "pywg exec --share lab work.conf -- ./server   # begins a tunnel",
        "pywg exec --share lab -- ./client             # joins it",
    ),
)
@click.argument("configs", metavar="[CONFIG|NAME]...", nargs=-1, shell_complete=complete.configs)
@execution.tunnel_options
@tuning_options
@click.option(
    "--print-apparmor-profile",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_profile,
    help="Print what lets an ordinary user's pywg make namespaces where AppArmor forbids it.",
)
@click.pass_context
def exec(
    ctx: click.Context,
    *,
    configs: tuple[str, ...],
    wait_s: float | None,
    share: str | None,
    forwards: list[Forward],
    tuning: Tuning,
) -> None:
    """Run COMMAND in the tunnel of a file, as an ordinary user, and touch nothing of this host.

    COMMAND sees lo and the tunnel, and nothing else; names are asked for at the file's DNS. It is
    the same user without any capability, and has this terminal. Of several files the first carries
    the second. With --share and no file it joins a tunnel that runs.

    The exit code is COMMAND's, 128 and the signal's number if one killed it, 127 if it was not
    found, 126 if it could not be run, and 125 if there was no tunnel.
    """
    argv = ctx.meta.get(_COMMAND) or []
    if not argv:
        raise click.UsageError("write the command behind --: pywg exec CONFIG -- COMMAND", ctx)
    if not configs and share is None:
        raise click.UsageError("which tunnel: pywg exec CONFIG -- COMMAND", ctx)
    with execution.own_failures():
        tunnels = execution.keepings(configs, tuning, wait_s, share)
        ctx.exit(execution.run(tunnels, share, forwards, lambda name: argv))
    ctx.exit(execution.OWN_FAILURE)
