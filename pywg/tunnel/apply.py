"""Carries Steps out: one case for each of them, and the network namespace it belongs to.

Decides nothing but what is no reason to fail. Holds the keys that steps do not.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self, assert_never

from pywg.errors import HostError, NetworkError, PywgError, system_call
from pywg.host import (
    dns,
    firewall,
    hooks,
    kill_switch,
    link_settings,
    lock,
    netns,
    network,
    owners,
)
from pywg.plan import steps
from pywg.plan.facts import Location
from pywg.plan.steps import Step
from pywg.tunnel import instead
from pywg.tunnel.configure import Configurer
from pywg.tunnel.trace import Reporter, tell
from pywg.wireguard import socket as uapi_socket

#: Reverse path filters look at marks too.
VALID_MARK = Path("/proc/sys/net/ipv4/conf/all/src_valid_mark")
#: A folder for each interface.
IPV6 = Path("/proc/sys/net/ipv6/conf")
# What it means that a step is done already, or that there is nothing left to undo.
_PRESENT = frozenset({errno.EEXIST})
_ABSENT = frozenset(
    {errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.ENXIO, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
)
NO_KERNEL_MODULE = "this kernel has no WireGuard: modprobe wireguard, or choose --backend userspace"


class Applier:
    """For the length of a with block, in which this thread is in the namespace of the interface.

    ``create`` starts the process that hosts the device, ``stop`` tells it not to; ``configure``
    gives it keys and peers, with a mark, and may come later. A command that makes nothing needs
    none of them.
    """

    def __init__(
        self,
        location: Location,
        config_path: str,
        reporter: Reporter,
        *,
        create: Callable[[], None] | None = None,
        stop: Callable[[], None] = lambda: None,
        configure: Configurer | None = None,
    ) -> None:
        self._location = location
        self._config_path = config_path
        self._reporter = reporter
        self._create = create
        self._stop = stop
        self.configure = configure
        self._stack = contextlib.ExitStack()
        self._begun: list[Step] = []
        #: Hears of a step in the place of another, before it is done.
        self.noting: Callable[[Step], None] = lambda step: None
        self._instead: dict[Step, Step | None] = {}
        #: What a broken tool has left: steps that were to undo something.
        self.left: list[Step] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._home = netns.here()
            stack.callback(os.close, self._home)
            with netns.entered(self._location.socket_netns):
                self._outside = netns.here()
                stack.callback(os.close, self._outside)
            stack.enter_context(netns.entered(self._location.netns))
            self.kernel = stack.enter_context(network.Network())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def at_home(self) -> Iterator[None]:
        """This thread is where it came from, for the length of a with block. To stay needs no
        capability, and a service has none for more."""
        if self._location.netns is None:
            yield
            return
        with netns.at(self._home):
            yield

    # Many steps

    @contextlib.contextmanager
    def all_or_nothing(self) -> Iterator[contextlib.ExitStack]:
        """When what is inside fails, or Ctrl-C comes, the steps that it has begun are undone, and
        then the stack it is given."""
        self._begun = []
        with contextlib.ExitStack() as afterwards:
            try:
                yield afterwards
            except BaseException:
                with undisturbed(), lock.held(self._reporter.warn):
                    self._roll_back(self._begun)
                    afterwards.close()
                raise
            afterwards.pop_all()

    def apply_all(self, wanted: Sequence[Step]) -> None:
        """Inside all_or_nothing. A step that is interrupted half-way may have worked, and is undone
        too; one that raises an Exception says that it did nothing. What then came in the place of
        one that this host cannot do is known to ``as_done``."""
        for step in wanted:
            if isinstance(step, steps.TakeBack) and step.step in self._instead.values():
                continue  # it was to be replaced, and came in the place of what was to replace it
            try:
                self._begin(step)
            except HostError as error:
                if isinstance(step, steps.TakeBack):
                    self._leave(step.step.undo(), error)
                else:
                    self._do_instead(step, error)

    def _begin(self, step: Step) -> None:
        tell(self._reporter, step)
        self._begun.append(step)
        try:
            self.apply(step)
        except Exception:
            self._begun.pop()
            raise

    def _do_instead(self, step: Step, error: HostError) -> None:
        """By the next tool that works, or not at all."""
        wanted, old = (step.new, step.old) if isinstance(step, steps.Replace) else (step, None)
        others = instead.others(wanted, self._location.netns)
        if others is None:
            raise error
        errors = [error]
        for other in others:
            self.noting(other)
            try:
                self._begin(other)
            except HostError as another:
                errors.append(another)
                continue
            self._instead[wanted] = other
            self._reporter.warn(instead.done(wanted, other, errors[-1]))
            if old is not None:
                self.apply_all([steps.TakeBack(old.name, old)])
            return
        self._instead[wanted] = old
        self._reporter.warn(instead.without(wanted, errors))

    def _leave(self, undoing: Step | None, error: HostError) -> None:
        cost = None if undoing is None else instead.staying(undoing, error)
        if undoing is None or cost is None:
            raise error
        self._reporter.warn(cost)
        self.left.append(undoing)

    def as_done(self, wanted: Iterable[Step], before: Iterable[Step] = ()) -> tuple[Step, ...]:
        """``wanted`` as it came about; and what was done ``before`` and could not be undone."""
        done = [self._instead.get(step, step) for step in wanted]
        done += [step for step in before if step.undo() in self.left]
        return tuple(dict.fromkeys(step for step in done if step is not None))

    def _roll_back(self, begun: Sequence[Step]) -> None:
        """One that fails must not keep the others from running, nor hide the first error."""
        for step in reversed(begun):
            undo = step.undo()
            if undo is not None:
                with contextlib.suppress(Exception):
                    tell(self._reporter, undo)
                with contextlib.suppress(Exception):
                    self.undo(undo)

    def undo_all(self, undoing: Iterable[Step]) -> list[PywgError]:
        """All of them in the order of `down`, whatever some may say; signals wait."""
        ordered = sorted(undoing, key=lambda step: step.phase)
        return self.best_effort(ordered, self.undo)

    def best_effort(
        self, wanted: Sequence[Step], do: Callable[[Step], None] | None = None
    ) -> list[PywgError]:
        """All of them; what failed is the answer."""
        errors = []
        with undisturbed():
            for step in wanted:
                tell(self._reporter, step)
                try:
                    (do or self.apply)(step)
                except PywgError as error:
                    errors.append(error)
        return errors

    # One step

    def undo(self, step: Step) -> None:
        """As apply, for what may be undone already. What a broken tool leaves is told."""
        try:
            tolerating(_ABSENT, self.apply, step)
        except HostError as error:
            self._leave(step, error)

    def apply(self, step: Step) -> None:  # noqa: PLR0912, PLR0915 - one case for each kind
        """Raises PywgError, or OSError, if it did nothing."""
        kernel = self.kernel
        match step:
            case steps.Note():
                pass
            case steps.RunHook():
                hooks.run(step.command, step.name, self._config_path)
            case steps.CreateInterface():
                self._make(step)
            case steps.MoveInterface():
                self._move(step)
            case steps.DeleteInterface():
                self._delete(step)
            case steps.Configure() | steps.Reconfigure() | steps.RestoreConfiguration():
                assert self.configure is not None  # noqa: S101 - who has such steps gave it
                self.configure(step)
            case steps.EnableIpv6():
                _write(IPV6 / step.name / "disable_ipv6", "0")
            case steps.AddAddress():
                _ask(step, lambda: kernel.add_address(step.name, step.address))
            case steps.DeleteAddress():
                _ask(step, lambda: kernel.delete_address(step.name, step.address))
            case steps.LinkUp():
                _ask(step, lambda: kernel.link_up(step.name, step.mtu))
            case steps.LinkDown():
                _ask(step, lambda: kernel.link_down(step.name))
            case steps.AddRoute():
                _ask(step, lambda: kernel.add_route(step.name, step.network, step.table))
            case steps.DeleteRoute():
                _ask(step, lambda: kernel.delete_route(step.name, step.network, step.table))
            case steps.BlockRoute():
                _ask(step, lambda: kernel.block_route(step.network, step.table))
            case steps.UnblockRoute():
                _ask(step, lambda: kernel.unblock_route(step.network, step.table))
            case steps.AddRule():
                _ask(step, lambda: kernel.add_rule(step.version, step.priority, step.mark))
            case steps.DeleteRule():
                _ask(step, lambda: kernel.delete_rule(step.version, step.priority, step.mark))
            case steps.SetValidMark():
                self._write_valid_mark("1")
            case steps.RestoreValidMark():
                self._write_valid_mark("0")
            case steps.SetFirewall():
                firewall.apply(step.tool, step.name, step.version, step.mark, step.addresses)
            case steps.RemoveFirewall():
                firewall.remove(step.tool, step.name, step.version, step.owner)
            case steps.SetKillSwitch():
                kill_switch.apply(step.name, step.mark, allows_lan=step.allows_lan)
            case steps.RemoveKillSwitch():
                kill_switch.remove(step.name)
            case steps.SetOwners():
                owners.apply(step.name, owner_rules(step))
            case steps.RemoveOwners():
                owners.remove(step.name)
            case steps.SetDns():
                dns.add(step.name, step.manager, step.target, step.servers, step.search)
            case steps.UnsetDns():
                dns.remove(step.name, step.manager, step.target)
            case steps.Replace():
                self.apply(step.new)
            case steps.TakeBack():
                undo = step.step.undo()
                if undo is not None:
                    self.apply(undo)
            case steps.Ensure():
                tolerating(_PRESENT, self.apply, step.step)
            case _:
                assert_never(step)

    # The interface: made where its sockets are to be.

    def _make(self, step: steps.CreateInterface) -> None:
        if step.backend == "userspace":
            assert self._create is not None  # noqa: S101
            self._create()
            return
        try:
            with netns.at(self._outside), network.Network() as kernel:
                _ask(step, lambda: kernel.create_wireguard(step.name))
        except NetworkError as error:
            if error.os_errno == errno.EOPNOTSUPP:
                raise NetworkError(f"{step.name}: {NO_KERNEL_MODULE}", error.os_errno) from None
            raise

    def _move(self, step: steps.MoveInterface) -> None:
        inside = netns.here()
        try:
            with netns.at(self._outside), network.Network() as kernel:
                _ask(step, lambda: kernel.move_link(step.name, inside))
        finally:
            os.close(inside)
        link_settings.settle(step.name)

    def _delete(self, step: steps.DeleteInterface) -> None:
        # Before we look for the interface: a process that is not ready yet then gives up.
        self._stop()
        try:
            if not self._location.is_split or network.exists(step.name):
                _ask(step, lambda: self.kernel.delete_link(step.name))
                return
            with netns.at(self._outside), network.Network() as kernel:  # it was not moved yet
                _ask(step, lambda: kernel.delete_link(step.name))
        except Exception:
            # The interface may be out of our reach: without its socket the process ends too.
            if network.exists(step.name):
                uapi_socket.socket_path(step.name).unlink(missing_ok=True)
            raise

    def _write_valid_mark(self, value: str) -> None:
        """Often read-only in containers. Then the host's setting counts, and may be right."""
        try:
            VALID_MARK.write_text(value)
        except OSError as error:
            self._reporter.warn(
                f"{VALID_MARK} cannot be written ({os.strerror(error.errno or 0)}): answers "
                "may be dropped if rp_filter is strict (set net.ipv4.conf.all.src_valid_mark=1 "
                "where this container or host is made)"
            )


def owner_rules(step: steps.SetOwners) -> str:
    return owners.rules(
        step.name,
        step.mark,
        step.owners,
        is_only=step.is_only,
        addresses=step.addresses,
        servers=step.servers,
    )


def _write(path: Path, value: str) -> None:
    try:
        path.write_text(value)
    except OSError as error:
        raise system_call(error, str(path)) from None


def _ask(step: Step, verb: Callable[[], None]) -> None:
    """What the kernel refuses is told with the step it was asked for."""
    try:
        verb()
    except NetworkError as error:
        raise NetworkError(f"{step}: {error}", error.os_errno) from None


def tolerating(codes: frozenset[int], apply: Callable[[Step], None], step: Step) -> None:
    try:
        apply(step)
    except (NetworkError, OSError) as error:
        code = error.os_errno if isinstance(error, NetworkError) else error.errno
        if code not in codes:
            raise


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Ignores signals that end the process. A mask would not do: another thread may take one."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers, and only it is interrupted
        return
    ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [(number, signal.signal(number, signal.SIG_IGN)) for number in ending]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
