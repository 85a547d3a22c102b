"""Under a flood of handshakes sessions go on, new ones begin, cookies are asked for, and memory
stays where it is."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tools.lab.flood import TARGET, connect, flooding
from tools.lab.lab import PORT, Lab, wait_for_session
from tools.lab.namespaces import Namespace
from tools.lab.stream import SOON, Stream
from tools.lab.traffic import ping
from tools.lab.waiting import wait_until

pytestmark = pytest.mark.pywgd_only
MIB_IN_PAGES = (1 << 20) // 4096


def resident_pages(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1])


@pytest.mark.parametrize("kind", ["valid", "junk"])
def test_sessions_go_on_and_new_ones_begin(lab: Lab, kind: str) -> None:
    tunnel = lab.tunnel()
    flooder = lab.namespace("f")
    connect(tunnel.a.namespace, flooder)
    tunnel.session()
    before = resident_pages(tunnel.a.daemon.pid)
    stream = Stream(tunnel.b.namespace, tunnel.a.namespace, tunnel.a.inner4)
    with stream, flooding(flooder, PORT, tunnel.a.key.public, kind, 5000, 60):
        reason = "cookie_required" if kind == "valid" else "invalid_mac1"
        wait_until(
            lambda: int(tunnel.a.daemon.report()[f"dropped_{reason}"]) > 5000,
            "the flood arrives",
            20,
        )
        stream.flows(SOON)
        # b forgets its session, and begins anew: it is asked for a cookie, and shows it.
        tunnel.b.namespace.ip("link", "set", tunnel.b.daemon.name, "down")
        tunnel.b.namespace.ip("link", "set", tunnel.b.daemon.name, "up")
        began = time.monotonic()
        ping(tunnel.b.namespace, tunnel.a.inner4, 1, seconds=12)
        # One retransmission, after five seconds; the first attempt's cookie makes it a success.
        assert time.monotonic() - began < 9
        stream.flows(SOON)
    assert resident_pages(tunnel.a.daemon.pid) - before < 16 * MIB_IN_PAGES


def test_a_flood_from_one_address_does_not_shut_out_another(lab: Lab) -> None:
    tunnel = lab.tunnel(knows="b")
    flooder = lab.namespace("f")
    connect(tunnel.a.namespace, flooder)
    with flooding(flooder, PORT, tunnel.a.key.public, "valid-one", 3000, 60):
        wait_until(
            lambda: int(tunnel.a.daemon.report()["dropped_cookie_required"]) > 1000,
            "the flood",
            20,
        )
        ping(tunnel.b.namespace, tunnel.a.inner4, 1, seconds=12)
        wait_for_session(tunnel.a, tunnel.b)
    assert TARGET not in tunnel.a.daemon.peer(tunnel.b.key.public)["endpoint"]


def waiting_bytes(namespace: Namespace) -> int:
    """What lies unread in our IPv4 socket, as the kernel counts it."""
    port = f":{PORT:04X}"
    lines = (line.split() for line in namespace.run("cat", "/proc/net/udp").splitlines()[1:])
    return sum(int(line[4].split(":")[1], 16) for line in lines if line[1].endswith(port))


def test_a_flood_does_not_hold_up_ordinary_programs_for_long(lab: Lab) -> None:
    tunnel = lab.tunnel(environment={"PYWG_PRIORITY": "realtime"}, log_level="verbose")
    flooder = lab.namespace("f")
    connect(tunnel.a.namespace, flooder)
    tunnel.session()
    pid = tunnel.a.daemon.pid
    realtime = os.SCHED_RR | os.SCHED_RESET_ON_FORK
    assert os.sched_getscheduler(pid) == realtime
    said = "a flood; ordinary programs are not held up by it"
    with flooding(flooder, PORT, tunnel.a.key.public, "valid", 100_000, 120):
        # However slowly it comes: it has more to do than it may do before all others.
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: waiting_bytes(tunnel.a.namespace) > 8 << 20, "the flood waits", 100)
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: said in tunnel.a.daemon.log(), "it gives way")
    wait_until(lambda: os.sched_getscheduler(pid) == realtime, "it comes first again")
    assert "stays an ordinary thread" not in tunnel.a.daemon.log()
    tunnel.ping()
