"""pywg shell: the user's shell in a tunnel, with a prompt that says so."""

from __future__ import annotations

import click

from pywg.cli import complete, execution
from pywg.cli.options import tuning_options
from pywg.cli.words import examples
from pywg.rootless import shells
from pywg.rootless.forward import Forward
from pywg.service.supervisor import Tuning


@click.command(
    epilog=examples(
        "pywg shell work.conf",
    )
)
@click.argument("configs", metavar="[CONFIG|NAME]...", nargs=-1, shell_complete=complete.configs)
@execution.tunnel_options
@tuning_options
@click.pass_context
def shell(
    ctx: click.Context,
    *,
    configs: tuple[str, ...],
    wait_s: float | None,
    share: str | None,
    forwards: list[Forward],
    tuning: Tuning,
) -> None:
    """Run your shell in the tunnel of a file, as pywg exec runs a command.

    The shell is that of SHELL. With bash the prompt begins with the tunnel's name; any shell has
    the name in PYWG_TUNNEL.
    """
    if not configs and share is None:
        raise click.UsageError("which tunnel: pywg shell CONFIG", ctx)
    with execution.own_failures():
        tunnels = execution.keepings(configs, tuning, wait_s, share)
        ctx.exit(execution.run(tunnels, share, forwards, shells.command))
    ctx.exit(execution.OWN_FAILURE)
