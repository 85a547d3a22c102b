"""docs/packages.md: its commands run here, as far as they need no other system; what it names is
in the recipes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.packages.test_openwrt import INIT, Router
from tools.build import core

PAGE = (core.ROOT / "docs" / "packages.md").read_text()


def blocks(heading: str, language: str) -> list[str]:
    """What stands in the fenced blocks below a heading."""
    section = re.split(r"^## ", PAGE.partition(f"\n## {heading}\n")[2], flags=re.M)[0]
    found = re.findall(r"^```(\w*)\n(.*?)^```$", section, re.M | re.S)
    return [text for kind, text in found if kind == language]


def test_the_static_file_and_a_unit_are_installed(tmp_path: Path) -> None:
    (block,) = blocks("Any systemd, one file", "sh")
    (tmp_path / "bin").mkdir()
    commands = block.replace("/usr/local", str(tmp_path))
    subprocess.run(["sh", "-eu", "-c", commands], cwd=core.ROOT, check=True)
    daemon = tmp_path / "bin" / "pywgd"
    done = subprocess.run([daemon, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"pywgd {core.version()}\n"
    unit = (tmp_path / "lib/systemd/system/pywgd@.service").read_text()
    assert f"\nExecStart={daemon} " in unit
    assert "@pywgd@" not in unit


@pytest.mark.parametrize(
    ("dialect", "pattern"),
    [
        ("dash", "deploy/debian/*.p*inst"),
        ("dash", "deploy/debian/*.p*rm"),
        ("dash", "deploy/openwrt/pywgd/files/pywgd.init"),
        ("dash", "deploy/alpine/APKBUILD"),
        ("sh", "deploy/alpine/pywgd.*d"),
        ("sh", "tools/packages/*.sh"),
    ],
)
def test_shellcheck_has_nothing_to_say(dialect: str, pattern: str) -> None:
    """`local` is no word of POSIX, and every shell of busybox has it, as dash does."""
    scripts = sorted(core.ROOT.glob(pattern))
    assert scripts
    done = subprocess.run(
        ["shellcheck", "-s", dialect, *scripts], capture_output=True, text=True, check=False
    )
    assert done.stdout == ""


def test_the_router_reads_the_file_that_is_shown(tmp_path: Path) -> None:
    router = Router(tmp_path)
    tunnel, _ = blocks("OpenWrt", "")
    (tmp_path / "pywgd").write_text(
        tunnel.replace("/etc/wireguard/wg0.conf", f"{tmp_path}/home.conf")
    )
    (line,) = router.init("start")
    assert f"--config {tmp_path}/home.conf --low-memory wg0]" in line


def test_every_option_of_the_table_is_read() -> None:
    table = PAGE.partition("| option | meaning |")[2].partition("\n\n")[0]
    options = {word.split()[-1] for word in re.findall(r"`([a-z_ ]+)`", table)}
    script = INIT.read_text()
    assert options == set(re.findall(r'config_get(?:_bool)? \w+ "\$name" (\w+)', script)) | set(
        re.findall(r'config_list_foreach "\$name" (\w+)', script)
    )


def test_what_is_copied_to_a_router_is_there() -> None:
    for source in re.findall(r"^scp (deploy/\S+)", "".join(blocks("OpenWrt", "sh")), re.M):
        assert (core.ROOT / source).is_file()
