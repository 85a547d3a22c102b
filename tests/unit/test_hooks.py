"""Hooks: run as wg-quick runs them, and not from a file that others may write."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pywg.config import Config
from pywg.errors import PywgError
from pywg.host import hooks

TEXT = "[Interface]\nPrivateKey=yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "wg0.conf"
    path.touch(0o600)
    path.write_text(f"{TEXT}PostUp = true\n")
    return path


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755])
def test_what_others_may_only_read_is_trusted(file: Path, mode: int) -> None:
    file.chmod(mode)
    hooks.check_trust(Config.load(file))


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_what_others_may_write_is_not(file: Path, mode: int) -> None:
    file.chmod(mode)
    config = Config.load(file)
    with pytest.raises(PywgError, match=r"has hooks and others may write it.*chmod go-w"):
        hooks.check_trust(config)


def test_without_hooks_it_does_not_matter(file: Path) -> None:
    file.write_text(TEXT)
    file.chmod(0o666)
    hooks.check_trust(Config.load(file))


@pytest.mark.parametrize("is_folder", [False, True])
def test_what_is_another_users_is_not_trusted(file: Path, is_folder: bool) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to give a file away")
    given = file.parent if is_folder else file
    os.chown(given, 12345, -1)
    with pytest.raises(PywgError) as caught:
        hooks.check_trust(Config.load(file))
    whose = f"{given} belongs" if is_folder else "belongs"
    assert str(caught.value) == (
        f"{file} has hooks but {whose} to user 12345: they are not run "
        f"(if you trust them: chown root {given})"
    )


def test_a_folder_in_which_others_may_replace_the_file_is_not_trusted(file: Path) -> None:
    folder = file.parent
    folder.chmod(0o777)
    with pytest.raises(PywgError) as caught:
        hooks.check_trust(Config.load(file))
    assert str(caught.value) == (
        f"{file} has hooks and others may write its folder {folder}: they are not run "
        f"(if you trust them: chmod go-w {folder})"
    )
    folder.chmod(0o1777)  # sticky: only owners replace what lies there
    hooks.check_trust(Config.load(file))


def test_the_file_that_was_read_is_judged_and_not_its_name(file: Path) -> None:
    """A name can be given to another file between reading and looking."""
    file.chmod(0o666)
    config = Config.load(file)
    file.unlink()
    file.touch(0o600)
    with pytest.raises(PywgError, match="others may write it"):
        hooks.check_trust(config)


def test_a_link_that_others_could_point_elsewhere_is_not_trusted(
    file: Path, tmp_path: Path
) -> None:
    safe, writable = tmp_path / "safe", tmp_path / "writable"
    safe.mkdir(0o755)
    writable.mkdir()
    target = file.rename(safe / "wg0.conf")
    link = writable / "wg0.conf"
    link.symlink_to(target)
    hooks.check_trust(Config.load(link))
    writable.chmod(0o777)
    with pytest.raises(PywgError, match=f"others may write its folder {writable}"):
        hooks.check_trust(Config.load(link))
    over = tmp_path / "over"
    over.symlink_to(writable)  # and a folder that is a link
    with pytest.raises(PywgError, match=f"others may write its folder {over}"):
        hooks.check_trust(Config.load(over / "wg0.conf"))


def test_a_link_leads_to_the_folder_that_counts(file: Path, tmp_path: Path) -> None:
    open_folder = tmp_path / "open"
    open_folder.mkdir()
    open_folder.chmod(0o777)
    target = open_folder / "wg0.conf"
    target.write_bytes(file.read_bytes())
    target.chmod(0o600)
    file.unlink()
    file.symlink_to(target)
    with pytest.raises(PywgError, match=f"others may write its folder {open_folder}"):
        hooks.check_trust(Config.load(file))


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("echo $INTERFACE $CONFIG_FILE $LC_ALL", "wg0 /x/wg0.conf C"),
        ("[[ abc == @(abc|x) ]] && echo bash with extglob", "bash with extglob"),
        ("false || echo went on", "went on"),
    ],
)
def test_commands_find_what_wg_quick_gives_them(
    capfd: pytest.CaptureFixture[str], command: str, said: str
) -> None:
    hooks.run(command, "wg0", "/x/wg0.conf")
    assert capfd.readouterr().out == f"{said}\n"


@pytest.mark.parametrize(
    ("command", "ending"),
    [
        ("exit 3", "code 3"),
        ("false; true", "code 1"),
        ("false | true", "code 1"),
        ("kill -9 $$", "signal 9"),
    ],
)
def test_one_that_fails_says_how(command: str, ending: str) -> None:
    with pytest.raises(PywgError) as caught:
        hooks.run(command, "wg0", "/x/wg0.conf")
    assert str(caught.value) == f"wg0: hook failed with {ending}: {command}"


def test_without_bash_there_is_sh(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    hooks.run("echo $INTERFACE", "wg0", "")
    assert capfd.readouterr().out == "wg0\n"
