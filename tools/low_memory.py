"""What pywgd needs of memory, and what little memory costs.

    scripts/low_memory [--rounds N] [--seconds S] [--limit MIB]

Prints the tables of docs/low-memory.md. Two ends and iperf3 on this machine, with small buffers and
with the usual ones in turns, both with one thread: memory of one end when it is idle with a peer,
the most it had, and when it is idle again; TCP both ways, as medians and as ratios of the same
round. Then one end alone in a control group of --limit, with small buffers: TCP both ways, a flood,
and how many peers fit until a request is refused. Needs root, iperf3, and control groups that can
be written. PYWGD=/path/to/pywgd measures another build.
"""

from __future__ import annotations

import argparse
import secrets
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.lab import programs
from tools.lab.daemon import ask
from tools.lab.flood import connect, flooding
from tools.lab.lab import PORT, Lab, Tunnel
from tools.lab.memory_group import MemoryGroup, Unavailable, resident
from tools.lab.namespaces import sweep
from tools.lab.seclusion import seclude
from tools.lab.traffic import iperf3, received_bits_per_second
from tools.lab.waiting import wait_until

MIB = 1 << 20
MODES = {"usual": "0", "small": "1"}
Row = dict[str, float]
FLOOD_PER_SECOND = 2000
PEERS_AT_ONCE = 500
PEERS_MOST = 20_000


@contextmanager
def laboratory() -> Iterator[Lab]:
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        try:
            yield lab
        finally:
            lab.close()


def traffic(tunnel: Tunnel, seconds: float) -> Row:
    """Gbit/s of one TCP stream out of end a, and into it."""
    a, b = tunnel.a, tunnel.b
    return {
        name: received_bits_per_second(
            iperf3(a.namespace, b.namespace, b.inner4, seconds, reverse=reverse)
        )
        / 1e9
        for name, reverse in (("tcp out", False), ("tcp in", True))
    }


def measure(mode: str, seconds: float) -> Row:
    with laboratory() as lab:
        tunnel = lab.tunnel(environment={"PYWG_LOW_MEMORY": MODES[mode], "PYWG_THREADS": "1"})
        tunnel.session()
        pid = tunnel.a.daemon.pid
        row = {"idle": resident(pid) / MIB}
        row |= traffic(tunnel, seconds)
        return row | {"most": resident(pid, most=True) / MIB, "idle again": resident(pid) / MIB}


def compare(rounds: int, seconds: float) -> None:
    rows: dict[str, list[Row]] = {mode: [] for mode in MODES}
    for _ in range(rounds):
        for mode in MODES:
            rows[mode].append(measure(mode, seconds))
    print(f"{'':12}{'usual':>10}{'small':>10}{'ratio':>10}")
    for name in rows["usual"][0]:
        usual = [row[name] for row in rows["usual"]]
        small = [row[name] for row in rows["small"]]
        ratio = statistics.median(s / u for u, s in zip(usual, small, strict=True))
        print(
            f"{name:12}{statistics.median(usual):10.2f}{statistics.median(small):10.2f}{ratio:10.2f}"
        )
    print("memory in MiB, TCP in Gbit/s")


def confined(limit: int, seconds: float) -> None:
    """Steps in one group, each with what it brought the memory to."""
    try:
        group = MemoryGroup(limit * MIB)
    except Unavailable as reason:
        raise SystemExit(f"low_memory: {reason}") from None
    with group, laboratory() as lab:
        a, b = lab.cabled()
        near = lab.side(None, 1, a, wrapper=group.wrapper)
        far = lab.side(None, 2, b)
        tunnel = Tunnel(near, far, None, 4)
        for here, there in ((near, far), (far, near)):
            here.daemon.setconf(here.interface_section() + there.peer_section(None, 4))
            here.daemon.up(f"{here.inner4}/24", f"{here.inner6}/64")
        tunnel.session()
        flooder = lab.namespace("f")
        connect(near.namespace, flooder)

        def step(name: str, work: Callable[[], str]) -> None:
            said = work()
            print(
                f"{name:10}{resident(near.daemon.pid, most=True) / MIB:10.2f}"
                f"{(group.bytes_most or group.bytes_used) / MIB:10.2f}"
                f"{group.refusals:10}{group.kills:8}  {said}"
            )

        print(f"\nin a control group of {limit} MiB, MiB at most so far:")
        print(f"{'':10}{'process':>10}{'group':>10}{'refusals':>10}{'kills':>8}")
        step("session", str)
        step("TCP", lambda: _spoken(traffic(tunnel, seconds)))
        step("flood", lambda: _flood(tunnel, flooder, seconds))
        step("peers", lambda: f"{_fill(near.daemon.name)} peers")
        step("TCP", lambda: _spoken(traffic(tunnel, seconds)))


def _spoken(row: Row) -> str:
    return ", ".join(f"{name} {value:.2f} Gbit/s" for name, value in row.items())


def _flood(tunnel: Tunnel, flooder: object, seconds: float) -> str:
    near = tunnel.a
    with flooding(flooder, PORT, near.key.public, "valid", FLOOD_PER_SECOND, seconds + 60):  # type: ignore[arg-type]
        wait_until(
            lambda: int(near.daemon.report()["dropped_cookie_required"]) > 2000, "the flood", 30
        )
        row = traffic(tunnel, seconds)
    return f"{_spoken(row)} beside {FLOOD_PER_SECOND} initiations a second"


def _fill(name: str) -> int:
    """Peers with an allowed address each, until a request is refused, or PEERS_MOST."""
    count = 0
    while count < PEERS_MOST:
        lines = ["set=1"]
        for number in range(count, count + PEERS_AT_ONCE):
            lines.append(f"public_key={secrets.token_hex(32)}")
            lines.append(
                f"allowed_ip=10.{100 + (number >> 16)}.{number >> 8 & 255}.{number & 255}/32"
            )
        if ask(name, "\n".join(lines))["errno"] != "0":
            break
        count += PEERS_AT_ONCE
    return count


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="low_memory", description="What pywgd needs of memory, and what little memory costs."
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="of each stream (default: 3)")
    parser.add_argument("--limit", type=int, default=32, help="of the group, in MiB (default: 32)")
    options = parser.parse_args()
    seclude()
    programs.subject()
    try:
        compare(options.rounds, options.seconds)
        confined(options.limit, options.seconds)
    finally:
        sweep()
    sys.stdout.flush()


if __name__ == "__main__":
    main()
