"""Several threads in one daemon: every flow keeps its order, and all of them carry packets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.lab.daemon import Daemon
from tools.lab.lab import Lab, Tunnel
from tools.lab.traffic import exchange, iperf3, received_bits_per_second
from tools.lab.waiting import wait_until

FLOWS = 8
PACKETS = 4000

# Numbers the datagrams of each flow; the other end counts those that come after a later one.
SENDER = f"""
import socket, sys
target = sys.argv[1]
family = socket.AF_INET6 if ":" in target else socket.AF_INET
flows = [socket.socket(family, socket.SOCK_DGRAM) for _ in range({FLOWS})]
for flow in flows:
    flow.connect((target, 4242))
    flow.settimeout(30)
for number in range({PACKETS}):
    for flow in flows:
        flow.send(number.to_bytes(4, "big") + bytes((number * 37) % 1200))
    # Not more under way than a queue holds, but always some, also when the first answer arrives:
    # that moves the flow to the thread that wrote it.
    if number % 16 == 15 and number > 16:
        for flow in flows:
            flow.recv(64)
"""
RECEIVER = f"""
import json, socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
ear = socket.socket(family, socket.SOCK_DGRAM)
ear.setsockopt(socket.SOL_SOCKET, 33, 1 << 23)  # SO_RCVBUFFORCE
ear.bind((sys.argv[1], 4242))
ear.settimeout(20)
print("ready", flush=True)
latest, reordered, received = {{}}, 0, 0
while len(latest) < {FLOWS} or any(number < {PACKETS} - 1 for number in latest.values()):
    data, sender = ear.recvfrom(2048)
    number = int.from_bytes(data[:4], "big")
    received += 1
    reordered += number < latest.get(sender, -1)
    latest[sender] = max(number, latest.get(sender, -1))
    if number % 16 == 15:
        ear.sendto(b"on", sender)
print(json.dumps({{"received": received, "reordered": reordered}}))
"""


def threads_of(daemon: Daemon) -> int:
    return len(list(Path(f"/proc/{daemon.pid}/task").iterdir()))


def threaded(lab: Lab, threads: int, **options: object) -> Tunnel:
    return lab.tunnel(environment={"PYWG_THREADS": str(threads)}, **options)  # type: ignore[arg-type]


def count_reordered(tunnel: Tunnel, target: str) -> dict[str, int]:
    def start(side: str, program: str) -> subprocess.Popen[str]:
        space = tunnel.a.namespace if side == "a" else tunnel.b.namespace
        command = ["ip", "netns", "exec", space.name, sys.executable, "-c", program, target]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    receiver = start("b", RECEIVER)
    try:
        assert receiver.stdout is not None and receiver.stdout.readline() == "ready\n"
        sender = start("a", SENDER)
        try:
            answer, _ = receiver.communicate(timeout=60)
            assert sender.wait(10) == 0
        finally:
            sender.kill()
            sender.wait()
    finally:
        receiver.kill()
        receiver.wait()
    counts: dict[str, int] = json.loads(answer)
    return counts


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("inner", [4, 6], ids=["in-v4", "in-v6"])
def test_no_flow_is_reordered(lab: Lab, threads: int, inner: int) -> None:
    tunnel = threaded(lab, threads, outer=10 - inner)
    assert threads_of(tunnel.a.daemon) == threads
    tunnel.session()
    counts = count_reordered(tunnel, tunnel.b.inner4 if inner == 4 else tunnel.b.inner6)
    assert counts == {"received": FLOWS * PACKETS, "reordered": 0}


def test_content_survives_many_flows_over_many_threads(lab: Lab) -> None:
    tunnel = threaded(lab, 4)
    exchange(tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner6, 8 << 20, 8 << 20)
    for reverse in (False, True):
        report = iperf3(
            tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner4, 1, "-P8", reverse=reverse
        )
        assert received_bits_per_second(report) > 1e6


def test_every_thread_carries_its_share_and_all_end_together(lab: Lab) -> None:
    tunnel = threaded(lab, 3)
    tunnel.session()
    iperf3(tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner4, 2, "-P16")
    task = Path(f"/proc/{tunnel.a.daemon.pid}/task")
    slept = [
        int(line.split()[1])
        for thread in task.iterdir()
        for line in (thread / "status").read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    ]
    assert len(slept) == 3 and min(slept) > 10
    tunnel.a.daemon.namespace.ip("link", "delete", tunnel.a.daemon.name)
    ended = tunnel.a.daemon.process.poll
    wait_until(lambda: ended() is not None, "the daemon has ended")
    assert ended() == 0


@pytest.mark.parametrize("priority", ["realtime", "normal"])
def test_every_thread_has_the_priority_asked_for(lab: Lab, priority: str) -> None:
    tunnel = lab.tunnel(environment={"PYWG_THREADS": "3", "PYWG_PRIORITY": priority})
    tunnel.session()  # each thread has said so before its first wait
    policy = os.SCHED_OTHER if priority == "normal" else os.SCHED_RR | os.SCHED_RESET_ON_FORK
    threads = Path(f"/proc/{tunnel.a.daemon.pid}/task").iterdir()
    assert {os.sched_getscheduler(int(thread.name)) for thread in threads} == {policy}
