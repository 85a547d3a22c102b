"""pywgd without anything beside it: no Python, no wg, no wg-quick. A file in, a tunnel out.

a 192.0.2.1 ==== 192.0.2.2 b; inside 10.97.0.1 and 10.97.0.2, fd97::1 and fd97::2
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.lab.daemon import pid_of, socket_path
from tools.lab.keys import Key, new_key, new_psk
from tools.lab.namespaces import Namespace, cable, unique
from tools.lab.programs import Program
from tools.lab.traffic import exchange, ping
from tools.lab.waiting import wait_until

pytestmark = pytest.mark.pywgd_only

PORT = 51820
PAGE = Path(__file__).parents[2] / "docs" / "pywgd.md"


class End:
    """One of the two, and its file."""

    def __init__(self, program: str, role: str, number: int, directory: Path) -> None:
        self.program, self.number = program, number
        self.namespace = Namespace(role)
        self.name = unique(role)
        self.key = new_key()
        self.file = directory / f"{self.name}.conf"

    def write(self, other: End, *, more: str = "", of_peer: str = "") -> Path:
        self.file.touch(0o600)
        self.file.write_text(
            f"[Interface]\nPrivateKey = {self.key.private}\nListenPort = {PORT}\n"
            f"Address = 10.97.0.{self.number}/24, fd97::{self.number}/64\n{more}"
            f"[Peer]\nPublicKey = {other.key.public}\n"
            f"AllowedIPs = 10.97.0.{other.number}/32, fd97::{other.number}/128\n"
            f"Endpoint = 192.0.2.{other.number}:{PORT}\n{of_peer}"
        )
        return self.file

    def attempt(self, *words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        return self.namespace.attempt(self.program, *words, text=text)

    def pywgd(self, *words: str, text: str | None = None) -> str:
        answer = self.attempt(*words, text=text)
        assert answer.returncode == 0, f"{words}: {answer.stderr}"
        return answer.stdout

    def up(self, *words: str) -> str:
        return self.pywgd(*words, "--config", str(self.file), self.name)

    def close(self) -> None:
        pid = pid_of(self.name)
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda: pid_of(self.name) is None, "pywgd ends")
        self.namespace.close()

    def is_gone(self) -> None:
        """Nothing is left of it, nor half of it."""
        assert self.namespace.link(self.name) is None
        assert not socket_path(self.name).exists()
        assert pid_of(self.name) is None


@pytest.fixture
def ends(subject: Program, tmp_path: Path) -> Iterator[tuple[End, End]]:
    a, b = (End(subject.path, role, n, tmp_path) for n, role in enumerate("ab", start=1))
    try:
        cable(
            (a.namespace, "veth", ["192.0.2.1/24"]),
            (b.namespace, "veth", ["192.0.2.2/24"]),
        )
        a.write(b)
        b.write(a)
        yield a, b
    finally:
        a.close()
        b.close()


def test_two_files_are_a_tunnel(ends: tuple[End, End]) -> None:
    a, b = ends
    for end in ends:
        end.up()
    ping(a.namespace, "10.97.0.2")
    ping(b.namespace, "fd97::1")
    exchange(a.namespace, b.namespace, "fd97::2", 1 << 20, 1 << 20)
    assert (a.namespace.link(a.name) or {})["mtu"] == 1420


def test_words_come_before_what_the_file_says(ends: tuple[End, End]) -> None:
    a, _ = ends
    a.write(ends[1], more="MTU = 1300\n")
    a.up("--address", "10.97.9.1/32", "--address=fd97:9::1/128", "--mtu", "1380")
    found = a.namespace.ip("-o", "address", "show", "dev", a.name)
    assert "10.97.9.1/32" in found
    assert "fd97:9::1/128" in found
    assert "10.97.0.1" not in found
    assert (a.namespace.link(a.name) or {})["mtu"] == 1380


def test_the_mtu_of_the_file_and_an_interface_without_a_file(ends: tuple[End, End]) -> None:
    a, b = ends
    a.write(b, more="MTU = 1300\n")
    a.up()
    assert (a.namespace.link(a.name) or {})["mtu"] == 1300
    b.pywgd("--address", "10.97.0.2/24", b.name)
    link = b.namespace.link(b.name) or {}
    assert "UP" in link["flags"]
    assert link["mtu"] == 1420


def test_routes_are_made_when_asked_for(ends: tuple[End, End]) -> None:
    a, b = ends
    for end in ends:  # as two networks behind one another
        end.namespace.ip("address", "add", f"172.30.{end.number}.1/24", "dev", "lo")
    for end, other in ((a, b), (b, a)):
        networks = f"AllowedIPs = 172.30.{other.number}.0/24, fd30:{other.number}::/64\n"
        end.write(other, of_peer=networks)
    told = a.attempt("--config", str(a.file), a.name).stderr
    assert told == f"pywgd: {a.file}: no routes are made for AllowedIPs: see --routes\n"
    a.namespace.ip("link", "delete", a.name)
    wait_until(lambda: not socket_path(a.name).exists(), "it ends with its interface")
    for end in ends:
        end.up("--routes")
    ping(a.namespace, "172.30.2.1", options=("-I", "172.30.1.1"))
    assert f"fd30:2::/64 dev {a.name}" in a.namespace.ip("-6", "route")


def test_routes_that_cannot_be_made_are_told_and_nothing_is_left(ends: tuple[End, End]) -> None:
    a, b = ends
    a.namespace.ip("route", "add", "172.30.2.0/24", "dev", "veth")
    a.write(b, of_peer="AllowedIPs = 172.30.2.0/24\n")
    answer = a.attempt("--routes", "--config", str(a.file), a.name)
    assert "the kernel refused a route to 172.30.2.0/24: is there one already?" in answer.stderr
    assert answer.returncode == 1
    a.is_gone()
    a.write(b, of_peer="AllowedIPs = 0.0.0.0/0, 172.30.9.0/24\n")
    answer = a.attempt("--routes", "--config", str(a.file), a.name)
    assert "--routes makes no default route" in answer.stderr
    a.is_gone()
    a.write(b, more="Table = 4711\n", of_peer="AllowedIPs = 172.30.9.0/24\n")
    a.up("--routes")
    assert "172.30.9.0/24" in a.namespace.ip("route", "show", "table", "4711")


WRONG = {
    "a mistake": ("", "Endpoint = nowhere\n", ":9:12: Endpoint: expected HOST:PORT or [IPv6]:PORT"),
    "a hook": ("PostUp = iptables -A x\n", "", ":5:1: PostUp: pywgd runs no commands"),
    "a kill switch": ("#!pywg KillSwitch = on\n", "", ":5:8: KillSwitch: pywgd sets no firewall"),
    "a name": ("", "Endpoint = vpn.invalid:5\n", ":9:12: Endpoint: pywgd looks up no names"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_or_would_leak_is_told_and_nothing_is_made(
    ends: tuple[End, End], what: str
) -> None:
    a, b = ends
    more, of_peer, expected = WRONG[what]
    a.write(b, more=more, of_peer=of_peer)
    answer = a.attempt("--config", str(a.file), a.name)
    assert answer.returncode == 1
    assert f"{a.file}{expected}" in answer.stderr
    assert a.key.private not in answer.stderr
    a.is_gone()


def test_what_cannot_be_done_at_last_leaves_nothing(ends: tuple[End, End]) -> None:
    """A port that is taken, an address that the kernel refuses, a file that is not there."""
    a, b = ends
    with a.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", PORT))
        answer = a.attempt("--config", str(a.file), a.name)
    assert answer.returncode == 1
    assert f"cannot listen on UDP port {PORT}: another program does" in answer.stderr
    a.is_gone()
    answer = a.attempt("--mtu", "1200", "--config", str(a.file), a.name)
    assert answer.returncode == 1
    assert "the kernel refused the address fd97::1/64" in answer.stderr  # no IPv6 below 1280
    a.is_gone()
    assert b.attempt("--config", str(b.file) + "x", b.name).returncode == 1
    b.is_gone()


def test_what_is_not_done_is_named_and_the_rest_is_done(ends: tuple[End, End]) -> None:
    a, b = ends
    a.write(b, more="DNS = 10.97.0.2\nPostUp = true\nPostDown = true\nSaveConfig = true\n")
    answer = a.attempt("--no-hooks", "--config", str(a.file), a.name)
    assert answer.returncode == 0, answer.stderr
    told = [line.partition("not done: ")[2] for line in answer.stderr.splitlines()]
    assert [line.partition(":")[0] for line in told] == ["DNS", "PostUp", "PostDown", "SaveConfig"]
    b.up()
    ping(a.namespace, "10.97.0.2")


def test_a_file_that_others_can_read_is_told(ends: tuple[End, End]) -> None:
    a, _ = ends
    a.file.chmod(0o644)
    a.file.parent.chmod(0o755)
    answer = a.attempt("check", str(a.file))
    assert "is world accessible" in answer.stderr
    a.file.chmod(0o600)
    assert a.attempt("check", str(a.file)).stderr == ""


def test_show_says_what_wg_says(ends: tuple[End, End]) -> None:
    a, b = ends
    psk = new_psk()
    for end, other in ((a, b), (b, a)):
        end.write(
            other,
            more="FwMark = 0xca6c\n",
            of_peer=f"PresharedKey = {psk}\nPersistentKeepalive = 25\n"
            f"[Peer]\nPublicKey = {new_key().public}\n",
        )
        end.up()
    ping(a.namespace, "10.97.0.2")
    # The handshake is so many seconds old: both are asked until they are in the same second.
    wait_until(lambda: a.pywgd("show", a.name) == wg(a, "show", a.name), "the same second")
    assert a.pywgd("show", a.name, "dump") == wg(a, "show", a.name, "dump")
    shown = a.pywgd("show", a.name)
    assert "(hidden)" in shown
    assert psk not in shown
    assert a.key.private not in shown
    everything = a.pywgd("show")
    assert f"interface: {a.name}" in everything
    assert f"interface: {b.name}" in everything
    assert {a.name, b.name} <= set(a.pywgd("show", "interfaces").split())
    dump = a.pywgd("show", "all", "dump")
    assert f"{a.name}\t{a.key.private}\t{a.key.public}\t{PORT}\t0xca6c\n" in dump


def wg(end: End, *words: str) -> str:
    return end.namespace.run("wg", *words)


def test_healthcheck_has_an_answer_for_each_case(ends: tuple[End, End]) -> None:
    a, b = ends

    def health(*words: str) -> tuple[int, str]:
        answer = a.attempt("healthcheck", *words)
        assert answer.stderr.count("\n") == answer.returncode  # one line why, or none
        return answer.returncode, answer.stderr

    code, why = health(a.name)
    assert (code, "nobody serves it" in why) == (1, True)
    a.up()
    assert health(a.name) == (0, "")
    code, why = health("--handshake", "180", a.name)
    assert (code, "no peer has had a handshake yet" in why) == (1, True)
    b.up()
    ping(a.namespace, "10.97.0.2")
    assert health("--handshake=180", a.name) == (0, "")
    wait_until(lambda: health("--handshake", "1", a.name)[0] == 1, "the handshake is older")
    assert "seconds ago, more than 1" in health("--handshake", "1", a.name)[1]
    pid = pid_of(a.name)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        assert health(a.name) == (1, f"pywgd: {a.name}: its daemon does not answer\n")
    finally:
        os.kill(pid, signal.SIGCONT)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pid_of(a.name) is None, "it is gone")
    assert health(a.name) == (1, f"pywgd: {a.name}: the process that served it is gone\n")
    socket_path(a.name).unlink()
    assert a.attempt("healthcheck", "--handshake", "x", a.name).returncode == 2


def test_syncconf_keeps_the_sessions_of_peers_that_stay(ends: tuple[End, End]) -> None:
    a, b = ends
    gone = new_key().public
    a.write(b, of_peer=f"PersistentKeepalive = 9\n[Peer]\nPublicKey = {gone}\n")
    a.up()
    b.up()
    ping(a.namespace, "10.97.0.2")
    before = handshakes(a)
    new = new_key().public
    a.write(b, of_peer=f"[Peer]\nPublicKey = {new}\nAllowedIPs = 10.97.0.9/32\n")
    a.pywgd("syncconf", a.name, str(a.file))
    after = handshakes(a)
    assert after == {b.key.public: before[b.key.public], new: 0}
    assert "\toff\n" in a.pywgd("show", a.name, "dump")  # its keepalive is taken back
    a.pywgd("setconf", a.name, str(a.file))
    assert handshakes(a) == {b.key.public: 0, new: 0}
    a.write(b, of_peer="Endpoint = x\n")
    answer = a.attempt("syncconf", a.name, str(a.file))
    assert (answer.returncode, ":9:12: Endpoint: " in answer.stderr) == (1, True)
    assert handshakes(a) == {b.key.public: 0, new: 0}
    assert a.attempt("syncconf", "pywg-none", str(b.file)).returncode == 1


def handshakes(end: End) -> dict[str, int]:
    """When each peer's last was."""
    lines = end.pywgd("show", end.name, "dump").splitlines()[1:]
    return {line.split("\t")[0]: int(line.split("\t")[4]) for line in lines}


def test_keys_are_those_of_wg(ends: tuple[End, End]) -> None:
    a, _ = ends
    private = a.pywgd("genkey")
    assert a.pywgd("pubkey", text=private) == a.namespace.run("wg", "pubkey", text=private)
    assert Key(private.strip(), "").private != a.pywgd("genkey").strip()
    assert len(a.pywgd("genpsk")) == 45
    for text in (
        "",
        "x",
        private.strip()[:-1],
        private.strip() + "x",
        private * 2,
        private[:42] + "B=",
    ):
        ours = a.attempt("pubkey", text=text)
        theirs = a.namespace.attempt("wg", "pubkey", text=text)
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout) == (1, "")
        assert text.strip() == "" or text.strip() not in ours.stderr


def test_an_interface_may_be_called_like_a_command(ends: tuple[End, End]) -> None:
    a, _ = ends
    a.pywgd("--", "show")
    try:
        assert a.pywgd("healthcheck", "show") == ""
        assert a.namespace.link("show") is not None
    finally:
        a.namespace.ip("link", "delete", "show")
        wait_until(lambda: not socket_path("show").exists(), "it ends with its interface")
    assert a.pywgd("-h", "show").startswith("usage: pywgd show ")
    assert a.pywgd("--help").startswith("usage: pywgd [OPTION]... NAME\n")
    assert a.attempt("show", "a", "b").returncode == 2


def test_a_thousand_peers(ends: tuple[End, End]) -> None:
    a, b = ends
    keys = [new_key().public for _ in range(1000)]
    a.write(
        b,
        of_peer="".join(
            f"[Peer]\nPublicKey = {key}\nAllowedIPs = 10.96.{n // 250}.{n % 250}/32\n"
            for n, key in enumerate(keys)
        ),
    )
    a.up()
    b.up()
    ping(a.namespace, "10.97.0.2")
    assert {*handshakes(a)} == {b.key.public, *keys}
    a.write(b)
    a.pywgd("syncconf", a.name, str(a.file))
    assert {*handshakes(a)} == {b.key.public}


def blocks(language: str) -> list[str]:
    """Those of the page, in its order."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [text for kind, text in found if kind == language]


def test_the_commands_of_the_page_do_what_it_says(ends: tuple[End, End], tmp_path: Path) -> None:
    a, b = ends
    keys, tunnel = blocks("")
    folder = tmp_path / "page"
    folder.mkdir(0o700)
    before, last = tunnel.rsplit("pywgd syncconf", 1)

    def shell(script: str) -> str:
        path = f"PATH={Path(a.program).parent}:$PATH"
        return a.namespace.run("sh", "-e", "-c", f"cd {folder}; {path}\n{script}")

    public = shell(keys).strip()
    private = (folder / "private.key").read_text().strip()
    (file,) = blocks("ini")
    words = {"OUR_PRIVATE_KEY": private, "PEER_PUBLIC_KEY": b.key.public}
    (folder / "wg0.conf").touch(0o600)
    (folder / "wg0.conf").write_text(re.sub(r"\b[A-Z]+_[A-Z_]+\b", lambda m: words[m[0]], file))
    a.key = Key(private, public)
    b.write(a)
    b.up()
    try:
        said = shell(before)
        assert f"peer: {b.key.public}" in said
        assert private not in said
        ping(a.namespace, "10.97.0.2")
    finally:
        shell("pywgd syncconf" + last)
    wait_until(lambda: not socket_path("wg0").exists(), "it ends with its interface")
