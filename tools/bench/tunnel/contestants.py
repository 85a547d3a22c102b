"""Who takes part: how each is found, how it is started, which version it is.

The null-cipher build is a contestant like the others but no VPN: it shows what the project's own
data path would carry if cryptography cost nothing. It is never looked for where things are
installed: it is named with --ceiling, or built by tools/build/checks.py.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

from tools.bench.tunnel.figures import BASE, CEILING
from tools.build import checks
from tools.lab import programs
from tools.lab.namespaces import Namespace
from tools.lab.programs import REPOSITORY, Missing, Program

SUBJECT, KERNEL, BARE = "pywgd", "kernel WireGuard", "veth alone"
FINDERS: dict[str, Callable[[], Program]] = {
    BASE: programs.wireguard_go_current,
    "wireguard-go-debian": programs.wireguard_go_debian,
    "tailscale": programs.tailscale,
    "boringtun": programs.boringtun,
    "gotatun": programs.gotatun,
}
SHORT = {"debian": "wireguard-go-debian", "kernel": KERNEL, "bare": BARE, "ceiling": CEILING}


@dataclass(frozen=True)
class Contestant:
    """`program` is None for those that live in the kernel."""

    label: str
    program: Program | None
    note: str = ""

    @property
    def has_tunnel(self) -> bool:
        return self.label != BARE


def choose(
    wanted: list[str], subjects: list[str], ceiling: str | None
) -> tuple[list[Contestant], list[str]]:
    """The contestants there are, and why others are not."""
    chosen = [_subject(given) for given in subjects] or [Contestant(SUBJECT, programs.subject())]
    absent: list[str] = []
    for name in wanted:
        label = SHORT.get(name, name)
        try:
            found = _find(label, ceiling)
        except Missing as missing:
            absent.append(f"{label}: {missing}")
        else:
            chosen += [found] if found.label not in {one.label for one in chosen} else []
    return chosen, absent


def _subject(given: str) -> Contestant:
    """LABEL=PATH."""
    label, _, path = given.partition("=")
    if not path or shutil.which(path) is None:
        raise Missing(f"--subject {given}: not LABEL=PATH of a program")
    label = label.upper() if label == BASE else label  # a stand-in may not pose as the base
    return Contestant(label, Program(label, path))


def _find(label: str, ceiling: str | None) -> Contestant:
    if label == SUBJECT:
        return Contestant(SUBJECT, programs.subject())
    if label == KERNEL:
        return _kernel()
    if label == BARE:
        return Contestant(BARE, None, "no tunnel: what this machine and these tools can carry")
    if label == CEILING:
        return _ceiling(ceiling)
    return Contestant(label, FINDERS[label]())


def _kernel() -> Contestant:
    space = Namespace("k")
    try:
        answer = space.attempt("ip", "link", "add", "wg0", "type", "wireguard")
    finally:
        space.close()
    if answer.returncode != 0:
        raise Missing(f"not in this kernel ({answer.stderr.strip().removeprefix('Error: ')})")
    return Contestant(KERNEL, None, "its work is done in the kernel: CPU and memory are not seen")


def _ceiling(given: str | None) -> Contestant:
    if given is not None and shutil.which(given) is None:
        raise Missing(f"--ceiling {given} is no program")
    note = "no VPN: nothing is encrypted; the most this data path could carry"
    return Contestant(CEILING, Program(CEILING, given or built_ceiling()), note)


def built_ceiling() -> str:
    """Into the cache, beside the peers."""
    folder = programs.CACHE.parent / "ceiling"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return str(checks.build_ceiling(folder))
    except (SystemExit, checks.Failed) as failed:  # the former: there is no zig
        raise Missing(f"cannot be built: {failed}") from None


def install() -> None:
    """scripts/peers says what it does; what it cannot install is left out of the run."""
    subprocess.run([REPOSITORY / "scripts" / "peers"], stdout=sys.stderr, check=False)


def version(contestant: Contestant) -> str:
    if contestant.program is None:
        return "part of the kernel" if contestant.has_tunnel else "no program"
    path = contestant.program.path
    said = first_line(path, "--version")
    module = _go_module(path)
    return f"{said}{f', module {module}' if module else ''} ({path})"


def _go_module(path: str) -> str:
    """wireguard-go reports a version that is updated by hand; the module's is exact."""
    if shutil.which("go") is None:
        return ""
    answer = subprocess.run(
        ["go", "version", "-m", path], capture_output=True, text=True, check=False, timeout=10
    )
    for line in answer.stdout.splitlines():
        words = line.split()
        if words[:1] == ["mod"] and len(words) > 2:
            return words[2]
    return ""


def first_line(*argv: str) -> str:
    try:
        answer = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    lines = (answer.stdout or answer.stderr).strip().splitlines()
    return lines[0] if lines else "unknown"


def relabel(contestant: Contestant) -> Program | None:
    """The program under the name of the contestant, for messages."""
    if contestant.program is None:
        return None
    return replace(contestant.program, label=contestant.label)
