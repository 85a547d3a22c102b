"""The examples that make an interface run as they are written, but for its name.

The rootless one runs as an ordinary user, under valgrind where there is one:

    command -- wg0 [its own namespaces] -- descriptor -- rootless.c -- UDP -- Driver [the test]
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pywg import Interface, PrivateKey
from pywg.drive import Driver, Loop
from pywg.native import library
from tests.unit.test_examples import EXAMPLES, ROOT, compiled
from tools.lab.embedder import VALGRIND
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


# ---- examples/rootless.c -------------------------------------------------------------------------

NOBODY = 65534
# In a mount namespace of its own: whoever may write there may open it.
WITH_A_TUN = """
mount -t tmpfs none /dev/net && mknod /dev/net/tun c 10 200 && chmod 0666 /dev/net/tun || exit 77
exec setpriv --reuid {user} --regid {user} --clear-groups -- "$@"
"""
# What the command finds and does: who it is, what it may, which links there are, one echo.
COMMAND = """
id -u
grep CapEff /proc/self/status
exec 3<>/dev/udp/10.0.0.2/7
printf hello >&3
read -r -t 30 -N 5 reply <&3
echo "$reply"
exit 7
"""


def echo(packet: memoryview) -> bytes:
    """UDP back to where it came from: swapping keeps the checksums right."""
    whole = bytes(packet)
    return whole[:12] + whole[16:20] + whole[12:16] + whole[22:24] + whole[20:22] + whole[24:]


@pytest.fixture
def folder_for_all() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="pywgtest"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made)


def test_the_rootless_tunnel_carries_one_command_and_ends_with_its_exit_code(
    namespace: Namespace, folder_for_all: Path
) -> None:
    program = compiled_static("rootless.c", folder_for_all)
    ours, theirs = PrivateKey.generate(), PrivateKey.generate()
    udp = namespace.socket()
    udp.bind(("127.0.0.1", 0))
    (folder_for_all / "uapi").write_text(
        f"private_key={ours.to_hex()}\npublic_key={theirs.public.to_hex()}\n"
        f"endpoint=127.0.0.1:{udp.getsockname()[1]}\nallowed_ip=0.0.0.0/0\n"
    )
    peer = Interface(
        f"private_key={theirs.to_hex()}\npublic_key={ours.public.to_hex()}\n"
        "allowed_ip=10.0.0.1/32\n"
    )
    valgrind = VALGRIND if shutil.which("valgrind") else []
    rootless = [*valgrind, str(program), "10.0.0.1", str(folder_for_all / "uapi")]
    script = WITH_A_TUN.format(user=NOBODY)
    argv = ["unshare", "-m", "sh", "-c", script, "sh", *rootless, "bash", "-c", COMMAND]
    driver = Driver(peer, [udp], lambda packet: answer(driver, packet))
    with udp, peer, Loop(driver):
        done = namespace.attempt(*argv, timeout=120)
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip(f"no TUN or no user namespace for an ordinary user here: {done.stderr.strip()}")
    assert done.stdout.split() == [str(NOBODY), "CapEff:", "0" * 16, "hello"], done.stderr
    assert done.returncode == 7, done.stderr


def answer(driver: Driver, packet: memoryview) -> None:
    if packet[0] == 0x45 and packet[9] == socket.IPPROTO_UDP:
        driver.send(echo(packet))


def compiled_static(name: str, folder: Path) -> Path:
    """Baseline: valgrind knows no AVX-512."""
    pytest.importorskip("ziglang")
    program, built = folder / Path(name).stem, library.find().parent
    (folder / name).write_text(EXAMPLES[name])
    warnings = ["-Wall", "-Wextra", "-Werror"]
    command = [sys.executable, "-m", "ziglang", "cc", "-g", "-mcpu=baseline", *warnings]
    command += [f"-I{ROOT / 'core' / 'include'}", str(folder / name), str(built / "libpywg.a")]
    subprocess.run([*command, "-o", str(program)], check=True)
    return program
