"""Static files, wheels, their list of parts, and that all of it comes out the same twice."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ziglang")

from tools.build import core
from tools.targets import sbom, static, wheels, zigtests

# Compiles fastest, and nobody's own.
SOME = "armv6"
EM = {
    "x86_64": (64, "little", 62),
    "i686": (32, "little", 3),
    "aarch64": (64, "little", 183),
    "armv7l": (32, "little", 40),
    "armv6": (32, "little", 40),
    "riscv64": (64, "little", 243),
    "mips": (32, "big", 8),
    "mipsel": (32, "little", 8),
    "ppc64le": (64, "little", 21),
    "s390x": (64, "big", 22),
}


def elf(path: Path) -> tuple[int, str, int]:
    """Bits, order of bytes, machine."""
    head = path.read_bytes()[:20]
    assert head[:4] == b"\x7fELF"
    order = "little" if head[5] == 1 else "big"
    machine = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
    return (32 if head[4] == 1 else 64), order, machine


@pytest.mark.parametrize("name", ["armv7", "arm64", "amd64", "x86-64", "ppc64el", "i386", "armv6l"])
def test_targets_go_by_the_names_that_others_use(name: str) -> None:
    assert core.arch_of(name) in core.TARGETS
    assert core.arch_of(f"{name}-linux") == core.arch_of(name)


def test_an_unknown_target_is_refused_with_those_there_are() -> None:
    with pytest.raises(SystemExit, match="no target for vax; there are x86_64, "):
        core.arch_of("vax")


def test_a_static_file_has_sums_and_parts_and_comes_out_the_same_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = static.build([SOME], tmp_path / "first")[0]
    assert elf(first) == EM[SOME]
    assert first.stat().st_mode & stat.S_IXOTH
    sums = subprocess.run(
        ["sha256sum", "--check", static.SUMS],
        cwd=first.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert sums.stdout == f"{first.name}: OK\n", sums.stderr
    # Neither the folder nor what zig remembers has a part in it.
    monkeypatch.setenv("ZIG_LOCAL_CACHE_DIR", str(tmp_path / "local"))
    monkeypatch.setenv("ZIG_GLOBAL_CACHE_DIR", str(tmp_path / "global"))
    products = (core.DAEMON,)
    again = core.build(tmp_path / "again", SOME, core.find_zig(), products=products, small=True)
    assert again[core.DAEMON].read_bytes() == first.read_bytes()
    for private in (core.ROOT, tmp_path, Path.home()):
        assert str(private).encode() not in first.read_bytes()


# ---- the list of parts ---------------------------------------------------------------------------

FILES = {"pywgd-1.2-linux-mips": "ab" * 32, "pywgd-1.2-linux-s390x": "cd" * 32}


def test_the_list_of_parts_names_what_is_linked_with_versions_and_licences() -> None:
    document = json.loads(sbom.describe("1.2", "0.17.1", FILES, 1_700_000_000))
    parts = {part["name"]: part for part in document["components"]}
    assert set(parts) == {"zig-std", "zig-compiler-rt", *FILES}
    assert parts["zig-std"]["version"] == "0.17.1"
    assert all(part["licenses"] == [{"license": {"id": "MIT"}}] for part in parts.values())
    for name, digest in FILES.items():
        assert parts[name]["hashes"] == [{"alg": "SHA-256", "content": digest}]
    assert document["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"


def test_the_list_of_parts_is_one_of_what_it_lists_and_nothing_else() -> None:
    text = sbom.describe("1.2", "0.17.1", FILES, 1_700_000_000)
    assert text == sbom.describe("1.2", "0.17.1", FILES, 1_700_000_000)
    others = {**FILES, "pywgd-1.2-linux-mips": "00" * 32}
    other = sbom.describe("1.2", "0.17.1", others, 1_700_000_000)
    assert json.loads(text)["serialNumber"] != json.loads(other)["serialNumber"]


def test_the_list_of_parts_is_cyclonedx() -> None:
    """Refuses what is not named by the schema, as well."""
    validation = pytest.importorskip("cyclonedx.validation.json")
    schema = pytest.importorskip("cyclonedx.schema")
    validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    text = sbom.describe("1.2", "0.17.1", FILES, 1_700_000_000)
    assert validator.validate_str(text) is None
    document: dict[str, Any] = json.loads(text)
    del document["components"][0]["name"]
    assert validator.validate_str(json.dumps(document)) is not None


# ---- wheels --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A wheel of this machine's, and the sdist."""
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("dist")
    wanted = [core.find_arch(), wheels.SDIST]
    return dict(zip(wanted, wheels.build(wanted, out), strict=True))


def test_wheels_are_what_the_index_takes(built: dict[str, Path]) -> None:
    pytest.importorskip("twine")
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *map(str, built.values())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wheel_keeps_the_promise_of_its_tags(built: dict[str, Path]) -> None:
    pytest.importorskip("auditwheel")
    done = subprocess.run(
        [sys.executable, "-m", "auditwheel", "show", str(built[core.find_arch()])],
        capture_output=True,
        text=True,
        check=False,
    )
    said = " ".join(done.stdout.split())
    assert "requires no external shared libraries" in said, done.stdout + done.stderr
    assert re.search(r'consistent with the following platform tag: "manylinux_2_\d+_', said)


def test_a_wheel_comes_out_the_same_twice(built: dict[str, Path], tmp_path: Path) -> None:
    for target, path in built.items():
        again = wheels.build([target], tmp_path)[0]
        assert again.read_bytes() == path.read_bytes(), target


def test_a_wheel_has_the_library_of_its_machine(built: dict[str, Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(built[core.find_arch()]) as archive:
        library = Path(archive.extract("pywg/_native/libpywg.so", tmp_path))
    assert elf(library) == EM[core.find_arch()]


@pytest.mark.parametrize("target", ["mips", "mipsel", "armv6"])
def test_where_there_is_no_wheel_one_is_told_what_there_is(target: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.targets.wheels", target],
        cwd=core.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == f"there is no wheel for {target}, only the static file: build-static\n"


# ---- the Zig tests of another machine ------------------------------------------------------------


def test_what_the_runner_of_zig_tests_tells_is_counted() -> None:
    said = "noise of a test\nok a.test.x\nskipped a.test.y\nleft a.test.z\nfailed b.test.the one\n"
    tally = zigtests.read(said)
    assert tally == zigtests.Tally(1, 1, 1, ("b.test.the one",))
    assert str(tally) == "1 pass, 1 FAIL, 1 left out, 1 skipped"
    assert str(zigtests.Tally(3, 0, 0, ())) == "3 pass"
