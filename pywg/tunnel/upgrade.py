"""Another version of pywg goes on with a tunnel that is up: nothing of it is taken down or made.

A new process takes interface, sockets, peers and live sessions over from the one that hosts them,
which then ends; steps, hooks and the file of the tunnel have no part in it. Invariant: when this
fails the old process goes on, and the record says what it said.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pywg.config import parse, read
from pywg.errors import PywgError
from pywg.host import lock, netns
from pywg.host.descriptors import borrowed
from pywg.service.manner import Manner, build, resuming
from pywg.service.supervisor import Follower, Supervisor
from pywg.tunnel import peer_hooks, peers_from, record
from pywg.tunnel.apply import undisturbed
from pywg.tunnel.heal import companion
from pywg.tunnel.record import Record
from pywg.tunnel.running import recorded
from pywg.tunnel.trace import Logged, Reporter
from pywg.wireguard import socket as uapi_socket

#: What the old process has to end, in seconds, when the new one hosts the tunnel.
END_S = 10.0
STDERR = 2


def upgrade(name: str, *, force: bool = False, reporter: Reporter | None = None) -> Manner | None:
    """The version that runs here hosts the tunnel from now on, as the old one did: in the answer.
    None where it hosts it already; ``force`` takes it over all the same.

    Sessions and connections go on, no hook is run. Raises PywgError; then nothing has changed, and
    the old process goes on.
    """
    reporter = Logged() if reporter is None else reporter
    found = recorded(name)
    manner = manner_of(found)
    if manner.build == build() and not force:
        return None
    process = hosting_process(name)
    if manner.foreground:
        check_place(name, process)
    with contextlib.ExitStack() as stack:
        log_fd = stack.enter_context(log_of(process, manner, reporter))
        home = netns.here()
        stack.callback(os.close, home)
        start = peers_from.Start()
        stack.callback(start.close)
        files = tuple(map(Path, manner.files))
        tuning = replace(manner.hosting.tuning, log_fd=log_fd)
        hosting = replace(manner.hosting, name=name, tuning=tuning, take_over=True)
        supervisor = stack.enter_context(
            Supervisor(
                (*([log_fd] if log_fd >= 0 else []), home, start.reading),
                renewed=record.renewed_names(name, found.names),
                companion=companion(name, found.location, home, files) if manner.heals else None,
                listener=peer_hooks.listening(name, found.location, goes_on=True)
                if manner.hears
                else None,
                follower=follower(found, start),
            )
        )
        manner = replace(manner, hosting=hosting, build=build(), resume=resuming(name))
        with lock.held(reporter.warn), undisturbed():
            take_over(recorded(name), manner, supervisor, process, reporter)
        start.give()
    return manner


def follower(found: Record, start: peers_from.Start) -> Follower | None:
    """Of the store whose peers the old process follows."""
    if not found.peers_from:
        return None
    try:
        config = parse(read(found.file), str(found.file))
        config = peers_from.following(config, found.peers_from)
        return peers_from.follower(found.name, config, start, goes_on=True)
    except PywgError as error:
        raise not_upgraded(found.name, str(error)) from None


def take_over(
    found: Record, manner: Manner, supervisor: Supervisor, process: int, reporter: Reporter
) -> None:
    """With the lock, so that nobody heals or reloads until the old ``process`` has ended."""
    if hosting_process(found.name) != process:
        raise not_upgraded(found.name, "another process hosts it by now: try again")
    hosting = replace(manner.hosting, names=found.names)
    older = replace(manner, build=manner_of(found).build)
    with opened(process) as ended:
        # Before: what stays in the foreground reads it when the old process says that it ends. But
        # for what would keep the next `upgrade` from trying, should this one be killed.
        record.write(replace(found, manner=older.to_values()))
        try:
            supervisor.start(hosting)
        except BaseException as error:
            if ended and select.select(ended, [], [], 0)[0]:
                raise gone(found.name, error) from error
            record.write(found)
            if isinstance(error, PywgError):
                raise not_upgraded(found.name, str(error)) from None
            raise
        record.write(replace(recorded(found.name), manner=manner.to_values()))
        if ended and not select.select(ended, [], [], END_S)[0]:
            reporter.warn(f"the old process of {found.name} ({process}) does not end: kill it")


@contextlib.contextmanager
def opened(process: int) -> Iterator[list[int]]:
    """A descriptor for it; none for a pywgd that has gone to the background, whose socket names the
    process that it was before, and which heals nothing."""
    try:
        pidfd = os.pidfd_open(process)
    except OSError:
        yield []
        return
    try:
        yield [pidfd]
    finally:
        os.close(pidfd)


def manner_of(found: Record) -> Manner:
    """How the running version started it. Raises PywgError where there is nothing to take over, or
    nobody who could hand it over."""
    name = found.name
    if found.location.backend == "kernel":
        raise PywgError(
            f"{name} is served by the kernel's driver: it has no process, and the next "
            "`pywg reload` is that of the new version"
        )
    if not found.is_up:
        raise PywgError(f"{name} is not up (see: pywg show)")
    try:
        if found.manner is not None:
            return Manner.from_values(found.manner)
    except (KeyError, TypeError, ValueError):
        pass
    raise not_upgraded(
        name,
        "the version that runs is older than `pywg upgrade` and cannot hand it over; once: "
        f"pywg down {name} && pywg up {found.config}, or systemctl restart pywg@{name}",
    )


def not_upgraded(name: str, why: str) -> PywgError:
    return PywgError(f"{name} is not upgraded, and runs on as before: {why}")


def gone(name: str, error: BaseException) -> PywgError:
    if uapi_socket.is_alive(name):
        return PywgError(f"{name} goes on in a process that did not say so: {error}")
    return PywgError(f"{name} has ended while it was upgraded, {error}: pywg down and up")


def hosting_process(name: str) -> int:
    process = uapi_socket.owner(name)
    if process == 0:
        raise PywgError(f"{name} has ended: nobody answers on {uapi_socket.socket_path(name)}")
    return process


# ---- what a service is in


def check_place(name: str, process: int) -> None:
    """Raises PywgError where the tunnel is a service of systemd's and we are none of its processes:
    what we start would not be its either, with other limits and another end."""
    try:
        theirs = service_of(Path(f"/proc/{process}/cgroup").read_text())
        ours = service_of(Path("/proc/self/cgroup").read_text())
    except OSError:
        return
    if theirs and theirs != ours:
        unit = theirs.rpartition("/")[2]
        raise PywgError(
            f"{name} is a service of systemd's, whose process has to be one of its own: "
            f"systemctl reload {unit}"
        )


def service_of(text: str) -> str:
    """The cgroup of the unit, from what /proc/PID/cgroup says; empty for what is in no service."""
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        is_systemds = (number, controllers) == ("0", "") or controllers == "name=systemd"
        parts = path.split("/")
        if is_systemds and any(part.endswith(".service") for part in parts):
            last = max(i for i, part in enumerate(parts) if part.endswith(".service"))
            return "/".join(parts[: last + 1])
    return ""


# ---- the log


@contextlib.contextmanager
def log_of(process: int, manner: Manner, reporter: Reporter) -> Iterator[int]:
    """Where the running one writes its log; -1 where that is the system's. Ours where the kernel
    does not let us have it, as in a unit, where it is the same."""
    fd = manner.hosting.tuning.log_fd
    if fd < 0:
        yield -1
        return
    found = borrowed(process, fd)
    if found is None:
        if not os.environ.get("JOURNAL_STREAM"):
            reporter.warn("the log of the running version cannot be reached: it goes on here")
        yield STDERR
        return
    try:
        yield found
    finally:
        os.close(found)
