"""Machines of other architectures, as far as they are here: qemu-user, Debian's Python for each.

Python is unpacked from Debian's own packages into a folder (PYWG_TARGETS, or
~/.cache/pywg-targets): nothing is installed, and nothing of this machine's apt is touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.build import checks

CACHE = Path(os.environ.get("PYWG_TARGETS", Path.home() / ".cache" / "pywg-targets"))
MIRROR = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Debian's name, and the first release with it that has Python 3.11 or later.
DEBIAN = {
    "x86_64": ("amd64", "bookworm"),
    "i686": ("i386", "bookworm"),
    "aarch64": ("arm64", "bookworm"),
    "armv7l": ("armhf", "bookworm"),
    "riscv64": ("riscv64", "trixie"),
    "ppc64le": ("ppc64el", "bookworm"),
    "s390x": ("s390x", "bookworm"),
}
PACKAGES = ("python3-minimal", "libpython3-stdlib")
BIG_ENDIAN = ("mips", "s390x")


class Missing(Exception):
    """A machine cannot be had here; the text says why."""


def emulator(arch: str) -> list[str]:
    """What to put before a program of this architecture; nothing where it runs by itself.

    Missing: qemu-user is not installed.
    """
    words = checks.emulator(arch)
    if words and shutil.which(words[0]) is None:
        raise Missing(f"needs {words[0]} (Debian: qemu-user-static)")
    return words


def surroundings(arch: str) -> dict[str, str]:
    """What pywgd needs in its environment. qemu-user hands the segment size of trains and the
    headers of superpackets on as they are, in the order of bytes of the other machine."""
    return {"PYWG_NO_OFFLOAD": "all"} if arch in BIG_ENDIAN else {}


@dataclass(frozen=True)
class Python:
    """The Python of a machine."""

    command: list[str]
    environment: dict[str, str]


def python(arch: str) -> Python:
    """Debian's. Missing: there is none, or it cannot be fetched."""
    if arch not in DEBIAN:
        raise Missing(f"Debian has no Python for {arch}")
    root = CACHE / arch
    if not (root / "complete").exists():
        _unpack(arch, root)
    found = sorted((root / "usr" / "bin").glob("python3.*[0-9]"))
    words = emulator(arch)
    if words:
        words += ["-L", str(root)]
    # Not qemu's: the libraries are to be looked for in the root, whoever starts it.
    loaders = [*root.glob("lib*/**/ld*.so*"), *root.glob("usr/lib*/**/ld*.so*")]
    loader = next(path for path in sorted(loaders) if path.is_file())
    libraries = ":".join(str(path) for path in library_folders(root))
    command = [*words, str(loader), "--library-path", libraries, str(found[0])]
    return Python(command, {"PYTHONHOME": str(root / "usr"), "PYTHONDONTWRITEBYTECODE": "1"})


def library_folders(root: Path) -> list[Path]:
    return sorted({path.parent for path in root.glob("**/lib/*-linux-gnu*/*.so*")})


def _unpack(arch: str, root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    state = root / "apt"
    (state / "cache" / "archives" / "partial").mkdir(parents=True)
    (state / "lists" / "partial").mkdir(parents=True)
    (state / "status").touch()
    name, suite = DEBIAN[arch]
    sources = f"deb [signed-by={KEYRING}] {MIRROR} {suite} main\n"
    (state / "sources.list").write_text(sources, encoding="ascii")
    settings = {
        "APT::Architecture": name,
        "APT::Architectures": name,
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Dir::Cache": str(state / "cache"),
        "Dir::Etc::sourcelist": str(state / "sources.list"),
        "Dir::Etc::sourceparts": "-",
        "Dir::State": str(state),
        "Dir::State::status": str(state / "status"),
    }
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    _run(["apt-get", *options, "update"])
    wanted = ["--download-only", "--no-install-recommends", "--yes", *PACKAGES]
    _run(["apt-get", *options, "install", *wanted])
    for package in sorted((state / "cache" / "archives").glob("*.deb")):
        _run(["dpkg-deb", "--extract", str(package), str(root)])
    shutil.rmtree(state)
    (root / "complete").touch()


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    except (OSError, subprocess.TimeoutExpired) as failure:
        raise Missing(str(failure)) from None
    if done.returncode != 0:
        raise Missing(f"{command[0]}: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
