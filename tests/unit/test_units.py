"""The systemd units, the manual page and the completion scripts that come with the package."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from pywg import cli
from pywg.cli import complete, completion, install_units, man
from pywg.config import names as config_names
from pywg.wireguard import socket as uapi_socket

REPOSITORY = Path(__file__).parents[2]

# ---- units


def directives(name: str) -> list[tuple[str, str]]:
    lines = (install_units.SOURCE / name).read_text().splitlines()
    pairs = [line.split("=", 1) for line in lines if line[:1] not in ("", "#", "[")]
    return [(key, value) for key, value in pairs]


PINNED = {
    "pywg@.service": {
        "Type": "notify",
        "NotifyAccess": "main",
        "ExecStart": "@pywg@ up --foreground %i",
        "ExecReload": "@pywg@ upgrade --reload %i",
        "KillMode": "mixed",
        "Restart": "on-failure",
        "CapabilityBoundingSet": "CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BROADCAST "
        "CAP_NET_BIND_SERVICE CAP_SYS_NICE",
        "NoNewPrivileges": "yes",
        "DeviceAllow": "/dev/net/tun rw",
        "ProtectSystem": "yes",
        "LimitCORE": "0",
    },
    "pywgd@.service": {
        "Type": "forking",
        "ExecStart": "@pywgd@ %i",
        "Restart": "on-failure",
        "CapabilityBoundingSet": "CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BROADCAST "
        "CAP_NET_BIND_SERVICE CAP_IPC_LOCK CAP_SYS_NICE",
        "NoNewPrivileges": "yes",
        "DeviceAllow": "/dev/net/tun rw",
        "ProtectSystem": "strict",
        "LimitCORE": "0",
        "LimitRTPRIO": "1",
    },
}


@pytest.mark.parametrize("name", install_units.UNITS)
def test_a_unit_says_what_it_is_known_to_say(name: str) -> None:
    assert PINNED[name].items() <= dict(directives(name)).items()


@pytest.mark.parametrize("name", install_units.UNITS)
def test_a_unit_does_not_forbid_what_a_tunnel_does(name: str) -> None:
    said = dict(directives(name))
    assert not {"PrivateDevices", "PrivateNetwork", "RestrictRealtime"} & set(said)
    assert "AF_NETLINK" in said["RestrictAddressFamilies"]
    if name == "pywg@.service":
        assert "ProtectKernelTunables" not in said


def test_units_and_manual_page_are_installed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["install-units", "--prefix", str(tmp_path)]) == 0
    units = [tmp_path / "lib/systemd/system" / name for name in install_units.UNITS]
    written = [*units, tmp_path / "share/man/man1/pywg.1"]
    assert capsys.readouterr().out.splitlines() == [str(path) for path in written]
    for path in written:
        assert path.stat().st_mode & 0o777 == 0o644
        assert "@pywg" not in path.read_text()
    assert sorted(path.name for path in units[0].parent.iterdir()) == sorted(install_units.UNITS)
    assert cli.main(["install-units", "--prefix", str(tmp_path)]) == 0, "a second time replaces"


def test_printing_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["install-units", "--prefix", str(tmp_path), "--print"]) == 0
    out = capsys.readouterr().out
    for name in install_units.UNITS:
        assert f"# {tmp_path}/lib/systemd/system/{name}\n" in out
        assert install_units.unit_text(name) in out
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lib").touch()
    assert cli.main(["install-units", "--prefix", str(tmp_path)]) == 1
    assert "pywg@.service: Not a directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["/usr/bin/pywg"], "/usr/bin/pywg"),
        (["/a b/python", "-m", "pywg"], '"/a b/python" -m pywg'),
        (["/100%/$HOME/pywg"], "/100%%/$$HOME/pywg"),
        (['/a"b\\/pywg'], '"/a\\"b\\\\/pywg"'),
    ],
)
def test_paths_are_written_as_systemd_reads_them(words: list[str], line: str) -> None:
    assert install_units.command(words) == line


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze")
@pytest.mark.parametrize("name", install_units.UNITS)
def test_systemd_takes_the_units(name: str, tmp_path: Path) -> None:
    for unit in install_units.UNITS:
        (tmp_path / unit.replace("@", "@wg0")).write_text(install_units.unit_text(unit))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / name.replace("@", "@wg0"))],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


# ---- manual page


def commands() -> dict[str, click.Command]:
    context = click.Context(cli.cli)
    found = {name: cli.cli.get_command(context, name) for name in cli.COMMANDS}
    for name, command in list(found.items()):
        if isinstance(command, click.Group):
            found |= {f"{name} {verb}": inner for verb, inner in command.commands.items()}
    return {name: command for name, command in found.items() if command is not None}


def test_every_command_and_option_is_in_the_manual_page() -> None:
    page = man.page()
    for name, command in commands().items():
        section = page.split(f".SS pywg {man.escape(name)} ", 1)[1].split("\n.S", 1)[0]
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                for spelling in parameter.opts:
                    assert man.escape(spelling) in section, f"{name} {spelling}"


@pytest.mark.parametrize(
    ("text", "roff"),
    [
        ("a-b \\ c", r"a\-b \e c"),
        (".config", r"\&.config"),
        ("'a' `b` ~ ^", r"\(aqa\(aq \(gab\(ga \(ti \(ha"),
    ],
)
def test_text_is_printed_as_it_is(text: str, roff: str) -> None:
    assert man.escape(text) == roff


@pytest.mark.skipif(not shutil.which("groff"), reason="there is no groff")
def test_groff_has_nothing_to_say_about_the_manual_page() -> None:
    done = subprocess.run(
        ["groff", "-ww", "-man", "-Tascii"],
        input=man.page(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert "userspace WireGuard" in done.stdout


# ---- completion


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_there_is_a_script_for_each_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert f"{completion.VARIABLE}={shell}_complete" in out


def test_another_shell_is_a_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "tcsh"]) == 2
    assert "there are bash, zsh, fish" in capsys.readouterr().err


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("home.conf", "work.conf", "notes.txt"):
        (tmp_path / name).touch()
    monkeypatch.setattr(config_names, "CONFIG_DIRECTORY", tmp_path)
    monkeypatch.setattr(uapi_socket, "interfaces", lambda: ["wg1", "wg0"])
    return tmp_path


@pytest.mark.parametrize(
    ("offer", "begun", "words"),
    [
        (complete.configs, "", ["home", "work"]),
        (complete.configs, "w", ["work"]),
        (complete.configs, "./w", ["./w"]),
        (complete.tunnels, "", ["wg0", "wg1"]),
        (complete.tunnels, "/etc/w", ["/etc/w"]),
        (complete.shown, "", ["all", "interfaces", "wg0", "wg1"]),
        (complete.interfaces, "wg1", ["wg1"]),
    ],
)
def test_names_are_offered(
    places: Path, offer: Callable[..., list[Any]], begun: str, words: list[str]
) -> None:
    command = click.Command("up")
    offered = offer(click.Context(command), click.Argument(["name"]), begun)
    assert [item.value for item in offered] == words


def test_a_folder_that_may_not_be_read_offers_nothing(tmp_path: Path) -> None:
    assert complete.config_names(tmp_path / "nowhere") == []


@pytest.mark.parametrize("name", ["up", "down", "show"])
def test_names_are_offered_where_one_is_expected(places: Path, name: str) -> None:
    command = commands()[name]
    (argument,) = (one for one in command.params if isinstance(one, click.Argument))
    assert argument.shell_complete(click.Context(command), "")
