"""A root to install things in: a copy on write of this machine's, or of a Debian of its own.

What a command does there goes to a tmpfs and ends with the command, as do its processes and the
namespaces it makes. Needs root.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tools.lab.programs import CACHE, Missing

RELEASE = "bookworm"
PACKAGES = ("iproute2", "iputils-ping", "procps")
FOLDER = CACHE.parent.parent / "pywg-deb"
HERE = Path("/")
SECONDS = 600  # for a command; what it started ends with it
# $1: what lies below, $2: an empty folder, $3: the command; the rest: folders of this machine, each
# with the place where it is to be seen.
ENTER = """
below=$1 scratch=$2 command=$3
shift 3
mount -t tmpfs -o mode=755 tmpfs "$scratch"
root=$scratch/root
mkdir "$root" "$scratch/upper" "$scratch/work"
mount -t overlay -o "lowerdir=$below,upperdir=$scratch/upper,workdir=$scratch/work" overlay "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
cp --remove-destination --dereference /etc/resolv.conf "$root/etc/resolv.conf"
while [ $# -gt 0 ]; do
    mkdir -p "$root$2"
    mount --bind "$1" "$root$2"
    shift 2
done
exec chroot "$root" sh -euc "$command"
"""
ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}


def run_in(below: Path, command: str, folders: Mapping[Path, str]) -> str:
    """What the command of sh prints there, both streams; CalledProcessError has it, too. The
    folders are seen at these places."""
    words = [word for folder, place in folders.items() for word in (str(folder.resolve()), place)]
    alone = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
    with tempfile.TemporaryDirectory(prefix="pywg-root-") as scratch:
        done = subprocess.run(
            [*alone, "sh", "-euc", ENTER, "enter", str(below), scratch, command, *words],
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=True,
        )
    return done.stdout


def debian() -> Path:
    """A minimal Debian, from the cache or by debootstrap: half a minute."""
    if os.geteuid() != 0:
        raise Missing("needs root: debootstrap makes the files of another Debian")
    if shutil.which("debootstrap") is None:
        raise Missing("apt-get install debootstrap")
    key = hashlib.sha256(repr((RELEASE, PACKAGES)).encode()).hexdigest()[:12]
    found = FOLDER / key
    if not found.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="new-", dir=FOLDER) as scratch:
            _debootstrap(Path(scratch) / "root")
            (Path(scratch) / "root").rename(found)
    return found


def _debootstrap(root: Path) -> None:
    done = subprocess.run(
        [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"),
            *(RELEASE, str(root)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Missing(f"debootstrap failed: {done.stdout[-400:]}")
