"""Builds every target and runs each here: by qemu-user, or as it is.

    scripts/try-targets [TARGET...] [--quick] [--rooms ROOMS] [--twice]

For each target: the static pywgd and a native one shake hands through TUN interfaces in namespaces
of their own, and 2 MiB go through and come out as they went in, over IPv6 in IPv4; the wheel is
loaded by Debian's Python for that machine and does the same over a UDP socket; the Zig tests run.
Prints a table. `--quick`: without the Zig tests; `--rooms`: only those of these. `--twice`: builds
the static files and wheels of the last commit again, from another folder without any cache, and
compares. Needs root.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.build import core
from tools.lab.daemon import Daemon
from tools.lab.lab import Lab, Tunnel, handshake_seconds
from tools.lab.namespaces import Namespace, sweep
from tools.lab.programs import Program, subject
from tools.lab.seclusion import seclude
from tools.lab.traffic import exchange
from tools.targets import library, machine, static, wheels, zigtests

MEBIBYTE = 1 << 20
COLUMNS = ("target", "wheel", "static, KiB", "Zig tests", "handshake", "transfer", "RSS, MiB")


@dataclass
class Row:
    """What came out for one target. `said`: why something is not there, or failed."""

    target: str
    wheel: str = "-"
    size: str = "-"
    tests: str = "-"
    handshake: str = "-"
    transfer: str = "-"
    rss: str = "-"
    said: list[str] = field(default_factory=list)
    failed: bool = False

    def cells(self) -> list[str]:
        given = (self.wheel, self.size, self.tests, self.handshake, self.transfer, self.rss)
        return [self.target, *given]


def daemon_of(arch: str, path: Path) -> Program:
    """pywgd of another machine, as the lab starts daemons. machine.Missing: no emulator."""
    words = [*machine.emulator(arch), str(path), "-f"]
    return Program("pywgd", words[0], tuple(words[1:]))


def connect(lab: Lab, arch: str, path: Path) -> Tunnel:
    """Side a is of the other machine, b is pywgd of this one. Shakes hands from either side."""
    a, b = lab.cabled()
    far = lab.side(daemon_of(arch, path), 1, a, environment=machine.surroundings(arch))
    near = lab.side(subject(), 2, b)
    tunnel = Tunnel(far, near, None, 4)
    for here, there in ((far, near), (near, far)):
        here.daemon.setconf(here.interface_section() + there.peer_section(outer=4))
        here.daemon.up(f"{here.inner4}/24", f"{here.inner6}/64")
    tunnel.ping()
    tunnel.ping(sender="b")
    assert handshake_seconds(far, near) > 0
    assert handshake_seconds(near, far) > 0
    return tunnel


def transfer(tunnel: Tunnel) -> None:
    """A MiB each way in one TCP connection; what comes out is what went in."""
    a, b = tunnel.a.namespace, tunnel.b.namespace
    exchange(a, b, tunnel.b.inner6, MEBIBYTE, MEBIBYTE)


def resident_mib(daemon: Daemon) -> float:
    """Of the whole process, which under qemu is the emulator's, too."""
    status = Path(f"/proc/{daemon.pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found, status
    return int(found[1]) / 1024


# ---- one target ----------------------------------------------------------------------------------


def attempt(row: Row, what: str, step: Callable[[], None]) -> None:
    """A step that cannot be had here is told; one that fails ends nothing else."""
    try:
        step()
    except machine.Missing as missing:
        row.said.append(f"{row.target}: {what}: {missing}")
    except (
        AssertionError,
        OSError,
        subprocess.SubprocessError,
        SystemExit,
        RuntimeError,
    ) as failed:
        row.failed = True
        row.said.append(f"{row.target}: {what} failed: {failed}")


def try_target(arch: str, folder: Path, rooms: Sequence[str]) -> Row:
    row = Row(arch)
    path = static.build([arch])[0]
    row.size = f"{path.stat().st_size / 1024:.0f}"
    attempt(row, "tunnel", lambda: _tunnel(row, arch, path, folder))
    if arch in wheels.TARGETS:
        attempt(row, "wheel", lambda: _wheel(row, arch, folder))
    if rooms:
        attempt(row, "Zig tests", lambda: _zig_tests(row, arch, folder, rooms))
    return row


def _tunnel(row: Row, arch: str, path: Path, folder: Path) -> None:
    lab = Lab(folder)
    try:
        row.handshake = row.transfer = "FAILS"
        tunnel = connect(lab, arch, path)
        row.handshake = "yes"
        emulated = " in qemu" if machine.emulator(arch) else ""
        row.rss = f"{resident_mib(tunnel.a.daemon):.1f}{emulated}"
        transfer(tunnel)
        row.transfer = "2 MiB"
    finally:
        lab.close()


def _wheel(row: Row, arch: str, folder: Path) -> None:
    wheel = wheels.build([arch])[0]
    row.wheel = "built"
    namespace = Namespace("wheel")
    try:
        said = library.load(wheel, arch, namespace, folder)
    except AssertionError:
        row.wheel = "FAILS"
        raise
    finally:
        namespace.close()
    row.wheel = f"loaded, {library.PINGS} echoes ({said})"


def _zig_tests(row: Row, arch: str, folder: Path, rooms: Sequence[str]) -> None:
    place = folder / f"{arch}-tests"
    place.mkdir()
    tally = zigtests.run(arch, rooms, place)
    row.tests = str(tally)
    assert not tally.failed, "; ".join(tally.failed)


# ---- all of them ---------------------------------------------------------------------------------


def table(rows: list[Row]) -> str:
    lines = [COLUMNS, ["---"] * len(COLUMNS), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def build_again(targets: list[str], folder: Path) -> dict[str, str]:
    """Static files and wheels of the last commit, from a clone, with caches of its own: sums by
    name."""
    clone = folder / "clone"
    run = subprocess.check_call
    run(["git", "clone", "--quiet", "--shared", str(core.ROOT), str(clone)])
    environment = {
        **os.environ,
        "ZIG_GLOBAL_CACHE_DIR": str(folder / "global"),
        "ZIG_LOCAL_CACHE_DIR": str(folder / "local"),
        "PYTHONPATH": str(clone),
    }
    with_wheels = [target for target in targets if target in wheels.TARGETS]
    for module, wanted in (("static", targets), ("wheels", [*with_wheels, wheels.SDIST])):
        command = [sys.executable, "-P", "-m", f"tools.targets.{module}", *wanted]
        run(command, cwd=clone, env=environment, stdout=subprocess.DEVNULL)
    return sums(clone / "dist")


def sums(folder: Path) -> dict[str, str]:
    lines = [
        line.split() for path in folder.rglob(static.SUMS) for line in path.read_text().splitlines()
    ]
    return {name: value for value, name in lines}


def compare(targets: list[str], folder: Path) -> bool:
    """Prints each file with both sums."""
    static.build(targets)
    wheels.build([*(target for target in targets if target in wheels.TARGETS), wheels.SDIST])
    first, second = sums(core.ROOT / "dist"), build_again(targets, folder)
    print("\n| file | first build | second build |\n| --- | --- | --- |")
    for name, value in second.items():
        print(f"| {name} | `{first.get(name, 'none')[:16]}` | `{value[:16]}` |")
    return all(first.get(name) == value for name, value in second.items())


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="try-targets", description="Build every target, and run each here."
    )
    parser.add_argument("target", nargs="*", help=f"of {', '.join(core.TARGETS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="without the Zig tests")
    parser.add_argument(
        "--rooms", default=",".join(zigtests.ROOMS), help="whose Zig tests: %(default)s"
    )
    parser.add_argument("--twice", action="store_true", help="build twice and compare")
    options = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("needs root: makes network namespaces and TUN interfaces")
    targets = [core.arch_of(name) for name in options.target] or list(core.TARGETS)
    rooms = [] if options.quick else options.rooms.split(",")
    seclude()
    sweep()
    with tempfile.TemporaryDirectory(prefix="pywg-targets-") as name:
        rows = []
        for arch in targets:
            rows.append(try_target(arch, Path(name), rooms))
            print("\n".join([" ".join(rows[-1].cells()), *rows[-1].said]), file=sys.stderr)
        print(table(rows))
        alike = not options.twice or compare(targets, Path(name))
    if any(row.failed for row in rows) or not alike:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
