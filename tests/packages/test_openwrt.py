"""OpenWrt's init script under busybox's shell, and its Makefile, with what stands in for rc.common,
procd and the build system: which commands are started, which files are installed."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "deploy" / "openwrt" / "pywgd"
INIT = RECIPE / "files" / "pywgd.init"
# As /lib/functions.sh does, a file of UCI is read as commands of the shell. What procd is told is
# printed, an instance to a line.
RC_COMMON = r"""
config_load() {
    for list in ${lists:-}; do unset "value_$list"; done
    sections= lists=
    . "$UCI/$1"
}
config() { kind=$1 section=$2; sections="$sections $1:$2"; }
option() { eval "value_${section}_$1=\$2"; }
list() {
    lists="$lists ${section}_$1"
    eval "value_${section}_$1=\"\${value_${section}_$1:-} \$2\""
}
config_get() { eval "$1=\${value_${2}_$3:-\${4:-}}"; }
config_get_bool() {
    config_get "$@"
    eval "case \$$1 in 1 | on | true | yes | enabled) $1=1 ;; *) $1=0 ;; esac"
}
config_foreach() {
    for each in $sections; do case $each in "$2":*) "$1" "${each#*:}" ;; esac done
}
config_list_foreach() {
    eval "for each_value in \${value_${1}_$2:-}; do $3 \"\$each_value\"; done"
}
procd_open_instance() { line="$1:"; }
procd_set_param() { line="$line [$*]"; }
procd_append_param() { what=$1; shift; line="${line%]} $*]"; }
procd_close_instance() { echo "$line"; }
procd_add_reload_trigger() { echo "trigger $*"; }
rc_procd() { "$@"; }
logger() { echo "logger $*"; cat; }
. "$1"
PROG=$PYWGD
case $2 in
start) start_service </dev/null ;;
reload) reload_service </dev/null ;;
triggers) service_triggers ;;
esac
"""
UCI = """
config tunnel 'wg0'
	option config '{folder}/home.conf'
	option low_memory '1'
	option threads '2'
	list address '10.8.0.1/24'
	list address 'fd08::1/64'

config tunnel 'wg1'
	option enabled '0'

config tunnel 'wg2'
	option config '{folder}/none.conf'
"""
MAKE = {
    "rules.mk": """
INCLUDE_DIR:=$(TOPDIR)
DL_DIR:=$(TOPDIR)/dl
PKG_BUILD_DIR:=$(TOPDIR)/build
INSTALL_DIR:=install -d -m0755
INSTALL_BIN:=install -m0755
INSTALL_CONF:=install -m0600
""",
    "package.mk": """
define BuildPackage
all:
	$$(Build/Prepare)
	$$(Build/Compile)
	$$(call Package/$(1)/install,$$(TOPDIR)/root)
source:
	@echo $$(PKG_SOURCE_URL) $$(PKG_SOURCE) $$(PKG_HASH) $$(PYWGD_FILE)
arch:
	@echo $$(PYWG_ARCH)
endef
""",
}


class Router:
    """Its files are in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "rc.common").write_text(RC_COMMON)
        (folder / "pywgd").write_text(UCI.format(folder=folder))
        (folder / "home.conf").touch()

    def init(self, verb: str, script: Path = INIT) -> list[str]:
        done = subprocess.run(
            ["busybox", "sh", "-eu", self.folder / "rc.common", script, verb],
            env={"UCI": str(self.folder), "PYWGD": "echo", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    @property
    def started(self) -> str:
        command = f"echo --foreground --config {self.folder}/home.conf --low-memory --threads 2"
        return (
            f"wg0: [command {command} --address 10.8.0.1/24 --address fd08::1/64 wg0]"
            " [respawn] [stderr 1] [limits core=0]"
        )


@pytest.fixture
def router(tmp_path: Path) -> Router:
    return Router(tmp_path)


def test_each_enabled_tunnel_is_a_process(router: Router) -> None:
    refused = f"logger -t pywgd -p daemon.err wg2: cannot read {router.folder}/none.conf"
    assert router.init("start") == [router.started, refused]


def test_without_options_only_the_file_is_named(router: Router) -> None:
    (router.folder / "pywgd").write_text(
        f"config tunnel 'wg0'\n\toption config '{router.folder}/home.conf'\n"
    )
    (line,) = router.init("start")
    assert f"[command echo --foreground --config {router.folder}/home.conf wg0]" in line


def test_the_example_is_one(router: Router) -> None:
    text = (RECIPE / "files" / "pywgd.config").read_text()
    assert router.init("start")  # something else was there before
    lines = [line[1:] for line in text.splitlines() if line.startswith(("#config", "#\t"))]
    (router.folder / "pywgd").write_text("\n".join(lines) + "\n")
    (line,) = router.init("start")
    assert "wg0" in line


def test_a_reload_keeps_the_process_and_its_sessions(router: Router, tmp_path: Path) -> None:
    """Where there is a socket the file is put in force; procd is told the same as before."""
    script = tmp_path / "init"
    sockets = tmp_path / "s"
    sockets.mkdir()
    script.write_text(INIT.read_text().replace("/var/run/wireguard", str(sockets)))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(sockets / "wg0.sock"))
        said = router.init("reload", script)
    assert said[:3] == [
        "logger -t pywgd",
        f"syncconf wg0 {router.folder}/home.conf",
        router.started,
    ]
    assert router.init("reload", script.with_name("init")) != []
    assert router.init("triggers") == ["trigger pywgd"]


def make(folder: Path, target: str, **variables: str) -> str:
    for name, text in MAKE.items():
        (folder / name).write_text(text)
    words = [f"{name}={value}" for name, value in {"TOPDIR": str(folder), **variables}.items()]
    done = subprocess.run(
        ["make", "-s", "-C", RECIPE, target, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout if done.returncode == 0 else done.stderr


def test_the_package_has_the_daemon_the_script_and_an_example(tmp_path: Path) -> None:
    built = tmp_path / "built"
    shutil.copy("/bin/true", built)
    assert make(tmp_path, "all", PYWGD_FILE=str(built)) == ""
    root = tmp_path / "root"
    modes = {
        str(path.relative_to(root)): path.stat().st_mode & 0o777
        for path in root.rglob("*")
        if path.is_file() or path.name == "wireguard"
    }
    assert modes == {
        "usr/sbin/pywgd": 0o755,
        "etc/init.d/pywgd": 0o755,
        "etc/config/pywgd": 0o600,
        "etc/wireguard": 0o700,
    }


def test_a_file_of_a_release_is_fetched_by_its_sum(tmp_path: Path) -> None:
    release = "https://example.org/v1/pywgd-1-linux-mipsel"
    said = make(tmp_path, "source", PYWGD_URL=release, PYWGD_SHA256="ab12")
    name = "pywgd-1-linux-mipsel"
    assert said.split() == ["https://example.org/v1", name, "ab12", f"{tmp_path}/dl/{name}"]
    assert "PYWGD_URL needs PYWGD_SHA256" in make(tmp_path, "source", PYWGD_URL=release)


@pytest.mark.parametrize(
    ("arch", "cpu", "ours"),
    [
        ("x86_64", "", "x86_64"),
        ("i386", "", "i686"),
        ("arm", "cortex-a7", "armv7l"),
        ("arm", "arm1176jzf-s", "armv6"),
        ("mipsel", "24kc", "mipsel"),
    ],
)
def test_machines_have_our_names(tmp_path: Path, arch: str, cpu: str, ours: str) -> None:
    assert make(tmp_path, "arch", ARCH=arch, CPU_TYPE=cpu).strip() == ours
