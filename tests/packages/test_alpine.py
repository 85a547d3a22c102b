"""Alpine: the init script under OpenRC (of Debian), and APKBUILD under busybox's shell, with what
stands in for abuild."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools.build import core
from tools.lab.programs import CACHE
from tools.packages import root

RECIPE = core.ROOT / "deploy" / "alpine"
NATIVE = core.ROOT / "pywg" / "_native"
OPENRC = CACHE.parent / "debian" / "openrc"
# In place of pywgd a script that writes down what it is asked, and waits to be ended. It has a
# reader of its pipe, so nothing here is waited for by looking again and again.
UNDER_OPENRC = r"""
cp -a /openrc/. /
state=/run/openrc
for folder in starting started stopping inactive wasinactive failed hotplugged daemons options \
    exclusive scheduled tmp; do
    mkdir -p $state/$folder
done
touch $state/softlevel
mkdir -p /etc/conf.d /etc/wireguard
printf '%s\n' '#!/sbin/openrc-run' 'start() { :; }' >/etc/init.d/localmount
cat >/usr/sbin/pywgd <<'END'
#!/bin/sh
echo "$*" >>/run/calls
if [ "$1" != syncconf ]; then
    trap 'echo ended >>/run/calls; kill $!; exit 0' TERM
    sleep 1000 &
    echo "$$" >/run/pipe
    wait
    kill $!
fi
END
mkfifo /run/pipe
cp /deploy/pywgd.initd /etc/init.d/pywgd
cp /deploy/pywgd.confd /etc/conf.d/pywgd
chmod +x /etc/init.d/* /usr/sbin/pywgd
ln -s pywgd /etc/init.d/pywgd.wg0
rm -f /etc/wireguard/wg0.conf
says() { "$@" 2>&1 && echo "exit 0" || echo "exit $?"; }
says rc-service pywgd start
says rc-service pywgd.wg0 start
touch /etc/wireguard/wg0.conf
printf '%s\n' pywgd_args=--low-memory respawn_delay=1 >/etc/conf.d/pywgd.wg0
says rc-service pywgd.wg0 start
first=$(timeout 60 head -n 1 /run/pipe)
says rc-service pywgd.wg0 status
says rc-service pywgd.wg0 reload
kill -KILL "$first"
second=$(timeout 60 head -n 1 /run/pipe)
[ "$first" != "$second" ] && echo "started again"
says rc-service pywgd.wg0 stop
echo ----
cat /run/calls
"""
UNDER_BUSYBOX = """
startdir=$RECIPE
srcdir=$FOLDER/src
pkgdir=$FOLDER/pywg
. "$RECIPE/APKBUILD"
mkdir -p "$srcdir"
cp "$RECIPE"/pywgd.initd "$RECIPE"/pywgd.confd "$srcdir"
build
package
subpkgdir=$FOLDER/pywgd pywgd
subpkgdir=$FOLDER/openrc openrc
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another root")
def test_a_service_for_each_interface() -> None:
    assert OPENRC.is_dir(), "openrc is not unpacked: run scripts/peers"
    folders = {OPENRC: "/openrc", RECIPE: "/deploy"}
    try:
        said, _, calls = root.run_in(root.HERE, UNDER_OPENRC, folders).partition("----\n")
    except subprocess.CalledProcessError as error:
        pytest.fail(error.stdout)
    served = "--config /etc/wireguard/wg0.conf --low-memory wg0 --foreground"
    synced = "syncconf wg0 /etc/wireguard/wg0.conf"
    assert calls.splitlines() == [served, synced, served, "ended"], said
    assert "one service for each interface" in said
    assert "cannot read /etc/wireguard/wg0.conf" in said
    assert "started again\n" in said
    ends = re.findall(r"^exit (\d+)$", said, re.M)
    assert ends == ["1", "1", "0", "0", "0", "0"], said


def test_the_packages_have_their_files(tmp_path: Path) -> None:
    subprocess.run(
        ["busybox", "sh", "-eu", "-c", UNDER_BUSYBOX],
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "RECIPE": str(RECIPE),
            "FOLDER": str(tmp_path),
            "PYWG_PREBUILT": str(NATIVE),
            "CARCH": "x86_64",
        },
        check=True,
    )
    site = f"usr/lib/python3.{sys.version_info.minor}/site-packages/pywg"
    assert (tmp_path / "pywg" / site / "_native" / "libpywg.so").is_file()
    assert (tmp_path / "pywg" / site / "service" / "units" / "pywg@.service").is_file()
    assert not list((tmp_path / "pywg").rglob("__pycache__"))
    assert ".SH COMMANDS" in (tmp_path / "pywg/usr/share/man/man1/pywg.1").read_text()
    for name in ("bash-completion/completions/pywg", "zsh/site-functions/_pywg"):
        assert "pywg" in (tmp_path / "pywg/usr/share" / name).read_text()
    for name in ("pywg/usr/bin/pywg", "pywgd/usr/sbin/pywgd", "openrc/etc/init.d/pywgd"):
        assert os.access(tmp_path / name, os.X_OK)
    assert (tmp_path / "openrc/etc/conf.d/pywgd").is_file()
    assert (tmp_path / "pywgd/etc/wireguard").stat().st_mode & 0o777 == 0o700


def test_versions_and_sums_are_those_of_the_files() -> None:
    text = (RECIPE / "APKBUILD").read_text()
    assert f"\npkgver={core.version()}\n" in text
    for name in ("pywgd.initd", "pywgd.confd"):
        assert f"{hashlib.sha512((RECIPE / name).read_bytes()).hexdigest()}  {name}\n" in text
    openwrt = core.ROOT / "deploy" / "openwrt" / "pywgd" / "Makefile"
    assert f"\nPKG_VERSION:={core.version()}\n" in openwrt.read_text()
