"""Nobody waits for whoever reads the log: a tunnel goes on while nobody does."""

from __future__ import annotations

import pytest

from tools.lab.daemon import ask
from tools.lab.lab import Lab
from tools.lab.traffic import ping

pytestmark = pytest.mark.pywgd_only

# The log goes to a program that ends at once, or that never reads: a pipe holds 64 KiB.
READERS = {"gone": "true", "asleep": "exec sleep 1000"}


@pytest.mark.parametrize("reader", READERS)
def test_a_log_that_nobody_reads_holds_nothing_up(lab: Lab, reader: str) -> None:
    wrapper = ("bash", "-c", f'exec "$@" 2> >({READERS[reader]})', "bash")
    tunnel = lab.tunnel(wrapper=wrapper)
    name = tunnel.a.daemon.name
    for _ in range(1500):  # a line each, of some 70 bytes
        assert ask(name, "set=1\nfwmark=x")["errno"] != "0"
    tunnel.ping()
    tunnel.b.namespace.ip("link", "set", tunnel.b.daemon.name, "down")
    tunnel.b.namespace.ip("link", "set", tunnel.b.daemon.name, "up")
    ping(tunnel.b.namespace, tunnel.a.inner4, 1)  # a new session
