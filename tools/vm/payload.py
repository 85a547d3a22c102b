"""The disk with pywg as it is in this tree: a virtual environment for the guest's Python, which is
mounted at /opt/pywg there, and the cases in lab/ of it.

pywg goes in as a wheel, with the core that scripts/build_core has made. The wheels of what it
depends on are those of the guest's Python, whatever Python runs here; they are kept beside the
image.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

from tools.lab.programs import REPOSITORY, Missing
from tools.vm.image import PYTHON, Image

SITE = f"lib/python{PYTHON}/site-packages"
LAB = ("__init__.py", "lab", "vm")  # of tools/
# Where wheels say what they need of the C library; Debian 12 has 2.36.
PLATFORMS = [
    f"--platform=manylinux{version}_x86_64" for version in ("2014", "_2_17", "_2_28", "_2_34")
]
NATIVE = REPOSITORY / "pywg" / "_native"
SCRIPT = """#!/opt/pywg/bin/python
import sys
from pywg.cli import run_main
sys.exit(run_main())
"""
PIP_SECONDS = 600


def payload(image: Image, directory: Path) -> Path:
    """Makes the disk in ``directory``."""
    tree = directory / "payload"
    shutil.copytree(dependencies(image), tree / SITE)
    with zipfile.ZipFile(wheel(directory)) as packed:
        packed.extractall(tree / SITE)
    # A zip forgets which files are programs.
    (tree / SITE / "pywg" / "_native" / "pywgd").chmod(0o755)
    programs = tree / "bin"
    programs.mkdir()
    (programs / "python").symlink_to(f"/usr/bin/python{PYTHON}")
    (programs / "pywg").write_text(SCRIPT)
    (programs / "pywg").chmod(0o755)
    (tree / "pyvenv.cfg").write_text(
        "home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.11.2\n"
    )
    for name in LAB:
        copy(REPOSITORY / "tools" / name, tree / "lab" / "tools" / name)
    if sys.version_info[:2] == tuple(map(int, PYTHON.split("."))):
        # Compiled here: a minute less where the processor is emulated.
        run(
            sys.executable,
            "-m",
            "compileall",
            "-q",
            "--invalidation-mode=unchecked-hash",
            str(tree),
        )
    disk = directory / "payload.img"
    run("mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(disk), "256M")
    return disk


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def wheel(directory: Path) -> Path:
    if not (NATIVE / "pywgd").exists():
        raise Missing("no pywg/_native/pywgd: run scripts/build_core")
    pip("wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={directory}", str(REPOSITORY))
    (made,) = directory.glob("pywg*.whl")
    return made


def dependencies(image: Image) -> Path:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted: list[str] = project["dependencies"]
    key = hashlib.sha256(repr((wanted, PLATFORMS)).encode()).hexdigest()[:12]
    folder = image.folder / f"site-{key}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(prefix="site-", dir=image.folder) as scratch:
            target = Path(scratch) / "site"
            interpreter = (f"--python-version={PYTHON}", "--implementation=cp")
            pip("install", f"--target={target}", "--only-binary=:all:", *interpreter, *PLATFORMS,
                *wanted)  # fmt: skip
            target.rename(folder)
    return folder


def pip(*arguments: str) -> None:
    run(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)


def run(*argv: str) -> None:
    what = " ".join(argv[:4])
    try:
        subprocess.run(
            argv,
            env={**os.environ, "PYWG_PREBUILT": str(NATIVE)},
            capture_output=True,
            text=True,
            timeout=PIP_SECONDS,
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise Missing(f"{what} has not ended within {PIP_SECONDS} s") from None
    except subprocess.CalledProcessError as error:
        said = (error.stderr + error.stdout).strip().splitlines() or ["it said nothing"]
        raise Missing(f"{what} failed: {said[-1]}") from None
