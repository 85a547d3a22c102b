"""When it cannot start it says why and what to do, in one line, with exit code 1, and leaves
nothing behind."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tools.lab import programs
from tools.lab.daemon import pid_of, socket_path
from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace
from tools.lab.programs import Program

Pywg = Callable[..., subprocess.CompletedProcess[str]]

UNPRIVILEGED = (
    "setpriv",
    "--reuid",
    "65534",
    "--regid",
    "65534",
    "--clear-groups",
    "--inh-caps=-all",
    "--",
)


def refused(answer: subprocess.CompletedProcess[str], *patterns: str) -> str:
    """The one line it said, beside a picture of the file's, which matches every pattern."""
    lines = [line for line in answer.stderr.splitlines() if line.strip() and line[0] != " "]
    assert answer.returncode == 1, (answer.returncode, answer.stdout, answer.stderr)
    assert len(lines) == 1, answer.stderr
    for pattern in patterns:
        assert re.search(pattern, lines[0], re.IGNORECASE), f"{pattern!r} is not in {lines[0]!r}"
    return lines[0]


def nothing_left(namespace: Namespace, name: str) -> None:
    assert not socket_path(name).exists(), "a socket was left"
    assert namespace.link(name) is None, "an interface was left"
    assert pid_of(name) is None, "a process was left"


# The daemon.


@pytest.fixture
def space(lab: Lab) -> Namespace:
    return lab.namespace("a")


@pytest.fixture
def anyones_copy(subject: Program) -> Iterator[str]:
    """The daemon where an unprivileged user can reach it."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        yield shutil.copy(subject.path, place)


@pytest.mark.pywgd_only
def test_without_permission_it_names_the_capability(
    lab: Lab, space: Namespace, anyones_copy: str
) -> None:
    name = lab.name("w")
    answer = space.attempt(*UNPRIVILEGED, anyones_copy, "-f", name)
    refused(answer, r"permi|privilege|not permitted", r"root|CAP_NET_ADMIN|sudo")
    nothing_left(space, name)


@pytest.mark.pywgd_only
def test_without_the_tun_device_it_names_it(lab: Lab, space: Namespace, subject: Program) -> None:
    name = lab.name("w")
    script = 'mount -t tmpfs none /dev/net && exec "$@"'
    answer = space.attempt("unshare", "--mount", "sh", "-c", script, "sh", subject.path, "-f", name)
    refused(answer, r"/dev/net/tun", r"modprobe tun|mknod|module|container|--device")
    nothing_left(space, name)


@pytest.mark.pywgd_only
@pytest.mark.parametrize("name", ["sixteenletters16", "with/slash", "with space", "", ".", ".."])
def test_a_name_that_cannot_be_an_interface_is_refused(
    space: Namespace, subject: Program, name: str
) -> None:
    answer = space.attempt(subject.path, "-f", name, timeout=30)
    refused(answer, r"15|name|characters")
    assert len(space.run("ip", "-o", "link").splitlines()) == 1, "only lo is here"


@pytest.mark.pywgd_only
def test_a_name_that_another_interface_has_is_refused(
    lab: Lab, space: Namespace, subject: Program
) -> None:
    name = lab.name("w")
    space.ip("link", "add", name, "type", "veth", "peer", "name", "other")
    refused(space.attempt(subject.path, "-f", name, timeout=30), name, r"exists|in use|taken|busy")
    assert not socket_path(name).exists()
    link = space.link(name)
    assert link is not None and link["linkinfo"]["info_kind"] == "veth", (
        "the other interface is as it was"
    )


@pytest.mark.pywgd_only
def test_in_the_background_it_fails_just_as_loudly(
    lab: Lab, space: Namespace, subject: Program
) -> None:
    name = lab.name("w")
    space.ip("link", "add", name, "type", "veth", "peer", "name", "other")
    refused(space.attempt(subject.path, name, timeout=30), name, r"exists|in use|taken|busy")
    assert pid_of(name) is None


@pytest.mark.pywgd_only
def test_a_second_daemon_is_told_that_the_first_one_runs(
    lab: Lab, space: Namespace, subject: Program
) -> None:
    daemon = lab.daemon(None, space)
    refused(
        space.attempt(subject.path, "-f", daemon.name, timeout=30),
        daemon.name,
        r"in use|running|exists|busy",
    )


@pytest.mark.pywgd_only
@pytest.mark.parametrize(
    "arguments", [[], ["--no-such-flag", "w"], ["-f"], ["one", "two"], ["--no-offload", "gso", "w"]]
)
def test_a_wrong_command_line_is_answered_with_usage(
    space: Namespace, subject: Program, arguments: list[str]
) -> None:
    answer = space.attempt(subject.path, *arguments, timeout=30)
    assert answer.returncode in (1, 2)
    assert "usage" in answer.stderr.lower() or "pywgd" in answer.stderr
    assert len(space.run("ip", "-o", "link").splitlines()) == 1


@pytest.mark.pywgd_only
def test_an_unknown_offload_in_the_environment_is_refused(
    lab: Lab, space: Namespace, subject: Program
) -> None:
    name = lab.name("w")
    with space.entered():
        answer = subprocess.run(
            [subject.path, "-f", name],
            env={**os.environ, "PYWG_NO_OFFLOAD": "tun_tso,warp"},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert answer.returncode in (1, 2)
    assert "warp" in answer.stderr
    nothing_left(space, name)


def test_a_taken_port_is_refused_and_the_device_goes_on(lab: Lab) -> None:
    tunnel = lab.tunnel()
    tunnel.session()
    daemon = tunnel.a.daemon
    with tunnel.a.namespace.socket() as other:
        other.bind(("0.0.0.0", 4999))
        answer = tunnel.a.namespace.attempt("wg", "set", daemon.name, "listen-port", "4999")
        assert answer.returncode == 1
        assert "Address already in use" in answer.stderr, answer.stderr
        if daemon.program.is_pywgd:
            assert daemon.show("listen-port") == [["51820"]]
            tunnel.ping()
    daemon.set("listen-port", "51820")
    tunnel.ping()


# The command line of the Python package.


@pytest.fixture
def pywg(space: Namespace, subject: Program) -> Pywg:
    """Runs `pywg` inside the namespace."""
    if not subject.is_pywgd:
        pytest.skip("the command line of the package needs its own core")
    if importlib.util.find_spec("pywg") is None:
        pytest.fail("the package pywg is not importable: pip install -e .")

    return functools.partial(programs.pywg, space)


KEY = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
PUBLIC = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
GOOD = f"[Interface]\nPrivateKey = {KEY}\n[Peer]\nPublicKey = {PUBLIC}\nAllowedIPs = 10.0.0.0/8\n"

# A broken line, its number, and what the message must name.
BROKEN = {
    "an unknown key": (GOOD + "Enpoint = 192.0.2.1:5\n", 6, "Enpoint"),
    "an unknown section": (GOOD + "[Pear]\n", 6, "Pear"),
    "a private key too short": (GOOD.replace(KEY, KEY[:-8]), 2, "PrivateKey"),
    "a public key too long": (GOOD.replace(PUBLIC, "AAAA" + PUBLIC), 4, "PublicKey"),
    "a public key that is no base64": (GOOD.replace(PUBLIC, "?" * 44), 4, "PublicKey"),
    "an address that is none": (GOOD.replace("10.0.0.0/8", "10.0.0.256/8"), 5, "AllowedIPs"),
    "a prefix too long": (GOOD.replace("10.0.0.0/8", "10.0.0.0/33"), 5, "AllowedIPs"),
    "an endpoint without port": (GOOD + "Endpoint = 192.0.2.1\n", 6, "Endpoint"),
    "a port out of range": (GOOD.replace("[Peer]", "ListenPort = 65536\n[Peer]"), 3, "ListenPort"),
    "a keepalive out of range": (GOOD + "PersistentKeepalive = 65536\n", 6, "PersistentKeepalive"),
    "a peer without key": (
        f"[Interface]\nPrivateKey = {KEY}\n[Peer]\nAllowedIPs = 10.0.0.0/8\n",
        3,
        "PublicKey",
    ),
    "a line before any section": ("PrivateKey = x\n", 1, "section|Interface"),
    "a line that is no setting": (GOOD + "hello\n", 6, "hello|="),
}


@pytest.mark.pywgd_only
@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_file_is_refused_with_file_line_and_key(
    lab: Lab, space: Namespace, pywg: Pywg, tmp_path: Path, what: str
) -> None:
    text, line, named = BROKEN[what]
    name = lab.name("w")
    path = tmp_path / f"{name}.conf"
    path.touch(0o600)
    path.write_text(text)
    said = refused(pywg("up", str(path)), re.escape(f"{path.name}:{line}"), named)
    assert KEY not in said, "the message shows the private key"
    nothing_left(space, name)


@pytest.mark.pywgd_only
def test_up_with_a_taken_port_undoes_everything(
    lab: Lab, space: Namespace, pywg: Pywg, tmp_path: Path
) -> None:
    name = lab.name("w")
    path = tmp_path / f"{name}.conf"
    path.touch(0o600)
    path.write_text(GOOD.replace("[Peer]", "ListenPort = 4999\nAddress = 10.1.0.1/24\n[Peer]"))
    with space.socket(socket.AF_INET) as other:
        other.bind(("0.0.0.0", 4999))
        refused(pywg("up", str(path)), "4999", "in use|taken")
    nothing_left(space, name)


@pytest.mark.pywgd_only
def test_up_of_a_file_that_is_not_there_names_it(lab: Lab, space: Namespace, pywg: Pywg) -> None:
    name = lab.name("w")
    refused(pywg("up", f"/nowhere/{name}.conf"), name)
    nothing_left(space, name)


@pytest.mark.pywgd_only
def test_down_of_an_interface_that_is_not_up_says_so(lab: Lab, pywg: Pywg) -> None:
    name = lab.name("w")
    refused(pywg("down", name), name)
