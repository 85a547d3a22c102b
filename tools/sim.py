"""Runs the real protocol on many hosts in virtual time, in a world where everything goes wrong.

    scripts/sim [--seed N] [--hours H] [--peers N] [--silent N] [--runs N]
                                                                 runs with seeds N, N + 1, ...
    scripts/sim --mutations [--runs N]                           every deliberate bug must be caught
    scripts/sim --mutation NAME [--seed N] ...                   one of them

A broken promise ends the run with one sentence, the virtual time and the command that repeats it to
the byte. What is promised and what goes wrong: core/check/sim/; the deliberate bugs:
tools/build/mutations.py.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.build import checks, core, mutations

# Within so many seeds of so many virtual seconds each every mutation is to be caught.
MUTATION_RUNS = 40
MUTATION_SECONDS = 3600


def build(*, mutated: bool) -> Path:
    """Compiled anew only when a source has changed."""
    directory = core.ROOT / ".zig-cache" / "sim" / ("mutated" if mutated else "whole")
    directory.mkdir(parents=True, exist_ok=True)
    program, stamp = directory / "sim", directory / "sources"
    with open(directory / ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sources = fingerprint()
        if program.exists() and stamp.exists() and stamp.read_text("ascii") == sources:
            return program
        stamp.unlink(missing_ok=True)
        try:
            checks.build_simulation(directory, mutated=mutated)
        except checks.Failed as failed:
            raise SystemExit(str(failed)) from None
        stamp.write_text(sources, "ascii")
    return program


def fingerprint() -> str:
    """Of all that the program is made from."""
    paths = [*core.ROOT.glob("core/**/*.zig"), *core.ROOT.glob("tools/build/*.py")]
    digest = hashlib.sha256(" ".join(core.find_zig()).encode())
    for path in sorted(paths):
        digest.update(str(path).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def simulate(options: argparse.Namespace) -> int:
    words = ["--hours", str(options.hours)]
    if options.peers is not None:
        words += ["--peers", str(options.peers)]
    if options.silent:
        words += ["--silent", str(options.silent)]
    if options.mutation is not None:
        words += ["--mutation", options.mutation]
    command = [str(build(mutated=options.mutation is not None)), *words]
    command += ["--seed", str(options.seed), "--runs", str(options.runs)]
    if options.told_from is not None:
        command += ["--from", str(options.told_from)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        for line in running.stdout or ():
            replay = re.match(r"replay: (.*)", line)
            own = shlex.join(["scripts/sim", *words])
            print(f"replay: {own} {replay[1]}" if replay else line.rstrip(), flush=True)
    if running.returncode == 4:
        print(f"no such mutation; there are: {', '.join(m.name for m in mutations.MUTATIONS)}")
    if running.returncode < 0:
        print(f"ended by signal {-running.returncode}")
    return running.returncode


def catch_all(runs: int) -> int:
    """Every mutation, and none, which must not be caught."""
    program = build(mutated=True)
    print("none:", catch(program, "none", 3).splitlines()[-1])
    missed = []
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        names = [mutation.name for mutation in mutations.MUTATIONS]
        words = [mutation.words for mutation in mutations.MUTATIONS]
        told = list(pool.map(lambda name, own: catch(program, name, runs, *own), names, words))
    for mutation, text in zip(mutations.MUTATIONS, told, strict=True):
        said = text.splitlines()
        verdict = next((line for line in said if line.startswith("violation: ")), None)
        seeds = sum(line.startswith("seed ") for line in said) + 1
        if verdict is None:
            missed.append(mutation.name)
            print(f"{mutation.name}: NOT CAUGHT in {runs} seeds", flush=True)
        elif re.search(mutation.sign, verdict) is None:
            missed.append(mutation.name)
            print(f"{mutation.name}: OTHERWISE, by seed {seeds}: {verdict}", flush=True)
        else:
            print(f"{mutation.name}: by seed {seeds}: {verdict}", flush=True)
    caught = len(mutations.MUTATIONS) - len(missed)
    print(f"{caught} of {len(mutations.MUTATIONS)} mutations caught")
    return 1 if missed else 0


def catch(program: Path, name: str, runs: int, *own: str) -> str:
    """What is said of a mutation, from seed 1."""
    words = ["--mutation", name, "--runs", str(runs), "--seconds", str(MUTATION_SECONDS), *own]
    command = [str(program), "--seed", "1", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="sim", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--hours", type=float, default=1.0, help="of virtual time, each run")
    parser.add_argument("--peers", type=int, help="2 to 1000 hosts; else the seed decides")
    parser.add_argument(
        "--silent", type=int, default=0, metavar="N", help="peers of one host where nobody is"
    )
    parser.add_argument("--runs", type=int, default=None, help="seeds, one after the other")
    parser.add_argument("--mutation", help="with this deliberate bug")
    parser.add_argument(
        "--from", type=int, dest="told_from", metavar="SECOND", help="tell all that happens then"
    )
    parser.add_argument("--mutations", action="store_true", help="each must be caught")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        if options.mutations:
            return catch_all(options.runs or MUTATION_RUNS)
        options.runs = options.runs or 1
        return simulate(options)
    return 130


if __name__ == "__main__":
    sys.exit(main())
