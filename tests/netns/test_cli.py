"""`pywg up`, `show`, `down`, `run` and `demo` on real interfaces, and that nothing stays behind."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.lab import programs
from tools.lab.daemon import pid_of, socket_path
from tools.lab.lab import Lab, Side
from tools.lab.namespaces import PREFIX
from tools.lab.programs import REPOSITORY, Program
from tools.lab.traffic import ping
from tools.lab.waiting import wait_until

Pywg = Callable[..., str]

pytestmark = pytest.mark.pywgd_only


class Place:
    """A namespace with `pywg`, cabled to one with a daemon that knows it."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.here, there = lab.cabled()
        self.key = lab.key()
        self.name = lab.name("c")
        self.peer: Side = lab.side(None, 2, there)
        self.peer.daemon.setconf(
            self.peer.interface_section()
            + f"[Peer]\nPublicKey = {self.key.public}\nAllowedIPs = 10.99.0.1/32, fd99::1/128\n"
        )
        self.peer.daemon.up("10.99.0.2/24", "fd99::2/64")
        self.file = directory / f"{self.name}.conf"
        self.file.touch(0o600)
        self.file.write_text(
            f"[Interface]\nPrivateKey = {self.key.private}\nAddress = 10.99.0.1/32, fd99::1/128\n"
            + self.peer.peer_section(outer=4, keepalive=25).replace(
                "AllowedIPs = ", "AllowedIPs = 10.98.0.0/16, "
            )
        )

    def attempt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return programs.pywg(self.here, *arguments)

    def pywg(self, *arguments: str) -> str:
        answer = self.attempt(*arguments)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    def is_empty(self) -> None:
        wait_until(lambda: pid_of(self.name) is None, "the process ends")
        assert not socket_path(self.name).exists()
        assert self.here.link(self.name) is None


@pytest.fixture
def place(lab: Lab, subject: Program, tmp_path: Path) -> Iterator[Place]:
    made = Place(lab, tmp_path)
    yield made
    if made.here.link(made.name) is not None:
        made.attempt("down", made.name)


def test_up_makes_a_tunnel_and_down_takes_it_away(place: Place) -> None:
    routes = place.here.ip("route"), place.here.ip("-6", "route")
    place.pywg("up", str(place.file))
    link = place.here.link(place.name)
    assert link is not None
    assert link["mtu"] == 1420
    assert f"10.98.0.0/16 dev {place.name}" in place.here.ip("route")
    ping(place.here, "10.99.0.2", 2)
    ping(place.here, "fd99::2", 2)
    place.pywg("down", place.name)
    place.is_empty()
    assert (place.here.ip("route"), place.here.ip("-6", "route")) == routes


def test_show_says_what_wg_show_says(place: Place) -> None:
    place.pywg("up", str(place.file))
    ping(place.here, "10.99.0.2", 1)
    # The counters stand still while nobody sends, but a second may pass between the two.
    wait_until(
        lambda: place.pywg("show", place.name) == place.here.run("wg", "show", place.name),
        "both say the same",
    )
    assert place.name in place.pywg("show", "interfaces").split()
    status = json.loads(place.pywg("show", place.name, "--json"))
    assert place.key.private not in json.dumps(status)
    offload = place.pywg("show", place.name, "--offload")
    assert "udp gso" in offload
    assert "active" in offload


def test_up_of_what_is_up_is_refused_and_harms_nothing(place: Place) -> None:
    place.pywg("up", str(place.file))
    answer = place.attempt("up", str(place.file))
    assert answer.returncode == 1
    assert "exists" in answer.stderr
    ping(place.here, "10.99.0.2", 1)


def test_a_step_that_fails_undoes_the_steps_before_it(place: Place) -> None:
    place.here.ip("route", "add", "10.98.0.0/16", "dev", "veth")
    answer = place.attempt("up", str(place.file))
    assert answer.returncode == 1
    assert "10.98.0.0/16" in answer.stderr
    place.is_empty()


def test_run_goes_to_the_background_when_wg_can_configure_it(place: Place) -> None:
    place.pywg("run", place.name)
    assert socket_path(place.name).exists()
    section = place.peer.peer_section(outer=4)
    place.here.run(
        "wg",
        "setconf",
        place.name,
        "/dev/stdin",
        text=f"[Interface]\nPrivateKey = {place.key.private}\n{section}",
    )
    place.here.ip("address", "add", "10.99.0.1/24", "dev", place.name)
    place.here.ip("link", "set", place.name, "up")
    ping(place.here, "10.99.0.2", 1)
    pid = pid_of(place.name)
    assert pid is not None
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)
    os.kill(pid, signal.SIGTERM)
    place.is_empty()


def demo(*before: str, tier: str, scratch: Path) -> dict[str, Any]:
    answer = subprocess.run(
        [*before, sys.executable, "-m", "pywg", "demo", "--tier", tier, "--seconds", "1", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=REPOSITORY,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    assert answer.returncode == 0, answer.stderr
    outcome: dict[str, Any] = json.loads(answer.stdout)
    assert outcome["tier"] == tier
    assert list(scratch.iterdir()) == [], "a file was left"
    return outcome


def host() -> tuple[str, str]:
    """What a demo must leave as it was. Tests that run beside us have namespaces of their own."""

    def ip(*arguments: str) -> str:
        return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True).stdout

    names = ip("netns", "list").splitlines()
    return ip("-br", "link"), "\n".join(name for name in names if not name.startswith(PREFIX))


@pytest.mark.parametrize("tier", ["root", "userns", "loopback"])
def test_the_demo_measures_and_leaves_nothing_behind(
    subject: Program, tier: str, tmp_path: Path
) -> None:
    before = host()
    outcome = demo(tier=tier, scratch=tmp_path)
    assert host() == before
    assert 2 <= len(outcome["next"]) <= 3
    if tier != "loopback":
        others = {"bare veth"} | ({"wireguard-go"} if shutil.which("wireguard-go") else set())
        assert set(outcome["beside"]) == others
        transfers = [outcome["transfers"], *outcome["beside"].values()]
        assert all(one["mbit_per_s"] > 0 for each in transfers for one in each)


def test_the_demo_works_as_nobody(subject: Program) -> None:
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]
    if subprocess.run([*nobody, sys.executable, "-c", ""], check=False, stderr=-3).returncode:
        pytest.skip(f"nobody may not run {sys.executable}")
    node = "mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200"
    inside = ["unshare", "--mount", "sh", "-c", f'{node} && exec "$@"', "sh"]
    with tempfile.TemporaryDirectory() as scratch:  # pytest's own is closed to others
        Path(scratch).chmod(0o777)
        outcome = demo(*inside, *nobody, tier="userns", scratch=Path(scratch))
    last = outcome["next"][-1]["command"]
    assert last.endswith(" --help")
    helped = subprocess.run(
        [*nobody, *shlex.split(last)], capture_output=True, text=True, check=False
    )
    assert helped.returncode == 0 and "Commands:" in helped.stdout


def test_a_demo_that_is_interrupted_leaves_nothing_behind(subject: Program) -> None:
    before = host()
    # Background jobs of a shell inherit an ignored SIGINT, and then so would the demo.
    heed = ["env", "--default-signal=INT"]
    running = subprocess.Popen(
        [*heed, sys.executable, "-u", "-m", "pywg", "demo", "--tier", "root", "--seconds", "30"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        start_new_session=True,
    )
    assert running.stdout is not None
    for line in running.stdout:
        if line.startswith("ping"):
            break
    os.killpg(running.pid, signal.SIGINT)
    running.wait(10)
    assert running.returncode != 0
    assert host() == before
