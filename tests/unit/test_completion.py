"""Completion in the real shells: what a user gets who types so much and then Tab.

bash and zsh run on a terminal of their own and are typed into; fish is asked by `complete -C`. The
`pywg` that they call looks for its interface and its files in a folder of the test.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pywg.keys import PrivateKey, PublicKey
from pywg.wireguard import setconf

ROOT = Path(__file__).parents[2]
LAPTOP, OTHER = sorted((str(PrivateKey.generate().public) for _ in range(2)), key=str.lower)
PATIENCE_S = 60.0  # a wait ends when what it is for is there

PROGRAM = """#!{python}
import sys
from pathlib import Path
from pywg import cli
from pywg.cli import complete
from pywg.config import names
from pywg.tunnel import names as of_peers, record
from pywg.wireguard import socket
here = Path({place!r})
complete.DEVICES = here / "net"
socket.SOCKET_DIRECTORY = here
names.CONFIG_DIRECTORY = of_peers.CONFIG_DIRECTORY = here / "etc"
record.DIRECTORY = here / "run"
cli.run_main()
"""

# What is typed before Tab, and what has to be offered or written.
TYPED = {
    "command": ("pywg showc", ["showconf"]),
    "commands": ("pywg gen", ["genkey", "genpsk"]),
    "option": ("pywg up --foreg", ["--foreground"]),
    "word of an option": ("pywg up --backend us", ["userspace"]),
    "interface": ("pywg down ho", ["home9"]),
    "file by its name": ("pywg up ca", ["cafe"]),
    "file": ("pywg up ./wo", ["./work.conf"]),
    "file of exec": ("pywg exec wo", ["work.conf"]),
    "field": ("pywg show home9 lat", ["latest-handshakes"]),
    "fields": (
        "pywg show home9 p",
        ["peers", "persistent-keepalive", "preshared-keys", "private-key", "public-key"],
    ),
    "interfaces": ("pywg show ", ["all", "home9", "interfaces"]),
    "interface of set": ("pywg set ho", ["home9"]),
    "word of set": ("pywg set home9 listen-port 5 priv", ["private-key"]),
    "file of set": ("pywg set home9 private-key ./wo", ["./work.conf"]),
    "peer by its name": ("pywg set home9 peer lap", ["laptop"]),
    "peer by its key": (f"pywg set home9 peer {OTHER[:9]}", [OTHER]),
    "peers": ("pywg set home9 peer ", ["laptop", LAPTOP, OTHER]),
    "word of a peer": (f"pywg set home9 peer {OTHER} rem", ["remove"]),
    "file of setconf": ("pywg setconf home9 wo", ["work.conf"]),
    "help": ("pywg help showc", ["showconf"]),
    "value behind =": ("pywg up --backend=us", ["userspace"]),
    "shell": ("pywg completion f", ["fish"]),
    "offloads": ("pywg up --no-offload tun_tso,udp_gs", ["tun_tso,udp_gso"]),
}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder with a file, an interface of two peers one of which has a name, and `pywg`."""
    with tempfile.TemporaryDirectory(prefix="pywg") as name:
        here = Path(name)
        for folder in ("etc", "run", "bin", "home"):
            (here / folder).mkdir()
        (here / "home" / "work.conf").touch()
        (here / "etc" / "cafe.conf").touch()
        named = f"[Peer]\nPublicKey = {LAPTOP}\n#!pywg Name = laptop\n"
        (here / "etc" / "home9.conf").write_text(named)
        program = here / "bin" / "pywg"
        program.write_text(PROGRAM.format(python=sys.executable, place=str(here)))
        program.chmod(0o755)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(here / "home9.sock"))
            listener.listen(16)
            threading.Thread(target=answer, args=(listener,), daemon=True).start()
            yield here
            listener.shutdown(socket.SHUT_RDWR)


def answer(listener: socket.socket) -> None:
    """As a device with two peers does; a caller who only looks whether it lives is let go."""
    keys = [PublicKey.from_base64(key).to_hex() for key in (LAPTOP, OTHER)]
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        with client:
            if client.recv(1 << 12):
                peers = "".join(f"public_key={key}\n" for key in keys)
                client.sendall(f"{peers}errno=0\n\n".encode())


def environment(place: Path) -> dict[str, str]:
    return {
        "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
        "HOME": str(place / "home"),
        "TERM": "dumb",
        "INPUTRC": os.devnull,
        "LANG": "C.UTF-8",
        "ZDOTDIR": str(place / "home"),
        "PYTHONPATH": str(ROOT),
    }


# ---- a shell on a terminal


class Terminal:
    """A shell that is typed into. What it writes is kept until it is asked for."""

    def __init__(self, command: list[str], place: Path) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(place / "home")
            os.execvpe(command[0], command, environment(place))
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("4H", 50, 400, 0, 0))
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def wait_for(self, *words: str) -> str:
        """What was written since the last time, once all of these are in it."""
        limit = time.monotonic() + PATIENCE_S
        while not all(word in self.plain() for word in words):
            left = limit - time.monotonic()
            assert left > 0, f"{words} are not in {self.plain()!r}"
            if select.select([self.fd], [], [], left)[0]:
                self.seen += os.read(self.fd, 1 << 16).decode(errors="replace")
        seen, self.seen = self.plain(), ""
        return seen

    def plain(self) -> str:
        """Without what moves the cursor."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|[\r\x07\x08]", "", self.seen)

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


SETTINGS = {
    "bash": [
        "bind 'set show-all-if-ambiguous on' 'set page-completions off'",
        "bind 'set completion-query-items 0' 'set bell-style none'",
        "bind 'set enable-bracketed-paste off'",
        'source <(pywg completion bash)',
        "PS1='re''ady> '",
    ],
    "zsh": [
        "PS1='wait> '",
        "unsetopt beep zle_bracketed_paste prompt_sp",
        "autoload -Uz compinit; compinit -u -D",
        "LISTMAX=1000",
        "source <(pywg completion zsh)",
        "PS1='re''ady> '",
    ],
}  # fmt: skip
COMMANDS = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
}


@pytest.fixture(scope="module", params=list(COMMANDS))
def terminal(request: pytest.FixtureRequest, place: Path) -> Iterator[Terminal]:
    name: str = request.param
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name} (scripts/peers installs it)")
    shell = Terminal(COMMANDS[name], place)
    try:
        shell.type("; ".join(SETTINGS[name]) + "\n")
        shell.wait_for("ready> ")
        yield shell
    finally:
        shell.close()


@pytest.mark.parametrize("what", TYPED)
def test_tab_completes_in_bash_and_zsh(terminal: Terminal, what: str) -> None:
    typed, expected = TYPED[what]
    terminal.type(f"{typed}\t")
    try:
        terminal.wait_for(*expected)
    finally:
        terminal.type("\x15")  # Ctrl-U: the line is empty again
        terminal.type("echo o''k\n")
        terminal.wait_for("ok", "ready> ")


# ---- fish tells what it would offer


@pytest.mark.skipif(not shutil.which("fish"), reason="there is no fish (scripts/peers installs it)")
# fish asks for the whole of `--option=value`, of which click tells it the value alone.
@pytest.mark.parametrize("what", [what for what in TYPED if what != "value behind ="])
def test_fish_offers(place: Path, what: str) -> None:
    typed, expected = TYPED[what]
    script = f"pywg completion fish | source; complete -C {typed!r}"
    done = subprocess.run(
        ["fish", "--no-config", "-c", script],
        env=environment(place),
        cwd=place / "home",
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    offered = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert sorted(set(offered)) == sorted(expected), done.stderr


# ---- what may follow


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ("private-key", "listen-port", "fwmark", "peer")),
        (["listen-port", "5"], ("private-key", "fwmark", "peer")),
        (["private-key"], "file"),
        (["fwmark"], ("off",)),
        (["listen-port"], ()),
        (["peer"], "peer"),
        (["peer", OTHER, "preshared-key"], "file"),
        (["peer", OTHER, "endpoint"], ()),
        (["peer", OTHER, "persistent-keepalive"], ("off",)),
        (["nonsense"], ()),
        (["peer", OTHER, "fwmark"], ()),
    ],
)
def test_what_may_follow_words_of_set(words: list[str], expected: object) -> None:
    assert setconf.what_follows(words) == expected


def test_behind_a_peer_come_its_own_words_and_the_next_peer() -> None:
    found = setconf.what_follows(["peer", OTHER, "allowed-ips", "::/0"])
    assert found == ("peer", "preshared-key", "endpoint", "persistent-keepalive", "remove")
