"""pywgd with little memory: in a control group of 32 MiB it chooses small buffers, carries traffic
both ways, and takes no more under a flood; and its file is small."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.build import core
from tools.lab.daemon import ask
from tools.lab.flood import TARGET, connect, flooding
from tools.lab.lab import PORT, Lab, Tunnel
from tools.lab.memory_group import MemoryGroup, Unavailable, resident
from tools.lab.programs import Program
from tools.lab.traffic import exchange
from tools.lab.waiting import wait_until

pytestmark = pytest.mark.pywgd_only
MIB = 1 << 20
IDLE_MAX = 4 * MIB
FILE_MAX = 450_000


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    try:
        made = MemoryGroup(32 * MIB)
    except Unavailable as reason:
        pytest.skip(str(reason))
    with made:
        yield made


@pytest.fixture
def tunnel(group: MemoryGroup, lab: Lab) -> Iterator[Tunnel]:
    """Both ends are in the group."""
    yield lab.tunnel(wrapper=group.wrapper)
    assert group.kills == 0
    lab.stack.close()  # before the group goes


def test_in_32_mib_it_is_small_and_carries_traffic_both_ways(
    tunnel: Tunnel, group: MemoryGroup
) -> None:
    daemons = [tunnel.a.daemon, tunnel.b.daemon]
    tunnel.session()
    for daemon in daemons:
        assert "there are 32 MiB of memory: small buffers and one thread" in daemon.log()
        assert daemon.report()["threads"] == "1"
        assert resident(daemon.pid) <= IDLE_MAX
    exchange(tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner4, 8 * MIB, 8 * MIB)
    exchange(tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner6, 8 * MIB, 8 * MIB)
    for daemon in daemons:
        assert resident(daemon.pid, most=True) <= IDLE_MAX
    assert group.refusals == 0


def test_under_a_flood_memory_stays_bounded(tunnel: Tunnel, group: MemoryGroup, lab: Lab) -> None:
    daemon, flooder = tunnel.a.daemon, lab.namespace("f")
    connect(tunnel.a.namespace, flooder)
    tunnel.session()
    with flooding(flooder, PORT, tunnel.a.key.public, "valid", 5000, 60):
        wait_until(
            lambda: int(daemon.report()["dropped_cookie_required"]) > 5000,
            f"the flood arrives at {TARGET}",
            20,
        )
    exchange(tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner4, MIB, MIB)
    assert resident(daemon.pid, most=True) <= IDLE_MAX
    assert group.refusals == 0


def test_1000_peers_fit_into_32_mib(tunnel: Tunnel, group: MemoryGroup) -> None:
    name = tunnel.a.daemon.name
    peers = [f"public_key={secrets.token_hex(32)}" for _ in range(1000)]
    assert ask(name, "\n".join(["set=1", *peers]))["errno"] == "0"
    exchange(tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner4, MIB, MIB)
    assert resident(tunnel.a.daemon.pid, most=True) <= 8 * MIB
    assert group.refusals == 0


def test_low_memory_is_chosen_by_a_word_and_refused_by_one(lab: Lab, group: MemoryGroup) -> None:
    sizes = {}
    for value in ("0", "1"):
        daemon = lab.daemon(
            None, lab.namespace("w"), environment={"PYWG_LOW_MEMORY": value, "PYWG_THREADS": "1"}
        )
        sizes[value] = int(daemon.report()["memory_bytes"])
        assert "MiB of memory" not in daemon.log()
    assert sizes["1"] < 2 * MIB < 6 * MIB < sizes["0"]
    unmoved = lab.daemon(
        None, lab.namespace("w"), wrapper=group.wrapper, environment={"PYWG_LOW_MEMORY": "0"}
    )
    assert int(unmoved.report()["memory_bytes"]) > 6 * MIB
    lab.stack.close()


def test_the_static_file_is_small_has_its_checks_and_carries_traffic(
    lab: Lab, tmp_path: Path
) -> None:
    built = core.build(
        tmp_path / "small", core.find_arch(), core.find_zig(), products=(core.DAEMON,), small=True
    )
    path = built[core.DAEMON]
    program = path.read_bytes()
    assert len(program) <= FILE_MAX
    for said in (b"index out of bounds", b"integer overflow", b"reached unreachable code"):
        assert said in program
    tunnel = lab.tunnel(Program("small", str(path)))
    exchange(tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner4, 8 * MIB, 8 * MIB)
    assert resident(tunnel.a.daemon.pid) <= IDLE_MAX
