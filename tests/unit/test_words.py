"""What the command line says: help with examples that can be typed, what is meant by a word that
nobody knows, versions, colours only where they are wanted."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import pytest

from pywg import cli
from pywg.cli import names, show, version
from pywg.cli import set as pywg_set
from pywg.config.parser import parse
from pywg.errors import PywgError
from pywg.keys import PresharedKey
from pywg.native import library
from pywg.wireguard import setconf
from tests.unit.conftest import Run

ROOT = Path(__file__).parents[2]
KEY = "5PThu5cmVQRg0w2VkmFTPyfmZpb6hFHJ3RcXSRFzLUA="
PRIVATE = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="


# ---- examples


def root() -> click.Context:
    return click.Context(cli.cli, info_name="pywg")


def command_of(name: str) -> click.Command:
    found = cli.cli.get_command(root(), name)
    assert found is not None
    return found


def lines_of(command: click.Command) -> list[str]:
    text = f"{command.help or ''}\n{command.epilog or ''}"
    return [
        line.strip() for line in text.splitlines() if re.match(r"\s*(sudo |umask |pywg )", line)
    ]


def simple_commands(line: str) -> Iterator[list[str]]:
    """The words of each command of a line, without redirections; of ``<(...)``, too."""
    line = re.sub(r"\s# .*", "", line)
    for inner in re.findall(r"<\((.*?)\)", line):
        yield from simple_commands(inner)
    line = re.sub(r"<\(.*?\)", "/dev/fd/63", line)
    words: list[str] = []
    rest = shlex.shlex(line, posix=True, punctuation_chars=";|<>")
    rest.whitespace_split = True
    for word in rest:
        if word in ("<", ">"):
            next(rest)
        elif word in (";", "|"):
            yield words
            words = []
        else:
            words.append(word)
    yield words


def of_pywg(line: str) -> Iterator[list[str]]:
    for words in simple_commands(line):
        own = words[1:] if words[:1] == ["sudo"] else words
        if own[:1] == ["pywg"]:
            yield own[1:]


def parsed(words: Sequence[str]) -> None:
    """As the command line reads it, up to where it would begin."""
    command = command_of(words[0])
    while isinstance(command, click.Group) and len(words) > 1:
        found = command.get_command(root(), words[1])
        assert found is not None, words
        command, words = found, words[1:]
    context = command.make_context(words[0], list(words[1:]), parent=root())
    given: tuple[str, ...] = context.params.get("words", ())
    if words[0] == "set":
        named = setconf.with_keys(given[1:], lambda name: KEY)
        setconf.read_arguments(list(named), warn=pytest.fail)
    elif words[0] == "show":
        show.check_words(given, has_option=False)
    elif words[0] != "help":
        metavar = next((p.metavar for p in command.params if p.name == "words"), None)
        assert metavar is None or len(metavar.split()) == len(given), words


@pytest.mark.parametrize("name", [*cli.COMMANDS, None])
def test_each_command_has_examples_that_the_command_line_takes(
    name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setconf, "key_file", lambda path: PresharedKey.generate().to_base64())
    monkeypatch.setattr(setconf, "resolve", lambda config, tell: config)
    command = cli.cli if name is None else command_of(name)
    found = [words for line in lines_of(command) for words in of_pywg(line)]
    assert any(words[0] == name for words in found) or (name is None and found), "no example"
    for words in found:
        parsed(words)


@pytest.mark.parametrize(
    "line", ["pywg upp wg0", "pywg up --no-such wg0", "pywg set wg0 peer x endpoints y"]
)
def test_a_rotten_example_is_seen(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (words,) = of_pywg(line)
    with pytest.raises((AssertionError, click.UsageError, PywgError)):
        parsed(words)


# ---- words that nobody knows


@pytest.mark.parametrize(
    ("typed", "code", "meant"),
    [
        (["shwo"], 2, "show"),
        (["relaod"], 2, "reload"),
        (["status"], 2, "show"),
        (["stop"], 2, "down"),
        (["version"], 2, "--version"),
        (["help", "genky"], 2, "genkey"),
        (["up", "--foregroun"], 2, "--foreground"),
        (["demo", "--tier", "roots"], 2, "root"),
        (["up", "--backend", "kernal", "wg0"], 2, "kernel"),
        (["completion", "fsh"], 2, "fish"),
        (["show", "wg0", "endpoint"], 1, "endpoints"),
        (["set", "wg0", "listen_port", "1"], 1, "listen-port"),
        (["set", "wg0", "peer", KEY, "allowed-ip", "::/0"], 1, "allowed-ips"),
        (["set", "wg0", "peer", KEY, "delete"], 1, None),
    ],
)
def test_what_may_be_meant_is_said(
    run: Run, typed: list[str], code: int, meant: str | None
) -> None:
    found, out, err = run(*typed)
    assert (found, out) == (code, "")
    if meant is None:
        assert "there are " in err
    else:
        assert re.search(rf"[Dd]id you mean [\"']{meant}[\"']\?", err)


def test_a_word_in_the_wrong_place_says_where_it_goes(run: Run) -> None:
    assert "peer KEY goes before it" in run("set", "wg0", "endpoint", "10.0.0.1:5")[2]
    assert "before the first peer" in run("set", "wg0", "peer", KEY, "fwmark", "1")[2]


def test_what_is_missing_says_where_to_read_about_it(run: Run) -> None:
    assert run("up")[2].endswith("(see: pywg up --help)\n")
    assert run("set", "wg0")[2].endswith("(see: pywg set --help)\n")


@pytest.mark.parametrize("words", [("set", "wg0", "private-key"), ("setconf", "wg0")])
def test_a_key_in_the_place_of_its_file_is_known_for_one(run: Run, words: tuple[str, ...]) -> None:
    code, out, err = run(*words, PRIVATE)
    assert (code, out) == (1, "")
    assert "looks like" in err and "the name of a file" in err
    assert PRIVATE[:8] not in err and "No such file" not in err


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("home", "; did you mean ./home.conf?"),
        ("notes.txt", "; the file notes.txt has to be called NAME.conf"),
        ("ofice", '; did you mean "office"?'),
        ("zzz", "; a file elsewhere is given by its path: ./NAME.conf"),
        ("./zzz.conf", "there is no such file"),
    ],
)
@pytest.mark.parametrize("verb", ["up", "strip"])
def test_a_file_that_is_not_there_may_be_another(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    *,
    verb: str,
    typed: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home.conf").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "office.conf").touch()
    monkeypatch.setattr(names, "CONFIG_DIRECTORY", tmp_path / "etc")
    code, out, err = run(verb, typed)
    assert (code, out) == (1, "")
    assert err.endswith(f"{said}\n") and "there is no such file" in err


# ---- help


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_help_of_a_command_is_what_the_command_says_itself(run: Run, name: str) -> None:
    assert run("help", name) == run(name, "--help")


def test_help_alone_is_the_list_of_commands(run: Run) -> None:
    assert run("help") == run("--help") == run()
    assert run("help", "set", "peer") == run("set", "--help")


# ---- versions


def test_version_says_what_a_report_needs(run: Run) -> None:
    code, out, _ = run("--version")
    assert code == 0
    first, core, cipher, target, python = out.splitlines()
    assert re.fullmatch(r"pywg \d+\.\d+\.\d+\S*", first)
    assert re.match(r"core +\d+\.\d+\.\d+\S* \(/.*libpywg\.so\)$", core)
    assert re.match(r"cipher  \S+$", cipher)
    assert re.match(r"target  \w+-linux-\w+, Linux \d", target)
    assert re.match(rf"Python  {sys.version_info[0]}\.{sys.version_info[1]}\.", python)


def test_without_a_core_the_version_says_why(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYWG_CORE", "/nowhere/libpywg.so")
    library.load.cache_clear()
    code, out, _ = run("--version")
    library.load.cache_clear()
    assert code == 0
    assert "core    the compiled core is missing: no /nowhere/libpywg.so" in out


def test_the_target_is_told_without_help_of_the_distribution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sysconfig.get_config_var", lambda name: None)
    assert re.fullmatch(r"\w+-linux-(gnu|musl)", version.target())


# ---- colours


@pytest.mark.parametrize(
    ("terminal", "environment", "expected"),
    [
        (False, {}, False),
        (True, {}, True),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (False, {"WG_COLOR_MODE": "always"}, True),
        (True, {"WG_COLOR_MODE": "never"}, False),
        (True, {"WG_COLOR_MODE": "always", "NO_COLOR": "1"}, False),
    ],
)
def test_colours_are_for_terminals_and_not_for_who_wants_none(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, environment: dict[str, str], expected: bool
) -> None:
    for name in ("NO_COLOR", "WG_COLOR_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    assert show.wants_color() is expected


# Whoever else writes to a terminal what only a terminal understands.
# live.py has no colour: it takes its line away.
COLOURED = {"cli/show.py", "cli/doctor.py", "cli/live.py", "enroll/qr.py"}


def test_only_who_asks_whether_colours_are_wanted_has_any() -> None:
    found = {
        str(path.relative_to(ROOT / "pywg"))
        for path in (ROOT / "pywg").rglob("*.py")
        if re.search(r"\\033\[|\\x1b\[|click\.(style|secho)|\\u001b", path.read_text())
    }
    assert found == COLOURED


# ---- start-up

# What takes its time, and what the two commands that people run all day do not need.
DEAR = {
    "asyncio", "cryptography", "dns", "email", "importlib.metadata", "json.tool", "logging",
    "multiprocessing", "pyroute2", "ssl", "subprocess", "tempfile", "prometheus_client", "segno",
    "textual",
}  # fmt: skip
ROOMS = {"demo", "drive", "plan", "proxy", "rootless", "service"}
STARTED = """
import sys
from pywg import cli
from pywg.wireguard import socket
{before}
assert cli.main({words!r}) == 0
print(*sys.modules, file=sys.stderr)
"""
DEVICE = f"private_key={'40' * 32}\\npublic_key={'01' * 32}\\nendpoint=192.0.2.1:5\\n"
ONE_DEVICE = f"""
socket.interfaces = lambda: ["wg0"]
socket.request = lambda name, text, timeout_s=0: "{DEVICE}"
"""


def loaded(words: list[str], before: str) -> set[str]:
    code = STARTED.format(words=words, before=before)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("words", "before", "also"),
    [
        (["show"], "socket.interfaces = list", {"pywg.cli.show_fields"}),
        (["show"], ONE_DEVICE, {"pywg.cli.show_fields"}),
        (["show", "wg0", "latest-handshakes"], ONE_DEVICE, {"pywg.cli.show_fields"}),
        (["genkey"], "", set()),
    ],
)
def test_what_people_run_all_day_loads_nothing_that_it_does_not_need(
    words: list[str], before: str, also: set[str]
) -> None:
    brought = loaded(words, before)
    assert {name for name in brought if name.split(".")[0] in DEAR or name in DEAR} == set()
    rooms = {name.split(".")[1] for name in brought if name.startswith("pywg.")}
    assert rooms & ROOMS == set()
    commands = {module for module, _ in cli.COMMANDS.values()}
    assert brought & commands == {cli.COMMANDS[words[0]][0]}


def test_a_key_needs_no_file_and_no_host() -> None:
    code = "import sys; from pywg import cli; cli.main(['genkey']); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    rooms = {name.split(".")[1] for name in done.stdout.split() if name.startswith("pywg.")}
    assert rooms == {"_version", "cli", "errors", "keys", "native"}


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_a_command_loads_no_other(name: str) -> None:
    code = (
        "import sys; from pywg import cli; cli.main([sys.argv[1], '--help']); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, name], capture_output=True, text=True, check=True, cwd=ROOT
    )
    brought = set(done.stdout.splitlines()[-1].split())
    others = {module for other, (module, _) in cli.COMMANDS.items()} - {cli.COMMANDS[name][0]}
    assert brought & others <= ({"pywg.cli.man"} if name == "install-units" else set())


def test_a_name_in_place_of_a_key_is_that_of_a_peer() -> None:
    words = ["private-key", "peer", "peer", "laptop", "endpoint", "peer", "peer", KEY, "remove"]
    found = list(setconf.with_keys(words, {"laptop": KEY}.get))
    assert found == [
        *("private-key", "peer", "peer", KEY, "endpoint", "peer", "peer", KEY, "remove"),
    ]


def test_networks_without_a_route_are_those_that_none_covers() -> None:
    text = f"[Peer]\nPublicKey={KEY}\nAllowedIPs=10.0.0.0/24, 10.1.0.5, fd00::/64, ::/0\n"
    networks = [each.network for each in parse(text).peers[0].allowed_ips]
    ways = [networks[0].supernet(), networks[2]]
    assert pywg_set.without_route(networks, ways) == [networks[1], networks[3]]
