"""Builds the wheels of every architecture, and the sdist.

    scripts/build-wheels [TARGET...] [--out DIRECTORY]

Into dist/: one wheel for each architecture, which serves glibc and musl, as no libc is linked; the
sdist; and SHA256SUMS of both. From one machine, with nothing but hatchling and zig. Two builds of
one commit are alike to the byte.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.build import core
from tools.targets.commit import commit_time
from tools.targets.static import digest, write_sums

TARGETS = tuple(core.PLATFORMS)
OUT = core.ROOT / "dist"
SDIST = "sdist"


def build(targets: Sequence[str], out: Path = OUT) -> list[Path]:
    """One file for each target, of which `sdist` is one. SHA256SUMS is of all that lie in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    built = [_hatch(target, out) for target in targets]
    present = [*out.glob("*.whl"), *out.glob("*.tar.gz")]
    write_sums(out, {path.name: digest(path) for path in present})
    return built


def _hatch(target: str, out: Path) -> Path:
    environment = {
        **os.environ,
        "SOURCE_DATE_EPOCH": str(commit_time()),
        "PYWG_ZIG_TARGET": "" if target == SDIST else target,
    }
    kind = SDIST if target == SDIST else "wheel"
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(out)]
    return _run(command, environment, out)


def _run(command: Sequence[str], environment: Mapping[str, str], out: Path) -> Path:
    done = subprocess.run(
        command,
        cwd=core.ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} gave {done.returncode}:\n{done.stdout}")
    named = re.search(r"\S+\.(?:whl|tar\.gz)", done.stdout)
    if named is None:
        raise SystemExit(f"hatchling names no file: {done.stdout}")
    return out / Path(named[0]).name


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="build-wheels", description="Build the wheels of every architecture, and the sdist."
    )
    parser.add_argument(
        "target", nargs="*", help=f"of {', '.join(TARGETS)}, {SDIST}; all by default"
    )
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    named = [name if name == SDIST else core.arch_of(name) for name in options.target]
    strange = [name for name in named if name not in (*TARGETS, SDIST)]
    if strange:
        raise SystemExit(f"there is no wheel for {strange[0]}, only the static file: build-static")
    for path in build(named or [*TARGETS, SDIST], options.out.resolve()):
        print(f"{digest(path)}  {path.stat().st_size:>8}  {os.path.relpath(path)}", flush=True)


if __name__ == "__main__":
    main()
