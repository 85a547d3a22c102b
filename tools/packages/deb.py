"""Builds the Debian packages pywg and pywgd into dist/deb.

    scripts/build-deb [--arch ARCH]... [--out FOLDER]

Needs debhelper and dh-python. `deploy/debian` is an ordinary debian/ folder; here it is laid beside
a copy of the sources, so that nothing is written into the tree, and is given the core that was
built before. The core of another machine needs no cross compiler: Zig is one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools.build import core
from tools.lab.programs import Missing

RECIPE = core.ROOT / "deploy" / "debian"
SOURCES = ("core", "docs", "pywg", "tools")
FILES = ("CHANGELOG.md", "LICENSE", "README.md", "SECURITY.md", "build.zig", "build.zig.zon")
#: Debian's name of a machine -> ours.
ARCHITECTURES = {
    "amd64": "x86_64",
    "arm64": "aarch64",
    "armhf": "armv7l",
    "i386": "i686",
    "ppc64el": "ppc64le",
    "riscv64": "riscv64",
    "s390x": "s390x",
}
PROGRAMS = {"dpkg-buildpackage": "dpkg-dev", "dh": "debhelper", "dh_python3": "dh-python"}


def build(arch: str, out: Path) -> list[Path]:
    """The packages for this machine of Debian's names. Raises Missing without Debian's tools."""
    if missing := sorted({PROGRAMS[name] for name in PROGRAMS if shutil.which(name) is None}):
        raise Missing(f"apt-get install {' '.join(missing)}")
    prebuilt = os.environ.get("PYWG_PREBUILT") or _core(ARCHITECTURES[arch])
    with tempfile.TemporaryDirectory(prefix="pywg-deb-") as scratch:
        _lay_out(Path(scratch) / "pywg")
        _run_debhelper(Path(scratch) / "pywg", arch, Path(prebuilt).resolve())
        out.mkdir(parents=True, exist_ok=True)
        made = sorted(Path(scratch).glob("*.deb"))
        return [Path(shutil.copy(path, out)) for path in made]


def _core(arch: str) -> Path:
    """Where libpywg.so and pywgd lie, built if something has changed."""
    folder = core.ROOT / ".zig-cache" / "deb" / arch
    core.build(folder, arch, core.find_zig(), products=(core.LIBRARY, core.DAEMON))
    return folder


def _lay_out(tree: Path) -> None:
    without = shutil.ignore_patterns("__pycache__", "_native", "*.o", "*.so")
    for name in SOURCES:
        shutil.copytree(core.ROOT / name, tree / name, ignore=without)
    for name in FILES:
        shutil.copy(core.ROOT / name, tree / name)
    shutil.copytree(RECIPE, tree / "debian")


def _run_debhelper(tree: Path, arch: str, prebuilt: Path) -> None:
    # -d: what is built for another machine needs nothing of it.
    command = ("dpkg-buildpackage", "-b", "-us", "-uc", f"-a{arch}", "-d")
    done = subprocess.run(
        command,
        cwd=tree,
        env={**os.environ, "PYTHON": sys.executable, "PYWG_PREBUILT": str(prebuilt)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout}\nbuild-deb: {' '.join(command)} failed")


def this_machine() -> str:
    """Debian's name of it."""
    names = {ours: debian for debian, ours in ARCHITECTURES.items()}
    return names[core.find_arch()]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="build-deb", description="Build the Debian packages pywg and pywgd."
    )
    known = sorted(debian for debian, ours in ARCHITECTURES.items() if ours in core.TARGETS)
    parser.add_argument("--arch", choices=known, action="append", help="Debian's name of a machine")
    parser.add_argument("--out", type=Path, default=core.ROOT / "dist" / "deb", metavar="FOLDER")
    options = parser.parse_args(argv)
    for arch in options.arch or [this_machine()]:
        try:
            for path in build(arch, options.out):
                print(path)
        except Missing as missing:
            raise SystemExit(f"build-deb: {missing}") from None


if __name__ == "__main__":
    main()
