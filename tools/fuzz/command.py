"""Feeds a part of pywg with made-up cases for some time and compares it with an obvious
implementation of the same, or with what must always hold.

    scripts/fuzz TARGET [SECONDS] [--seed N] [--iteration K] [--kernels NAME] [--arch ARCH]
    scripts/fuzz TARGET --file tests/data/corpora/TARGET/NAME
    scripts/fuzz --guided TARGET [--seconds N] [--fault NAME]     steered by coverage
    scripts/fuzz --guided TARGET --file FINDING | --shrink FINDING | --keep

messages: datagrams and the handshake; uapi: the text of the control plane; vnet: what comes beside
a packet from the kernel; segments: superpackets, judged in Python; config: wg-quick files (needs
hypothesis); abi: the C ABI in a child (needs the built library). --fault plants a fault in these.
aead runs the AEAD's kernels, all that this CPU can run unless one is named, against std's; poly1305
runs Poly1305 by itself against whole numbers, compiled for the CPU of the kernels named. A mismatch
prints the command that repeats it. --arch runs the code of another architecture under qemu-user.
--guided takes abi, control, gro, gso, messages, netlink, sim, uapi and vnet, which need clang with
libFuzzer, and config, which needs atheris. --keep writes the corpus anew that the tests replay.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.build import checks, core
from tools.fuzz import guided

SECONDS = 60


def fuzz_core(options: argparse.Namespace) -> int:
    """A target of core/check/fuzz/cipher.zig."""
    runner = checks.emulator(options.arch)
    if runner and shutil.which(runner[0]) is None:
        raise SystemExit(f"fuzz: {options.arch} needs {runner[0]} (Debian: qemu-user-static)")
    command = [*runner, str(build(options)), options.target, "--seed", str(options.seed)]
    if options.file:
        command += ["--file", options.file]
    elif options.iteration is None:
        command += ["--seconds", str(options.seconds)]
    else:
        command += ["--iteration", str(options.iteration)]
    if options.kernels and options.target == "aead":
        command += ["--kernels", options.kernels]
    if options.fault:
        command += ["--fault", options.fault]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        for line in running.stdout or ():
            replay = re.match(r"replay: (.*)", line)
            print(f"replay: {own_command(options)} {replay[1]}" if replay else line.rstrip())
            sys.stdout.flush()
    if running.returncode < 0:
        print(f"ended by signal {-running.returncode}; seed {options.seed}")
    return running.returncode


def fuzz_segments(options: argparse.Namespace) -> int:
    from tools.fuzz import segments, target

    with segments.Core.start(build(options), options.fault or "none") as core:
        return target.run("segments", functools.partial(segments.iterate, core), **limits(options))


def fuzz_config_guided(options: argparse.Namespace) -> int:
    """By coverage of pywg/config. What atheris finds it keeps under .zig-cache/fuzz/."""
    try:
        import atheris
    except ModuleNotFoundError:
        raise SystemExit("fuzz: --guided needs atheris: pip install atheris") from None
    with atheris.instrument_imports(include=["pywg.config"]):
        from tools.fuzz import config
    place = core.ROOT / ".zig-cache" / "fuzz" / "config"
    place.mkdir(parents=True, exist_ok=True)
    limit = [f"-max_total_time={options.seconds}", f"-seed={options.seed}", "-max_len=2000"]
    corpus = [str(place), str(core.ROOT / "tests" / "data" / "corpora" / "config")]
    atheris.Setup(
        ["config", *limit, f"-artifact_prefix={place.parent}/", *corpus],
        lambda data: config.judge(data.decode("utf-8", errors="surrogateescape")),
    )
    atheris.Fuzz()  # ends the process
    return 0


def fuzz_config(options: argparse.Namespace) -> int:
    """Hypothesis shrinks what it finds, so the file itself is what repeats it."""
    if options.guided:
        return fuzz_config_guided(options)
    try:
        from tools.fuzz import config
    except ModuleNotFoundError as missing:
        raise SystemExit(f"fuzz: {missing.name} is missing: pip install hypothesis") from None
    from tools.fuzz.target import Mismatch

    print(f"config: seed {options.seed}", flush=True)
    start, done = time.monotonic(), 0
    try:
        if options.file:
            data = Path(options.file).read_bytes()
            config.judge(data.decode("utf-8", errors="surrogateescape"))
            return 0
        for count in config.feed(options.seed, 1 << 40):
            done += count
            if time.monotonic() - start >= options.seconds:
                break
    except Mismatch as mismatch:
        print(f"mismatch: {mismatch}")
        print(f"replay: {own_command(options)} {options.seconds} --seed {options.seed}")
        return 1
    spent = time.monotonic() - start
    print(f"config: {done} iterations in {spent:.0f} s, no mismatch")
    return 0


def fuzz_abi(options: argparse.Namespace) -> int:
    from tools.fuzz import abi

    return abi.run_child(fault=options.fault or "none", **limits(options))


def limits(options: argparse.Namespace) -> dict[str, Any]:
    """For the targets in Python; what they say to repeat a finding begins with our name."""
    known = {"seed": options.seed, "command": own_command(options)}
    if options.iteration is not None:
        return {**known, "iterations": 1, "first": options.iteration}
    return {**known, "seconds": options.seconds}


# A target is added here: by name, with what runs it.
TARGETS: dict[str, Callable[[argparse.Namespace], int]] = {
    "abi": fuzz_abi,
    "aead": fuzz_core,
    "config": fuzz_config,
    "messages": fuzz_core,
    "poly1305": fuzz_core,
    "segments": fuzz_segments,
    "uapi": fuzz_core,
    "vnet": fuzz_core,
}
# Programs of core/; the rest are of fuzz_rooms.
CRYPTO = ("aead", "poly1305")


def build(options: argparse.Namespace) -> Path:
    """Compiled anew unless zig's cache has it: its key includes the folder, so that stays."""
    directory = core.ROOT / ".zig-cache" / "fuzz" / options.arch
    flavour = options.kernels if options.target == "poly1305" else None
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            return checks.Builder(directory, arch=options.arch).program(
                "fuzz" if options.target in CRYPTO else "fuzz_rooms", flavour=flavour
            )
        except checks.Failed as failed:
            raise SystemExit(str(failed)) from None


def own_command(options: argparse.Namespace) -> str:
    """Up to the seed."""
    words = ["scripts/fuzz", options.target]
    if options.arch != core.find_arch():
        words += ["--arch", options.arch]
    if options.kernels:
        words += ["--kernels", options.kernels]
    if options.fault:
        words += ["--fault", options.fault]
    return shlex.join(words)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", choices=sorted({*TARGETS, *guided.TARGETS}))
    parser.add_argument("seconds", nargs="?", type=int, default=SECONDS)
    parser.add_argument("--seconds", type=int, dest="limit", help="the same")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--iteration", type=int, help="this one only")
    parser.add_argument("--kernels", help="these only: baseline, v3, v4, v4ifma")
    parser.add_argument("--fault", help="one that is planted, to see that it is found")
    parser.add_argument("--file", help="this input only")
    parser.add_argument("--guided", action="store_true", help="coverage steers")
    parser.add_argument("--keep", action="store_true", help="with --guided: write the kept corpus")
    parser.add_argument("--shrink", metavar="FINDING", help="with --guided: to fewer bytes")
    parser.add_argument("--arch", choices=sorted(core.TARGETS), default=None)
    options = parser.parse_args()
    options.arch = options.arch or core.find_arch()
    options.seconds = options.limit or options.seconds
    with contextlib.suppress(KeyboardInterrupt):
        if options.guided and options.target in guided.TARGETS:
            return guided.run(options)
        if options.target not in TARGETS:
            parser.error(f"{options.target} is a target of --guided only")
        return TARGETS[options.target](options)
    return 130


if __name__ == "__main__":
    sys.exit(main())
