"""pywg down: deletes the interface; its process sees that and ends by itself."""

from __future__ import annotations

import time
from collections.abc import Callable

import click

from pywg import network, plan, uapi
from pywg.cli import complete
from pywg.cli.names import config_file
from pywg.cli.up import echo
from pywg.errors import PywgError, system_call

TIMEOUT_S = 5.0
PROBE_S = 0.01


@click.command()
@click.argument("name", metavar="NAME|CONFIG", shell_complete=complete.tunnels)
def down(name: str) -> None:
    """Take a tunnel down: interface, addresses, routes and background process."""
    interface, _ = config_file(name)
    take_down(interface)


def take_down(interface: str) -> None:
    if not uapi.is_interface(interface):
        raise PywgError(f"{interface} is not a userspace WireGuard interface (see: pywg show)")
    if network.exists(interface):
        step = plan.DeleteInterface(interface)
        with network.Network() as kernel:
            if not kernel.is_tun(interface):
                # A namesake of ours that lives in another network namespace owns the socket.
                raise PywgError(f"{interface} is no TUN device, so not a userspace WireGuard one")
            echo(step)
            kernel.apply(step)
    else:
        remove_socket(interface)
    if not wait_until(lambda: is_gone(interface)):
        raise PywgError(f"{interface}: its process still holds {uapi.socket_path(interface)}")


def remove_socket(interface: str) -> None:
    """The link lives in another network namespace. Without its socket the process ends too."""
    try:
        uapi.socket_path(interface).unlink(missing_ok=True)
    except OSError as error:
        raise system_call(error, str(uapi.socket_path(interface))) from None


def is_gone(interface: str) -> bool:
    return not network.exists(interface) and not uapi.socket_path(interface).exists()


def wait_until(condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> bool:
    limit = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(PROBE_S)
    return True
