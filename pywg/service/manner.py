"""How the process that hosts a tunnel was started, so that another version can go on with it.

It goes into the record of the tunnel as JSON, which another version reads: what a version does not
know it passes by, and what it misses has a default. Pure, but for ``build`` and ``resuming``, which
look at this installation. Invariant: no secrets.
"""

from __future__ import annotations

import hashlib
import json
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from pywg.native import library
from pywg.service.supervisor import Hosting

_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Manner:
    """``hosting`` without names, which are in the record and change there."""

    hosting: Hosting
    heals: bool = True
    hears: bool = False  # a process runs hooks for peers
    files: tuple[str, ...] = ()  # that whoever heals watches besides
    foreground: bool = False  # `pywg up --foreground` stays beside it
    metrics: str = ""  # where they are served
    build: str = ""  # see ``build``
    resume: tuple[str, ...] = ()  # what stays in the foreground executes when this one has begun

    def to_values(self) -> dict[str, Any]:
        """What JSON can say."""
        return {
            "hosting": json.loads(replace(self.hosting, names=(), take_over=False).to_json()),
            "heals": self.heals,
            "hears": self.hears,
            "files": list(self.files),
            "foreground": self.foreground,
            "metrics": self.metrics,
            "build": self.build,
            "resume": list(self.resume),
        }

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError for what is none."""
        return cls(
            Hosting.from_values(values["hosting"]),
            bool(values.get("heals", True)),
            bool(values.get("hears", False)),
            tuple(map(str, values.get("files", ()))),
            bool(values.get("foreground", False)),
            str(values.get("metrics", "")),
            str(values.get("build", "")),
            tuple(map(str, values.get("resume", ()))),
        )


def build() -> str:
    """The version that is installed, and what tells its core from others of the same version."""
    version = str(library.load().pywg_version(), "ascii")
    digest = hashlib.sha256(library.find().read_bytes()).hexdigest()
    return f"{version} ({digest[:12]})"


def resuming(name: str) -> tuple[str, ...]:
    """The command that stays beside a tunnel which this version hosts."""
    # -P: no module may come from the folder that somebody stands in.
    words = (sys.executable, "-P", "-m", "pywg", "upgrade", "--resume", name)
    here = _PACKAGE.parent
    if here in {Path(sysconfig.get_path(place)).resolve() for place in ("purelib", "platlib")}:
        return words
    return ("/usr/bin/env", f"PYTHONPATH={here}", *words)  # a checkout
