"""pywg run: the contract of wireguard-go, hosted by Python."""

from __future__ import annotations

import os
from dataclasses import replace

import click

from pywg.cli.names import log_settings
from pywg.cli.options import log_format_option, tuning_options
from pywg.cli.words import examples
from pywg.config import check_name
from pywg.errors import PywgError
from pywg.service.log import LogFormat
from pywg.service.supervisor import Hosting, Supervisor, Tuning, forbid_dumps, host


@click.command(
    epilog=examples(
        "sudo pywg run wg0",
        "sudo pywg run -f wg0   # stays, and logs to stderr",
    )
)
@click.argument("name")
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground and log to stderr.")
@click.option(
    "--take-over",
    is_flag=True,
    help="Take the interface over, sessions and all, from the process that serves it.",
)
@log_format_option
@tuning_options
def run(
    *, name: str, foreground: bool, take_over: bool, log_format: LogFormat, tuning: Tuning
) -> None:
    """Host interface NAME until it is removed, its socket is removed, or SIGTERM.

    Returns when the interface (link down) and its UAPI socket exist. Then `wg setconf` and `ip`
    do the rest. Environment: WG_PROCESS_FOREGROUND=1, WG_TUN_FD, WG_UAPI_FD,
    LOG_LEVEL=verbose|debug|error|silent, LOG_FORMAT=text|json, PYWG_THREADS, PYWG_PRIORITY,
    PYWG_MEMORY_LIMIT, PYWG_NO_OFFLOAD.
    """
    check_name(name)
    stay = foreground or os.environ.get("WG_PROCESS_FOREGROUND") == "1"
    level, keep_log = log_settings()
    tun_fd, uapi_fd = inherited_fd("WG_TUN_FD"), inherited_fd("WG_UAPI_FD")
    log_fd = 2 if stay or keep_log else -1
    tuning = replace(tuning, log_level=level, log_fd=log_fd, log_format=log_format)
    hosting = Hosting(name, tuning, tun_fd=tun_fd, uapi_fd=uapi_fd, take_over=take_over)
    if stay:
        forbid_dumps()
        host(hosting)
        return
    keep = {fd for fd in (tun_fd, uapi_fd, tuning.log_fd) if fd >= 0}
    with Supervisor(keep) as supervisor:
        supervisor.start(hosting)


def inherited_fd(variable: str) -> int:
    """A file descriptor given by number in the environment, or -1."""
    text = os.environ.get(variable, "")
    if not text:
        return -1
    try:
        fd = int(text)
        os.fstat(fd)
    except (ValueError, OSError, OverflowError):
        raise PywgError(f"{variable} does not name an open file descriptor") from None
    return fd
