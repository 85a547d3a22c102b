"""Whether the tests are green every time: runs those that meet the kernel again and again.

    scripts/green [--zig 20] [--netns 10] [--workers 3] [--load 2] [-- arguments for pytest]

One line a run. The Zig tests are compiled once and their programs run: `zig build test` does not
run again what has passed. Every second time they are in an empty network namespace, where nothing
is set up. `--load` is how many processes that only compute run beside all of it; they end with this
one, however it ends.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ROOT / "zig-out" / "test"

# Looks for its parent, so that it cannot outlive one that was killed.
BUSY = """
import os, sys
while os.getppid() == int(sys.argv[1]):
    for _ in range(1_000_000):
        pass
"""


@contextlib.contextmanager
def load(count: int) -> Iterator[None]:
    command = [sys.executable, "-c", BUSY, str(os.getpid())]
    busy = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def compile_zig_tests() -> list[Path]:
    shutil.rmtree(PROGRAMS, ignore_errors=True)
    zig = [sys.executable, "-m", "ziglang", "build", "test-programs"]
    subprocess.run(zig, cwd=ROOT, check=True)
    return sorted(PROGRAMS.iterdir())


def run_zig(programs: Sequence[Path], log: Path, *, in_an_empty_namespace: bool) -> list[str]:
    """The names of the tests that failed, or of a program that ended in another way."""
    failed = []
    place = ["unshare", "--net"] if in_an_empty_namespace else []
    for program in programs:
        code, said = _run([*place, str(program)], log)
        if code != 0:
            names = re.findall(r"^\d+/\d+ (.+?)\.\.\.FAIL", said, re.MULTILINE)
            failed += names or [f"{program.name} ended with {code}"]
    return failed


def run_netns(arguments: Sequence[str], workers: int, log: Path) -> list[str]:
    """The names of the tests that failed. As scripts/test runs them: so many at once."""
    tests = [] if any(not word.startswith("-") for word in arguments) else ["tests/netns"]
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rfE"]
    pytest += ["-n", str(workers), "--dist", "loadfile"]
    code, said = _run([*pytest, *tests, *arguments], log)
    if code == 0:
        return []
    return re.findall(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE) or [f"pytest gave {code}"]


def _run(command: Sequence[str], log: Path) -> tuple[int, str]:
    done = subprocess.run(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    with log.open("a") as file:
        file.write(done.stdout)
    return done.returncode, done.stdout


class Tally:
    """One line a run, and what failed; the logs of runs that failed stay."""

    def __init__(self) -> None:
        self.logs = Path(tempfile.mkdtemp(prefix="pywg-green-"))
        self.red = 0

    def run(self, what: str, once: Callable[[Path], list[str]]) -> None:
        log = self.logs / f"{re.sub(r'[^a-z0-9]+', '-', what)}.log"
        began = time.monotonic()
        failed = once(log)
        seconds = time.monotonic() - began
        verdict = f"{len(failed)} failed, see {log}" if failed else "green"
        print(f"{what}: {verdict} ({seconds:.0f} s)", *failed, sep="\n  ", flush=True)
        if failed:
            self.red += 1
        else:
            log.unlink(missing_ok=True)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what failed is in there
            self.logs.rmdir()


def main() -> int:
    parser = argparse.ArgumentParser(prog="green", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--zig", type=int, default=20, metavar="N", help="runs of the Zig tests")
    parser.add_argument("--netns", type=int, default=10, metavar="N", help="runs of tests/netns")
    parser.add_argument("--workers", type=int, default=3, metavar="K", help="tests at once")
    parser.add_argument("--load", type=int, default=0, metavar="K", help="busy loops beside them")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    programs = compile_zig_tests() if options.zig else []
    tally = Tally()
    with contextlib.closing(tally), load(options.load):
        for number in range(options.zig):
            is_empty = number % 2 == 1 and os.geteuid() == 0
            what = f"zig {number + 1}/{options.zig}" + ", empty namespace" * is_empty
            tally.run(what, partial(run_zig, programs, in_an_empty_namespace=is_empty))
        for number in range(options.netns):
            what = f"netns {number + 1}/{options.netns}"
            tally.run(what, partial(run_netns, options.pytest, options.workers))
    print(f"{tally.red} of {options.zig + options.netns} runs failed")
    return 1 if tally.red else 0


if __name__ == "__main__":
    sys.exit(main())
