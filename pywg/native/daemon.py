"""The command `pywgd` of an installed package: becomes the native daemon.

Knows only where the binary is; without one `pywg run` does the same job.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def candidates() -> list[Path]:
    package = Path(__file__).resolve().parents[1]
    return [package / "_native" / "pywgd", package.parent / "zig-out" / "bin" / "pywgd"]


def main() -> None:
    for path in candidates():
        if os.access(path, os.X_OK):
            os.execv(path, [str(path), *sys.argv[1:]])  # noqa: S606
    os.execv(sys.executable, [sys.executable, "-m", "pywg", "run", *sys.argv[1:]])  # noqa: S606
