"""podman and buildah with storage and settings of their own, so that nothing of the machine's is
seen or changed, and all is gone afterwards.

    the lab's namespaces                       a mount namespace of the engine's
    +------------------+  --network ns:...   +------------------------------------+
    |  veth            | <------------------ |  podman, conmon, containers        |
    +------------------+                     |  /sys/fs/cgroup: version 2 alone   |
                                             |  /dev/net/tun: open to all         |
                                             |  /run/libpod, /dev/shm: empty      |
                                             +------------------------------------+

Of root, or of an ordinary user, whose containers are in a user namespace.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tools.lab.namespaces import Namespace
from tools.lab.programs import REPOSITORY, Missing

PROGRAMS = ("podman", "buildah", "crun", "slirp4netns")
# crun 1.8 refuses version 1 and 2 side by side; ordinary users need a TUN that they may open.
_MOUNTS = """
set -e
if [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ]; then
    umount -R /sys/fs/cgroup
    mount -t cgroup2 none /sys/fs/cgroup
fi
for place in /run/libpod /run/containers /run/crun /run/lock /dev/shm /var/tmp; do
    mkdir -p $place
    mount -t tmpfs -o mode=1777 none $place
done
mkdir -p /dev/net
mount -t tmpfs none /dev/net
mknod -m 0666 /dev/net/tun c 10 200
echo ready
exec sleep infinity
"""


class Engine:
    """Alive until close()."""

    def __init__(self, namespace: Namespace, uid: int = 0) -> None:
        """Missing: this machine does not let us mount."""
        for program in PROGRAMS:
            assert shutil.which(program) is not None, f"no {program}: run scripts/peers"
        self.namespace = namespace
        self.uid = uid
        self.folder = Path(tempfile.mkdtemp(prefix="pywg-containers-"))
        self._home = self.folder / "home"
        (self._home / "run").mkdir(parents=True)
        self.folder.chmod(0o755)
        for path in (self.folder, self._home, self._home / "run"):
            os.chown(path, uid, uid)
        self._write_settings()
        self._holder = namespace.popen(
            ["unshare", "--mount", "--propagation", "slave", "sh", "-c", _MOUNTS],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            said = self._holder.communicate()[1].strip()
            shutil.rmtree(self.folder)
            raise Missing(f"podman needs mounts that cannot be made here: {said}")

    def close(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.attempt("podman", "rm", "--all", "--force", "--time", "0")
        with contextlib.suppress(OSError, ValueError):
            # Of an ordinary user: it holds his user namespace open.
            held = self._home / "run" / "libpod" / "tmp" / "pause.pid"
            os.kill(int(held.read_text()), signal.SIGKILL)
        self._holder.kill()
        self._holder.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write_settings(self) -> None:
        storage = {
            "driver": '"vfs"' if self.uid else '"overlay"',
            "graphroot": f'"{self._home}/storage"',
            "runroot": f'"{self._home}/runroot"',
        }
        lines = ["[storage]", *(f"{key} = {value}" for key, value in storage.items())]
        # One user has one number here: no range for others (/etc/subuid).
        lines += ["[storage.options.vfs]", 'ignore_chown_errors = "true"'] * bool(self.uid)
        (self._home / "storage.conf").write_text("\n".join(lines) + "\n")

    def _settings_for(self, network: str) -> Path:
        """What an ordinary machine has as it is: limits that we may set, no cgroups to make."""
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        processes = min(4096, resource.getrlimit(resource.RLIMIT_NPROC)[1])
        path = self._home / f"containers-{network.replace('/', '-')}.conf"
        path.write_text(
            f'[containers]\ncgroups = "disabled"\nnetns = "{network}"\nlog_driver = "k8s-file"\n'
            f'default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]\n'
            '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n'
            'network_cmd_options = ["allow_host_loopback=true"]\n'
        )
        return path

    # Commands.

    def attempt(
        self, *argv: str, network: str = "none", seconds: float = 120, online: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """`network` is what containers get; `online` has the machine's own, for what is
        downloaded."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("XDG_")
        } | {
            "HOME": str(self._home),
            "XDG_RUNTIME_DIR": str(self._home / "run"),
            "CONTAINERS_CONF": str(self._settings_for(network)),
            "CONTAINERS_STORAGE_CONF": str(self._home / "storage.conf"),
            "BUILDAH_ISOLATION": "chroot",
            "PYTHON": sys.executable,
        }
        inside = ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", f"--wd={self.folder}"]
        if self.uid:
            inside += ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups"]
        with contextlib.nullcontext() if online else self.namespace.entered():
            return subprocess.run(
                [*inside, *argv],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
                env=environment,
            )

    def run(
        self, *argv: str, network: str = "none", seconds: float = 120, online: bool = False
    ) -> str:
        done = self.attempt(*argv, network=network, seconds=seconds, online=online)
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr[-2000:]}"
        return done.stdout

    def check(self, image: str) -> None:
        """That containers run at all. Raises Missing with what podman says."""
        done = self.attempt(
            "podman", "run", "--rm", "--entrypoint", '["/pywgd", "--version"]', image
        )
        if done.returncode != 0:
            raise Missing(f"podman runs no container here: {last_line(done.stderr)}")

    def build(self, *words: str, seconds: float = 300) -> str:
        """scripts/build-images."""
        command = str(REPOSITORY / "scripts" / "build-images")
        return self.run(command, *words, seconds=seconds, online=True)

    def inspect(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("podman", "inspect", name))[0]
        return found

    def pid(self, name: str) -> int:
        return int(self.inspect(name)["State"]["Pid"])


class Inside(Namespace):
    """The network namespace of a process, which is not ours to make or to remove."""

    def __init__(self, pid: int) -> None:
        self.name = f"of {pid}"
        self.path = f"/proc/{pid}/ns/net"


def children(pid: int) -> Sequence[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def zombies(pid: int) -> list[str]:
    """Children that have ended and that nobody has waited for."""
    found = []
    for child in children(pid):
        with contextlib.suppress(FileNotFoundError):
            if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                found.append(child)
    return found


def last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "nothing")


@contextlib.contextmanager
def engine(namespace: Namespace, uid: int = 0) -> Iterator[Engine]:
    made = Engine(namespace, uid)
    try:
        yield made
    finally:
        made.close()
