"""What the kernel tests of its driver, asked of pywgd so many times in a row.

    scripts/selftest [ROUNDS]

One line a round, and what failed. The scenarios are tests/netns/test_selftest.py.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from functools import partial

from tools.green import Tally, run_netns

SCENARIOS = ["--dist", "load", "tests/netns/test_selftest.py"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="selftest", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("rounds", nargs="?", type=int, default=1, metavar="ROUNDS")
    options = parser.parse_args()
    tally = Tally()
    with contextlib.closing(tally):
        for number in range(options.rounds):
            what = f"round {number + 1}/{options.rounds}"
            tally.run(what, partial(run_netns, SCENARIOS, 2))
    print(f"{tally.red} of {options.rounds} rounds failed")
    return 1 if tally.red else 0


if __name__ == "__main__":
    sys.exit(main())
