"""One line, every verb: `up` and `reload`, `setconf` and its like, and `set` read the same of it,
and what the installed wg(8) reads.

wg is asked in a mount namespace where the folder of its sockets is one of ours, with a listener
that writes down what it is sent.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from pywg.config import Endpoint, grammar, parse
from pywg.errors import PywgError
from pywg.host.resolver import resolve, spelled
from pywg.wireguard import setconf, uapi
from pywg.wireguard.changes import of_config

PEER = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
ZEROS = "0" * 40
UAPI_KEYS = {
    "ListenPort": "listen_port",
    "FwMark": "fwmark",
    "Endpoint": "endpoint",
    "AllowedIPs": "allowed_ip",
    "PersistentKeepalive": "persistent_keepalive_interval",
}

# What each line means, in the words of UAPI; None where it is refused.
LINES: dict[str, list[str] | None] = {
    "ListenPort = 51820": ["51820"],
    "ListenPort = 0": ["0"],
    "ListenPort = 65535": ["65535"],
    "ListenPort = 007": ["7"],
    f"ListenPort = {ZEROS}7": ["7"],
    "ListenPort = +5": ["5"],
    "ListenPort = ntp": ["123"],
    "ListenPort = domain": ["53"],
    "ListenPort = NTP": None,
    "ListenPort = http": None,  # of TCP alone
    "ListenPort = -1": None,
    "ListenPort = *": None,
    "ListenPort = 0x10": None,
    "ListenPort = 5x": None,
    "ListenPort =": None,
    "FwMark = off": ["0"],
    "FwMark = OFF": ["0"],
    "FwMark = 0": ["0"],
    "FwMark = 010": ["10"],
    "FwMark = 0xca6c": ["51820"],
    "FwMark = 0xCA6C": ["51820"],
    "FwMark = 0x00000000ff": ["255"],
    f"FwMark = 0x{ZEROS}ff": ["255"],
    f"FwMark = {ZEROS}7": ["7"],
    "FwMark = 4294967295": ["4294967295"],
    "FwMark = 4294967296": None,
    "FwMark = 0x100000000": None,
    "FwMark = 0XFF": None,
    "FwMark = 0x": None,
    "FwMark = +1": None,
    "FwMark = -1": None,
    "FwMark = none": None,
    "FwMark =": None,
    "Endpoint = 1.2.3.4:5": ["1.2.3.4:5"],
    "Endpoint = 1.2.3.4:ntp": ["1.2.3.4:123"],
    "Endpoint = 1.2.3.4:0": ["1.2.3.4:0"],
    "Endpoint = 1.2.3.4:+5": ["1.2.3.4:5"],
    "Endpoint = [1.2.3.4]:5": ["1.2.3.4:5"],
    "Endpoint = [2001:db8::1]:5": ["[2001:db8::1]:5"],
    "Endpoint = [2001:DB8:0::1]:5": ["[2001:db8::1]:5"],
    "Endpoint = fe80::1:5": ["[fe80::1]:5"],
    "Endpoint = 2001:db8::1:51820": ["[2001:db8::1]:51820"],
    "Endpoint = [fe80::1%lo]:5": ["[fe80::1%lo]:5"],
    "Endpoint = [fe80::1%1]:5": ["[fe80::1%lo]:5"],
    "Endpoint = [::ffff:1.2.3.4]:5": ["[::ffff:1.2.3.4]:5"],
    "Endpoint = 1.2.3:5": ["1.2.0.3:5"],
    "Endpoint = 010.0.0.1:5": ["8.0.0.1:5"],
    "Endpoint = 0x7f.1:5": ["127.0.0.1:5"],
    "Endpoint = 300.1.1.1:5": None,
    "Endpoint = 1.2.3.4.:5": None,
    "Endpoint = 1.2.3.4:5:6": None,
    "Endpoint = 1::2::3:5": None,
    "Endpoint = [1::2::3]:5": None,
    "Endpoint = [2001:db8::1%lo]:5": None,
    "Endpoint = 1.2.3.4:no-such-service": None,
    "Endpoint = 1.2.3.4": None,
    "Endpoint = 1.2.3.4:": None,
    "Endpoint = :5": None,
    "Endpoint = []:5": None,
    "Endpoint = [::1]5": None,
    "Endpoint = [::1:5": None,
    "Endpoint =": None,
    "AllowedIPs = 10.0.0.1": ["10.0.0.1/32"],
    "AllowedIPs = fd00::1": ["fd00::1/128"],
    "AllowedIPs = 10.0.0.1/8": ["10.0.0.0/8"],
    "AllowedIPs = 10.0.0.0/08": ["10.0.0.0/8"],
    f"AllowedIPs = 10.0.0.0/{ZEROS}8": ["10.0.0.0/8"],
    "AllowedIPs = 0.0.0.0/0,::/0": ["0.0.0.0/0", "::/0"],
    "AllowedIPs = 10.0.0.0/8 , 10.1.0.0/16": ["10.0.0.0/8", "10.1.0.0/16"],
    "AllowedIPs = 1 0.0.0.0 / 8": ["10.0.0.0/8"],
    "AllowedIPs = ::ffff:1.2.3.0/120": ["::ffff:1.2.3.0/120"],
    "AllowedIPs = 10.0.0.0/8,": None,
    "AllowedIPs = ,": None,
    "AllowedIPs = 10.0.0.0/": None,
    "AllowedIPs = 10.0.0.0/33": None,
    "AllowedIPs = fd00::/129": None,
    "AllowedIPs = 10.0.0.0/+8": None,
    "AllowedIPs = 10.0.0.0/8/8": None,
    "AllowedIPs = 10.0.0.0/255.0.0.0": None,
    "AllowedIPs = 01.0.0.1/8": None,
    "AllowedIPs = 10.0.0/8": None,
    "AllowedIPs = fe80::1%lo/64": None,
    "AllowedIPs = ++10.0.0.0/8": None,
    "AllowedIPs = example.com": None,
    "PersistentKeepalive = 25": ["25"],
    "PersistentKeepalive = 0025": ["25"],
    "PersistentKeepalive = off": ["0"],
    "PersistentKeepalive = oFF": ["0"],
    "PersistentKeepalive = 65535": ["65535"],
    "PersistentKeepalive = 65536": None,
    "PersistentKeepalive = +5": None,
    "PersistentKeepalive = on": None,
    "PersistentKeepalive =": None,
}
# Where all our verbs agree, but not with wg, and why.
OURS: dict[str, list[str] | None] = {
    "AllowedIPs =": [],  # wg means to take it (config.c), but reads no line that ends in "="
    "ListenPort = 65536": None,  # wg keeps the low 16 bits
    "ListenPort = 70000": None,
    "Endpoint = 1.2.3.4:70000": None,
    "AllowedIPs = +10.0.0.0/8": ["10.0.0.0/8"],  # wg since 2025
}
ALL = {**LINES, **OURS}


def key_of(line: str) -> str:
    return UAPI_KEYS[line.split(" ", maxsplit=1)[0]]


def file(line: str) -> str:
    row = grammar.called(line.split(" ", maxsplit=1)[0], grammar.KEYS)
    assert row is not None
    head = "[Interface]" if row.section == "Interface" else f"[Peer]\nPublicKey = {PEER}"
    return f"{head}\n{line}\n"


def said(text: str, line: str) -> list[str]:
    """What a request says of the key of this line; `up` spells addresses as its file does."""
    pairs = (one.split("=", 1) for one in text.splitlines() if "=" in one)
    values = [value for key, value in pairs if key == key_of(line)]
    if key_of(line) == "allowed_ip":
        values = [str(ip_network(value, strict=False)) for value in values]
        values = [value.replace("::ffff:102:300/", "::ffff:1.2.3.0/") for value in values]
    if key_of(line) == "endpoint":
        ends = (value.rpartition(":") for value in values)
        values = [str(spelled(Endpoint(host.strip("[]"), int(port)))) for host, _, port in ends]
    return values


def by_up(line: str) -> str:
    return uapi.changes_text(of_config(resolve(parse(file(line)))))


def by_setconf(line: str) -> str:
    return uapi.changes_text(setconf.parse(file(line), "", append=True, warn=print))


def by_set(line: str) -> str:
    name, _, value = line.partition(" =")
    row = grammar.called(name, grammar.KEYS)
    assert row is not None
    before = [] if row.section == "Interface" else ["peer", PEER]
    words = [*before, row.word, value.strip()]
    return uapi.changes_text(setconf.read_arguments(words, print))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WG_ENDPOINT_RESOLUTION_RETRIES", "0")


@pytest.mark.parametrize("verb", [by_up, by_setconf, by_set])
@pytest.mark.parametrize("line", ALL)
def test_every_verb_reads_a_line_alike(verb: Callable[[str], str], line: str) -> None:
    if ALL[line] is None:
        with pytest.raises(PywgError):
            verb(line)
    else:
        assert said(verb(line), line) == ALL[line]


def test_all_keys_of_wg_that_hold_no_key_have_lines() -> None:
    names = {row.name for row in grammar.KEYS if row.reader == "wg" and "Key" not in row.name}
    assert names == set(UAPI_KEYS) == {line.split(" ")[0] for line in LINES}


# ---- the real one

SOCKETS = Path("/var/run/wireguard")
INSIDE = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'


class Listener:
    """wg0.sock in a folder of its own, and a way to run wg where it sees that one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.heard: list[str] = []
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(folder / "wg0.sock"))
        self.server.listen()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            with client:
                request = b""
                while not request.endswith(b"\n\n") and (part := client.recv(1 << 16)):
                    request += part
                if request:
                    self.heard.append(request.decode())
                    client.sendall(b"errno=0\n\n")

    def wg(self, *words: str, text: str = "") -> str | None:
        """What it sent, or None where it refused."""
        self.heard.clear()
        unshare = ["unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",))]
        done = subprocess.run(
            [*unshare, "sh", "-c", INSIDE, "sh", str(self.folder), str(SOCKETS), "wg", *words],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        return self.heard[-1] if done.returncode == 0 else None

    def close(self) -> None:
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.thread.join()


@pytest.fixture(scope="module")
def real() -> Iterator[Listener]:
    if shutil.which("wg") is None or not SOCKETS.is_dir():
        pytest.skip("there is no wg, or no folder for its sockets")
    with tempfile.TemporaryDirectory() as folder:
        listener = Listener(Path(folder))
        try:
            if listener.wg("set", "wg0", "listen-port", "1") is None:
                pytest.skip("wg cannot be run in a mount namespace here")
            yield listener
        finally:
            listener.close()


@pytest.mark.parametrize("line", LINES)
def test_wg_reads_the_line_as_we_do(real: Listener, line: str) -> None:
    text = real.wg("setconf", "wg0", "/dev/stdin", text=file(line))
    assert (None if text is None else said(text, line)) == LINES[line]


TWICE = f"""\
[Peer]
PublicKey = {PEER}
PersistentKeepalive = 25
AllowedIPs = 10.0.0.0/8, 10.1.0.0/16
[Interface]
FwMark = 1
[peer]
AllowedIPs = 10.2.0.0/16
publickey = {PEER}
AllowedIPs = 10.3.0.0/16
[INTERFACE]
fwmark = 2
"""


def test_wg_reads_sections_that_come_twice_as_we_do(real: Listener) -> None:
    theirs = real.wg("addconf", "wg0", "/dev/stdin", text=TWICE)
    assert theirs is not None
    ours = uapi.changes_text(of_config(parse(TWICE))).replace("replace_peers=true\n", "")
    assert sorted(ours.split()) == sorted(theirs.removeprefix("set=1\n").split())
    assert ours == uapi.changes_text(setconf.parse(TWICE, "", append=True, warn=print))
