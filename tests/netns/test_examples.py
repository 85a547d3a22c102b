"""The examples that make an interface run as they are written, but for its name."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pywg import PrivateKey
from tests.unit.test_examples import EXAMPLES, compiled
from tools.lab.namespaces import Namespace, unique
from tools.lab.waiting import wait_until

NAME = unique("wgex")
SOCKET = Path("/var/run/wireguard") / f"{NAME}.sock"


def renamed(example: str) -> str:
    """Sockets lie in one folder for all network namespaces, and this host may have a wg0."""
    assert '"wg0' in EXAMPLES[example]
    return EXAMPLES[example].replace('"wg0', f'"{NAME}')


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    made = Namespace("example")
    try:
        yield made
    finally:
        made.close()


def test_the_device_in_c_serves_wg_until_it_is_told_to_end(
    namespace: Namespace, tmp_path: Path
) -> None:
    program = compiled("device.c", renamed("device.c"), tmp_path)
    with namespace.popen([str(program)], stderr=subprocess.PIPE, text=True) as process:
        wait_until(
            lambda: namespace.attempt("wg", "show", NAME, "listen-port").stdout == "51820\n",
            "the device answers with the port that the example sets",
        )
        namespace.ip("link", "set", "up", "dev", NAME)
        wait_until(
            lambda: ":51820 " in namespace.run("ss", "-Hlun"), "the link is up and sockets are open"
        )
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert namespace.link(NAME) is None
    assert not SOCKET.exists()


def test_the_device_in_python_shows_its_peer_and_the_interface_stages(
    namespace: Namespace, tmp_path: Path
) -> None:
    peer = PrivateKey.generate().public
    (tmp_path / f"{NAME}.conf").write_text(
        f"[Interface]\nPrivateKey = {PrivateKey.generate().to_base64()}\n"
        f"[Peer]\nPublicKey = {peer.to_base64()}\n"
        "AllowedIPs = 10.0.0.2/32\nEndpoint = 192.0.2.1:51820\n"
    )
    program = tmp_path / "start.py"
    program.write_text(renamed("start.py"))
    said = namespace.run(sys.executable, str(program), cwd=tmp_path)
    peers, verdict = said.splitlines()
    assert peer.to_base64() in peers
    assert verdict == "STAGED"
    assert namespace.link(NAME) is None


def test_the_program_that_follows_events_prints_them_until_the_interface_is_gone(
    namespace: Namespace, tmp_path: Path
) -> None:
    key = PrivateKey.generate()
    (tmp_path / f"{NAME}.conf").write_text(
        f"[Interface]\nPrivateKey = {key.to_base64()}\nListenPort = 51820\n"
    )
    program = tmp_path / "events.py"
    program.write_text(renamed("events.py"))
    taken = namespace.socket()
    taken.bind(("", 51820))
    command = [sys.executable, "-u", str(program)]
    with (
        taken,
        namespace.popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process,
    ):
        assert process.stdout is not None
        wait_until(
            lambda: namespace.attempt("wg", "show", NAME, "listen-port").stdout == "51820\n",
            "the device runs with the port of its file",
        )
        # It may be up before the program asks for events: it is told nevertheless.
        namespace.ip("link", "set", "up", "dev", NAME)
        said = process.stdout.readline()
        assert said == "port in use or forbidden: 51820 EADDRINUSE\n"
        taken.close()
        assert process.stdout.readline() == "Healed(port=51820)\n"
        namespace.ip("link", "delete", NAME)
        assert process.stdout.readlines() == ["InterfaceRemoved()\n"]
    assert process.returncode == 0
