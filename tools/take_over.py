"""A tunnel that is taken over again and again under load: how long packets wait, and what is lost.

    scripts/take_over [ROUNDS] [--threads N] [--idle] [--ipv6] [--phases]

Two daemons in namespaces of their own, one iperf3 connection through the tunnel all the time, and a
datagram each millisecond beside it. In each round a new pywgd takes one of the two over, in turns.
The pause of a round is the longest time between two datagrams that arrived, as far as the sender
did not pause itself; the same is measured for as long without a take-over. Ends with 1 if the
connection broke, a handshake was on the wire that is no renewal, or a pause was longer than 50 ms.
Needs root.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import dataclasses
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tools.lab import programs
from tools.lab.lab import Lab, Side, Tunnel, handshake_seconds
from tools.lab.namespaces import Namespace, sweep
from tools.lab.waiting import wait_until

ROUNDS = 100
PAUSE_MAX_MS = 50.0
# Before and after a take-over, so that what it delays belongs to its round.
REST_SECONDS = 0.15

# Each end is a process of its own, before ordinary ones: nothing else here may hold it up.
SENDER = """
import os, socket, struct, sys, time
os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(2))
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
mouth = socket.socket(family, socket.SOCK_DGRAM)
mouth.connect((sys.argv[1], int(sys.argv[2])))
due = time.monotonic_ns()
while True:
    due = max(due + 1_000_000, time.monotonic_ns() - 1_000_000)
    time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
    try:
        mouth.send(struct.pack("=Q", time.monotonic_ns()))
    except OSError:
        pass
"""
RECEIVER = """
import os, socket, struct, sys, time
os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(2))
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
ear = socket.socket(family, socket.SOCK_DGRAM)
ear.setsockopt(socket.SOL_SOCKET, 33, 1 << 23)  # SO_RCVBUFFORCE
ear.bind((sys.argv[1], 0))
print(ear.getsockname()[1], flush=True)
out = sys.stdout.buffer
while True:
    data = ear.recv(64)
    out.write(data + struct.pack("=Q", time.monotonic_ns()))
    out.flush()
"""


@dataclass
class Probe:
    """When datagrams were sent and arrived, in nanoseconds of the monotonic clock."""

    sent: array.array[int] = field(default_factory=lambda: array.array("Q"))
    arrived: array.array[int] = field(default_factory=lambda: array.array("Q"))

    def listen(self, stream: object) -> None:
        read = stream.read  # type: ignore[attr-defined]
        while record := read(16):
            self.sent.append(int.from_bytes(record[:8], sys.byteorder))
            self.arrived.append(int.from_bytes(record[8:], sys.byteorder))

    def pause_ms(self, began_ns: int, ended_ns: int) -> float:
        """The longest between two arrivals in this time, less what the sender left between them."""
        longest = 0
        for i in range(len(self.arrived) - 1, 0, -1):
            if self.arrived[i - 1] < began_ns:
                break
            if self.arrived[i - 1] > ended_ns:
                continue
            gap = self.arrived[i] - self.arrived[i - 1]
            own = self.sent[i] - self.sent[i - 1]
            longest = max(longest, gap - max(0, own - 1_000_000))
        return longest / 1e6


@contextlib.contextmanager
def probing(sender: Namespace, receiver: Namespace, address: str) -> Iterator[Probe]:
    probe = Probe()
    ear = receiver.popen([sys.executable, "-c", RECEIVER, address], stdout=subprocess.PIPE)
    mouth = None
    assert ear.stdout is not None
    try:
        port = ear.stdout.readline().decode().strip()
        thread = threading.Thread(target=probe.listen, args=(ear.stdout,), daemon=True)
        thread.start()
        mouth = sender.popen([sys.executable, "-c", SENDER, address, port])
        wait_until(lambda: len(probe.arrived) > 10, "datagrams arrive")
        yield probe
    finally:
        for process in (mouth, ear):
            if process is not None:
                process.kill()
                process.wait()


@contextlib.contextmanager
def loaded(sender: Namespace, receiver: Namespace, address: str) -> Iterator[subprocess.Popen[str]]:
    """One iperf3 connection for as long as the block lasts."""
    ear = receiver.popen(["iperf3", "-s", "-1", "-B", address], stdout=subprocess.DEVNULL)
    try:
        table = Path(f"/proc/{ear.pid}/net/{'tcp6' if ':' in address else 'tcp'}")
        wait_until(lambda: re.search(r":1451 0+:0000 0A ", table.read_text()), "iperf3 listens")
        words = ["iperf3", "-c", address, "-t", "86400", "-i", "1", "--forceflush"]
        mouth = sender.popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            yield mouth
        finally:
            if mouth.poll() is None:
                mouth.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                mouth.wait(5)
            mouth.kill()
            mouth.wait()
    finally:
        ear.kill()
        ear.wait()


@dataclass
class Result:
    pauses_ms: list[float] = field(default_factory=list)
    usual_ms: list[float] = field(default_factory=list)
    held_us: list[tuple[int, int]] = field(default_factory=list)
    handshakes: set[int] = field(default_factory=set)


def take_over(lab: Lab, side: Side, log_level: str) -> tuple[int, int]:
    """How long the old one held packets back until it was told that it is no more, and the new one
    until it was open, in us."""
    old = side.daemon
    program = dataclasses.replace(programs.subject(), arguments=("-f", "--take-over"))
    side.daemon = lab.daemon(program, side.namespace, old.name, log_level=log_level)
    if old.wait(20) != 0 or side.daemon.process.poll() is not None:
        raise SystemExit(f"not taken over: {side.daemon.log()}{old.log()[-500:]}")
    lab.daemons.remove(old)
    told = re.search(r"taken over by another process in (\d+) us", old.log())
    opened = re.search(r"taken over from another process in (\d+) us", side.daemon.log())
    return (int(told[1]) if told else 0, int(opened[1]) if opened else 0)


def run(lab: Lab, tunnel: Tunnel, rounds: int, probe: Probe, log_level: str) -> Result:
    result = Result()
    for number in range(rounds):
        side = (tunnel.a, tunnel.b)[number % 2]
        for pauses, work in ((result.usual_ms, False), (result.pauses_ms, True)):
            began_ns = time.monotonic_ns()
            time.sleep(REST_SECONDS)
            if work:
                result.held_us.append(take_over(lab, side, log_level))
            time.sleep(REST_SECONDS)
            pauses.append(probe.pause_ms(began_ns, time.monotonic_ns()))
        result.handshakes.add(handshake_seconds(tunnel.a, tunnel.b))
    return result


def row(label: str, values: list[float], unit: str) -> str:
    ordered = sorted(values)
    at95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    middle = statistics.median(ordered)
    return f"| {label} | {middle:.1f} | {at95:.1f} | {ordered[-1]:.1f} | {unit} |"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="take_over",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rounds", nargs="?", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    parser.add_argument("--threads", type=int, default=1, help="of each daemon (default: 1)")
    parser.add_argument("--idle", action="store_true", help="without the iperf3 connection")
    parser.add_argument("--ipv6", action="store_true", help="inside and outside")
    parser.add_argument("--phases", action="store_true", help="what the daemons' logs say, too")
    arguments = parser.parse_args()
    log_level = "verbose" if arguments.phases else "error"  # which is the default
    sweep()
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        lab = Lab(Path(directory))
        stack.callback(lab.close)
        environment = {"PYWG_THREADS": str(arguments.threads)}
        family = 6 if arguments.ipv6 else 4
        tunnel = lab.tunnel(psk=True, outer=family, environment=environment, log_level=log_level)
        tunnel.session()
        a, b = tunnel.a, tunnel.b
        inner = b.inner6 if arguments.ipv6 else b.inner4
        probe = stack.enter_context(probing(a.namespace, b.namespace, inner))
        load = None
        if not arguments.idle:
            load = stack.enter_context(loaded(a.namespace, b.namespace, inner))
            time.sleep(1)
        before = int(b.daemon.peer(a.key.public)["rx"])
        started = time.monotonic()
        result = run(lab, tunnel, arguments.rounds, probe, log_level)
        seconds = time.monotonic() - started
        carried = int(b.daemon.peer(a.key.public)["rx"]) - before
        is_alive = load is None or load.poll() is None
    print(f"{arguments.rounds} times in {seconds:.0f} s, {arguments.threads} threads")
    print(f"{carried * 8 / seconds / 1e6:.0f} Mbit/s meanwhile")
    print("| | median | 95 % | longest | |")
    print("|---|---|---|---|---|")
    print(row("longest pause, taken over", result.pauses_ms, "ms"))
    print(row("longest pause, as long without", result.usual_ms, "ms"))
    if arguments.phases:
        print(row("turns held by the old one", [us / 1000 for us, _ in result.held_us], "ms"))
        print(row("until the new one was open", [us / 1000 for _, us in result.held_us], "ms"))
    print(f"connection: {'the same' if is_alive else 'broken'}")
    renewals = len(result.handshakes) - 1
    print(f"handshakes: {renewals}, {int(seconds // 120)} due")
    is_good = is_alive and renewals <= seconds // 120 + 1 and max(result.pauses_ms) <= PAUSE_MAX_MS
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
