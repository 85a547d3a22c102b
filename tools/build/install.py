"""Installs the library for C programs: header, static and shared library, pkg-config file.

    scripts/install_library PREFIX [--destdir DIRECTORY] [--arch ARCH]

`cc program.c $(pkg-config --cflags --libs pywg)` then finds it, with PKG_CONFIG_PATH for a prefix
that pkg-config does not look in. `zig build install --prefix PREFIX` puts the same files there.
The shared library has its ABI version in its name, so that a later one can lie beside it.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from pywg.native.abi import PYWG_ABI_VERSION
from tools.build import core

SONAME = f"{core.LIBRARY}.{PYWG_ABI_VERSION}"
PKG_CONFIG_FILE = Path("lib") / "pkgconfig" / "pywg.pc"


def install(root: Path, arch: str) -> list[Path]:
    """What was put below `root`."""
    built = core.build(
        core.ROOT / ".zig-cache" / "install" / arch,
        arch,
        core.find_zig(),
        products=(core.LIBRARY, core.STATIC_LIBRARY),
        soname=SONAME,
    )
    with tempfile.TemporaryDirectory() as folder:
        description = Path(folder) / PKG_CONFIG_FILE.name
        description.write_text(core.pkg_config("../..", "lib"), encoding="ascii")
        files = {
            Path("include") / core.HEADER.name: (core.HEADER, 0o644),
            Path("lib") / core.STATIC_LIBRARY: (built[core.STATIC_LIBRARY], 0o644),
            Path("lib") / SONAME: (built[core.LIBRARY], 0o755),
            PKG_CONFIG_FILE: (description, 0o644),
        }
        for place, (source, mode) in files.items():
            _put(root / place, source, mode)
    link = root / "lib" / core.LIBRARY
    link.unlink(missing_ok=True)
    link.symlink_to(SONAME)
    return [*(root / place for place in files), link]


def _put(target: Path, source: Path, mode: int) -> None:
    """By rename: a program that runs keeps the file it has mapped."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.new")
    shutil.copyfile(source, fresh)
    fresh.chmod(mode)
    fresh.replace(target)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="install_library",
        description="Install pywg.h, libpywg.a, libpywg.so and pywg.pc for C programs.",
    )
    parser.add_argument("prefix", type=Path, help="such as /usr/local")
    parser.add_argument("--destdir", type=Path, default=Path("/"), help="put it below this folder")
    parser.add_argument("--arch", choices=sorted(core.TARGETS), default=core.find_arch())
    options = parser.parse_args()
    prefix: Path = options.prefix.absolute()
    for path in install(options.destdir / prefix.relative_to("/"), options.arch):
        print(path)


if __name__ == "__main__":
    main()
