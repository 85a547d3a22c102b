"""Makes the pictures of docs/: what `pywg top` shows of a tunnel with traffic, and the bars of a
run of scripts/bench. Nothing in them is made up. `top` needs root, textual and iperf3; what it
makes is removed again.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tools.lab.programs import REPOSITORY

PICTURES = ("top", "benchmark")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="pictures", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("pictures", nargs="*", metavar="PICTURE", help=f"of {', '.join(PICTURES)} (all)")
    add("--results", type=Path, metavar="FILE", help="results.json of scripts/bench, to be kept")
    add("--seconds", type=float, default=15.0, help="how long `pywg top` looks (15)")
    add("--out", type=Path, default=REPOSITORY / "docs", metavar="FOLDER", help="(docs)")
    options = parser.parse_args(argv)
    if wrong := set(options.pictures) - set(PICTURES):
        parser.error(f"{', '.join(sorted(wrong))}: choose from {', '.join(PICTURES)}")
    options.pictures = options.pictures or list(PICTURES)
    return options


def main() -> int:
    options = arguments()
    if "benchmark" in options.pictures:
        from tools.pictures import benchmark

        if options.results is not None:
            benchmark.keep(options.results, options.out)
        print(benchmark.write(options.out))
    if "top" in options.pictures:
        if os.geteuid() != 0:
            print("pictures: top needs root, to make network namespaces", file=sys.stderr)
            return 1
        from tools.pictures import top

        print(top.write(options.out, options.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
