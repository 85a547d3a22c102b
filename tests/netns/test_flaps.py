"""A cable that comes and goes, and calls that fail for long: the stream goes on afterwards, nothing
ends, and the log does not run over."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.lab.lab import Lab
from tools.lab.stream import Stream
from tools.lab.tracing import failing, injected
from tools.lab.waiting import wait_until

pytestmark = pytest.mark.pywgd_only


def cpu_seconds(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / 100


def test_a_cable_that_comes_and_goes(lab: Lab) -> None:
    tunnel = lab.tunnel()
    tunnel.session()
    before = len(tunnel.a.daemon.log().splitlines())
    with Stream(tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner4) as stream:
        stream.flows()
        for _ in range(30):
            tunnel.a.namespace.ip("link", "set", "veth", "down")
            tunnel.a.namespace.ip("link", "set", "veth", "up")
        stream.flows(10)
    assert len(tunnel.a.daemon.log().splitlines()) - before < 40


@pytest.mark.parametrize("error", ["EIO", "ENETUNREACH", "ENOBUFS"])
def test_a_hundred_errors_in_a_row_on_receiving_end_nothing(
    lab: Lab, tmp_path: Path, error: str
) -> None:
    tunnel = lab.tunnel()
    tunnel.session()
    trace = tmp_path / "trace"
    with (
        Stream(tunnel.b.namespace, tunnel.a.namespace, tunnel.a.inner4) as stream,
        failing(tunnel.a.daemon.pid, "recvmmsg", error, "1..100", trace),
    ):
        wait_until(lambda: injected(trace) >= 100, "a hundred errors", 20)
        stream.flows(10)
    assert len([line for line in tunnel.a.daemon.log().splitlines() if error in line]) < 20


@pytest.mark.parametrize("error", ["ENOBUFS", "EPERM"])
def test_sending_that_fails_all_the_time_costs_no_more_than_sending(
    lab: Lab, tmp_path: Path, error: str
) -> None:
    """No spinning: a call that fails is not made again until there is something new to send."""
    tunnel = lab.tunnel()
    tunnel.session()
    trace = tmp_path / "trace"
    daemon = tunnel.a.daemon
    with failing(daemon.pid, "sendmmsg", error, "1+", trace):
        tunnel.a.namespace.attempt("ping", "-q", "-i", "0.1", "-c", "10", "-w", "2", "10.99.0.2")
        before, calls = cpu_seconds(daemon.pid), injected(trace)
        tunnel.a.namespace.attempt("ping", "-q", "-i", "0.1", "-c", "10", "-w", "2", "10.99.0.2")
        assert cpu_seconds(daemon.pid) - before < 0.5
        assert injected(trace) - calls < 200
    tunnel.a.namespace.run("ping", "-c", "1", "-w", "10", "10.99.0.2")
