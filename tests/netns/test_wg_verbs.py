"""The verbs of wg: `pywg` and the real `wg` ask and change the same interfaces, and what they print
is compared byte for byte. The interfaces are those of pywgd and of wireguard-go.

The socket of an interface is found in every namespace; only names of zones depend on where one is.
`pywg` is called in this process where that makes no difference, since there are hundreds of calls.
"""

from __future__ import annotations

import base64
import functools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pywg import cli
from pywg.cli.show_fields import FIELDS
from tools.lab import programs
from tools.lab.daemon import SOCKETS, Daemon
from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace
from tools.lab.programs import REPOSITORY, Missing, Program
from tools.lab.traffic import ping
from tools.lab.waiting import wait_until

pytestmark = pytest.mark.pywgd_only

PRIVATE = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
A = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
B = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0="
C = "gN65BkIKy1eCE9pP1wdc8ROUtkHLF2PfAqYdyYBz6EA="
PSK = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE="


def interface(*lines: str) -> str:
    return "\n".join(["[Interface]", *lines, ""])


def peer(key: str, *lines: str) -> str:
    return "\n".join(["[Peer]", f"PublicKey = {key}", *lines, ""])


def numbered_key(number: int) -> str:
    """A public key of our own making; nobody has its private one."""
    return base64.b64encode(number.to_bytes(2, "big") + bytes(30)).decode()


STATES = {
    "nothing": interface(),
    "a key": interface(f"PrivateKey = {PRIVATE}"),
    "no peers": interface(f"PrivateKey = {PRIVATE}", "ListenPort = 51999", "FwMark = 0xca6c"),
    "no key": interface("ListenPort = 51998") + peer(A, "AllowedIPs = 10.0.0.0/8"),
    "one bare peer": interface(f"PrivateKey = {PRIVATE}") + peer(A),
    "all there is": interface(f"PrivateKey = {PRIVATE}", "FwMark = 1")
    + peer(
        A,
        f"PresharedKey = {PSK}",
        "AllowedIPs = 10.0.0.1/32, 10.0.1.0/24, fd00::/64, ::ffff:1.2.3.0/120, ::/0, 0.0.0.0/0",
        "Endpoint = 192.0.2.1:51820",
        "PersistentKeepalive = 25",
    )
    + peer(B, "AllowedIPs = fd01::1/128", "Endpoint = [2001:db8::1]:1", "PersistentKeepalive = off")
    + peer(C, "Endpoint = [::1]:65535", "PersistentKeepalive = 65535"),
    "zones": interface(f"PrivateKey = {PRIVATE}")
    + peer(A, "Endpoint = [fe80::1%veth]:5")
    + peer(B, "Endpoint = [fe80::2%lo]:6"),
    "many peers": interface(f"PrivateKey = {PRIVATE}")
    + "".join(
        peer(
            numbered_key(number),
            f"AllowedIPs = 10.{number // 256}.{number % 256}.0/24, fd00:{number:x}::/32",
            f"Endpoint = 192.0.2.{number % 250 + 1}:{number + 1}",
            f"PersistentKeepalive = {number % 3}",
            *([f"PresharedKey = {PSK}"] if number % 2 else []),
        )
        for number in range(300)
    ),
}


PROGRAMS: dict[str, Callable[[], Program]] = {
    "pywgd": programs.subject,
    "wireguard-go": programs.wireguard_go_current,
    "wireguard-go of Debian": programs.wireguard_go_debian,
}


class Pair:
    """Two interfaces of one program, each in a namespace with a link called veth, since they are
    given the same port: `theirs` is changed by `wg`, `ours` by `pywg`."""

    def __init__(self, lab: Lab, program: Program) -> None:
        self.lab = lab
        self.program = program
        self.here: Namespace
        self.there: Namespace
        self.here, self.there = lab.cabled()
        self.theirs: Daemon = lab.daemon(program, self.here)
        self.ours: Daemon = lab.daemon(program, self.there)

    def wg(self, *words: str, text: str | None = None) -> tuple[int, str]:
        answer = self.here.attempt("wg", *words, text=text)
        return answer.returncode, answer.stdout

    def configurations(self) -> tuple[str, str]:
        """Of both, told by `wg`; the port is the system's choice where none is set."""
        first, second = (
            daemon.namespace.run("wg", "showconf", daemon.name)
            for daemon in (self.theirs, self.ours)
        )
        ports = r"ListenPort = (?!5199)\d+\n"
        return sorted_peers(re.sub(ports, "", first)), sorted_peers(re.sub(ports, "", second))


def sorted_peers(text: str) -> str:
    """Devices list peers in an order of their own (wireguard-go: any)."""
    head, *peers = text.split("[Peer]\n")
    ordered = (re.sub(r"AllowedIPs = (.*)", _sorted_list, peer.rstrip()) for peer in peers)
    return "\n[Peer]\n".join([head.rstrip(), *sorted(ordered)])


def _sorted_list(match: re.Match[str]) -> str:
    return "AllowedIPs = " + ", ".join(sorted(match[1].split(", ")))


@pytest.fixture(scope="module", params=PROGRAMS)
def pair(request: pytest.FixtureRequest, shared_lab: Lab) -> Pair:
    try:
        program = PROGRAMS[request.param]()
    except Missing as missing:
        pytest.skip(str(missing))
    return Pair(shared_lab, program)


@pytest.fixture
def pywg(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """pywg(namespace, words...) -> (exit code, stdout, stderr), in this process."""

    def call(namespace: Namespace, *words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        with namespace.entered():
            code = cli.main(words)
        said = capfd.readouterr()
        return code, said.out, said.err

    return call


Pywg = Callable[..., tuple[int, str, str]]


def same(pair: Pair, pywg: Pywg, *words: str) -> str:
    """What both print. wireguard-go lists peers in an order that changes from call to call, and a
    second may pass between the two calls: so several attempts."""
    answers: list[tuple[str, str]] = []

    def equal() -> bool:
        code, theirs = pair.wg(*words)
        ours = pywg(pair.here, *words)
        assert (code, ours[0], ours[2]) == (0, 0, "")
        if pair.program.is_pywgd:
            answers.append((theirs, ours[1]))
        else:
            answers.append((unordered(theirs), unordered(ours[1])))
        return answers[-1][0] == answers[-1][1]

    try:
        wait_until(equal, f"{words} print the same")
    except AssertionError:
        theirs, ours = answers[-1]
        assert ours == theirs
    return answers[-1][0]


def unordered(text: str) -> str:
    """Lines or blocks without their order."""
    separator = "\n\n" if "\n\n" in text else "\n"
    return (
        separator.join(sorted(text.rstrip("\n").split(separator))) + text[len(text.rstrip("\n")) :]
    )


# ---- what runs


@pytest.mark.parametrize("state", STATES)
def test_every_way_to_show_prints_what_wg_prints(pair: Pair, pywg: Pywg, state: str) -> None:
    pair.here.run("wg", "setconf", pair.theirs.name, "/dev/stdin", text=STATES[state])
    same(pair, pywg, "show", pair.theirs.name)
    same(pair, pywg, "showconf", pair.theirs.name)
    for field in FIELDS:
        same(pair, pywg, "show", pair.theirs.name, field)


@pytest.mark.parametrize("hide", [None, "never", "always"])
@pytest.mark.parametrize("color", [None, "always", "never", "auto"])
def test_colors_and_hidden_keys(
    pair: Pair, pywg: Pywg, color: str | None, hide: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in (("WG_COLOR_MODE", color), ("WG_HIDE_KEYS", hide)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    pair.here.run("wg", "setconf", pair.theirs.name, "/dev/stdin", text=STATES["all there is"])
    shown = same(pair, pywg, "show", pair.theirs.name)
    assert ("\033[" in shown) == (color == "always")
    assert (PSK in shown) == (hide == "never")
    same(pair, pywg, "show", pair.theirs.name, "dump")


@pytest.mark.parametrize("name", ["pywgd", "wireguard-go"])
def test_after_a_handshake_and_traffic(lab: Lab, pywg: Pywg, name: str) -> None:
    try:
        program = PROGRAMS[name]()
    except Missing as missing:
        pytest.skip(str(missing))
    tunnel = lab.tunnel(program, program, psk=True, keepalive=600)
    ping(tunnel.a.namespace, tunnel.b.inner4, 3)
    pair = Pair.__new__(Pair)
    pair.here, pair.program = tunnel.a.namespace, program
    for side in (tunnel.a, tunnel.b):
        wg_name = side.daemon.name
        assert "latest handshake: " in same(pair, pywg, "show", wg_name)
        for field in FIELDS:
            same(pair, pywg, "show", wg_name, field)
        same(pair, pywg, "showconf", wg_name)


def test_all_interfaces(pair: Pair, tmp_path: Path) -> None:
    """In a mount namespace where only two of the sockets are to be seen, since others on this
    machine have theirs."""
    for daemon in (pair.theirs, pair.ours):
        daemon.namespace.run(
            "wg", "setconf", daemon.name, "/dev/stdin", text=STATES["all there is"]
        )
    only = tmp_path / "only"
    only.mkdir()
    everything = tmp_path / "everything"
    everything.mkdir()
    for daemon in (pair.theirs, pair.ours):
        (only / f"{daemon.name}.sock").symlink_to(everything / f"{daemon.name}.sock")

    def inside(*command: str) -> tuple[int, str]:
        script = 'mount --bind "$1" "$2" && mount --bind "$3" "$1" && shift 3 && exec "$@"'
        place = (str(SOCKETS), str(everything), str(only))
        answer = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "sh", *place, *command],
            capture_output=True,
            text=True,
            check=False,
            cwd=REPOSITORY,
            timeout=30,
        )
        return answer.returncode, answer.stdout

    def equal(*words: str) -> bool:
        """The daemons send initiations meanwhile: ours is what wg said before, or said after."""
        before = inside("wg", *words)
        ours = inside(sys.executable, "-m", "pywg", *words)
        after = inside("wg", *words)
        return any(is_like(words, theirs, ours) for theirs in (before, after))

    def is_like(words: tuple[str, ...], theirs: tuple[int, str], ours: tuple[int, str]) -> bool:
        assert theirs[0] == 0
        if words == ("show", "all", "endpoints"):
            # wg named only the first line until 2023.
            theirs = (theirs[0], named_lines(theirs[1], ours[1]))
        if not pair.program.is_pywgd:
            theirs, ours = (theirs[0], unordered(theirs[1])), (ours[0], unordered(ours[1]))
        return theirs == ours

    for words in ([], ["all"], ["interfaces"], *(["all", field] for field in FIELDS)):
        wait_until(functools.partial(equal, "show", *words), f"show {words} prints the same")


def named_lines(theirs: str, ours: str) -> str:
    """Each line with the name of its interface in front, taken from where ours has one."""
    lines = []
    for their_line, our_line in zip(theirs.splitlines(), ours.splitlines(), strict=False):
        name = our_line.split("\t")[0]
        lines.append(their_line if their_line.startswith(f"{name}\t") else f"{name}\t{their_line}")
    return "".join(f"{line}\n" for line in lines)


def test_no_interfaces_print_nothing(tmp_path: Path) -> None:
    script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    unshared = ["unshare", "--mount", "sh", "-c", script, "sh"]
    for command in (["wg"], [sys.executable, "-m", "pywg"]):
        for words in ([], ["all", "dump"], ["interfaces"]):
            answer = subprocess.run(
                [*unshared, str(tmp_path), str(SOCKETS), *command, "show", *words],
                capture_output=True,
                text=True,
                check=False,
                cwd=REPOSITORY,
                timeout=30,
            )
            assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


def test_show_as_json_has_no_secret(pair: Pair, pywg: Pywg) -> None:
    pair.here.run("wg", "setconf", pair.theirs.name, "/dev/stdin", text=STATES["all there is"])
    code, out, _ = pywg(pair.here, "show", pair.theirs.name, "--json")
    assert code == 0
    assert PRIVATE not in out
    assert PSK not in out
    assert set(json.loads(out)[pair.theirs.name]["peers"]) == {A, B, C}


# ---- changes


@pytest.mark.parametrize("verb", ["setconf", "addconf", "syncconf"])
@pytest.mark.parametrize("state", STATES)
def test_a_file_does_what_it_does_with_wg(
    pair: Pair, pywg: Pywg, verb: str, state: str, tmp_path: Path
) -> None:
    before = STATES["all there is"]
    file = tmp_path / "file"
    file.write_text(STATES[state])
    for daemon in (pair.theirs, pair.ours):
        daemon.namespace.run("wg", "setconf", daemon.name, "/dev/stdin", text=before)
    assert pair.wg(verb, pair.theirs.name, str(file))[0] == 0
    assert pywg(pair.there, verb, pair.ours.name, str(file)) == (0, "", "")
    theirs, ours = pair.configurations()
    if verb == "syncconf":
        theirs = with_what_new_wg_resets(theirs, STATES[state])
    assert ours == theirs


def with_what_new_wg_resets(configuration: str, file: str) -> str:
    """wg of 2021 left the preshared key and the keepalive of a peer that stays; since 2025 what the
    file leaves out is reset."""
    head, *peers = configuration.split("\n[Peer]\n")
    return "\n[Peer]\n".join([head, *sorted(reset(peer, file) for peer in peers)])


def reset(configured: str, file: str) -> str:
    """One peer, without what the file does not say of it."""
    first = configured.splitlines()[0]
    said = next(said for said in file.split("[Peer]\n") if first in said.splitlines())
    lines = configured.splitlines()
    for key in ("PresharedKey", "PersistentKeepalive"):
        if key not in said:
            lines = [line for line in lines if not line.startswith(key)]
    return "\n".join(lines)


SETS = [
    ("listen-port 51997",),
    ("listen-port 0 fwmark 0x1f",),
    ("fwmark 4294967295",),
    ("fwmark off",),
    ("private-key KEYFILE",),
    ("private-key /dev/null",),
    (f"peer {A} remove",),
    (f"peer {A} remove peer {B} remove",),
    (f"peer {numbered_key(1)}",),
    (f"peer {numbered_key(1)} endpoint 192.0.2.9:9 allowed-ips 10.9.0.0/16,fd09::/16",),
    (f"peer {A} preshared-key PSKFILE", f"peer {A} preshared-key /dev/null"),
    (f"peer {A} persistent-keepalive 7 endpoint [fe80::9%veth]:7",),
    (f"peer {A} persistent-keepalive off",),
    (f"peer {A} allowed-ips 10.0.0.5",),
    (f"peer {B} allowed-ips 10.0.0.1/32",),
    (f"peer {A} allowed-ips 10.7.0.0/16 peer {A} endpoint 192.0.2.7:7",),
    (f"listen-port 51996 peer {A} persistent-keepalive 1 peer {B} remove",),
    (f"peer {A} endpoint localhost:domain",),
]


@pytest.mark.parametrize(
    "commands", SETS, ids=lambda commands: re.sub(r"\S{44}", "KEY", commands[0])
)
def test_set_does_what_it_does_with_wg(
    pair: Pair, pywg: Pywg, commands: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "KEYFILE").write_text(f"{PRIVATE}\n\n")
    (tmp_path / "PSKFILE").write_text(PSK)
    for daemon in (pair.theirs, pair.ours):
        daemon.namespace.run(
            "wg", "setconf", daemon.name, "/dev/stdin", text=STATES["all there is"]
        )
    for command in commands:
        words = re.sub(r"(KEYFILE|PSKFILE)", rf"{tmp_path}/\1", command).split(" ")
        assert pair.wg("set", pair.theirs.name, *words)[0] == 0
        assert pywg(pair.there, "set", pair.ours.name, *words) == (0, "", "")
    theirs, ours = pair.configurations()
    assert ours == theirs
    assert "10.0.0.1/32" in ours or "allowed-ips" in commands[0] or "remove" in commands[0]


def test_no_allowed_ips(pair: Pair, pywg: Pywg) -> None:
    for daemon in (pair.theirs, pair.ours):
        daemon.namespace.run(
            "wg", "setconf", daemon.name, "/dev/stdin", text=STATES["all there is"]
        )
    assert pair.wg("set", pair.theirs.name, "peer", A, "allowed-ips", "")[0] == 0
    assert pywg(pair.there, "set", pair.ours.name, "peer", A, "allowed-ips", "")[0] == 0
    theirs, ours = pair.configurations()
    assert ours == theirs


def test_signs_add_and_take_allowed_ips(pair: Pair, pywg: Pywg) -> None:
    """The installed wg may be older than the signs, and so may wireguard-go."""
    pair.there.run("wg", "setconf", pair.ours.name, "/dev/stdin", text=STATES["all there is"])
    words = ("set", pair.ours.name, "peer", B, "allowed-ips")
    assert pywg(pair.there, *words, "+10.5.0.0/16, +10.6.0.0/16")[0] == 0
    shown = pywg(pair.here, "show", pair.ours.name, "allowed-ips")[1]
    line = next(line for line in shown.splitlines() if line.startswith(B))
    assert set(line.split("\t")[1].split()) == {"10.5.0.0/16", "10.6.0.0/16", "fd01::1/128"}
    code, _, said = pywg(pair.there, *words, "-10.5.0.0/16")
    if pair.program.label == "wireguard-go-debian":
        assert code == 1, "older than the sign"
        return
    assert (code, said) == (0, "")
    shown = pywg(pair.here, "show", pair.ours.name, "allowed-ips")[1]
    line = next(line for line in shown.splitlines() if line.startswith(B))
    assert set(line.split("\t")[1].split()) == {"10.6.0.0/16", "fd01::1/128"}


def test_what_wg_wrote_is_read_and_the_other_way_round(pair: Pair, pywg: Pywg) -> None:
    for state in ("all there is", "zones", "many peers"):
        pair.here.run("wg", "setconf", pair.theirs.name, "/dev/stdin", text=STATES[state])
        written = pywg(pair.here, "showconf", pair.theirs.name)[1]
        pair.there.run("wg", "setconf", pair.ours.name, "/dev/stdin", text=written)
        theirs, ours = pair.configurations()
        assert ours == theirs


@pytest.mark.parametrize("verb", ["setconf", "addconf", "syncconf"])
def test_files_come_through_pipes(pair: Pair, verb: str) -> None:
    command = f"{sys.executable} -m pywg {verb} {pair.ours.name}"
    text = interface(f"PrivateKey = {PRIVATE}") + peer(A, "AllowedIPs = 10.1.0.0/16")
    for shell in (f"{command} /dev/stdin <<<'{text}'", f"{command} <(printf %s '{text}')"):
        pair.there.run("wg", "setconf", pair.ours.name, "/dev/stdin", text=interface())
        done = run_bash(shell)
        assert (done.returncode, done.stderr) == (0, "")
        assert "10.1.0.0/16" in pair.here.run("wg", "show", pair.ours.name, "allowed-ips")


def test_keys_come_through_pipes(pair: Pair, pywg: Pywg) -> None:
    pair.there.run("wg", "setconf", pair.ours.name, "/dev/stdin", text=STATES["nothing"])
    command = f"{sys.executable} -m pywg set {pair.ours.name}"
    done = run_bash(
        f"{command} private-key <(echo {PRIVATE}) peer {A} preshared-key /dev/stdin <<<{PSK}"
    )
    assert (done.returncode, done.stderr) == (0, "")
    shown = pair.here.run("wg", "show", pair.ours.name, "dump").splitlines()
    assert shown[0].startswith(PRIVATE)
    assert shown[1].split("\t")[1] == PSK
    for shell in (
        f"{command} private-key <(false)",
        f"wg set {pair.ours.name} private-key <(false)",
    ):
        assert run_bash(shell).returncode == 1
    assert pair.here.run("wg", "show", pair.ours.name, "private-key").strip() == PRIVATE


def run_bash(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, cwd=REPOSITORY
    )


def test_syncconf_and_set_keep_sessions(lab: Lab, pywg: Pywg, tmp_path: Path) -> None:
    tunnel = lab.tunnel(psk=True)
    tunnel.session()
    name = tunnel.a.daemon.name
    before = tunnel.a.daemon.peer(tunnel.b.key.public)["handshake"]
    file = tmp_path / "file"
    file.write_text(tunnel.configuration("a") + peer(A, "AllowedIPs = 10.77.0.0/16"))
    assert pywg(tunnel.a.namespace, "syncconf", name, str(file))[0] == 0
    assert pywg(tunnel.a.namespace, "set", name, "peer", A, "remove")[0] == 0
    assert pywg(tunnel.a.namespace, "syncconf", name, str(file))[0] == 0
    assert tunnel.a.daemon.peer(tunnel.b.key.public)["handshake"] == before != "0"
    tunnel.ping()
    assert tunnel.a.daemon.peer(tunnel.b.key.public)["handshake"] == before


# ---- errors


WRONG = [
    ("show", "NAME", "nonsense"),
    ("show", "NAME", "dump", "more"),
    ("show", "interfaces", "dump"),
    ("showconf",),
    ("showconf", "NAME", "more"),
    ("set", "NAME"),
    ("set", "NAME", "nonsense"),
    ("set", "NAME", "listen-port"),
    ("set", "NAME", "remove"),
    ("set", "NAME", "endpoint", "192.0.2.1:5"),
    ("set", "NAME", "peer", A, "listen-port", "5"),
    ("set", "NAME", "peer", "short"),
    ("set", "NAME", "fwmark", "0x1ffffffff"),
    ("set", "NAME", "fwmark", "-1"),
    ("set", "NAME", "private-key", "/nonexistent"),
    ("set", "NAME", "private-key", "/proc/version"),
    ("set", "NAME", "peer", A, "persistent-keepalive", "65536"),
    ("set", "NAME", "peer", A, "persistent-keepalive", ""),
    ("set", "NAME", "peer", A, "endpoint", "192.0.2.1"),
    ("set", "NAME", "peer", A, "endpoint", "192.0.2.1:"),
    ("set", "NAME", "peer", A, "endpoint", "[::1:5"),
    ("set", "NAME", "peer", A, "endpoint", "[::1]5"),
    ("set", "NAME", "peer", A, "endpoint", ""),
    ("set", "NAME", "peer", A, "endpoint", "192.0.2.1:no-such-service"),
    ("set", "NAME", "peer", A, "allowed-ips", "10.0.0.0/33"),
    ("set", "NAME", "peer", A, "allowed-ips", "10.0.0.0/"),
    ("set", "NAME", "peer", A, "allowed-ips", "10.0.0/8"),
    ("set", "NAME", "peer", A, "allowed-ips", "10.0.0.0/8,,10.1.0.0/16"),
    ("set", "NAME", "peer", A, "allowed-ips", "fe80::1%lo/128"),
    ("setconf", "NAME"),
    ("setconf", "NAME", "/nonexistent"),
    ("setconf", "NAME", "/nonexistent", "more"),
    ("setconf", "NAME", "/proc/version"),
    ("show", "no-such-name"),
    ("showconf", "no-such-name"),
    ("set", "no-such-name", "fwmark", "1"),
    ("genkey", "more"),
    ("genpsk", "more"),
    ("pubkey", "more"),
]


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_what_wg_refuses_is_refused_with_its_code(
    pair: Pair, pywg: Pywg, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WG_ENDPOINT_RESOLUTION_RETRIES", "0")
    named = [pair.ours.name if word == "NAME" else word for word in words]
    assert pair.wg(*named) == (1, "")
    code, out, said = pywg(pair.here, *named)
    assert (code, out) == (1, "")
    assert re.fullmatch(rf"pywg: .+\n{PICTURE}", said)


# The line of a file, without what may be a key, and a caret.
PICTURE = r"(  .+\n  \s*\^\n)?"
FILES = {
    "a key of wg-quick": (interface("MTU = 1400"), r"2:1: MTU: only wg-quick knows this key.*"),
    "a key of the other section": (
        interface("PublicKey = x"),
        r"2:1: PublicKey: belongs in \[Peer\], not in \[Interface\]",
    ),
    "a misspelt key": (
        interface() + peer(A, "AllowedIP = ::/0"),
        r'4:1: unknown key "AllowedIP" in \[Peer\]; did you mean "AllowedIPs"\?',
    ),
    "no section": ("PrivateKey = x\n", r"1:1: a key before the first \[Interface\] or \[Peer\]"),
    "another section": ("[Peers]\n", r"1:1: unknown section \[Peers\]; .*"),
    "no value": (
        interface() + peer(A, "PersistentKeepalive ="),
        r'4:22: PersistentKeepalive: expected "off" or seconds from 0 to 65535',
    ),
    "no key": ("[Peer]\nAllowedIPs = ::/0\n", r"1:1: \[Peer\] has no PublicKey"),
    "a bad key": (interface("PrivateKey = hello"), r"2:14: PrivateKey: 5 characters, .*"),
    "a key on its own": (interface(PRIVATE), r"2:1: unknown key in \[Interface\]"),
}


@pytest.mark.parametrize("what", FILES)
def test_what_wg_refuses_in_a_file_is_refused_and_its_place_told(
    pair: Pair, pywg: Pywg, what: str, tmp_path: Path
) -> None:
    text, message = FILES[what]
    file = tmp_path / "file"
    file.write_text(text)
    for verb in ("setconf", "addconf", "syncconf"):
        assert pair.wg(verb, pair.ours.name, str(file)) == (1, "")
        code, out, said = pywg(pair.there, verb, pair.ours.name, str(file))
        assert (code, out) == (1, "")
        assert re.fullmatch(rf"pywg: {re.escape(str(file))}:{message}\n{PICTURE}", said)
        assert PRIVATE not in said


SPELLINGS = {
    "spaces and case": f"[ interface ]\n\tPRIVATEKEY\t=\t{PRIVATE}\r\n[PEER]\npublickey={A}\n",
    "comments": f"# [Peer]\n[Interface] # x\nFwMark = 0x10 # 17\n#\n[Peer]\nPublicKey = {A}#\n",
    "a section twice": interface("FwMark = 1") + peer(A) + interface("FwMark = 2"),
    "a peer twice": interface()
    + peer(A, "AllowedIPs = 10.1.0.0/16", f"PresharedKey = {PSK}")
    + peer(A, "AllowedIPs = 10.2.0.0/16"),
    "lists on several lines": interface() + peer(A, "AllowedIPs=10.1.0.0/16", "AllowedIPs=::/0"),
    "no newline at the end": f"[Peer]\nPublicKey={A}\nPersistentKeepalive=0x"[:-2] + "7",
    "digits with zeros": interface("FwMark = 010", "ListenPort = 051995") + peer(A),
    "an old way to write IPv4": interface() + peer(A, "Endpoint = 10.1:5"),
    "a mapped address": interface() + peer(A, "Endpoint = [::ffff:192.0.2.1]:5"),
}


@pytest.mark.parametrize("what", SPELLINGS)
def test_what_wg_takes_in_a_file_is_taken(
    pair: Pair, pywg: Pywg, what: str, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text(SPELLINGS[what])
    assert pair.wg("setconf", pair.theirs.name, str(file)) == (0, "")
    assert pywg(pair.there, "setconf", pair.ours.name, str(file))[:2] == (0, "")
    theirs, ours = pair.configurations()
    assert ours == theirs
    assert A in ours or "twice" in what


def test_host_bits_are_warned_of_in_wgs_words(pair: Pair, pywg: Pywg) -> None:
    words = ("set", pair.ours.name, "peer", A, "allowed-ips", "10.0.0.1/8,fd00::1/64,10.9.9.9")
    theirs = pair.here.attempt("wg", *words)
    assert "10.0.0.1/8" in theirs.stderr
    assert pywg(pair.there, *words) == (0, "", theirs.stderr)


# ---- keys


@pytest.mark.parametrize("verb", ["genkey", "genpsk"])
def test_a_new_key_is_one_and_a_file_for_all_is_warned_of(verb: str, tmp_path: Path) -> None:
    for mode, warns in ((0o600, False), (0o640, False), (0o604, True), (0o601, True)):
        said = []
        for number, command in enumerate((["wg"], [sys.executable, "-m", "pywg"])):
            path = tmp_path / f"{mode}-{number}"
            path.touch()
            path.chmod(mode)
            with path.open("w") as file:
                done = subprocess.run(
                    [*command, verb],
                    stdout=file,
                    stderr=subprocess.PIPE,
                    text=True,
                    check=True,
                    cwd=REPOSITORY,
                )
            said.append(done.stderr)
            assert re.fullmatch(r"[A-Za-z0-9+/]{43}=\n", path.read_text())
        assert said[0] == said[1]
        assert bool(said[0]) == warns


@pytest.mark.parametrize(
    "text",
    [
        *(f"{PRIVATE}{end}" for end in ("", "\n", " \n\t\r\n", "\0\n", "x", "\nx")),
        *("", "\n", f" {PRIVATE}", PRIVATE[:-1], f"{PRIVATE[:-2]}n=", f"{PRIVATE[:-1]}a", "é" * 22),
    ],
)
def test_pubkey_takes_what_wg_takes(text: str) -> None:
    theirs, ours = (
        subprocess.run(
            [*command, "pubkey"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            cwd=REPOSITORY,
        )
        for command in (["wg"], [sys.executable, "-m", "pywg"])
    )
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
    assert PRIVATE[:-2] not in ours.stderr


# ---- the kernel's own


@pytest.fixture
def kernel_link(lab: Lab) -> Iterator[tuple[Namespace, str]]:
    namespace = lab.cabled()[0]
    name = lab.name("k")
    made = namespace.attempt("ip", "link", "add", name, "type", "wireguard")
    if made.returncode != 0:
        pytest.skip(f"no kernel WireGuard: {made.stderr.strip()}")
    yield namespace, name
    namespace.ip("link", "del", name)


@pytest.mark.parametrize("state", STATES)
def test_a_kernel_interface_is_changed_and_shown_as_wg_does(
    kernel_link: tuple[Namespace, str], state: str, tmp_path: Path
) -> None:
    """In another process: which interfaces the kernel has depends on the namespace."""
    namespace, name = kernel_link
    file = tmp_path / "file"
    file.write_text(STATES[state])
    done = programs.pywg(namespace, "setconf", name, str(file))
    assert (done.returncode, done.stderr) == (0, "")
    for words in (("showconf", name), ("show", name), ("show", name, "dump"), ("show", "all")):
        assert programs.pywg(namespace, *words).stdout == namespace.run("wg", *words)
    done = programs.pywg(namespace, "syncconf", name, str(file))
    assert (done.returncode, done.stderr) == (0, "")
    done = programs.pywg(namespace, "set", name, "peer", A, "remove")
    assert (done.returncode, done.stderr) == (0, "")
    assert A not in namespace.run("wg", "show", name, "peers")
