"""What the first minute with pywg is like: commands typed, seconds, words that they print.

    scripts/first_minute [JOURNEY...]      all, unless some are named

Then how long the commands take that people and scripts run all day.

Each journey begins with an empty home: no cache of pip, no compiler. Needs root, to become the
ordinary user and to make namespaces, and the network for what pip fetches. What is made is removed.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.bench.interruption import be_interruptible
from tools.lab import ordinary
from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace, sweep
from tools.lab.ordinary import make_place
from tools.lab.programs import REPOSITORY
from tools.lab.seclusion import seclude

PATIENCE_S = 600
INSTALLED = Path(sys.prefix) / "bin"


@dataclass
class Journey:
    """``typed``: each command with the seconds that it took."""

    name: str
    who: str
    typed: list[tuple[str, float]] = field(default_factory=list)
    words: int = 0

    @property
    def seconds(self) -> float:
        return sum(seconds for _, seconds in self.typed)

    def row(self) -> str:
        slowest = max(self.typed, key=lambda item: item[1])
        return (
            f"| {self.name} | {self.who} | {len(self.typed)} | {self.seconds:.0f} | {self.words} "
            f"| `{slowest[0]}`: {slowest[1]:.0f} |"
        )


HEAD = """\
| journey | as | commands | seconds | words printed | the slowest, seconds |
|---|---|---|---|---|---|"""


class Terminal:
    """A home, and who types there."""

    def __init__(self, journey: Journey, home: Path, uid: int) -> None:
        self.journey, self.home, self.uid = journey, home, uid
        os.chown(home, uid, uid)

    def type(self, command: str, namespace: Namespace | None = None) -> str:
        """What it prints. Raises AssertionError for a command that fails."""
        argv = ordinary.words(["bash", "-c", f"cd {self.home} && {command}"], self.uid)
        started = time.monotonic()
        done = _run(argv, namespace, self._environment())
        self.journey.typed.append((command, time.monotonic() - started))
        self.journey.words += len(done.stdout.split())
        assert done.returncode == 0, f"{command}: {done.stdout}"
        return str(done.stdout)

    def _environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "PATH": f"{Path(sys.base_prefix) / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin:{INSTALLED}",
            "LANG": "C.UTF-8",
        }


def _run(
    argv: Sequence[str], namespace: Namespace | None, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    options: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
        "cwd": REPOSITORY,
        "env": environment,
        "timeout": PATIENCE_S,
    }
    if namespace is None:
        return subprocess.run(argv, check=False, **options)
    with namespace.entered():
        return subprocess.run(argv, check=False, **options)


@contextmanager
def at_home(name: str, uid: int) -> Iterator[Terminal]:
    with tempfile.TemporaryDirectory(prefix="pywg-home-") as home:
        yield Terminal(Journey(name, "an ordinary user" if uid else "root"), Path(home), uid)


@contextmanager
def lab_of_its_own() -> Iterator[Lab]:
    with tempfile.TemporaryDirectory(prefix="pywg-minute-") as directory:
        lab = Lab(Path(directory))
        try:
            yield lab
        finally:
            lab.close()


def from_clone(uid: int) -> Journey:
    with at_home("from clone to a measured tunnel", uid) as terminal:
        # In one file: git trusts no repository that belongs to somebody else.
        bundle = ["git", "-C", str(REPOSITORY), "bundle", "create", "--quiet"]
        subprocess.run([*bundle, str(terminal.home / "pywg.git"), "HEAD"], check=True)
        terminal.type("git clone --quiet pywg.git pywg")
        terminal.type("cd pywg && ./scripts/quickstart")
        return terminal.journey


def from_wheel(uid: int) -> Journey:
    """The wheel is made before; somebody else may have done that."""
    with lab_of_its_own() as lab, at_home("from wheel to `pywg exec`", uid) as terminal:
        place = make_place(lab, terminal.home)
        wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
        subprocess.run([*wheel, "-w", terminal.home, REPOSITORY], check=True)
        terminal.type("python3 -m venv tunnel")
        terminal.type("tunnel/bin/pip install --quiet ./pywg_tunnel-*.whl")
        command = f"tunnel/bin/pywg exec work.conf -- ping -c 1 {place.far.inner4}"
        assert "1 received" in terminal.type(command, place.host)
        return terminal.journey


def from_nothing(uid: int) -> Journey:
    """Two hosts, connected. Root at both: an interface of the host takes that."""
    with lab_of_its_own() as lab, at_home("from `pywg init` to two hosts connected", 0) as terminal:
        laptop, server = lab.cabled()
        said = terminal.type("pywg init ./server.conf --endpoint 192.0.2.2 --address6 none", server)
        address = re.search(r"(10\.[\d.]+)/24", said)
        assert address is not None, said
        terminal.type("pywg peer add ./server.conf laptop", server)
        terminal.type("pywg up ./server.conf", server)
        terminal.type("pywg up ./laptop.conf", laptop)
        terminal.type(f"ping -c 1 {address[1]}", laptop)
        return terminal.journey


JOURNEYS: dict[str, Callable[[int], Journey]] = {
    "clone": from_clone,
    "wheel": from_wheel,
    "init": from_nothing,
}


STARTS = (("genkey",), ("show",), ("--version",))


def start_up(words: Sequence[str]) -> float:
    """Seconds: the median of twenty, of which the files are in memory."""
    taken = []
    for _ in range(21):
        began = time.monotonic()
        subprocess.run([INSTALLED / "pywg", *words], check=True, stdout=subprocess.DEVNULL)
        taken.append(time.monotonic() - began)
    return statistics.median(taken[1:])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="first_minute", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("journeys", nargs="*", metavar="JOURNEY", help=f"of {', '.join(JOURNEYS)}")
    options = parser.parse_args()
    chosen = options.journeys or list(JOURNEYS)
    if unknown := set(chosen) - set(JOURNEYS):
        parser.error(f"no journey {', '.join(sorted(unknown))}; there are {', '.join(JOURNEYS)}")
    if os.geteuid() != 0:
        parser.error("needs root")
    be_interruptible()
    seclude()
    sweep()
    print(HEAD, flush=True)
    for name in chosen:
        for uid in (0,) if name == "init" else (ordinary.UID, 0):
            print(JOURNEYS[name](uid).row(), flush=True)
    for words in STARTS:
        print(f"pywg {' '.join(words)}: {start_up(words):.3f} s")


if __name__ == "__main__":
    main()
