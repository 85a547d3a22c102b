"""Makes a site of README.md, docs/ and all public docstrings, by mkdocs.

    scripts/docs [DIRECTORY]      where to; default .site

A warning ends it: a name that is gone, a link that leads nowhere.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("mkdocs", "material", "mkdocstrings", "mkdocstrings_handlers")
HOW = "pip install --group docs"


def missing() -> list[str]:
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="docs", description="Make a site of the documents and the reference."
    )
    parser.add_argument("directory", type=Path, nargs="?", default=ROOT / ".site")
    options = parser.parse_args()
    if lacking := missing():
        raise SystemExit(f"docs: no {', '.join(lacking)}: {HOW}")
    target: Path = options.directory.absolute()
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--clean"]
    # What its theme's authors want to say of its future is no warning about these pages.
    environment = {**os.environ, "DISABLE_MKDOCS_2_WARNING": "true", "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [*command, "--site-dir", str(target)],
        cwd=ROOT,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"docs: {done.stdout}{done.stderr}".strip())
    print(target / "index.html")


if __name__ == "__main__":
    main()
