"""PreUp, PostUp, PreDown and PostDown: commands of the user, run as wg-quick runs them; and those
that are run when something happens to a peer.

By bash, in the network namespace of this thread, with our stdin, stdout and stderr. A file that
others may write, or put in its place, gets no command run: it would make root of them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator, Mapping

from pywg.config import Config
from pywg.config.model import FileOwner, InterfaceSection
from pywg.errors import PywgError

Process = subprocess.Popen[bytes]


def check_trust(config: Config) -> None:
    """Raises if commands of this file must not be run. One without any may belong to anybody."""
    if not any(_all(config.interface)):
        return
    for place in config.origin.owners:
        is_file = place.path == config.path
        if place.uid not in (0, os.geteuid()):
            whose = f"{'' if is_file else f'{place.path} '}belongs to user {place.uid}"
            raise PywgError(
                f"{config.path} has hooks but {whose}: they are not run "
                f"(if you trust them: chown root {place.path})"
            )
        if _others_may_write(place):
            what = "it" if is_file else f"its folder {place.path}"
            raise PywgError(
                f"{config.path} has hooks and others may write {what}: they are not run "
                f"(if you trust them: chmod go-w {place.path})"
            )


def _all(interface: InterfaceSection) -> Iterator[str]:
    yield from (*interface.pre_up, *interface.post_up, *interface.pre_down, *interface.post_down)
    yield from (*interface.on_peer_up, *interface.on_peer_down, *interface.on_endpoint_change)


def _others_may_write(place: FileOwner) -> bool:
    """In a sticky folder only owners replace what lies there."""
    if stat.S_ISDIR(place.mode) and place.mode & stat.S_ISVTX:
        return False
    return bool(place.mode & (stat.S_IWGRP | stat.S_IWOTH))


def run(command: str, name: str, path: str) -> None:
    """Raises if it fails. ``command`` has no %i left."""
    try:
        done = subprocess.run([*_shell(), command], env=_environment(name, path), check=False)
    except OSError as error:
        raise PywgError(f"{name}: hook: {os.strerror(error.errno or 0)}") from None
    if done.returncode != 0:
        raise PywgError(f"{name}: hook failed with {ending(done.returncode)}: {command}")


def start(command: str, name: str, path: str, more: Mapping[str, str]) -> Process:
    """Runs it beside us, in a session of its own, so that all of it can be ended; with ``more`` in
    its environment. Raises PywgError if it cannot be started."""
    try:
        return subprocess.Popen(
            [*_shell(), command],
            env={**_environment(name, path), **more},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise PywgError(f"{name}: hook: {os.strerror(error.errno or 0)}") from None


def end(process: Process) -> None:
    """It and what it has started, but for what has left its session."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _shell() -> list[str]:
    """As wg-quick: a command that fails ends the hook; patterns are extended."""
    bash = shutil.which("bash")
    if bash is not None:
        return [bash, "-e", "-o", "pipefail", "-O", "extglob", "-c"]
    return ["/bin/sh", "-e", "-c"]


def _environment(name: str, path: str) -> dict[str, str]:
    """Hooks of wg-quick find its variables."""
    return {**os.environ, "LC_ALL": "C", "INTERFACE": name, "CONFIG_FILE": path}


def ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"code {code}"
