"""`pywg upgrade`: another process goes on with a tunnel that is up. Connections, sessions, record
and hooks go on, and whoever cannot take it over leaves it as it is."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pywg.tunnel import record
from pywg.wireguard import socket as wireguard_socket
from pywg.wireguard.socket import owner
from tools.lab import programs
from tools.lab.host import Host
from tools.lab.lab import Lab
from tools.lab.namespaces import unique
from tools.lab.programs import REPOSITORY, Program
from tools.lab.waiting import wait_until

from .test_cli import Place
from .test_events import listening, with_hooks
from .test_service import Service
from .test_up_compare import FILES

pytestmark = pytest.mark.pywgd_only

TIMES = 5


@pytest.fixture
def place(lab: Lab, subject: Program, tmp_path: Path) -> Iterator[Place]:
    made = Place(lab, tmp_path)
    yield made
    if made.here.link(made.name) is not None:
        made.attempt("down", made.name)


class Connection:
    """One TCP connection through a tunnel, whose far end sends back what it gets; bytes go round
    all the time, by a thread."""

    def __init__(self, place: Place) -> None:
        listener = place.peer.namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
        with listener:
            listener.bind(("10.99.0.2", 0))
            listener.listen(1)
            self._near = place.here.socket(socket.AF_INET, socket.SOCK_STREAM)
            self._near.settimeout(20)
            self._near.connect(listener.getsockname())
            self._far, _ = listener.accept()
        self.rounds = 0
        self._failure: BaseException | None = None
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._echo, self._ask)
        ]

    def __enter__(self) -> Connection:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._threads[1].join(30)
        self._near.close()
        self._threads[0].join(30)
        self._far.close()
        assert self._failure is None, f"after {self.rounds} rounds: {self._failure}"

    def goes_on(self) -> None:
        before = self.rounds
        wait_until(lambda: self.rounds > before + 2, f"bytes come back: {self._failure}")

    def _echo(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._far.recv(1 << 16):
                self._far.sendall(data)

    def _ask(self) -> None:
        try:
            while not self._over.is_set():
                data = os.urandom(20_000)
                self._near.sendall(data)
                found = bytearray()
                while len(found) < len(data):
                    more = self._near.recv(1 << 16)
                    assert more, "the connection has ended"
                    found += more
                assert found == data
                self.rounds += 1
        except BaseException as error:  # told by whoever waits for us
            self._failure = error


def handshake(place: Place) -> str:
    return place.here.run("wg", "show", place.name, "latest-handshakes")


def seen(place: Place) -> list[str]:
    """What an upgrade is not to change, as ip shows it."""
    routes = place.here.ip("route", "show", "table", "all").splitlines()
    mine = "".join(line for line in routes if f"dev {place.name} " in line)
    return [mine, place.here.ip("rule"), place.here.ip("address", "show", "dev", place.name)]


def has_ended(process: int) -> bool:
    """One that nobody has waited for yet has no command line."""
    try:
        return not Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return True


def test_a_connection_goes_on_through_upgrade_after_upgrade(place: Place, tmp_path: Path) -> None:
    log = tmp_path / "hooks"
    with_hooks(place, OnPeerUp=f"echo peer up >> {log}")
    text = place.file.read_text().replace(
        "[Interface]\n",
        f"[Interface]\nPostUp = echo up >> {log}\nPostDown = echo down >> {log}\n",
        1,
    )
    place.file.write_text(text)
    place.pywg("up", str(place.file))
    place.here.run("ping", "-c", "1", "-W", "5", "10.99.0.2")
    wait_until(lambda: "peer up" in log.read_text(), "the hook has run")
    first, before = handshake(place), seen(place)
    processes = set()
    with Connection(place) as connection:
        for _ in range(TIMES):
            connection.goes_on()
            old = owner(place.name)
            assert "goes on in" in place.attempt("upgrade", "--force", place.name).stderr
            assert has_ended(old)
            processes |= {old, owner(place.name)}
            connection.goes_on()
        assert len(processes) == TIMES + 1
        assert handshake(place) == first
        assert seen(place) == before
    found = record.read(place.name)
    assert found is not None and found.is_up
    place.pywg("down", place.name)
    place.is_empty()
    assert log.read_text().splitlines() == ["up", "peer up", "down"]
    assert not list(record.DIRECTORY.glob(f"{place.name}.*"))


def test_the_commands_of_the_page_do_what_it_says(place: Place) -> None:
    page = (REPOSITORY / "docs" / "upgrade.md").read_text()
    lines = re.findall(r"^sudo pywg (upgrade [^#\n]*?) *(?:#.*)?$", page, re.MULTILINE)
    assert len(lines) == 3
    place.pywg("up", str(place.file))
    place.here.run("ping", "-c", "1", "-W", "5", "10.99.0.2")
    first = handshake(place)
    for line in lines:
        place.pywg(*line.replace("wg0", place.name).split())
    assert handshake(place) == first
    place.pywg("down", place.name)


def test_events_are_told_by_the_one_that_goes_on(place: Place) -> None:
    place.pywg("up", str(place.file))
    with listening(place, place.name) as told:
        place.pywg("upgrade", "--force", place.name)
        wait_until(lambda: record.events_of(place.name).exists(), "the new one listens")
        # Who listened to the old one listens to the new one by now, or is about to.
        place.here.run("ping", "-c", "1", "-W", "5", "10.99.0.2")
        place.here.run("wg", "set", place.name, "peer", place.peer.key.public, "remove")
        assert told.until("peer_gone")["peer"] == place.peer.key.public
        place.pywg("down", place.name)
        told.until("interface_removed")
        assert told.ended() == 0


def test_who_cannot_take_it_over_leaves_it_as_it_was(place: Place) -> None:
    place.pywg("up", str(place.file))
    place.here.run("ping", "-c", "1", "-W", "5", "10.99.0.2")
    process, first = owner(place.name), handshake(place)
    file = record.path_of(place.name)
    text = file.read_text()
    told = json.loads(text)
    told["manner"]["hosting"]["tuning"]["memory_limit"] = 65536  # less than its buffers take
    file.write_text(json.dumps(told))
    with Connection(place) as connection:
        connection.goes_on()
        answer = place.attempt("upgrade", "--force", place.name)
        assert answer.returncode == 1
        assert f"{place.name} is not upgraded, and runs on as before: " in answer.stderr
        assert "memory" in answer.stderr
        connection.goes_on()
    assert json.loads(file.read_text()) == told
    assert (owner(place.name), handshake(place)) == (process, first)
    file.write_text(text)
    place.pywg("upgrade", "--force", place.name)  # nothing that failed is in the way
    place.pywg("down", place.name)
    place.is_empty()


def test_a_version_that_is_too_old_to_hand_over_says_what_to_do(place: Place) -> None:
    place.pywg("up", str(place.file))
    file = record.path_of(place.name)
    told = json.loads(file.read_text())
    del told["manner"]  # as that version wrote it
    file.write_text(json.dumps(told))
    place.file.write_text(place.file.read_text().replace("[Peer]", "MTU = 1380\n[Peer]"))
    answer = place.attempt("upgrade", "--reload", place.name)
    assert answer.returncode == 1
    assert f"pywg down {place.name} && pywg up {place.file}" in answer.stderr
    assert "mtu 1380" in place.here.ip("link", "show", place.name)
    place.pywg("down", place.name)


def test_pywgd_goes_on_with_a_tunnel_of_pywg_and_back(place: Place, subject: Program) -> None:
    place.pywg("up", str(place.file))
    place.here.run("ping", "-c", "1", "-W", "5", "10.99.0.2")
    first, old = handshake(place), owner(place.name)
    with Connection(place) as connection:
        place.here.run(subject.path, "--take-over", place.name)
        wait_until(lambda: has_ended(old), "the old one has ended")
        connection.goes_on()
        place.pywg("reload", place.name)
        place.pywg("upgrade", "--force", place.name)
        connection.goes_on()
        last = owner(place.name)
        words = (sys.executable, "-m", "pywg", "run", "--take-over", place.name)
        place.here.run(*words, cwd=REPOSITORY)
        wait_until(lambda: has_ended(last), "the last one has ended")
        connection.goes_on()
    assert handshake(place) == first
    place.pywg("down", place.name)
    place.is_empty()


def test_the_version_that_runs_is_not_taken_over_again(place: Place) -> None:
    place.pywg("up", str(place.file))
    process = owner(place.name)
    assert "already" in place.attempt("upgrade", place.name).stderr
    assert owner(place.name) == process
    answer = place.attempt("upgrade", "nothere")
    assert answer.returncode == 1 and "nothere is not up by `pywg up`" in answer.stderr


@pytest.fixture
def service(lab: Lab, subject: Program, tmp_path: Path) -> Iterator[Service]:
    made = Service(lab, tmp_path)
    yield made
    made.close()


def upgrade(service: Service) -> None:
    words = (sys.executable, "-m", "pywg", "upgrade", "--force", service.name)
    service.here.run(*words, cwd=REPOSITORY)


def test_what_stays_in_the_foreground_becomes_the_new_version(service: Service) -> None:
    assert service.hear() == "READY=1"
    service.here.run("ping", "-c", "1", "-W", "5", "10.99.0.2")
    before = service.here.run("wg", "show", service.name, "latest-handshakes")
    upgrade(service)
    assert service.hear().startswith("STATUS=")
    upgrade(service)  # a signal that comes meanwhile is not lost
    assert service.here.run("wg", "show", service.name, "latest-handshakes") == before
    words = Path(f"/proc/{service.process.pid}/cmdline").read_bytes()
    assert b"--resume" in words
    service.process.send_signal(signal.SIGTERM)
    wait_until(lambda: service.hear() == "STOPPING=1", "it stops")
    assert service.process.wait(20) == 0
    service.is_gone()


def test_a_host_that_is_killed_after_an_upgrade_is_a_failure(service: Service) -> None:
    assert service.hear() == "READY=1"
    upgrade(service)
    assert service.hear().startswith("STATUS=")
    os.kill(owner(service.name), signal.SIGKILL)
    assert service.hear() == "STOPPING=1"
    assert service.process.wait(20) == 1


def test_metrics_are_served_at_the_same_place(place: Place) -> None:
    pytest.importorskip("prometheus_client")
    said = place.attempt("up", "--metrics", "127.0.0.1:0", str(place.file)).stderr
    where = next(word for word in said.split() if word.startswith("http://"))

    def scraped() -> bool:
        code = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).status)"
        words = [sys.executable, "-c", code, where]
        with place.here.entered():
            answer = subprocess.run(words, capture_output=True, text=True, check=False)
        return answer.stdout == "200\n"

    wait_until(scraped, "metrics are served")
    place.pywg("upgrade", "--force", place.name)
    wait_until(scraped, "metrics are served again")
    place.pywg("down", place.name)


@pytest.mark.parametrize("arguments", [(), ("--kill-switch",)], ids=["full", "kill switch"])
def test_what_up_has_set_on_the_host_stays(host: Host, arguments: tuple[str, ...]) -> None:
    name = unique("u")
    before = host.look(name)
    path = host.config(name, FILES["full"].replace("[Peer]", "DNS = 10.9.0.1\n[Peer]", 1))
    host.pywg("up", *arguments, str(path))
    up, names = host.look(name), host.read("/etc/resolv.conf")
    host.pywg("upgrade", "--force", name)
    assert host.look(name) == up
    assert host.read("/etc/resolv.conf") == names
    host.namespace.ip("rule", "delete", "table", "main", "suppress_prefixlength", "0")
    rules = "rules -4"
    wait_until(lambda: host.look(name)[rules] == up[rules], "the new process puts it back")
    host.pywg("down", name)
    assert host.look(name) == before


def test_sockets_and_interface_in_other_network_namespaces(lab: Lab, tmp_path: Path) -> None:
    here, there = lab.cabled()
    inner = lab.namespace("i")
    key, name = lab.key(), lab.name("u")
    peer = lab.side(None, 2, there)
    peer.daemon.setconf(
        peer.interface_section() + f"[Peer]\nPublicKey = {key.public}\nAllowedIPs = 10.99.0.1/32\n"
    )
    peer.daemon.up("10.99.0.2/24")
    path = tmp_path / f"{name}.conf"
    path.touch(0o600)
    path.write_text(
        f"[Interface]\nPrivateKey = {key.private}\nAddress = 10.99.0.1/32\n"
        + peer.peer_section(outer=4)
    )
    assert programs.pywg(here, "up", "--netns", inner.name, str(path)).returncode == 0
    inner.run("ping", "-c", "1", "-W", "5", "10.99.0.2")
    old, first = owner(name), wireguard_socket.get(name).peers[0].last_handshake_ns
    answer = programs.pywg(here, "upgrade", "--force", name)
    assert answer.returncode == 0, answer.stderr
    assert owner(name) != old
    inner.run("ping", "-c", "1", "-W", "5", "10.99.0.2")
    assert wireguard_socket.get(name).peers[0].last_handshake_ns == first
    assert programs.pywg(here, "down", name).returncode == 0
    assert inner.link(name) is None
