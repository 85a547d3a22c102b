"""The library as C programs find it: under a prefix or in a wheel, by pkg-config alone."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pywg.keys import PrivateKey
from pywg.native import library
from tests.unit.test_examples import EXAMPLES, output
from tools.build import core
from tools.build.install import SONAME, install
from tools.lab.embedder import VALGRIND

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60
needs_pkg_config = pytest.mark.skipif(
    shutil.which("pkg-config") is None, reason="needs pkg-config (Debian: pkgconf)"
)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("ziglang")
    made = tmp_path_factory.mktemp("prefix")
    install(made, core.find_arch())
    return made


def told(folder: Path, *options: str) -> list[str]:
    """What pkg-config says of the pywg.pc there, and of no other."""
    environment = {"PKG_CONFIG_LIBDIR": str(folder), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["pkg-config", *options, "pywg"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def compiled(source: str, folder: Path, flags: list[str]) -> Path:
    """Baseline: valgrind knows no AVX-512."""
    program = folder / "program"
    (folder / "program.c").write_text(source)
    compiler = [sys.executable, "-m", "ziglang", "cc", "-mcpu=baseline", "-g"]
    warnings = ["-Wall", "-Wextra", "-Werror"]
    command = [*compiler, *warnings, str(folder / "program.c"), *flags, "-o", str(program)]
    subprocess.run(command, check=True)
    return program


def watched(program: Path) -> list[str]:
    if shutil.which("valgrind") is None:
        return [str(program)]
    return [*VALGRIND, str(program)]


@needs_pkg_config
@pytest.mark.parametrize("way", ["shared", "static"])
def test_a_program_is_compiled_by_what_pkg_config_says_and_runs(
    prefix: Path, tmp_path: Path, way: str
) -> None:
    flags = told(prefix / "lib" / "pkgconfig", "--cflags", "--libs")
    if way == "static":
        flags = [str(prefix / "lib" / "libpywg.a") if flag == "-lpywg" else flag for flag in flags]
    else:
        flags.append(f"-Wl,-rpath,{prefix / 'lib'}")
    program = compiled(EXAMPLES["interface.c"], tmp_path, flags)
    assert output(*watched(program)).split()[-1] == "DELIVER"


@needs_pkg_config
def test_what_is_installed_may_be_moved(prefix: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(prefix, tmp_path / "moved", symlinks=True)
    flags = told(moved / "lib" / "pkgconfig", "--cflags", "--libs")
    paths = [Path(flag[2:]).resolve() for flag in flags if flag[:2] in ("-I", "-L")]
    assert paths == [moved / "include", moved / "lib"]
    assert told(moved / "lib" / "pkgconfig", "--modversion") == [core.version()]


def test_the_shared_library_has_its_abi_in_its_name(prefix: Path) -> None:
    assert (prefix / "lib" / "libpywg.so").readlink() == Path(SONAME)
    if shutil.which("readelf") is None:
        pytest.skip("needs readelf (Debian: binutils)")
    said = output("readelf", "-dW", prefix / "lib" / SONAME)
    assert f"soname: [{SONAME}]" in said
    assert "soname: [libpywg.so]" in output("readelf", "-dW", library.find())


def test_installing_again_replaces_what_is_there(prefix: Path) -> None:
    before = {path: path.read_bytes() for path in prefix.rglob("*") if path.is_file()}
    install(prefix, core.find_arch())
    assert {path: path.read_bytes() for path in prefix.rglob("*") if path.is_file()} == before


def test_zig_build_installs_the_same_description() -> None:
    text = (ROOT / "build.zig").read_text(encoding="utf-8")
    found = re.search(r"const pkg_config =\n(.*?)\n;", text, re.DOTALL)
    assert found is not None
    lines = [line.strip().removeprefix("\\\\") for line in found[1].splitlines()]
    braces = "\n".join(lines).replace("{{", "{").replace("}}", "}")
    assert braces.replace("{s}", core.version()) == core.pkg_config("../..", "lib")
    assert f"const abi_version = {SONAME.rpartition('.')[2]};" in text


@needs_pkg_config
def test_a_wheel_has_what_a_c_program_needs(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    pytest.importorskip("ziglang")
    native = library.find().parent
    if not (native / "libpywg.a").is_file():
        pytest.skip("the static library is not built here: scripts/build_core")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    environment = {"PYWG_PREBUILT": str(native), "PATH": "/usr/bin:/bin"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    there = tmp_path / "pywg" / "_native"
    assert (there / "include" / "pywg.h").read_bytes() == core.HEADER.read_bytes()
    flags = told(there / "pkgconfig", "--cflags", "--libs")
    program = compiled(EXAMPLES["interface.c"], tmp_path, [*flags, f"-Wl,-rpath,{there}"])
    assert output(program).split()[-1] == "DELIVER"


# ---- the protocol over a socket of the program's own ---------------------------------------------


@pytest.fixture
def answering(
    prefix: Path, tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[str], int, PrivateKey]]:
    """examples/sockets.c at work, under valgrind where there is one: its port, and the key of the
    peer that it has at 10.0.0.1."""
    own, peer = PrivateKey.generate(), PrivateKey.generate()
    text = tmp_path / "uapi"
    text.write_text(
        f"private_key={own.to_hex()}\npublic_key={peer.public.to_hex()}\nallowed_ip=10.0.0.1/32\n"
    )
    (tmp_path / "peer").write_text(own.public.to_base64())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = [f"-I{prefix / 'include'}", str(prefix / "lib" / "libpywg.a")]
    program = compiled(EXAMPLES["sockets.c"], tmp_path, flags)
    command = [*watched(program), str(port), str(text)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            yield process, port, peer
        finally:
            process.kill()


def test_the_example_over_sockets_answers_the_ping_of_the_example_in_python(
    answering: tuple[subprocess.Popen[str], int, PrivateKey], tmp_path: Path
) -> None:
    process, port, key = answering
    config = tmp_path / "wg0.conf"
    config.write_text(
        f"[Interface]\nPrivateKey = {key.to_base64()}\nAddress = 10.0.0.1/32\n"
        f"[Peer]\nPublicKey = {(tmp_path / 'peer').read_text()}\nAllowedIPs = 10.0.0.2/32\n"
        f"Endpoint = 127.0.0.1:{port}\n"
    )
    ping = str(ROOT / "examples" / "ping.py")
    assert EXAMPLES["ping.py"]
    assert (
        output(sys.executable, "-P", ping, config, "10.0.0.2")
        == "echo reply from 10.0.0.2, 32 bytes\n"
    )
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 0
