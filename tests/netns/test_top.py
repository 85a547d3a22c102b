"""`pywg top` of real interfaces: in a terminal of tmux, as a table, as JSON."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tools.lab import programs
from tools.lab.keys import decode
from tools.lab.lab import Lab, Tunnel
from tools.lab.namespaces import run
from tools.lab.programs import REPOSITORY, Missing, Program
from tools.lab.silent import request, silent_peers
from tools.lab.terminal import Terminal

PYWG = [sys.executable, "-m", "pywg"]


def top(*arguments: str) -> str:
    return run(*PYWG, "top", *arguments, cwd=REPOSITORY)


def shown(*names: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(top("--json", "--interval", "0.5", *names))
    return found


def test_rates_and_what_offloads_come_to_are_those_of_the_traffic(
    lab: Lab, subject: Program
) -> None:
    tunnel = lab.tunnel()
    with traffic(tunnel):
        a, b = tunnel.a.daemon.name, tunnel.b.daemon.name
        found = shown(a, b)
        assert set(found) == {a, b}
        for name, there in ((a, tunnel.b), (b, tunnel.a)):
            one = found[name]
            (peer,) = one["peers"].items()
            assert peer[0] == there.key.public
            assert peer[1]["endpoint"].endswith(":51820")
            assert one["rxPerSecond"] > 0 and one["txPerSecond"] > 0
            assert peer[1]["transferRx"] == one["transferRx"]
        if subject.is_pywgd:
            efficiency = found[a]["offloadEfficiency"]
            assert efficiency["datagramsPerSend"] >= 1 and efficiency["bytesPerRead"] > 20
            assert found[a]["cpu"] >= 0
            assert "dropped" in found[a]


def test_other_implementations_are_shown_with_what_they_tell(lab: Lab, subject: Program) -> None:
    try:
        other = programs.wireguard_go_debian()
    except Missing as reason:
        pytest.skip(str(reason))
    tunnel = lab.tunnel(None, other)
    with traffic(tunnel):
        name = tunnel.b.daemon.name
        found = shown(name)[name]
        assert found["rxPerSecond"] > 0 and found["cpu"] >= 0
        assert "dropped" not in found and "offloadEfficiency" not in found


def test_a_table_is_printed_where_there_is_no_terminal(lab: Lab, subject: Program) -> None:
    tunnel = lab.tunnel()
    tunnel.ping()
    name = tunnel.a.daemon.name
    out = top("--interval", "0.2", name)
    assert out.startswith(f"{name}  1 peer  in ")
    assert re.search(rf"^{re.escape(tunnel.b.key.public[:20])}.* bit/s ", out, re.M)
    assert "192.0.2.2:51820" in out


@contextlib.contextmanager
def traffic(tunnel: Tunnel) -> Iterator[None]:
    """Pings both ways as long as the block lasts."""
    ping = [
        side.namespace.popen(["ping", "-i", "0.02", "-s", "1000", address], stdout=-3)
        for side, address in ((tunnel.a, tunnel.b.inner4), (tunnel.b, tunnel.a.inner4))
    ]
    try:
        tunnel.session()
        yield
    finally:
        for process in ping:
            process.kill()
            process.wait()


# ---- in a terminal


@pytest.fixture(autouse=True)
def _has_textual(request: pytest.FixtureRequest) -> None:
    if "terminal" in request.fixturenames:
        pytest.importorskip("textual", reason="the extra `tui` is not installed")


def test_in_a_terminal_it_lives_answers_keys_and_leaves_it_as_it_was(
    lab: Lab, subject: Program, terminal: Terminal
) -> None:
    tunnel = lab.tunnel()
    key = tunnel.b.key.public
    with traffic(tunnel):
        name = tunnel.a.daemon.name
        terminal.type(f"{' '.join(PYWG)} top --interval 0.2 {name}")
        terminal.await_text(rf"^{name} +1 peers? .*[▁▂▃▄▅▆▇█].*bit/s")
        terminal.await_text(rf"^{re.escape(key[:20])}.* kbit/s .*192\.0\.2\.2:51820")
        terminal.press("s")
        terminal.await_text(r" IN▼")
        terminal.press("/", *"nobody")
        terminal.await_text("0 of 1 peer ")
        terminal.press("Escape")
        terminal.await_text(rf"^{re.escape(key[:20])}")
        terminal.press("Enter")
        terminal.await_text(rf"allowed ips +{re.escape(tunnel.b.inner4)}/32")
        terminal.press("Escape")
        terminal.await_text("Sort")  # Escape and p at once would be Alt-p
        terminal.press("p")
        terminal.await_text("PAUSED")
        terminal.press("q")
        terminal.await_text(r"outer\$$")
    terminal.type("echo code $?")
    terminal.await_text("^code 0$")
    assert "PEER" not in terminal.screen(), "the screen of before is there again"


@pytest.mark.parametrize("how", ["TERM", "HUP"])
def test_told_to_end_it_leaves_the_terminal_as_it_was(
    lab: Lab, subject: Program, terminal: Terminal, how: str
) -> None:
    name = lab.tunnel().a.daemon.name
    terminal.type(f"{' '.join(PYWG)} top {name}")
    terminal.await_text("^PEER")
    pid = run("pgrep", "-f", f"pywg top {name}$").split()[-1]
    run("kill", f"-{how}", pid)
    terminal.await_text(r"outer\$$")
    assert "PEER" not in terminal.screen()


def test_ten_thousand_peers_answer_keys(lab: Lab, subject: Program, terminal: Terminal) -> None:
    daemon = lab.daemon(subject, lab.namespace("a"))
    key = lab.key()
    request(daemon, "set=1\n" + silent_peers(9_999, "192.0.2.2", keepalive=0))
    request(daemon, f"set=1\npublic_key={decode(key.public).hex()}\n")
    terminal.type(f"{' '.join(PYWG)} top {daemon.name}")
    terminal.await_text("^10000 peers")
    terminal.press("/", *key.public[:12])
    terminal.await_text("1 of 10000 peers")
    terminal.await_text(rf"^{re.escape(key.public[:12])}")
    terminal.press("Escape")
    terminal.await_text("^10000 peers")
    terminal.press("End", "q")
    terminal.await_text(r"outer\$$")
