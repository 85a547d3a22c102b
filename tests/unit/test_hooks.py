"""Hooks: run as wg-quick runs them, and not from a file that others may write."""

import pytest

from pywg import hooks
from pywg.config import Config
from pywg.errors import PywgError

TEXT = "[Interface]\nPrivateKey=yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "wg0.conf"
    path.touch(0o600)
    path.write_text(f"{TEXT}PostUp = true\n")
    return path


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755])
def test_what_others_may_only_read_is_trusted(file, mode):
    file.chmod(mode)
    hooks.check_trust(Config.load(file))


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_what_others_may_write_is_not(file, mode):
    config = Config.load(file)
    file.chmod(mode)
    with pytest.raises(PywgError, match=r"has hooks and others may write it.*chmod go-w"):
        hooks.check_trust(config)


def test_without_hooks_it_does_not_matter(file):
    file.write_text(TEXT)
    file.chmod(0o666)
    hooks.check_trust(Config.load(file))


def test_a_file_of_another_user_is_not_trusted(file, monkeypatch):
    config = Config.load(file)
    owner = file.stat().st_uid
    monkeypatch.setattr(hooks.os, "geteuid", lambda: owner)
    hooks.check_trust(config)
    if owner == 0:
        hooks.os.chown(file, 12345, -1)
        with pytest.raises(PywgError, match="belongs to user 12345"):
            hooks.check_trust(config)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("echo $INTERFACE $CONFIG_FILE $LC_ALL", "wg0 /x/wg0.conf C"),
        ("[[ abc == @(abc|x) ]] && echo bash with extglob", "bash with extglob"),
        ("false || echo went on", "went on"),
    ],
)
def test_commands_find_what_wg_quick_gives_them(capfd, command, said):
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
def test_one_that_fails_says_how(command, ending):
    with pytest.raises(PywgError) as caught:
        hooks.run(command, "wg0", "/x/wg0.conf")
    assert str(caught.value) == f"wg0: hook failed with {ending}: {command}"


def test_without_bash_there_is_sh(monkeypatch, capfd):
    monkeypatch.setattr(hooks.shutil, "which", lambda name: None)
    hooks.run("echo $INTERFACE", "wg0", "")
    assert capfd.readouterr().out == "wg0\n"
