"""`pywg upgrade` as plain values: how the running version was started, where, and who goes on."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pywg.errors import PywgError
from pywg.plan.facts import Location
from pywg.service.announcer import HANDED_OVER
from pywg.service.manner import Manner, resuming
from pywg.service.supervisor import End, Hosting, Names, Supervisor, Tuning
from pywg.tunnel import foreground, peer_hooks, record
from pywg.tunnel.record import Record
from pywg.tunnel.trace import Logged
from pywg.tunnel.upgrade import check_place, manner_of, service_of
from tests.unit.test_peer_hooks import A, B, event
from tools.lab.waiting import wait_until

MANNER = Manner(
    Hosting("wg0", Tuning(threads=2, memory_limit=1 << 24), netns="out", events="/run/pywg/x"),
    heals=False,
    hears=True,
    files=("/sys/fs/cgroup/x",),
    foreground=True,
    metrics="127.0.0.1:9586",
    build="0.1.0 (abc)",
    resume=("/usr/bin/python3", "-m", "pywg"),
)


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(record, "DIRECTORY", tmp_path / "run")
    return tmp_path / "run"


def kept(**values: Any) -> Record:
    told: dict[str, Any] = {"manner": MANNER.to_values(), "is_up": True} | values
    return Record("wg0", "/etc/wireguard/wg0.conf", Location(), (), **told)


# ---- how the running version was started


def test_how_it_was_started_is_in_its_record() -> None:
    record.write(kept())
    found = record.read("wg0")
    assert found == kept()
    assert found is not None and manner_of(found) == MANNER


def test_names_and_the_way_in_are_not_written_down_twice() -> None:
    names: Names = (["key", "vpn.example", 5, "auto", "outside"],)
    told = replace(MANNER, hosting=replace(MANNER.hosting, names=names, take_over=True))
    assert Manner.from_values(told.to_values()) == MANNER


def test_what_another_version_writes_down_is_passed_by_and_what_it_lacks_has_a_default() -> None:
    values = json.loads(json.dumps(MANNER.to_values()))
    values |= {"colour": "blue"}
    values["hosting"] |= {"colour": "blue"}
    values["hosting"]["tuning"] |= {"colour": "blue"}
    assert Manner.from_values(values) == MANNER
    least = {"hosting": {"name": "wg0", "tuning": {"threads": 1}}}
    assert Manner.from_values(least) == Manner(Hosting("wg0", Tuning(threads=1)))


@pytest.mark.parametrize("manner", [None, {}, {"hosting": 3}, {"hosting": {"name": "wg0"}}])
def test_a_version_that_is_too_old_says_what_to_do(manner: Any) -> None:
    with pytest.raises(PywgError, match=r"runs on as before.*pywg down wg0 && pywg up /etc"):
        manner_of(kept(manner=manner))


def test_the_kernels_driver_has_nothing_to_take_over() -> None:
    with pytest.raises(PywgError, match="kernel's driver"):
        manner_of(replace(kept(), location=Location("kernel")))


def test_what_is_not_up_yet_is_not_taken_over() -> None:
    with pytest.raises(PywgError, match="wg0 is not up"):
        manner_of(kept(is_up=False))


# ---- a service of systemd's


@pytest.mark.parametrize(
    ("text", "service"),
    [
        (
            "0::/system.slice/system-pywg.slice/pywg@wg0.service\n",
            "/system.slice/system-pywg.slice/pywg@wg0.service",
        ),
        ("0::/system.slice/box.service/payload\n", "/system.slice/box.service"),
        ("12:pids:/a.service\n1:name=systemd:/b.service\n", "/b.service"),
        ("0::/user.slice/user-0.slice/session-1.scope\n", ""),
        ("0::/\n", ""),
        ("", ""),
    ],
)
def test_the_unit_of_a_process_is_read_from_its_cgroup(text: str, service: str) -> None:
    assert service_of(text) == service


def test_a_service_is_upgraded_by_its_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = "0::/system.slice/system-pywg.slice/pywg@wg0.service\n"
    texts = {"/proc/7/cgroup": theirs, "/proc/self/cgroup": "0::/user.slice/session-1.scope\n"}
    monkeypatch.setattr(Path, "read_text", lambda path: texts[str(path)])
    with pytest.raises(PywgError, match=r"systemctl reload pywg@wg0\.service"):
        check_place("wg0", 7)
    texts["/proc/self/cgroup"] = theirs  # as ExecReload is
    check_place("wg0", 7)


# ---- what stays in the foreground


@pytest.mark.parametrize(
    ("said", "end"),
    [(b"ended", End.WELL), (b"handed over", End.HANDED_OVER), (b"", End.CRASHED)],
)
def test_the_end_of_a_hosting_process_is_told(said: bytes, end: End) -> None:
    supervisor = Supervisor.__new__(Supervisor)
    supervisor._socket, theirs = socket.socketpair()
    theirs.sendall(said)
    theirs.close()
    with supervisor:
        assert supervisor.end() is end


BECOME = """
import os, signal, sys
from pathlib import Path
from pywg.tunnel import foreground, record
record.DIRECTORY = Path(sys.argv[1])
foreground.become_newer("wg0", None)
print("it was not executed", foreground.SIGNALS)
"""
SHOW = """
import os, signal
print(os.getpid(), sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
"""


def test_it_becomes_what_the_new_version_wrote_down_with_signals_held_back(directory: Path) -> None:
    record.write(kept(manner={"resume": [sys.executable, "-c", SHOW], "of another version": 1}))
    process = subprocess.Popen(
        [sys.executable, "-c", BECOME, str(directory)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    said, _ = process.communicate(timeout=30)
    numbers = sorted(foreground.SIGNALS)
    assert said == f"{process.pid} {numbers}\n"


@pytest.mark.parametrize("text", ["", "{}", '{"manner": null}', '{"manner": {"resume": "rm"}}'])
def test_where_nothing_was_written_down_nothing_is_executed(directory: Path, text: str) -> None:
    directory.mkdir()
    record.path_of("wg0").write_text(text)
    assert record.resuming("wg0") == []


def test_a_signal_before_anybody_stays_beside_takes_down_what_is_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []
    monkeypatch.setattr(foreground, "ignore_signals", lambda: None)
    monkeypatch.setattr(foreground, "down", lambda name, reporter: done.append(name))
    with foreground.guarded("wg0", Logged()):
        record.write(kept())
        raise KeyboardInterrupt("SIGTERM")
    assert done == ["wg0"]
    record.write(kept(is_up=False))  # `up` has undone it, or will
    with pytest.raises(KeyboardInterrupt), foreground.guarded("wg0", Logged()):
        raise KeyboardInterrupt("SIGTERM")
    assert done == ["wg0"]


def test_a_checkout_is_found_by_what_is_executed() -> None:
    words = resuming("wg0")
    assert words[-3:] == ("upgrade", "--resume", "wg0")
    done = subprocess.run([*words[:-3], "--version"], capture_output=True, check=False, cwd="/")
    assert done.returncode == 0


# ---- hooks for peers


def test_peers_that_a_hook_was_told_of_are_known_to_the_next_process(tmp_path: Path) -> None:
    def runner(name: str) -> tuple[socket.socket, threading.Thread, list[str]]:
        ours, theirs = socket.socketpair()
        done: list[str] = []

        def commands(job: Any) -> list[peer_hooks.Command]:
            done.append(f"{job.kind} {job.peer}")
            return []

        one = peer_hooks.Runner("wg0", theirs, done.append, commands, told=peer_hooks.Told("wg0"))
        thread = threading.Thread(target=one.run, name=name, daemon=True)
        thread.start()
        return ours, thread, done

    def say(stream: socket.socket, *told: dict[str, Any]) -> None:
        stream.sendall(b"".join(json.dumps(one).encode() + b"\n" for one in told))

    old, old_thread, first = runner("old")
    say(old, event("handshake_done", A), event("handshake_done", B), event("peer_gone", B))
    wait_until(lambda: first, "the old one has begun")
    new, new_thread, second = runner("new")  # begins when the old one has done its work
    say(new, event("handshake_done", A), event("handshake_done", B))
    say(old, {"event": HANDED_OVER})
    old.close()
    old_thread.join(30)
    new.close()
    new_thread.join(30)
    assert (first, second) == ([f"up {A}"], [f"up {B}"])
