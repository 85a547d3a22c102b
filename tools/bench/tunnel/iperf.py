"""TCP streams by iperf3, one server and one client each, ended with the transfer."""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.lab.namespaces import Namespace
from tools.lab.waiting import wait_until

LISTENING = "0A"  # TCP_LISTEN
PORT = ":1451 "  # 5201
PATIENCE_SECONDS = 10


@dataclass(frozen=True)
class Carried:
    """What the receivers got, in both directions together."""

    bits_per_second: float
    received_bytes: int
    retransmits: int


def carried(report: dict[str, Any]) -> Carried:
    end = report["end"]
    receivers = [end[key] for key in ("sum_received", "sum_received_bidir_reverse") if key in end]
    senders = [end[key] for key in ("sum_sent", "sum_sent_bidir_reverse") if key in end]
    return Carried(
        sum(float(one["bits_per_second"]) for one in receivers),
        sum(int(one["bytes"]) for one in receivers),
        sum(int(one.get("retransmits", 0)) for one in senders),
    )


@contextlib.contextmanager
def server(space: Namespace, address: str) -> Iterator[None]:
    process = space.popen(
        ["iperf3", "-s", "-1", "-B", address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    table = Path(f"/proc/{process.pid}/net/tcp")

    def listens() -> bool:
        rows = (line.split() for line in table.read_text().splitlines()[1:])
        return any(PORT in f"{row[1]} " and row[3] == LISTENING for row in rows)

    try:
        wait_until(listens, "iperf3 listens")
        yield
    finally:
        end(process)


def start(space: Namespace, address: str, seconds: float, *flags: str) -> subprocess.Popen[str]:
    """Whole seconds: older iperf3 takes half a second for none, and none for ever."""
    argv = ["iperf3", "-J", "-c", address, "-t", str(math.ceil(seconds)), *flags]
    return space.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(client: subprocess.Popen[str], seconds: float) -> Carried:
    try:
        said, complaint = client.communicate(timeout=seconds + PATIENCE_SECONDS)
        report = json.loads(said or "{}")
        if client.returncode != 0:
            raise AssertionError(f"iperf3: {report.get('error') or complaint.strip()}")
        return carried(report)
    except subprocess.TimeoutExpired:
        raise AssertionError("iperf3 does not end") from None
    finally:
        end(client)


def end(process: subprocess.Popen[Any]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()


def transfer(a: Namespace, b: Namespace, address: str, seconds: float, *flags: str) -> Carried:
    with server(b, address):
        return finish(start(a, address, seconds, *flags), seconds)
