"""What a program gets through `pywg proxy`, beside wireproxy and slirp4netns.

    scripts/bench_proxy [--rounds N] [--seconds S]

In each round, in turns, one TCP stream up and one down:

    pywg proxy   by SOCKS5, of an ordinary user
    pywg exec    without a proxy, of an ordinary user
    wireproxy    by SOCKS5, of an ordinary user; built by Go from tools/bench/wireproxy
    slirp4netns  at an MTU of 1420, out of a namespace of its own into root's `pywg up`, with
                 ordinary threads as all others have

The far end is one daemon throughout. Who is not on this machine is left out, and it is said why.
Needs root, for the namespaces. CPU is seconds of all cores for each second of the stream, the two
ends of the stream and the far daemon included.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tools.bench.interruption import be_interruptible
from tools.lab import ordinary, programs
from tools.lab.lab import Lab
from tools.lab.namespaces import sweep
from tools.lab.ordinary import Place, make_place
from tools.lab.seclusion import seclude
from tools.lab.waiting import wait_until

WAYS = ("up", "down")
BASE = "pywg proxy"
PORT, SOCKS_PORT = 51900, 51901
SOURCE = programs.REPOSITORY / "tools" / "bench" / "wireproxy"
STREAM = [sys.executable, "-m", "tools.bench.stream"]
# Runs a program beside the contestant, and answers what it printed.
Run = Callable[[Sequence[str]], str]
Contestant = Callable[[Place], AbstractContextManager[tuple[Run, list[str]]]]


class LeftOut(Exception):
    """A contestant is not to be had here; the text says why."""


@dataclass(frozen=True)
class Result:
    gbit: float
    cores: float


# ---- the contestants: who runs, how a program runs beside it, and words for the stream


@contextlib.contextmanager
def pywg_proxy(place: Place) -> Iterator[tuple[Run, list[str]]]:
    words = ordinary.pywg("proxy", str(place.file), "--wait", "30", "--socks5", str(SOCKS_PORT))
    with until_it_listens(place, words):
        yield beside(place), [str(SOCKS_PORT)]


@contextlib.contextmanager
def pywg_exec(place: Place) -> Iterator[tuple[Run, list[str]]]:
    words = [*ordinary.pywg("exec", "--wait", "30", str(place.file)), "--"]
    yield lambda argv: str(place.run([*words, *argv], seconds=120).stdout), []


@contextlib.contextmanager
def wireproxy(place: Place) -> Iterator[tuple[Run, list[str]]]:
    program = build_wireproxy(place.folder)
    file = place.folder / "wireproxy.conf"
    # It knows neither prefixes of addresses nor two of them on all versions.
    text = place.file.read_text().replace("10.99.0.1/24, fd99::1/64", "10.99.0.1/32")
    file.write_text(f"{text}\n[Socks5]\nBindAddress = 127.0.0.1:{SOCKS_PORT}\n")
    file.chmod(0o644)
    with until_it_listens(place, [str(program), str(file)]):
        yield beside(place), [str(SOCKS_PORT)]


@contextlib.contextmanager
def slirp4netns(place: Place) -> Iterator[tuple[Run, list[str]]]:
    if shutil.which("slirp4netns") is None:
        raise LeftOut("apt-get install slirp4netns")
    up = programs.pywg(place.host, "up", "--priority", "normal", str(place.file))
    if up.returncode != 0:
        raise LeftOut(up.stderr)
    with contextlib.ExitStack() as stack:
        stack.callback(programs.pywg, place.host, "down", str(place.file))
        inner = stack.enter_context(ended(place.host.popen(["unshare", "-n", "sleep", "inf"])))
        home = Path(f"/proc/{os.getpid()}/ns/net").readlink()
        space = Path(f"/proc/{inner.pid}/ns/net")
        outer = Path(f"/run/netns/{place.host.name}").stat().st_ino
        wait_until(lambda: space.stat().st_ino != outer and space.readlink() != home, "unshared")
        words = ["slirp4netns", "--configure", "--mtu=1420", str(inner.pid), "tap0"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        stack.enter_context(ended(place.host.popen(words, **quiet)))
        enter = ["nsenter", "-t", str(inner.pid), "-n", "--"]
        wait_until(
            lambda: "default" in place.host.run(*enter, "ip", "route"), "slirp4netns is ready"
        )
        yield lambda argv: place.host.run(*enter, *argv, timeout=120), []


CONTESTANTS: dict[str, Contestant] = {
    BASE: pywg_proxy,
    "pywg exec": pywg_exec,
    "wireproxy": wireproxy,
    "slirp4netns": slirp4netns,
}


def beside(place: Place) -> Run:
    return lambda argv: place.host.run(*argv, timeout=120)


@contextlib.contextmanager
def until_it_listens(place: Place, words: Sequence[str]) -> Iterator[None]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with ended(ordinary.start(place.host, words, **quiet)) as process:
        wait_until(
            lambda: (
                process.poll() is not None
                or f":{SOCKS_PORT} " in place.host.run("ss", "-Hltn", f"sport = {SOCKS_PORT}")
            ),
            "the proxy listens",
        )
        assert process.poll() is None, f"{words[0]} ended"
        yield


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    with process:
        try:
            yield process
        finally:
            process.terminate()


def build_wireproxy(folder: Path) -> Path:
    program = folder / "wireproxy"
    if program.exists():
        return program
    if shutil.which("go") is None:
        raise LeftOut("there is no Go to build it with")
    command = ["go", "build", "-o", str(program), "."]
    built = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        raise LeftOut(built.stderr.strip().splitlines()[-1])
    return program


# ---- measuring


def rounds(
    place: Place, count: int, seconds: float
) -> tuple[dict[tuple[str, str], list[Result]], dict[str, str]]:
    """What was measured, and who was left out and why."""
    found: dict[tuple[str, str], list[Result]] = {}
    left_out: dict[str, str] = {}
    names = list(CONTESTANTS)
    for number in range(count):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            if name in left_out:
                continue
            try:
                with CONTESTANTS[name](place) as (run, words):
                    for way in WAYS:
                        found.setdefault((name, way), []).append(
                            measure(place, run, way, seconds, words)
                        )
            except LeftOut as reason:
                left_out[name] = str(reason)
    return found, left_out


def measure(place: Place, run: Run, way: str, seconds: float, words: list[str]) -> Result:
    before = busy()
    said = run([*STREAM, way, str(seconds), place.far.inner4, str(PORT), *words])
    return Result(float(said), (busy() - before) / seconds)


def busy() -> float:
    """Seconds in which a core of this machine was not idle, so far."""
    first = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    user, nice, system, _, _, irq, softirq, _ = map(int, first)
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def report(found: dict[tuple[str, str], list[Result]], left_out: dict[str, str]) -> str:
    head = "Gbit/s (times in pywg proxy's), cores"
    lines = [f"{head:40} {'up':>24} {'down':>24}"]
    for name in CONTESTANTS:
        if name in left_out:
            lines.append(f"{name:40} left out: {left_out[name]}")
            continue
        cells = []
        for way in WAYS:
            own, base = found[name, way], found[BASE, way]
            ratio = statistics.median(b.gbit / a.gbit for a, b in zip(own, base, strict=True))
            gbit = statistics.median(each.gbit for each in own)
            cores = statistics.median(each.cores for each in own)
            cells.append(f"{gbit:6.2f} ({ratio:5.2f} x), {cores:.1f}")
        lines.append(f"{name:40} {cells[0]:>24} {cells[1]:>24}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench_proxy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root: it makes network namespaces and TUN interfaces")
    be_interruptible()
    sweep()
    seclude()
    with tempfile.TemporaryDirectory(prefix="pywg-proxy-") as directory:
        lab = Lab(Path(directory))
        try:
            with ordinary.folder() as folder:
                place = make_place(lab, folder, allowed="10.99.0.0/24", dns=False)
                with ended(served(place)):
                    found, left_out = rounds(place, options.rounds, options.seconds)
        finally:
            lab.close()
    print(report(found, left_out))
    return 0


def served(place: Place) -> subprocess.Popen[str]:
    """The far end of the streams."""
    words = [*STREAM, "serve", place.far.inner4, str(PORT)]
    server = place.far.namespace.popen(words, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "listens\n"
    return server


if __name__ == "__main__":
    sys.exit(main())
