"""Each system call of a running daemon fails some times, with each of a few errors, while all that
happens to a tunnel happens: the link goes and comes back, ports and peers change, routes change,
packets pass, wg asks. Any of that may fail meanwhile; afterwards all of it works as before."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.lab.lab import PORT, Lab, Tunnel
from tools.lab.tracing import failing, injected
from tools.lab.traffic import ping, ping_attempt

pytestmark = pytest.mark.pywgd_only

# Those that it makes meanwhile and that can fail, with what they may fail with.
CALLS: dict[str, list[str]] = {
    "accept4": ["ECONNABORTED", "EMFILE"],
    "bind": ["EADDRINUSE", "EACCES"],
    "epoll_ctl": ["ENOMEM"],
    "epoll_pwait,epoll_wait": ["EINTR"],
    "getrandom": ["EINTR"],
    "getsockname": ["ENOBUFS"],
    "getsockopt": ["ENOPROTOOPT"],
    "mmap": ["ENOMEM"],
    "read": ["EINTR", "EIO"],
    "readv": ["EINTR", "ENOMEM"],
    "recvfrom,recvmsg": ["EINTR", "ENOBUFS"],
    "recvmmsg": ["EINTR", "ECONNREFUSED"],
    "sendmmsg": ["EINTR", "EPERM", "EINVAL"],
    "sendto,sendmsg": ["EINTR", "ENOBUFS"],
    "setsockopt": ["ENOMEM", "EPERM"],
    "socket": ["EMFILE", "EAFNOSUPPORT"],
    "write": ["EAGAIN", "EPIPE"],
    "writev": ["EAGAIN", "EIO"],
}
# Every other time, so that also what comes after a success fails.
TIMES = "1+2"


def live(tunnel: Tunnel) -> None:
    """All that happens to a tunnel, on the side whose calls fail."""
    a, b = tunnel.a, tunnel.b
    name = a.daemon.name
    for port in (PORT + 1, PORT):
        a.namespace.attempt("ip", "route", "replace", "198.51.100.0/24", "via", b.outer4)
        a.namespace.attempt("wg", "set", name, "listen-port", str(port))
        a.namespace.attempt("wg", "set", name, "peer", b.key.public, "endpoint", b.endpoint())
        a.namespace.attempt("ip", "link", "set", name, "down")
        a.namespace.attempt("ip", "link", "set", name, "up")
        a.namespace.attempt("ip", "link", "set", name, "mtu", str(1300 + port % 2))
        a.namespace.attempt("wg", "show", name)
        ping_attempt(a.namespace, b.inner4, 2, seconds=1)
        a.namespace.attempt("ip", "route", "delete", "198.51.100.0/24")


@pytest.mark.parametrize("calls", CALLS)
def test_whatever_fails_meanwhile_works_again_afterwards(
    lab: Lab, tmp_path: Path, calls: str
) -> None:
    tunnel = lab.tunnel()
    tunnel.session()
    daemon = tunnel.a.daemon
    for error in CALLS[calls]:
        trace = tmp_path / f"trace-{error}"
        with failing(daemon.pid, calls, error, TIMES, trace):
            live(tunnel)
        assert daemon.process.poll() is None, f"{error} ended it: {daemon.log()}"
        assert injected(trace) > 0, f"nothing failed with {error}"
        restore(tunnel)
        ping(tunnel.a.namespace, tunnel.b.inner4, 1)
        ping(tunnel.b.namespace, tunnel.a.inner4, 1)
        assert int(daemon.report()["errno"]) == 0


def restore(tunnel: Tunnel) -> None:
    """What a user would do who has seen errors: say it again."""
    a, b = tunnel.a, tunnel.b
    name = a.daemon.name
    a.namespace.ip("link", "set", name, "down")
    a.daemon.set("listen-port", str(PORT), "peer", b.key.public, "endpoint", b.endpoint())
    a.namespace.ip("link", "set", name, "up")
