"""Files as people have them, through the real `wg-quick strip` and `wg setconf` and ours."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pywg.config import Config, read
from pywg.config.strip import strip
from pywg.host import resolver as resolve
from pywg.wireguard import uapi
from pywg.wireguard.changes import of_config
from tools.lab.daemon import Daemon, ask
from tools.lab.lab import Lab

pytestmark = pytest.mark.pywgd_only
CONFIGS = sorted((Path(__file__).parents[1] / "data" / "configs").glob("*.conf"))


def test_there_are_forty_files_at_least() -> None:
    assert len(CONFIGS) >= 40


def real_strip(path: Path) -> str:
    done = subprocess.run(
        ["wg-quick", "strip", str(path)], capture_output=True, text=True, timeout=20, check=True
    )
    return done.stdout


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem[:15])
def test_strip_is_that_of_wg_quick(path: Path, tmp_path: Path) -> None:
    named = tmp_path / "wg0.conf"  # some names are longer than an interface's may be
    named.write_bytes(path.read_bytes())
    assert strip(read(path)) == real_strip(named)


def test_what_is_set_is_what_wg_setconf_sets(lab: Lab, tmp_path: Path) -> None:
    """One interface for all: each file replaces what the one before it has set."""
    daemon = lab.daemon(None, lab.namespace("a"))
    different = []
    for path in CONFIGS:
        named = tmp_path / "wg0.conf"
        named.write_bytes(path.read_bytes())
        ask(daemon.name, f"set=1\nprivate_key={'0' * 64}\nfwmark=0\nreplace_peers=true")
        config = resolve.resolve(Config.load(named))
        assert (
            ask(daemon.name, f"set=1\n{uapi.changes_text(of_config(config))}".rstrip())["errno"]
            == "0"
        )
        ours = shown(daemon, config)
        daemon.setconf(real_strip(named))
        if ours != shown(daemon, config):
            different.append((path.name, ours, shown(daemon, config)))
    assert different == []


def shown(daemon: Daemon, config: Config) -> list[str]:
    """`wg showconf`, its sections sorted, without a port that the kernel chose."""
    lines = daemon.wg("showconf", daemon.name).splitlines()
    chosen = config.interface.listen_port is None
    kept = (line for line in lines if not (chosen and line.startswith("ListenPort")))
    return sorted("\n".join(kept).split("\n\n"))
