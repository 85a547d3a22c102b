"""`pywg up` is all or nothing: whichever step fails, or is interrupted, nothing is left."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tools.lab.daemon import pid_of, socket_path
from tools.lab.host import Host
from tools.lab.namespaces import unique
from tools.lab.programs import REPOSITORY
from tools.lab.waiting import wait_until

from .test_up_compare import FILES, RESOLVCONF

pytestmark = pytest.mark.pywgd_only

# Runs `pywg up` once for each step that a whole one has, and lets that step fail: before it did
# anything, or by Ctrl-C when it was done. After each it tells what can be seen.
FAULTS = """
import json, sys
from pywg import cli
from pywg.errors import NetworkError
from pywg.tunnel.apply import Applier

whole, after, path = Applier.apply, sys.argv[1] == "interrupted", sys.argv[2]

def up(index):
    count, ended = 0, None

    def apply(self, step):
        nonlocal count, ended
        number, count = count, count + 1
        if ended is None and number == index:
            ended = str(step)
            if after:
                whole(self, step)
                raise KeyboardInterrupt
            raise NetworkError("planted")
        whole(self, step)

    Applier.apply = apply
    code = cli.main(["up", path])
    print(json.dumps([code, ended]), flush=True)
    if ended is None:
        Applier.apply = whole
        cli.main(["down", path])
    return ended

index = 0
while up(index) is not None:
    sys.stdin.readline()
    index += 1
"""

HOOKS = "PreUp = true\nPostUp = ip route show dev %i > /dev/null\nPostUp = true\n"


def nothing_is_left(host: Host, name: str) -> None:
    wait_until(lambda: not host.hosts_of(name), f"no process has to do with {name}")
    assert pid_of(name) is None
    assert not socket_path(name).exists()


@pytest.mark.parametrize(("how", "manager"), [("failing", "resolvconf"), ("interrupted", "file")])
def test_whichever_step_ends_it_nothing_is_left(host: Host, how: str, manager: str) -> None:
    if manager == "resolvconf":
        host.program("resolvconf", RESOLVCONF.replace("$CALLS", str(host.directory / "calls")))
    name = unique("u")
    path = host.config(name, FILES["full, both families"].replace("[Peer]", f"{HOOKS}[Peer]", 1))
    before = host.look(name)
    with host.namespace.entered():
        running = subprocess.Popen(
            host.inside(sys.executable, "-c", FAULTS, how, str(path)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/local/sbin:/usr/sbin:/usr/bin:/bin"},
        )
    ended = []
    assert running.stdin is not None
    assert running.stdout is not None
    with running:
        for line in running.stdout:
            code, step = json.loads(line)
            if step is None:
                assert code == 0
                break
            ended.append(step)
            assert code == 1, step
            assert host.look(name) == before, step
            assert not socket_path(name).exists(), step
            running.stdin.write("\n")
            running.stdin.flush()
    assert len(ended) == 20, ended
    assert host.look(name) == before
    if manager == "resolvconf":
        calls = (host.directory / "calls").read_text()
        assert calls.count("resolvconf -a") == calls.count("resolvconf -d")
    nothing_is_left(host, name)


def test_a_hook_that_fails_undoes_everything_and_is_named(host: Host) -> None:
    name = unique("u")
    text = FILES["full"].replace("[Peer]", "PostUp = echo one; false; echo two\n[Peer]")
    before = host.look(name)
    answer = host.attempt(sys.executable, "-m", "pywg", "up", str(host.config(name, text)))
    assert answer.returncode == 1
    assert answer.stdout == "one\n"
    last = answer.stderr.splitlines()[-1]
    assert last == f"pywg: {name}: hook failed with code 1: echo one; false; echo two"
    assert host.look(name) == before
    nothing_is_left(host, name)


@pytest.mark.parametrize("again", ["down", "up"])
def test_what_a_killed_process_leaves_is_cleaned_up(host: Host, again: str) -> None:
    name = unique("u")
    path = host.config(
        name,
        FILES["full, both families"]
        .replace("[Peer]", "PostDown = touch $HOOK\n[Peer]", 1)
        .replace("$HOOK", str(host.directory / "hook")),
    )
    before = host.look(name)
    host.pywg("up", str(path))
    up = host.look(name)
    host.kill_host(name)
    wait_until(lambda: host.namespace.link(name) is None, "the interface is gone")
    assert host.look(name)["rules -4"] == up["rules -4"]
    if again == "up":
        host.pywg("up", str(path))
        assert host.look(name) == up
    host.pywg("down", name)
    assert (host.directory / "hook").exists()
    assert host.look(name) == before
    nothing_is_left(host, name)


def test_a_file_that_others_may_write_gets_no_hook_run(host: Host) -> None:
    name = unique("u")
    path = host.config(name, FILES["split"].replace("[Peer]", "PreUp = touch /nowhere\n[Peer]", 1))
    path.chmod(0o620)
    answer = host.attempt(sys.executable, "-m", "pywg", "up", str(path))
    assert answer.returncode == 1
    assert "others may write it" in answer.stderr
    assert "chmod go-w" in answer.stderr
    nothing_is_left(host, name)


def test_a_failing_pre_down_leaves_the_tunnel_up(host: Host) -> None:
    name = unique("u")
    path = host.config(name, FILES["split"].replace("[Peer]", "PreDown = false\n[Peer]", 1))
    host.pywg("up", str(path))
    up = host.look(name)
    assert host.attempt(sys.executable, "-m", "pywg", "down", name).returncode == 1
    assert host.look(name) == up
    path.write_text(path.read_text().replace("false", "true"))
    host.pywg("down", name)
    nothing_is_left(host, name)
