"""A daemon that is killed at any moment can be started again at once, and the other side takes it
back with one handshake."""

from __future__ import annotations

import os
import random
import secrets
import time

import pytest

from tools.lab.daemon import make_stale
from tools.lab.lab import Lab
from tools.lab.programs import Program
from tools.lab.wire import Wire

pytestmark = pytest.mark.pywgd_only
ROUNDS = 30


def test_thirty_times_killed_and_started_again(lab: Lab, subject: Program) -> None:
    seed = int(os.environ.get("PYWG_TEST_SEED") or secrets.randbits(32))
    print(f"PYWG_TEST_SEED={seed}")
    chance = random.Random(seed)
    tunnel = lab.tunnel()
    tunnel.session()
    wires = {"a": Wire(tunnel.a.namespace), "b": Wire(tunnel.b.namespace)}
    for number in range(ROUNDS):
        label = chance.choice("ab")
        side, other = (tunnel.a, tunnel.b) if label == "a" else (tunnel.b, tunnel.a)
        noise = side.namespace.popen(
            ["ping", "-q", "-i", "0.01", "-w", "2", other.inner4], stdout=-3
        )
        # Not the wait for an event, but the moment that chance has chosen.
        time.sleep(chance.uniform(0, 0.2))
        side.daemon.kill()
        noise.kill()
        noise.wait()
        make_stale(side.daemon.name)
        side.daemon = lab.daemon(subject, side.namespace, side.daemon.name, log_level="error")
        side.daemon.setconf(tunnel.configuration(label))
        before = wires[label]["initiation_output"]
        side.daemon.up(f"{side.inner4}/24", f"{side.inner6}/64")
        tunnel.ping(1, sender=label)
        tunnel.ping(1, sender="b" if label == "a" else "a")
        begun = wires[label]["initiation_output"] - before
        assert begun == 1, f"round {number}: {begun} initiations"
    assert tunnel.a.namespace.link(tunnel.a.daemon.name) is not None


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_while_it_starts_it_leaves_nothing_in_the_way(
    lab: Lab, subject: Program, seed: int
) -> None:
    chance, space, name = random.Random(seed), lab.namespace("a"), lab.name("w")
    for _ in range(10):
        starting = space.popen([subject.path, "-f", name], stderr=-3)
        time.sleep(chance.uniform(0, 0.02))
        starting.kill()
        starting.wait()
    daemon = lab.daemon(subject, space, name)
    assert daemon.terminate() == 0
