"""Builds the container images: `pywgd` (the static file alone) and `pywg` (with Python).

    scripts/build-images [pywgd] [pywg] [--base IMAGE] [--out FOLDER]
    scripts/build-images --make-base

Needs buildah. `pywgd` becomes one manifest with an image for each static file that is there, so one
name serves every architecture. `pywg` is built for the machines that --platform names (this one
if none). Both lie in the caller's container storage as NAME:VERSION; with --out also in one folder
each. The layer of one static file and commit is always the same: its time is the commit's.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from tools.build.core import ROOT, version
from tools.targets.commit import commit_time

RECIPES = ROOT / "deploy" / "containers"
PYTHON = "3.13"  # of the base that is named in pywg.Containerfile
#: Names of machines in files of ours -> OCI's platform. Others have no image.
PLATFORMS = {
    "x86_64": "linux/amd64",
    "i686": "linux/386",
    "aarch64": "linux/arm64",
    "armv7": "linux/arm/v7",
    "armv7l": "linux/arm/v7",
    "armv6": "linux/arm/v6",
    "riscv64": "linux/riscv64",
    "ppc64le": "linux/ppc64le",
    "s390x": "linux/s390x",
    "mips": "linux/mips",
    "mipsel": "linux/mipsle",
}
#: What debootstrap makes for --base debootstrap, and where it is kept.
RELEASE = "bookworm"
PACKAGES = ("python3", "python3-venv", "iproute2", "nftables", "tini")
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pywg-images"
LOCAL_BASE = "localhost/pywg-base"
ROOTFS = "rootfs.tar"


# ---- the static file -----------------------------------------------------------------------------


def static_files(folder: Path) -> dict[str, Path]:
    """Platform -> pywgd of this version."""
    found = {}
    for path in sorted(folder.glob(f"pywgd-{version()}-linux-*")):
        machine = path.name.rpartition("-linux-")[2]
        if machine in PLATFORMS:
            found[PLATFORMS[machine]] = path
    return found


def build_static(folder: Path) -> str:
    """The name of the manifest."""
    files = static_files(folder)
    if not files:
        raise SystemExit(f"no pywgd-{version()}-linux-* in {folder}: run scripts/build-static")
    name = f"localhost/pywgd:{version()}"
    _forget(name)
    for platform, path in files.items():
        # A folder of its own: it is what buildah reads and hashes.
        with tempfile.TemporaryDirectory(prefix="pywg-image-") as context:
            shutil.copy(path, Path(context) / "pywgd")
            _build(
                RECIPES / "pywgd.Containerfile",
                Path(context),
                *("--platform", platform, "--manifest", name),
                *("--timestamp", str(commit_time())),
            )
    return name


# ---- with Python ---------------------------------------------------------------------------------


def build_python(folder: Path, base: str | None, platforms: Sequence[str]) -> str:
    """The name of the image, or of the manifest if there are several platforms."""
    wheels = sorted(folder.glob(f"pywg_tunnel-{version()}-*.whl"))
    if not wheels:
        raise SystemExit(f"no pywg_tunnel-{version()}-*.whl in {folder}: run scripts/build-wheels")
    name = f"localhost/pywg:{version()}"
    _forget(name)
    options = [word for platform in platforms for word in ("--platform", platform)]
    options += ["--manifest", name] if len(platforms) > 1 else ["--tag", name]
    if base is not None:
        options += ["--build-arg", f"BASE={_as_image(base)}"]
    with tempfile.TemporaryDirectory(prefix="pywg-image-") as context:
        _gather(wheels, Path(context) / "wheels")
        # chroot: RUN needs no runtime and no cgroups.
        _build(RECIPES / "pywg.Containerfile", Path(context), *options, "--isolation", "chroot")
    return name


def _gather(wheels: Sequence[Path], place: Path) -> None:
    """Ours for every machine, and what it needs, which is pure Python."""
    place.mkdir()
    for wheel in wheels:
        shutil.copy(wheel, place)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    _run(
        *(sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(place)),
        *("--only-binary", ":all:", "--platform", "any", "--python-version", PYTHON),
        *project["dependencies"],
    )


def _as_image(base: str) -> str:
    """An image by its name, or made from a root file system in a tar file."""
    if base == "debootstrap":
        base = str(debootstrapped())
    if not Path(base).is_file():
        return base
    with tempfile.TemporaryDirectory(prefix="pywg-image-") as context:
        with contextlib.suppress(OSError):  # not copied where that can be: it is large
            os.link(base, Path(context) / ROOTFS)
        if not (Path(context) / ROOTFS).exists():
            shutil.copy(base, Path(context) / ROOTFS)
        recipe = Path(context) / "Containerfile"
        recipe.write_text(f"FROM scratch\nADD {ROOTFS} /\n", encoding="ascii")
        _build(recipe, Path(context), "--tag", LOCAL_BASE)
    return LOCAL_BASE


def kept_base() -> Path:
    return CACHE / f"{RELEASE}.tar"


def debootstrapped() -> Path:
    """A small Debian as a tar file, from the cache or made now: a minute, and root."""
    kept = kept_base()
    if kept.exists():
        return kept
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="new-", dir=CACHE) as scratch:
        fresh = Path(scratch) / kept.name
        words = ("--variant=minbase", f"--include={','.join(PACKAGES)}", RELEASE)
        _run("debootstrap", *words, f"{scratch}/root")
        left_out = ("./var/cache/apt/*", "./var/lib/apt/lists/*", "./dev/*", "./usr/share/doc/*")
        excluded = [f"--exclude={pattern}" for pattern in left_out]
        _run("tar", "-C", f"{scratch}/root", *excluded, "-cf", str(fresh), ".")
        fresh.replace(kept)
    return kept


# ---- buildah -------------------------------------------------------------------------------------


def _build(recipe: Path, context: Path, *options: str) -> None:
    """`--format docker`: OCI's has no health check."""
    _run("buildah", "build", "--format", "docker", *options, "--file", str(recipe), str(context))


def _forget(name: str) -> None:
    """A manifest would keep the images of the last time beside the new ones."""
    for verb in ("manifest rm", "rmi"):
        subprocess.run(["buildah", *verb.split(), name], capture_output=True, check=False)


def write(name: str, out: Path) -> Path:
    """A folder for `skopeo copy --all dir:...` and `podman pull dir:...`, with all images of a
    manifest. Not an OCI archive: the health check would be left out."""
    path = out / re.sub("[/:]", "-", name.removeprefix("localhost/"))
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    listed = subprocess.run(
        ["buildah", "manifest", "inspect", name], capture_output=True, check=False
    )
    words = ("manifest", "push", "--all") if listed.returncode == 0 else ("push",)
    _run("buildah", *words, "--format", "v2s2", name, f"dir:{path}")
    return path


def _run(*words: str) -> None:
    done = subprocess.run(words, stdout=sys.stderr, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{words[0]} failed with {done.returncode}")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="build-images", description="Build the container images with buildah."
    )
    parser.add_argument("images", nargs="*", help="pywgd, pywg (default: both)")
    parser.add_argument(
        "--static", type=Path, default=ROOT / "dist" / "static", help="where pywgd-* lie"
    )
    parser.add_argument("--wheels", type=Path, default=ROOT / "dist", help="where wheels lie")
    parser.add_argument(
        "--base", help="of pywg: an image, a tar file, or debootstrap (default: python's slim one)"
    )
    parser.add_argument(
        "--platform", action="append", default=[], help="of pywg: linux/amd64, linux/arm64, ..."
    )
    parser.add_argument(
        "--make-base", action="store_true", help="only make the tar of --base debootstrap (root)"
    )
    parser.add_argument("--out", type=Path, help="write one folder for each image there")
    options = parser.parse_args()
    if options.make_base:
        print(debootstrapped())
        return
    wanted = options.images or ["pywgd", "pywg"]
    if unknown := set(wanted) - {"pywgd", "pywg"}:
        parser.error(f"no image {', '.join(sorted(unknown))}: pywgd, pywg")
    if shutil.which("buildah") is None:
        raise SystemExit("no buildah: apt-get install buildah")
    names = []
    if "pywgd" in wanted:
        names.append(build_static(options.static))
    if "pywg" in wanted:
        names.append(build_python(options.wheels, options.base, options.platform))
    for name in names:
        print(name if options.out is None else write(name, options.out))


if __name__ == "__main__":
    main()
