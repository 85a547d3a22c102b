"""The disk with Debian, its kernel and its initrd: built once, then kept in a cache.

debootstrap fills a tmpfs, and mke2fs makes the disk of it. Both run in a mount and a PID namespace
of their own: whatever is mounted or started there ends with it, on failure too. The cache's folder
is named by everything that goes into the disk.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tools.lab.programs import CACHE, Missing

FOLDER = CACHE.parent.parent / "pywg-vm"
RELEASE = "bookworm"
PYTHON = "3.11"  # of this release
PACKAGES = (
    *("systemd", "systemd-sysv", "udev", "dbus", "libpam-systemd", "linux-image-cloud-amd64"),
    *("systemd-resolved", "libnss-resolve", "network-manager"),
    *("iproute2", "iputils-ping", "nftables", "wireguard-tools", "python3", "util-linux-extra"),
)
# Program -> Debian package, on this machine.
PROGRAMS = {
    "debootstrap": "debootstrap",
    "qemu-system-x86_64": "qemu-system-x86",
    "mke2fs": "e2fsprogs",
    "unshare": "util-linux",
    "setpriv": "util-linux",
}
# The cases start these themselves.
DISABLED = (
    *("NetworkManager.service", "NetworkManager-dispatcher.service"),
    *("NetworkManager-wait-online.service", "systemd-networkd.service"),
)
# The console is the cases'.
MASKED = (
    *("serial-getty@ttyS0.service", "getty@tty1.service", "systemd-timesyncd.service"),
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer"),
    *("e2scrub_all.timer", "e2scrub_reap.service", "wpa_supplicant.service", "apparmor.service"),
)
UNITS = {
    "pywg-vm-far.service": """[Unit]
Description=The far end of every tunnel
RequiresMountsFor=/opt/pywg
Before=network.target network-online.target
[Service]
Type=notify
WorkingDirectory=/opt/pywg/lab
ExecStart=/opt/pywg/bin/python -m tools.vm.guest.far
[Install]
WantedBy=multi-user.target
""",
    "pywg-vm.service": """[Unit]
Description=The cases
Requires=pywg-vm-far.service
After=pywg-vm-far.service
[Service]
WorkingDirectory=/opt/pywg/lab
ExecStart=/opt/pywg/bin/python -u -m tools.vm.guest
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
[Install]
WantedBy=multi-user.target
""",
}
FILES = {
    "etc/hostname": "pywg-vm\n",
    "etc/hosts": "127.0.0.1 localhost pywg-vm\n::1 localhost\n",
    "etc/fstab": "/dev/vda / ext4 defaults 0 0\n/dev/vdb /opt/pywg ext4 defaults 0 0\n",
    **{f"etc/systemd/system/{name}": text for name, text in UNITS.items()},
}
# $1: files to put in, $2: where disk, kernel and initrd go, $3 release, $4 packages, $5 disabled,
# $6 masked, $7 enabled.
BUILD = """
root=$(mktemp -d "$2/root-XXXXXX")
mount -t tmpfs -o size=3G,mode=755 tmpfs "$root"
debootstrap --variant=minbase --include="$4" "$3" "$root"
cp -r "$1/." "$root/"
mkdir -p "$root/opt/pywg"
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
ln -sf /opt/pywg/bin/pywg "$root/usr/local/bin/pywg"
chroot "$root" systemctl --quiet disable $5
chroot "$root" systemctl --quiet mask $6
chroot "$root" systemctl --quiet enable $7
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
mke2fs -q -t ext4 -d "$root" "$2/disk.img" 2G
cp "$root"/boot/vmlinuz-* "$2/vmlinuz"
cp "$root"/boot/initrd.img-* "$2/initrd.img"
umount "$root"
rmdir "$root"
"""
BUILD_SECONDS = 600


@dataclass(frozen=True)
class Image:
    """What qemu boots; nobody writes to these files."""

    folder: Path

    @property
    def disk(self) -> Path:
        return self.folder / "disk.img"

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd.img"


def image(tell: Callable[[str], None]) -> Image:
    """From the cache, or built: a minute or two. Raises Missing where that cannot be."""
    found = Image(FOLDER / key())
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.folder.exists():
            tell(f"building Debian {RELEASE} in {FOLDER}, once")
            _build(found.folder)
    return found


def key() -> str:
    parts = (RELEASE, PACKAGES, DISABLED, MASKED, sorted(FILES.items()), BUILD)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def check_machine(tell: Callable[[str], None]) -> None:
    """That this machine can build and boot a guest; on Debian its packages are installed."""
    if platform.machine() != "x86_64":
        raise Missing("the virtual machine is an x86-64")
    if os.geteuid() != 0:
        raise Missing("needs root: debootstrap makes the files of another Debian")
    missing = sorted({PROGRAMS[name] for name in PROGRAMS if shutil.which(name) is None})
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise Missing(f"no {', '.join(missing)}, and no apt-get that could install it")
    tell(f"installing {', '.join(missing)}")
    install = ("apt-get", "-o", "DPkg::Lock::Timeout=300", "install", "--yes")
    if _apt(*install, "--no-install-recommends", *missing):
        return
    _apt("apt-get", "update")
    if said := _apt_says(*install, "--no-install-recommends", *missing):
        raise Missing(f"apt-get install {' '.join(missing)} failed: {said}")


def _apt(*argv: str) -> bool:
    return not _apt_says(*argv)


def _apt_says(*argv: str) -> str:
    """Why it failed, or nothing."""
    try:
        done = subprocess.run(
            argv,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it has not ended within {BUILD_SECONDS} s"
    return _last_line(done.stderr + done.stdout) if done.returncode else ""


def _build(folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="new-", dir=FOLDER) as scratch:
        files, out = Path(scratch) / "files", Path(scratch) / "out"
        for name, text in FILES.items():
            (files / name).parent.mkdir(parents=True, exist_ok=True)
            (files / name).write_text(text)
        out.mkdir()
        words = (RELEASE, ",".join(PACKAGES), *map(" ".join, (DISABLED, MASKED, UNITS)))
        alone = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
        log = FOLDER / "build.log"
        command = [*alone, "sh", "-euc", BUILD, "build", str(files), str(out), *words]
        try:
            with log.open("w") as said:
                subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    timeout=BUILD_SECONDS,
                    check=True,
                )
        except subprocess.TimeoutExpired:
            raise Missing(f"Debian is not built within {BUILD_SECONDS} s ({log})") from None
        except subprocess.CalledProcessError:
            why = f"{_last_line(log.read_text())} ({log})"
            raise Missing(f"Debian could not be built: {why}") from None
        for old in FOLDER.iterdir():
            if old.is_dir() and old != Path(scratch):
                shutil.rmtree(old)
        out.rename(folder)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"
