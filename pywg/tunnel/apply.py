"""Carries Steps out: knows whom to ask for each, and in which network namespace.

Decides nothing but what is no reason to fail. Holds the keys that steps do not.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Self

from pywg.host import dns, firewall, hooks, netns, network
from pywg import plan
from pywg.tunnel import gather as survey
from pywg.wireguard import socket as uapi_socket
from pywg.errors import NetworkError, PywgError
from pywg.plan import Place, Step

# What it means that a step is done already, or that there is nothing left to undo.
_PRESENT = frozenset({errno.EEXIST})
_ABSENT = frozenset(
    {errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.ENXIO, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
)
NO_KERNEL_MODULE = "this kernel has no WireGuard: modprobe wireguard, or choose --backend userspace"


class Performer:
    """For the length of a with block, in which this thread is in the namespace of the interface.

    ``create`` starts the process that hosts the device, ``stop`` tells it not to; ``configure``
    gives it keys and peers, with a mark. A command that makes nothing needs none of them.
    """

    def __init__(
        self,
        place: Place,
        config_path: str,
        *,
        create: Callable[[], None] | None = None,
        stop: Callable[[], None] = lambda: None,
        configure: Callable[[Step], None] | None = None,
    ) -> None:
        self._place = place
        self._config_path = config_path
        self._create = create
        self._stop = stop
        self._configure = configure
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            with netns.entered(self._place.socket_netns):
                self._outside = netns.here()
                stack.callback(os.close, self._outside)
            stack.enter_context(netns.entered(self._place.netns))
            self._inside = stack.enter_context(network.Network())
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def perform(self, step: Step) -> None:  # noqa: PLR0912 - one line for each kind
        match step:
            case plan.Note():
                pass
            case plan.RunHook():
                hooks.run(step.command, step.name, self._config_path)
            case plan.CreateInterface():
                self._make(step)
            case plan.MoveInterface():
                self._move(step)
            case plan.DeleteInterface():
                self._delete(step)
            case plan.Configure() | plan.Reconfigure() | plan.RestoreConfiguration():
                assert self._configure is not None  # noqa: S101 - who has such steps gave it
                self._configure(step)
            case plan.SetDns():
                dns.set_up(step)
            case plan.UnsetDns():
                dns.tear_down(step)
            case plan.SetFirewall():
                firewall.apply(step.tool, step.name, step.version, step.mark, step.addresses)
            case plan.RemoveFirewall():
                firewall.remove(step.tool, step.name, step.version, step.owner)
            case plan.SetValidMark():
                _write_valid_mark("1")
            case plan.RestoreValidMark():
                _write_valid_mark("0")
            case plan.Replace():
                self.perform(step.new)
            case plan.TakeBack():
                undo = step.step.undo()
                if undo is not None:
                    self.perform(undo)
            case plan.Ensure():
                tolerating(_PRESENT, self.perform, step.step)
            case _:
                self._inside.apply(step)

    def undo(self, step: Step) -> None:
        """As perform, for what may be undone already."""
        tolerating(_ABSENT, self.perform, step)

    # The interface: made where its sockets are to be.

    def _make(self, step: plan.CreateInterface) -> None:
        if step.backend == "userspace":
            assert self._create is not None  # noqa: S101
            self._create()
            return
        try:
            with netns.at(self._outside), network.Network() as kernel:
                kernel.apply(step)
        except NetworkError as error:
            if error.os_errno == errno.EOPNOTSUPP:
                raise NetworkError(f"{step.name}: {NO_KERNEL_MODULE}", error.os_errno) from None
            raise

    def _move(self, step: plan.MoveInterface) -> None:
        inside = netns.here()
        try:
            with netns.at(self._outside), network.Network() as kernel:
                kernel.move(step.name, inside)
        finally:
            os.close(inside)

    def _delete(self, step: plan.DeleteInterface) -> None:
        # Before we look for the interface: a process that is not ready yet then gives up.
        self._stop()
        try:
            if not self._place.is_split or network.exists(step.name):
                self._inside.apply(step)
                return
            with netns.at(self._outside), network.Network() as kernel:  # it was not moved yet
                kernel.apply(step)
        except Exception:
            # A signal inside pyroute2 can leave its event loop of no use: without its socket the
            # process ends too.
            if network.exists(step.name):
                uapi_socket.socket_path(step.name).unlink(missing_ok=True)
            raise


def tolerating(codes: frozenset[int], perform: Callable[[Step], None], step: Step) -> None:
    try:
        perform(step)
    except (NetworkError, OSError) as error:
        code = error.os_errno if isinstance(error, NetworkError) else error.errno
        if code not in codes:
            raise


def _write_valid_mark(value: str) -> None:
    """Often read-only in containers. Then the host's setting counts, and may be right."""
    try:
        survey.VALID_MARK.write_text(value)
    except OSError as error:
        warn(
            f"{survey.VALID_MARK} cannot be written ({os.strerror(error.errno or 0)}): answers "
            "may be dropped if rp_filter is strict"
        )


# ---- what people see


def echo(step: Step) -> None:
    """People paste this trace into reports: it reads as wg-quick's."""
    if isinstance(step, plan.Note):
        warn(str(step))
    else:
        say(str(step))


def say(command: str) -> None:
    _print(f"[#] {command}")


def warn(text: str) -> None:
    _print(f"[!] {text}")


def _print(line: str) -> None:
    with contextlib.suppress(OSError):  # nobody may be reading it any more (`| head`)
        print(line, file=sys.stderr, flush=True)


def best_effort(steps: list[Step], perform: Callable[[Step], None]) -> list[PywgError]:
    """All of them, whatever some may say; signals wait."""
    errors = []
    with plan.undisturbed():
        for step in steps:
            echo(step)
            try:
                perform(step)
            except PywgError as error:
                errors.append(error)
    return errors
