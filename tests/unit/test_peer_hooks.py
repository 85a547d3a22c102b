"""Hooks for what happens to peers: which are run, one at a time, and for how long."""

from __future__ import annotations

import json
import os
import socket
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from pywg.config import Config, parse
from pywg.config.model import InterfaceSection
from pywg.errors import PywgError
from pywg.host import hooks
from pywg.plan.facts import Location
from pywg.rootless.layout import unused
from pywg.tunnel import peer_hooks
from pywg.tunnel.agenda import Agenda, Job
from pywg.tunnel.peer_hooks import Command, File, Runner, texts
from pywg.tunnel.trace import Logged
from tools.lab.waiting import wait_until

A, B = "A" * 43 + "=", "B" * 43 + "="
FILE = (
    "[Interface]\nPrivateKey=yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n"
    "#!pywg OnPeerUp = echo up %i # said\n#!pywg OnPeerUp = true\n"
    "#!pywg OnPeerDown = echo down\n#!pywg OnEndpointChange = echo moved\n"
)


def event(kind: str, peer: str = A, **more: str) -> dict[str, Any]:
    return {"event": kind, "peer": peer, **more}


def jobs(*events: dict[str, Any]) -> list[Job]:
    agenda = Agenda()
    for one in events:
        agenda.note(one)
    return all_of(agenda)


def all_of(agenda: Agenda) -> list[Job]:
    found = []
    while (job := agenda.take()) is not None:
        found.append(job)
    return found


def test_a_renewed_session_is_no_news() -> None:
    agenda = Agenda()
    agenda.note(event("handshake_done", endpoint="192.0.2.1:5"))
    assert all_of(agenda) == [Job("up", A, "192.0.2.1:5")]
    agenda.note(event("handshake_done"))
    assert all_of(agenda) == []


def test_up_and_down_are_told_in_turns() -> None:
    agenda = Agenda()
    for kind, wanted in [
        ("peer_stale", []),
        ("handshake_done", ["up"]),
        ("peer_stale", ["down"]),
        ("peer_gone", []),
        ("handshake_done", ["up"]),
        ("peer_gone", ["down"]),
    ]:
        agenda.note(event(kind))
        assert [job.kind for job in all_of(agenda)] == wanted


def test_the_latest_state_wins() -> None:
    up, down = event("handshake_done"), event("peer_stale")
    assert [job.kind for job in jobs(up, down, up)] == ["up"]
    assert jobs(up, down) == []
    first, last = (event("endpoint_changed", endpoint=f"192.0.2.{n}:5") for n in (1, 2))
    assert jobs(first, last) == [Job("endpoint", A, "192.0.2.2:5")]


def test_peers_wait_in_their_order_and_no_peer_twice() -> None:
    found = jobs(event("handshake_done", B), event("handshake_done", A), event("handshake_done", B))
    assert [job.peer for job in found] == [B, A]
    agenda = Agenda()
    for _ in range(10_000):
        agenda.note(event("endpoint_changed", A, endpoint="x"))
        agenda.note(event("endpoint_changed", B, endpoint="x"))
    assert len(agenda) == 2


@pytest.mark.parametrize("other", [{"event": "healed", "port": 5}, {"event": "events_lost"}, {}])
def test_other_events_run_nothing(other: dict[str, Any]) -> None:
    assert jobs(other) == []


# ---- the file


def test_the_keys_are_read_and_written() -> None:
    section = parse(FILE).interface
    assert section.on_peer_up == ("echo up %i # said", "true")
    assert (section.on_peer_down, section.on_endpoint_change) == (("echo down",), ("echo moved",))
    assert texts(section, Job("endpoint", A)) == ("echo moved",)
    assert set(unused(parse(FILE))) == {"OnPeerUp", "OnPeerDown", "OnEndpointChange"}


def test_without_them_there_is_no_process() -> None:
    config = Config(InterfaceSection())
    assert peer_hooks.listener("wg0", config, Location("userspace")) is None
    assert peer_hooks.listener("wg0", parse(FILE), Location("userspace")) is not None


@pytest.mark.parametrize("key", ["OnPeerUp", "OnPeerDown", "OnEndpointChange"])
def test_a_file_that_others_may_write_gets_no_command_run(tmp_path: Path, key: str) -> None:
    path = tmp_path / "wg0.conf"
    path.write_text(f"[Interface]\n#!pywg {key} = true\n")
    path.chmod(0o666)
    with pytest.raises(PywgError, match="others may write it"):
        hooks.check_trust(Config.load(path))


def test_the_file_of_the_moment_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "wg0.conf"
    path.touch(0o600)
    path.write_text(f"{FILE}[Peer]\nPublicKey = {B[:-2]}A=\n#!pywg Name = office\n")
    monkeypatch.setattr(peer_hooks, "file_of", lambda name: path)
    told: list[str] = []
    file = File("wg0", told.append)
    found = file.commands(Job("up", f"{B[:-2]}A=", "192.0.2.1:5"))
    assert [command.text for command in found] == ["echo up wg0 # said", "true"]
    assert found[0].environment == {
        "PEER": f"{B[:-2]}A=",
        "PEER_NAME": "office",
        "ENDPOINT": "192.0.2.1:5",
    }
    path.chmod(0o666)
    assert file.commands(Job("up", A)) == []
    assert file.commands(Job("up", A)) == []
    assert len(told) == 1 and "others may write it" in told[0]
    path.chmod(0o600)
    assert len(file.commands(Job("up", A))) == 2


def test_a_peer_keeps_its_name_when_it_is_removed_and_a_comment_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "wg0.conf"
    path.touch(0o600)
    path.write_text(f"{FILE}### Client ann\n[Peer]\nPublicKey = {B[:-2]}A=\n")
    monkeypatch.setattr(peer_hooks, "file_of", lambda name: path)
    file = File("wg0", lambda line: None)
    gone = Job("up", f"{B[:-2]}A=")
    assert file.commands(gone)[0].environment["PEER_NAME"] == "ann"
    path.write_text(FILE)
    assert file.commands(gone)[0].environment["PEER_NAME"] == "ann"


def test_that_no_hook_is_run_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_hooks, "file_of", lambda name: tmp_path / "gone.conf")
    told: list[str] = []
    file = File("wg0", told.append)
    assert [file.commands(Job("up", A)) for _ in range(3)] == [[], [], []]
    assert len(told) == 1


def test_the_kernels_driver_has_nobody_to_run_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class Warned(Logged):
        def warn(self, text: str) -> None:
            told.append(text)

    told: list[str] = []
    up = import_module("pywg.tunnel.up")  # pywg.tunnel.up is the function
    monkeypatch.setattr(up, "bring_up", lambda *arguments: None)
    with up.hosted(parse(FILE, "wg0.conf"), location=Location("kernel"), reporter=Warned()):
        pass
    assert len(told) == 1 and "not run with the kernel's driver" in told[0]


# ---- running


class Running:
    """A Runner in a thread, as in its process."""

    def __init__(self, limit_s: float = 30.0) -> None:
        self.ours, theirs = socket.socketpair()
        self.told: list[str] = []
        self.texts: dict[str, str] = {}
        self.runner = Runner("wg0", theirs, self.told.append, self._commands, limit_s)
        self.thread = threading.Thread(target=self.runner.run, daemon=True)
        self.thread.start()

    def _commands(self, job: Job) -> list[Command]:
        return [Command(self.texts[job.kind], "/x/wg0.conf", {"PEER": job.peer})]

    def tell(self, *events: dict[str, Any]) -> None:
        self.ours.sendall(b"".join(json.dumps(one).encode() + b"\n" for one in events))

    def end(self) -> None:
        self.ours.close()
        self.thread.join(30)
        assert not self.thread.is_alive()


def test_commands_run_one_at_a_time_and_find_their_peer(tmp_path: Path) -> None:
    running = Running()
    log = tmp_path / "log"
    running.texts = {"up": f'echo "begin $PEER $INTERFACE" >> {log}; echo "end $PEER" >> {log}'}
    running.tell(event("handshake_done", A), event("handshake_done", B))
    wait_until(lambda: log.exists() and log.read_text().count("end") == 2, "both have run")
    running.end()
    assert log.read_text().splitlines() == [
        f"begin {A} wg0",
        f"end {A}",
        f"begin {B} wg0",
        f"end {B}",
    ]


def test_what_comes_while_one_runs_is_the_latest_state(tmp_path: Path) -> None:
    running = Running()
    go, log = tmp_path / "go", tmp_path / "log"
    os.mkfifo(go)
    running.texts = {"up": f"read < {go}", "endpoint": f"echo moved >> {log}"}
    running.tell(event("handshake_done"))
    with go.open("w") as gate:  # opens when the hook runs
        running.tell(*(event("endpoint_changed", endpoint=str(n)) for n in range(500)))
        running.tell(event("peer_stale"), event("handshake_done"))
        gate.write("\n")
    wait_until(log.exists, "the next has run")
    running.end()
    assert log.read_text() == "moved\n"


def test_one_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    running = Running(limit_s=0.5)
    pid = tmp_path / "pid"
    running.texts = {"up": f"sleep 1000 & echo $! > {pid}.new; mv {pid}.new {pid}; wait"}
    running.tell(event("handshake_done"))
    wait_until(lambda: running.told, "it is ended")
    assert running.told == [
        f"hook was ended after 0.5 s: {running.texts['up']}",
    ]
    sleeping = int(pid.read_text())
    wait_until(lambda: not is_running(sleeping), "what it started is gone")
    running.end()


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # nobody may be there to wait for it


def test_one_that_fails_is_told_and_the_next_is_run(tmp_path: Path) -> None:
    running = Running()
    log = tmp_path / "log"
    running.texts = {"up": "exit 3", "down": f"echo down > {log}"}
    running.tell(event("handshake_done"))
    wait_until(lambda: running.told, "the first has failed")
    running.tell(event("peer_stale"))
    wait_until(log.exists, "the second has run")
    running.end()
    assert running.told == ["hook failed with code 3: exit 3"]
