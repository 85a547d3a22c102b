"""Boots a Debian in qemu, runs pywg's cases in it and prints one table.

    scripts/vm [CASE ...] [--log FILE]
    scripts/vm --build

The guest has systemd, systemd-resolved, NetworkManager, systemd-networkd and the WireGuard of its
kernel, and no network. Needs root and x86-64, no KVM; installs debootstrap, qemu-system-x86 and
e2fsprogs by apt-get where they are missing. The first run builds the guest's disk (a minute or
two), kept in ~/.cache/pywg-vm.
Exits with 1 if a case failed, with 77 where the machine cannot be had.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from tools.lab.programs import Missing
from tools.vm import image, machine, payload, results
from tools.vm.guest.cases import CASES
from tools.vm.results import Result

BOOT_SECONDS = 180
SKIPPED = 77  # as automake has it
Tell = Callable[[str], None]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="vm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--log", type=Path, metavar="FILE", help="all that the guest says")
    parser.add_argument("--build", action="store_true", help="only the guest's disk, if need be")
    options = parser.parse_args()
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not without cleaning up
    names = [name for name in CASES if name in options.cases] or list(CASES)
    try:
        if options.build:
            image.check_machine(tell)
            image.image(tell)
            return 0
        with (options.log or Path(os.devnull)).open("w", buffering=1) as log:
            found = run_cases(names, tell, lambda line: print(line, file=log))
    except Missing as missing:
        tell(f"skipped: {missing}")
        return SKIPPED
    print(results.table(found), end="")
    return 1 if any(result.word == "FAIL" for result in found) else 0


def tell(text: str) -> None:
    print(f"vm: {text}", file=sys.stderr, flush=True)


def run_cases(names: Iterable[str], tell: Tell, log: Tell) -> list[Result]:
    """One result for each case; ``log`` is told each line of the guest's console. Raises Missing
    where there can be no guest."""
    image.check_machine(tell)
    with tempfile.TemporaryDirectory(prefix="pywg-vm-") as directory:
        debian = image.image(tell)
        disk = payload.payload(debian, Path(directory))
        wanted = with_enable(names)
        seconds = 2 * BOOT_SECONDS + sum(CASES[name].seconds for name in wanted)
        found: dict[str, Result] = {}
        why = "the guest went off before"
        try:
            for line in machine.boots(debian, disk, f"pywg.cases={','.join(wanted)}", seconds):
                log(line)
                if result := results.read(line):
                    found[result.case] = result
                    tell(str(result).removeprefix(f"{results.MARK} "))
        except TimeoutError as error:
            why = str(error)
    never = {name: Result(name, "FAIL", 0.0, f"no word of it: {why}") for name in wanted}
    return list((never | found).values())


def with_enable(names: Iterable[str]) -> list[str]:
    """What installs and enables the service comes first: the others find it there."""
    return list(dict.fromkeys(["enable", *names]))


if __name__ == "__main__":
    sys.exit(main())
