"""Builds pywgd as one static file for each architecture, with sums and a list of what is in it.

    scripts/build-static [TARGET...] [--out DIRECTORY]

Into dist/static: `pywgd-VERSION-linux-TARGET`, without symbols, and for all that lie there
SHA256SUMS and `pywgd-VERSION.cdx.json`. From one machine, with nothing but zig. Two builds of one
commit are alike to the byte.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tools.build import core
from tools.targets import sbom
from tools.targets.commit import commit_time

TARGETS = tuple(core.TARGETS)
OUT = core.ROOT / "dist" / "static"
SUMS = "SHA256SUMS"


def file_name(target: str) -> str:
    return f"pywgd-{core.version()}-linux-{target}"


def build(targets: Sequence[str], out: Path = OUT) -> list[Path]:
    """The files of these targets; sums and SBOM are then of all files in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    built = [_build_one(target, out) for target in targets]
    present = sorted(out.glob(file_name("*")))
    sums = {path.name: digest(path) for path in present}
    write_sums(out, sums)
    text = sbom.describe(core.version(), sbom.zig_version(core.find_zig()), sums, commit_time())
    (out / f"pywgd-{core.version()}.cdx.json").write_text(text, encoding="ascii")
    return built


def _build_one(target: str, out: Path) -> Path:
    place = core.ROOT / ".zig-cache" / "static" / target
    products = core.build(place, target, core.find_zig(), products=(core.DAEMON,), small=True)
    path = out / file_name(target)
    fresh = out / f".{path.name}.new"
    shutil.copyfile(products[core.DAEMON], fresh)
    fresh.chmod(0o755)
    fresh.replace(path)
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_sums(folder: Path, sums: dict[str, str]) -> None:
    """As `sha256sum --check` reads them."""
    lines = [f"{value}  {name}\n" for name, value in sorted(sums.items())]
    (folder / SUMS).write_text("".join(lines), encoding="ascii")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="build-static", description="Build pywgd as one static file for each architecture."
    )
    parser.add_argument("target", nargs="*", help=f"of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    targets = [core.arch_of(name) for name in options.target] or list(TARGETS)
    for path in build(targets, options.out.resolve()):
        shown = os.path.relpath(path)
        print(f"{digest(path)}  {path.stat().st_size:>8}  {shown}", flush=True)


if __name__ == "__main__":
    main()
