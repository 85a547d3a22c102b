"""The time that goes into what is built, in the place of the clock's: two builds are then alike."""

from __future__ import annotations

import os
import subprocess

from tools.build.core import ROOT

# What hatchling takes, too, where nobody says anything: 2 February 2020.
FALLBACK = 1580601600


def commit_time() -> int:
    """SOURCE_DATE_EPOCH, else that of the commit, in Unix seconds; a constant where there is no
    git."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return int(given)
    try:
        told = subprocess.run(
            ["git", "log", "-1", "--format=%ct"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        return int(told.stdout)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return FALLBACK
