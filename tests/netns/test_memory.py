"""`--memory-limit` and MemoryLimit: what would pass it is refused whole, and the tunnel goes on."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

import pytest

from tests.netns.test_up_compare import FILES
from tools.lab.daemon import ask, socket_path
from tools.lab.host import hosted
from tools.lab.lab import Lab
from tools.lab.namespaces import unique
from tools.lab.programs import Program
from tools.lab.traffic import exchange

pytestmark = pytest.mark.pywgd_only
MIB = 1 << 20
PEERS = [f"public_key={secrets.token_hex(32)}" for _ in range(8000)]


def test_peers_that_would_pass_the_limit_are_refused_whole_and_the_tunnel_goes_on(lab: Lab) -> None:
    tunnel = lab.tunnel(environment={"PYWG_THREADS": "1", "PYWG_MEMORY_LIMIT": "10"})
    tunnel.session()
    space, name = tunnel.a.namespace, tunnel.a.daemon.name
    before = space.run("wg", "showconf", name)
    assert ask(name, "\n".join(["set=1", *PEERS]))["errno"] == "-12"
    assert space.run("wg", "showconf", name) == before
    report = ask(name, "pywg_get=1")
    assert 6 * MIB < int(report["memory_bytes"]) <= int(report["memory_limit"]) == 10 * MIB
    exchange(space, tunnel.b.namespace, tunnel.b.inner4, MIB, MIB)
    assert ask(name, "\n".join(["set=1", *PEERS[:800]]))["errno"] == "0"


def test_a_limit_below_what_the_buffers_need_says_so(lab: Lab, subject: Program) -> None:
    space, name = lab.namespace("a"), lab.name("w")
    answer = space.attempt(subject.path, "-f", "--memory-limit", "3", name, timeout=30)
    assert answer.returncode == 1
    assert "needs more than the limit of 3072 KiB" in answer.stderr
    assert not socket_path(name).exists() and space.link(name) is None


def test_a_file_limits_its_own_tunnel(subject: Program, tmp_path: Path) -> None:
    with hosted(tmp_path) as host:
        name = unique("m")
        path = host.config(
            name, FILES["split"].replace("[Peer]", "#!pywg MemoryLimit = 40\n[Peer]")
        )
        host.pywg("up", str(path))
        assert int(ask(name, "pywg_get=1")["memory_limit"]) == 40 * MIB
        host.pywg("down", name)
        path.write_text(path.read_text().replace("MemoryLimit = 40", "MemoryLimit = 1"))
        answer = host.attempt(sys.executable, "-m", "pywg", "up", str(path))
        assert answer.returncode == 1
        assert "needs more than the limit of 1024 KiB" in answer.stderr
        assert host.namespace.link(name) is None
