"""Which shell is started, and how its prompt says where it is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

FALLBACK = "/bin/sh"
VARIABLE = "PYWG_TUNNEL"


def command(name: str) -> Sequence[str]:
    """The user's shell. Others than bash take the prompt from the environment, if their own files
    set none; all find the tunnel's name there."""
    shell = os.environ.get("SHELL") or FALLBACK
    os.environ[VARIABLE] = name
    if Path(shell).name != "bash":
        os.environ["PS1"] = f"({name}) $ "
        return [shell, "-i"]
    file = os.memfd_create("pywg-prompt", 0)
    os.write(file, bash_prompt(name, file).encode())
    return [shell, "--rcfile", f"/dev/fd/{file}", "-i"]


def bash_prompt(name: str, descriptor: int) -> str:
    """For --rcfile, which takes the place of the user's own: read first. Bash has read it all when
    it begins to do it, so it may close it."""
    return (
        "[ -r /etc/bash.bashrc ] && . /etc/bash.bashrc\n"
        "[ -r ~/.bashrc ] && . ~/.bashrc\n"
        f'PS1="({name}) $PS1"\n'
        f"exec {descriptor}<&-\n"
    )
