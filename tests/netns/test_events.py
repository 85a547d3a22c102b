"""What happens to real tunnels, told to other processes; hooks for peers; the forms of the log."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pywg.tunnel import record
from pywg.wireguard.socket import owner
from tools.lab.lab import Lab
from tools.lab.programs import REPOSITORY
from tools.lab.waiting import wait_until

from .test_cli import Place
from .test_service import bounding_set

pytestmark = pytest.mark.pywgd_only


@pytest.fixture
def place(lab: Lab, tmp_path: Path) -> Place:
    made = Place(lab, tmp_path)
    text = made.file.read_text().replace("[Peer]", "[Peer]\n#!pywg Name = office")
    # A handshake is to be begun by the test, and not by `up`.
    made.file.write_text(text.replace("PersistentKeepalive", "# PersistentKeepalive"))
    return made


class Listening:
    """`pywg events`, which has begun to listen when this is made."""

    def __init__(self, place: Place, name: str) -> None:
        self._name = name
        self._process = place.here.popen(
            [sys.executable, "-c", LISTEN, name],
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
        assert self._process.stdout is not None
        self._lines = self._process.stdout
        assert self._lines.readline() == "listening\n"

    def until(self, kind: str) -> dict[str, Any]:
        """The next event of this kind."""
        for line in self._lines:
            told: dict[str, Any] = json.loads(line)
            assert told["interface"] == self._name
            if told["event"] == kind:
                return told
        raise AssertionError(f"it ended without {kind}")

    def ended(self) -> int:
        assert self._lines.read() == ""
        return self._process.wait(30)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._lines.close()


# The command, that says when it listens: what happens before that is not told.
LISTEN = """
import sys
from pywg.cli import main
from pywg.monitor.watching import Watch
opened = Watch.open
def open_and_say(watch):
    opened(watch)
    print("listening", flush=True)
Watch.open = open_and_say
sys.exit(main(["events", sys.argv[1]]))
"""


@contextlib.contextmanager
def listening(place: Place, name: str) -> Iterator[Listening]:
    made = Listening(place, name)
    try:
        yield made
    finally:
        made.close()


def ping(place: Place) -> None:
    place.here.run("ping", "-c", "1", "-W", "5", "10.99.0.2")


def move(place: Place) -> str:
    """The peer has another port from now on, and sends; the answer is its new endpoint."""
    daemon = place.peer.daemon
    daemon.set("listen-port", "51999")
    place.peer.namespace.run("ping", "-c", "1", "-W", "5", "10.99.0.1")
    return f"{place.peer.outer4}:51999"


def test_a_tunnel_tells_all_readers_what_happens(place: Place) -> None:
    place.pywg("up", str(place.file))
    socket_file = record.events_of(place.name)
    assert socket_file.stat().st_mode & 0o777 == 0o600
    with listening(place, place.name) as one, listening(place, place.name) as other:
        ping(place)
        for reader in (one, other):
            told = reader.until("handshake_done")
            assert told["peer"] == place.peer.key.public
            assert told["name"] == "office"
            assert told["endpoint"].startswith("192.0.2.")
            assert list(told) == ["time", "interface", "event", "peer", "name", "endpoint"]
        endpoint = move(place)
        assert one.until("endpoint_changed")["endpoint"] == endpoint
        place.here.run("wg", "set", place.name, "peer", place.peer.key.public, "remove")
        assert one.until("peer_gone")["peer"] == place.peer.key.public
        place.pywg("down", place.name)
        for reader in (one, other):
            reader.until("interface_removed")
            assert reader.ended() == 0
    assert not socket_file.exists()


def test_one_of_another_program_is_looked_at(place: Place) -> None:
    """`pywgd` has no such socket."""
    place.pywg("up", str(place.file))
    daemon = place.peer.daemon
    with listening(place, daemon.name) as reader:
        ping(place)
        assert reader.until("handshake_done")["peer"] == place.key.public
        daemon.set("peer", place.key.public, "remove")
        assert reader.until("peer_gone")["peer"] == place.key.public
        daemon.terminate()
        reader.until("interface_removed")
        assert reader.ended() == 0
    place.pywg("down", place.name)


def test_a_process_that_was_killed_is_an_end_too(place: Place) -> None:
    place.pywg("up", str(place.file))
    with listening(place, place.name) as reader:
        os.kill(owner(place.name), signal.SIGKILL)
        reader.until("interface_removed")
        assert reader.ended() == 0
    place.pywg("down", place.name)
    assert not record.events_of(place.name).exists()


# ---- hooks


def with_hooks(place: Place, **commands: str) -> None:
    lines = "".join(f"#!pywg {key} = {command}\n" for key, command in commands.items())
    text = place.file.read_text()
    place.file.write_text(text.replace("[Interface]\n", f"[Interface]\n{lines}", 1))


def test_hooks_are_run_for_what_happens_to_a_peer(place: Place, tmp_path: Path) -> None:
    log = tmp_path / "log"
    say = f'echo "%i $INTERFACE $PEER $PEER_NAME $ENDPOINT $CONFIG_FILE" >> {log}; ip link show %i'
    with_hooks(
        place,
        OnPeerUp=f"echo up >> {log}; {say}",
        OnPeerDown=f"echo down >> {log}",
        OnEndpointChange=f'echo "moved $ENDPOINT" >> {log}',
    )

    def said(count: int) -> list[str]:
        wait_until(lambda: log.exists() and log.read_text().count("\n") >= count, f"{count} lines")
        return log.read_text().splitlines()

    place.pywg("up", str(place.file))
    ping(place)
    first, second = said(2)
    interface, same, peer, name, endpoint, path = second.split(" ")
    assert (first, interface, same, peer, name) == (
        "up",
        place.name,
        place.name,
        place.peer.key.public,
        "office",
    )
    assert endpoint.startswith("192.0.2.")
    assert path == str(place.file)
    endpoint = move(place)
    assert said(3)[2] == f"moved {endpoint}"
    place.here.run("wg", "set", place.name, "peer", place.peer.key.public, "remove")
    wait_until(lambda: log.read_text().splitlines()[-1] == "down", "it was told that it is gone")
    place.pywg("down", place.name)


def test_a_hook_that_hangs_holds_up_neither_packets_nor_down(place: Place, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with_hooks(place, OnPeerUp=f"echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 1000")
    place.pywg("up", str(place.file))
    ping(place)
    wait_until(pid.exists, "it hangs")
    ping(place)
    place.pywg("down", place.name)
    hanging = int(pid.read_text())
    os.kill(hanging, signal.SIGTERM)  # which it does not ignore: its mask is that of any program
    wait_until(lambda: not alive(hanging), "it has ended")


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_hook_may_do_what_post_up_may(place: Place, tmp_path: Path) -> None:
    ours, its = tmp_path / "ours", tmp_path / "its"
    look = "grep -E '^(Cap|SigBlk|NoNewPrivs)' /proc/self/status"
    text = place.file.read_text().replace("[Peer]", f"PostUp = {look} > {ours}\n[Peer]", 1)
    place.file.write_text(text)
    with_hooks(place, OnPeerUp=f"{look} > {its}.new; mv {its}.new {its}")
    place.pywg("up", str(place.file))
    ping(place)
    wait_until(its.exists, "it was run")
    place.pywg("down", place.name)
    assert its.read_text() == ours.read_text()


def test_as_the_service_a_hook_may_change_routes(place: Place, tmp_path: Path) -> None:
    done = tmp_path / "done"
    with_hooks(place, OnPeerUp=f"ip route add 203.0.113.0/24 dev %i; touch {done}")
    limits = ["--bounding-set", bounding_set("pywg@.service"), "--no-new-privs"]
    command = [sys.executable, "-m", "pywg", "up", str(place.file)]
    place.here.run("setpriv", *limits, *command, cwd=REPOSITORY)
    ping(place)
    wait_until(done.exists, "it has run")
    assert "203.0.113.0/24" in place.here.ip("route", "show", "dev", place.name)
    place.pywg("down", place.name)


# ---- the log


def test_the_log_is_json_where_it_is_asked_for(place: Place, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with place.here.entered(), log.open("w") as stderr:
        subprocess.run(
            [sys.executable, "-m", "pywg", "up", "--log-format", "json", str(place.file)],
            stderr=stderr,
            check=True,
            cwd=REPOSITORY,
            env={**os.environ, "LOG_LEVEL": "verbose"},
        )
    ping(place)
    # Threads that read the log, or tell events, have no more than those that move packets.
    with listening(place, place.name):
        tasks = Path(f"/proc/{owner(place.name)}/task").iterdir()
        status = [(task / "status").read_text() for task in tasks]
    capabilities = [re.findall(r"^Cap(?:Eff|Prm):.*", text, re.M) for text in status]
    assert len(status) >= 5
    assert all(one == capabilities[0] for one in capabilities)
    place.pywg("down", place.name)

    def objects() -> list[dict[str, Any]]:
        lines = log.read_text().splitlines()
        return [json.loads(line) for line in lines if not line.startswith(("[#] ", "[!] "))]

    told = wait_until(
        lambda: [one for one in objects() if one["message"].endswith(": ending")], "its end is told"
    )
    assert all(set(one) >= {"time", "level", "interface", "message"} for one in objects())
    assert told[0]["interface"] == place.name
    assert any(one["message"].startswith("up, listening on port") for one in objects())


def test_run_logs_json_in_the_foreground(place: Place) -> None:
    process = place.here.popen(
        [sys.executable, "-m", "pywg", "run", "-f", "--log-format", "json", place.name],
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "LOG_LEVEL": "verbose"},
    )
    assert process.stderr is not None
    told = [json.loads(process.stderr.readline())]
    while not told[-1]["message"].startswith("ready: mtu"):
        told.append(json.loads(process.stderr.readline()))
    process.terminate()
    told += [json.loads(line) for line in process.stderr]
    assert process.wait(30) == 0
    assert {one["interface"] for one in told} == {place.name}
