"""Once it is open, the daemon keeps only what a running tunnel needs, and a tunnel's whole life
works so."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.lab.daemon import Daemon, ask, socket_path
from tools.lab.host import hosted
from tools.lab.lab import Lab, Side, Tunnel
from tools.lab.namespaces import run
from tools.lab.tracing import failing
from tools.lab.traffic import exchange
from tools.lab.waiting import wait_until

pytestmark = pytest.mark.pywgd_only

NET_BIND_SERVICE, NET_BROADCAST, NET_ADMIN, NET_RAW, IPC_LOCK, SYS_NICE = 10, 11, 12, 13, 14, 23
NEEDED = sum(
    1 << capability
    for capability in (NET_BIND_SERVICE, NET_BROADCAST, NET_ADMIN, NET_RAW, IPC_LOCK)
)


def threads(daemon: Daemon) -> list[dict[str, str]]:
    """/proc/PID/status of each."""
    places = Path(f"/proc/{daemon.pid}/task").iterdir()
    texts = [(place / "status").read_text() for place in places]
    return [dict(line.split(":\t", 1) for line in text.splitlines()) for text in texts]


def wait_for_sandbox(daemon: Daemon, count: int) -> list[dict[str, str]]:
    """Each thread enters it by itself."""

    def confined() -> list[dict[str, str]] | None:
        found = threads(daemon)
        inside = all(thread["Seccomp"] == "2" for thread in found)
        return found if len(found) == count and inside else None

    found = wait_until(confined, f"all threads of {daemon} are in the sandbox")
    assert found is not None
    return found


def test_every_thread_keeps_only_what_a_tunnel_needs(lab: Lab) -> None:
    daemon = lab.daemon(None, lab.namespace("a"), environment={"PYWG_THREADS": "3"})
    for thread in wait_for_sandbox(daemon, 3):
        assert int(thread["CapEff"], 16) & ~NEEDED == 0
        assert int(thread["CapEff"], 16) & 1 << NET_ADMIN
        assert thread["CapPrm"] == thread["CapEff"]
        assert int(thread["CapInh"], 16) == int(thread["CapBnd"], 16) == 0
        assert int(thread["CapAmb"], 16) == 0
        assert thread["NoNewPrivs"] == "1"
        # With the capability to do so its memory is locked, so that no key is swapped out.
        locked = int(thread["VmLck"].split()[0])
        assert locked > 0 or not int(thread["CapEff"], 16) & 1 << IPC_LOCK


def test_nobody_looks_into_its_memory(lab: Lab) -> None:
    """Not dumpable: who has more capabilities than it, and is the same user, may not trace it."""
    daemon = lab.daemon(None, lab.namespace("a"))
    limits = Path(f"/proc/{daemon.pid}/limits").read_text()
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]
    wait_for_sandbox(daemon, len(threads(daemon)))
    weak = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"]
    answer = daemon.namespace.attempt(*weak, "strace", "-p", str(daemon.pid), timeout=30)
    assert "Operation not permitted" in answer.stderr


def test_a_tunnel_that_pywg_up_hosts_keeps_no_other_capabilities(tmp_path: Path) -> None:
    """No filter: an interpreter may need any call. SYS_NICE for threads yet to become realtime."""
    with hosted(tmp_path) as host:
        name = f"psu{os.getpid() % 10_000_000}"
        path = host.config(name, "[Interface]\nAddress = 10.5.0.1/24\n")
        host.pywg("up", str(path))
        try:
            (pid,) = host.hosts_of(name)
            for place in Path(f"/proc/{pid}/task").iterdir():
                found = dict(
                    line.split(":\t", 1) for line in (place / "status").read_text().splitlines()
                )
                assert int(found["CapEff"], 16) & ~(NEEDED | 1 << SYS_NICE) == 0
                # The thread that heals runs nft with what it has itself.
                assert int(found["CapBnd"], 16) & ~(NEEDED | 1 << SYS_NICE) == 0
                assert place.name != str(pid) or int(found["CapBnd"], 16) == 0
                assert found["NoNewPrivs"] == "1"
        finally:
            host.pywg("down", str(path))


@pytest.mark.parametrize("how", ["option", "environment"])
def test_without_it_for_debugging(lab: Lab, how: str) -> None:
    option = {"PYWG_NO_SANDBOX": "1"} if how == "environment" else {}
    wrapper = ["sh", "-c", 'exec "$0" --no-sandbox "$@"'] if how == "option" else []
    tunnel = lab.tunnel(environment=option, wrapper=wrapper)
    tunnel.ping()
    for thread in threads(tunnel.a.daemon):
        assert thread["Seccomp"] == "0"
        assert thread["NoNewPrivs"] == "0"
        assert int(thread["CapEff"], 16) & ~NEEDED


def test_the_whole_life_of_a_tunnel_works_in_it(lab: Lab) -> None:
    whole_life(lab, lab.tunnel(environment={"PYWG_THREADS": "2"}))


def test_nothing_that_a_tunnel_calls_is_refused(lab: Lab) -> None:
    """A call that the filter forgets costs what it was for, such as an offload, and nobody says
    so."""
    traces = lab.directory / "calls"
    traces.mkdir()
    strace = ["strace", "-D", "-ff", "-qq", "-e", "signal=none", "-o", str(traces / "of")]
    whole_life(lab, lab.tunnel(environment={"PYWG_THREADS": "2"}, wrapper=strace))
    calls = {path.name: confined_calls(path) for path in traces.iterdir()}
    assert sum(any("sendmmsg(" in call for call in made) for made in calls.values()) >= 2
    assert [call for made in calls.values() for call in made if " EPERM " in call] == []


def confined_calls(trace: Path) -> list[str]:
    """What a thread called since it installed the filter."""
    lines = trace.read_text(errors="replace").splitlines()
    began = [at for at, line in enumerate(lines) if line.startswith("seccomp(")]
    return lines[began[-1] + 1 :] if began else []


def whole_life(lab: Lab, tunnel: Tunnel) -> None:
    a, b = tunnel.a, tunnel.b
    for side in (a, b):
        wait_for_sandbox(side.daemon, 2)
    exchange(a.namespace, b.namespace, b.inner4, 1 << 20, 1 << 20)
    steps: dict[str, Callable[[], object]] = {
        "a mark": lambda: a.daemon.set("fwmark", "0x55"),
        "no mark": lambda: a.daemon.set("fwmark", "0"),
        "a low port": lambda: a.daemon.set("listen-port", "999"),
        "another port": lambda: a.daemon.set("listen-port", "51999"),
        "a device": lambda: say(a, f"pywg_bind_device={a.veth}"),
        "no device": lambda: say(a, "pywg_bind_device="),
        "a source": lambda: say(a, f"pywg_bind_address={a.outer4}"),
        "no source": lambda: say(a, "pywg_bind_address="),
        "an MTU": lambda: a.namespace.ip("link", "set", a.daemon.name, "mtu", "1300"),
        "down and up": lambda: down_and_up(a),
        "a new key": lambda: new_key(lab, a, b),
        "many peers": lambda: say(a, many_peers(10_000)),
        "fewer peers": lambda: a.daemon.setconf(
            f"[Interface]\nPrivateKey={a.key.private}\nListenPort=51999\n" + b.peer_section(outer=4)
        ),
    }
    for what, step in steps.items():
        step()
        assert a.namespace.attempt("ping", "-c", "1", "-w", "15", b.inner4).returncode == 0, what
    assert a.daemon.terminate() == 0
    assert not socket_path(a.daemon.name).exists()
    assert a.namespace.link(a.daemon.name) is None


def say(side: Side, request: str) -> None:
    assert ask(side.daemon.name, f"set=1\n{request}")["errno"] == "0"


def many_peers(count: int) -> str:
    return "\n".join(f"public_key={secrets.token_hex(32)}" for _ in range(count))


def down_and_up(side: Side) -> None:
    side.namespace.ip("link", "set", side.daemon.name, "down")
    side.namespace.ip("link", "set", side.daemon.name, "up")


def new_key(lab: Lab, side: Side, other: Side) -> None:
    old, side.key = side.key, lab.key()
    path = lab.directory / "key"
    path.touch(0o600)
    path.write_text(side.key.private)
    side.daemon.set("private-key", str(path))
    other.daemon.set("peer", old.public, "remove")
    allowed = f"{side.inner4}/32,{side.inner6}/128"
    other.daemon.set(
        "peer", side.key.public, "allowed-ips", allowed, "endpoint", f"{side.outer4}:51999"
    )


def test_the_interface_is_followed_to_another_namespace(lab: Lab) -> None:
    tunnel = lab.tunnel()
    name, other = tunnel.a.daemon.name, lab.namespace("c")
    wait_for_sandbox(tunnel.a.daemon, len(threads(tunnel.a.daemon)))
    tunnel.a.namespace.ip("link", "set", name, "netns", other.name)
    run("ip", "-n", other.name, "address", "add", "10.99.0.1/24", "dev", name)
    run("ip", "-n", other.name, "link", "set", name, "up")
    other.run("ping", "-c", "1", "-w", "15", tunnel.b.inner4)
    assert "cannot be followed" not in tunnel.a.daemon.log()
    run("ip", "-n", other.name, "link", "delete", name)
    assert tunnel.a.daemon.wait() == 0


def test_calls_that_fail_on_purpose_still_can(lab: Lab) -> None:
    """A tracer of root's gets in as before."""
    tunnel = lab.tunnel()
    tunnel.session()
    log = lab.directory / "strace"
    with failing(tunnel.a.daemon.pid, "sendmmsg", "ENOBUFS", "1..2", log):
        tunnel.a.namespace.run("ping", "-c", "3", "-i", "0.2", "-w", "15", tunnel.b.inner4)


def test_in_the_background_and_by_wg_quick(tmp_path: Path) -> None:
    with hosted(tmp_path) as host:
        name = f"psb{os.getpid() % 10_000_000}"
        path = host.config(name, "[Interface]\nAddress = 10.5.0.1/24\nListenPort = 5555\n")
        host.wg_quick("up", str(path))
        try:
            (pid,) = host.hosts_of(name)
            status = Path(f"/proc/{pid}/status").read_text()
            assert "Seccomp:\t2" in status
        finally:
            host.wg_quick("down", str(path))
        wait_until(lambda: not host.hosts_of(name), "the daemon ended")
        assert not socket_path(name).exists()
