"""`pywg up --dry-run` prints what `up` does, in its words, and does nothing; `--explain` says
why."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.lab.host import Host, hosted
from tools.lab.namespaces import unique
from tools.lab.programs import Program
from tools.lab.waiting import wait_until

from .test_up_compare import FILES, PRIVATE, PSK

pytestmark = pytest.mark.pywgd_only

HOOKS = "PreUp = echo before %i\nPostUp = echo after %i\n"
HOOKS += "#!pywg KillSwitch = on\n#!pywg Only = user:root\n"
ALL = FILES["full, both families"].replace("[Peer]", f"{HOOKS}[Peer]", 1)
NAMED = FILES["full"].replace("192.0.2.2:51820", "vpn.example.test:51820")


@pytest.fixture(scope="module")
def host(subject: Program, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with hosted(tmp_path_factory.mktemp("host")) as made:
        yield made


def traced(stderr: str) -> list[str]:
    return [line.removeprefix("[#] ") for line in stderr.splitlines() if line.startswith("[#] ")]


@pytest.mark.parametrize(
    "text",
    [ALL, FILES["split"]],
    ids=["all there is", "split"],
)
def test_it_prints_what_up_then_does_and_changes_nothing(host: Host, text: str) -> None:
    name = unique("d")
    path = str(host.config(name, text))
    before = host.look(name)
    foreseen = host.pywg("up", "--dry-run", path).splitlines()
    assert host.look(name) == before
    assert not host.hosts_of(name)
    done = host.attempt(sys.executable, "-m", "pywg", "up", path)
    assert done.returncode == 0, done.stderr
    assert foreseen == traced(done.stderr)
    host.pywg("down", name)


def test_hooks_are_not_run_and_names_not_asked_for(host: Host) -> None:
    name = unique("d")
    hook = f"PreUp = touch {host.directory}/ran\n#!pywg Only = user:not-yet-here"
    path = host.config(name, NAMED.replace("[Peer]", f"{hook}\n[Peer]", 1))
    answer = host.attempt(sys.executable, "-m", "pywg", "up", "--dry-run", str(path))
    assert answer.returncode == 0, answer.stderr
    assert f"touch {host.directory}/ran" in answer.stdout
    assert not (host.directory / "ran").exists()
    assert "PreUp is not run now" in answer.stderr
    assert "up asks for vpn.example.test:51820 here" in answer.stderr
    assert "the MTU may be another" in answer.stderr
    assert "there is no user not-yet-here" in answer.stderr
    assert "unless PreUp mends that" in answer.stderr


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        yield Path(place)


def test_it_needs_no_root_and_says_what_that_costs(host: Host, open_to_all: Path) -> None:
    name = unique("d")
    path = open_to_all / f"{name}.conf"
    path.write_text(FILES["full, with a mark"])
    as_root = host.pywg("up", "--dry-run", str(path))
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]
    answer = host.attempt(*nobody, sys.executable, "-m", "pywg", "up", "--dry-run", str(path))
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == as_root
    assert "not run as root" in answer.stderr


def test_reasons_refusals_and_leftovers_are_told_and_no_secret(host: Host) -> None:
    name = unique("d")
    text = FILES["full, with a mark"].replace("[Peer]\n", f"[Peer]\nPresharedKey = {PSK}\n", 1)
    up = [sys.executable, "-m", "pywg", "up", str(host.config(name, text))]
    foreseen = host.run(*up, "--dry-run", "--explain")
    done = host.attempt(*up, "--explain")
    assert done.returncode == 0, done.stderr
    for said, mark in ((foreseen, "    # "), (done.stderr, "    ")):
        lines = said.splitlines()
        at = next(number for number, line in enumerate(lines) if "ip link set mtu" in line)
        assert lines[at + 1].startswith(f"{mark}the MTU is what the way to the peers leaves")
        assert PRIVATE not in said
        assert PSK not in said
    answer = host.attempt(*up, "--dry-run")
    assert answer.returncode == 1
    assert "already exists" in answer.stderr
    host.kill_host(name)
    wait_until(lambda: host.namespace.link(name) is None, "the interface is gone")
    answer = host.attempt(*up, "--dry-run")
    assert "was not taken down: what it left goes first" in answer.stderr
    assert "ip -4 rule delete not fwmark 4660 table 4660" in answer.stdout
    host.pywg("down", name)
