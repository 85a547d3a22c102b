"""Tries the Debian packages: lintian, then installing, upgrading and purging, in a root of their
own.

    scripts/try-deb [--here]

In a Debian of its own (debootstrap, kept in a cache), where apt gets what the packages depend on;
with --here over a copy on write of this machine's root, without the network. Needs root.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools.build import core
from tools.lab.programs import Missing
from tools.packages import deb, root

SCRIPT = Path(__file__).with_name("try_deb.sh")
#: Sorts before every version of ours.
OLDER = "0.0.1~earlier"
OFFLINE = "dpkg -i"
BY_APT = "apt-get install --yes --no-install-recommends"


def lint(packages: Sequence[Path]) -> str:
    """What lintian says, errors and warnings; nothing is good."""
    if shutil.which("lintian") is None:
        raise Missing("apt-get install lintian")
    done = subprocess.run(
        ["lintian", "--allow-root", "--display-level", ">=warning", *map(str, packages)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def lay_out(packages: Sequence[Path], folder: Path) -> None:
    """The packages in `folder`/new, and as an older version in `folder`/old."""
    for name in ("new", "old"):
        (folder / name).mkdir()
    for package in packages:
        shutil.copy(package, folder / "new")
        _make_older(package, folder)
    (folder / "new" / "version").write_text(core.version())


def _make_older(package: Path, folder: Path) -> None:
    tree = folder / "tree"
    subprocess.run(["dpkg-deb", "-R", package, tree], check=True)
    control = tree / "DEBIAN" / "control"
    text = control.read_text()
    control.write_text(text.replace(f"\nVersion: {core.version()}\n", f"\nVersion: {OLDER}\n"))
    pack = ("dpkg-deb", "-Zgzip", "-z1", "--root-owner-group", "-b")
    subprocess.run([*pack, tree, folder / "old"], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)


def attempt(packages: Sequence[Path], below: Path, install: str) -> str:
    """Runs the script there, and answers what it printed; CalledProcessError has it, too."""
    with tempfile.TemporaryDirectory(prefix="pywg-debs-") as scratch:
        lay_out(packages, Path(scratch))
        shutil.copy(SCRIPT, scratch)
        return root.run_in(
            below, f"sh /packages/{SCRIPT.name} '{install}'", {Path(scratch): "/packages"}
        )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="try-deb", description="Try the Debian packages in a root of their own."
    )
    parser.add_argument("--here", action="store_true", help="over a copy of this machine's root")
    options = parser.parse_args(argv)
    try:
        packages = deb.build(deb.this_machine(), core.ROOT / "dist" / "deb")
        said = lint(packages)
        if options.here:
            print(said + attempt(packages, root.HERE, OFFLINE), end="")
        else:
            update = f"apt-get update -qq; {BY_APT}"
            print(said + attempt(packages, root.debian(), update), end="")
    except Missing as missing:
        raise SystemExit(f"try-deb: {missing}") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"try-deb: {error.stdout}") from None
    if said:
        raise SystemExit("try-deb: lintian has something to say")


if __name__ == "__main__":
    main()
