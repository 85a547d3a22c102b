"""`pywg init` and `pywg peer` as they are typed: what is written, what is said, and what is not."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import stat
import sys
from pathlib import Path

import click
import pytest

from pywg.cli import peer_files
from pywg.config import Config, names
from pywg.enroll import files, running
from pywg.errors import PywgError
from pywg.keys import PrivateKey, PublicKey
from pywg.wireguard.status import PeerStatus
from tests.unit.conftest import Run

SERVER = "./wgt0.conf"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server(run: Run, folder: Path) -> Path:
    assert run("init", SERVER, "--endpoint", "vpn.example.com", "--dns", "9.9.9.9")[0] == 0
    return folder / "wgt0.conf"


def test_init_says_what_to_do_next_and_no_secret(run: Run, folder: Path) -> None:
    code, out, err = run("init", SERVER, "--endpoint", "vpn.example.com", "--listen-port", "7")
    assert (code, err) == (0, "")
    path = folder / "wgt0.conf"
    config = Config.load(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert config.interface.private_key is not None
    assert config.interface.private_key.to_base64() not in out
    assert f"public key: {config.interface.private_key.public}" in out
    for said in ("pywg peer add wgt0.conf NAME", "pywg up wgt0.conf", "UDP port 7", "ip_forward"):
        assert said in out
    assert str(config.interface.public_endpoint) == "vpn.example.com:7"


def test_init_overwrites_nothing(run: Run, server: Path) -> None:
    before = server.read_text()
    code, out, err = run("init", SERVER)
    assert (code, out) == (1, "")
    assert "wgt0.conf is there already, and is not overwritten" in err
    assert server.read_text() == before


def test_a_name_means_the_folder_of_wireguard_closed_to_others(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = folder / "etc-wireguard"
    monkeypatch.setattr(names, "CONFIG_DIRECTORY", place)
    monkeypatch.setattr("pywg.cli.names.CONFIG_DIRECTORY", place)
    assert run("init", "wgt0")[0] == 0
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert (place / "wgt0.conf").exists()


def test_a_client_gets_a_file_of_its_own_and_is_listed(run: Run, server: Path) -> None:
    code, out, err = run("peer", "add", SERVER, "Ada's phone", "--route-all")
    assert (code, out) == (0, "")
    path = server.parent / "Ada-s-phone.conf"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    config = Config.load(path)
    key = config.interface.private_key
    assert key is not None
    assert key.to_base64() not in server.read_text() + err
    assert config.peers[0].preshared_key == Config.load(server).peers[0].preshared_key
    _, out, _ = run("peer", "list", SERVER)
    assert "Ada's phone" in out and key.public.short in out
    (shown,) = json.loads(run("peer", "list", SERVER, "--json")[1])
    assert shown == {
        "publicKey": str(key.public),
        "allowedIps": [str(one.network) for one in config.interface.addresses],
        "running": False,
        "name": "Ada's phone",
    }


def test_what_runs_is_listed(run: Run, server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("peer", "add", SERVER, "ada")
    key = Config.load(server).peers[0].public_key

    def status(name: str) -> dict[PublicKey, PeerStatus]:
        return {key: PeerStatus(key, last_handshake_ns=5_000_000_000)}

    monkeypatch.setattr(running, "status", status)
    assert " d ago" in run("peer", "list", SERVER)[1]
    (shown,) = json.loads(run("peer", "list", SERVER, "--json")[1])
    assert (shown["running"], shown["latestHandshake"]) == (True, 5)


def test_a_file_may_go_to_stdout_and_then_nothing_is_written(run: Run, server: Path) -> None:
    code, out, err = run("peer", "add", SERVER, "ada", "--out", "-")
    assert code == 0
    assert out.startswith("[Interface]\nPrivateKey = ")
    assert "added ada" in err and "PrivateKey" not in err
    assert [path.name for path in server.parent.iterdir()] == ["wgt0.conf"]


def test_nothing_changes_if_stdout_cannot_take_the_key(
    run: Run, server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied: list[object] = []
    monkeypatch.setattr(running, "apply", lambda *arguments: applied.append(arguments))
    run("peer", "add", SERVER, "bob")
    before = server.read_text()
    for words in (["add", SERVER, "ada"], ["rotate", SERVER, "bob", "--key"]):
        code, err = 0, ""
        # What it still holds cannot be written when it is closed, either.
        with (
            contextlib.suppress(OSError),
            Path("/dev/full").open("w") as full,
            monkeypatch.context() as patched,
        ):
            patched.setattr(sys, "stdout", full)
            code, _, err = run("peer", *words, "--out", "-", "--apply")
        assert (code, applied) == (1, []) and "No space left on device" in err
        assert server.read_text() == before


def test_neither_file_changes_if_one_cannot_be_written(run: Run, server: Path) -> None:
    before = server.read_text()
    (server.parent / "ada.conf").write_text("hers")
    for more in ([], ["--out", "no/such/folder.conf"], ["--qr", "svg:no/such.svg", "--out", "x"]):
        if "--qr" in more and importlib.util.find_spec("segno") is None:
            continue
        assert run("peer", "add", SERVER, "ada", *more)[0] == 1
        assert server.read_text() == before
    assert (server.parent / "ada.conf").read_text() == "hers"
    assert not (server.parent / "x").exists()


def test_an_error_of_the_running_tunnel_takes_both_files_back(
    run: Run, server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = server.read_text()

    def refuse(*arguments: object) -> None:
        assert "ada" in server.read_text()
        raise PywgError("no")

    monkeypatch.setattr(running, "apply", refuse)
    assert run("peer", "add", SERVER, "ada", "--apply") == (1, "", "pywg: no\n")
    assert server.read_text() == before
    assert [path.name for path in server.parent.iterdir()] == ["wgt0.conf"]


def test_codes_are_images_for_their_owner(run: Run, server: Path) -> None:
    pytest.importorskip("segno")
    for kind in ("png", "svg"):
        image = server.parent / f"ada.{kind}"
        code, _, err = run("peer", "add", SERVER, f"ada-{kind}", "--qr", f"{kind}:{image}")
        assert code == 0
        assert stat.S_IMODE(image.stat().st_mode) == 0o600
        assert "whoever sees it has the key" in err
    assert "\N{FULL BLOCK}" in run("peer", "add", SERVER, "bob", "--qr", "terminal")[1]


def test_without_segno_one_line_says_what_to_install(
    run: Run, server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = server.read_text()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, out, err = run("peer", "add", SERVER, "ada", "--qr", "terminal")
    assert (code, out) == (1, "")
    assert err == 'pywg: QR codes need segno: pip install "pywg-tunnel[qr]"\n'
    assert server.read_text() == before


def test_a_client_may_keep_its_key_to_itself(run: Run, server: Path) -> None:
    key = PrivateKey.generate().public
    assert run("peer", "add", SERVER, "ada", "--public-key", str(key))[0] == 0
    text = (server.parent / "ada.conf").read_text()
    assert "\nPrivateKey" not in text and f"#   {key}" in text
    assert Config.load(server).peers[0].public_key == key


def test_peers_are_renamed_and_removed(run: Run, server: Path) -> None:
    empty = server.read_text()
    run("peer", "add", SERVER, "ada")
    key = Config.load(server).peers[0].public_key
    assert "ada is called eve now" in run("peer", "rename", SERVER, "ada", "eve")[2]
    assert Config.load(server).peers[0].name == "eve"
    code, _, err = run("peer", "remove", SERVER, "evf")
    assert code == 1 and 'did you mean "eve"?' in err
    assert run("peer", "add", SERVER, "EVE")[0] == 1
    assert "removed eve, 10." in run("peer", "remove", SERVER, str(key))[2]
    assert server.read_text() == empty


def test_a_change_that_down_would_undo_is_warned_of(run: Run, server: Path) -> None:
    server.write_text(server.read_text() + "SaveConfig = true\n")
    assert "has SaveConfig" in run("peer", "add", SERVER, "ada")[2]


def test_a_tunnel_that_runs_without_the_change_is_told(
    run: Run, server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "pywg reload" not in run("peer", "add", SERVER, "ada")[2]
    monkeypatch.setattr(running, "is_there", lambda name: True)
    err = run("peer", "add", SERVER, "bob")[2]
    assert "wgt0 runs without this change: pywg reload wgt0" in err


def test_keys_of_a_client_are_rotated_in_its_file(run: Run, server: Path) -> None:
    run("peer", "add", SERVER, "ada")
    path = server.parent / "ada.conf"
    before = Config.load(path)
    code, _, err = run("peer", "rotate", SERVER, "ada", "--psk", "--client", str(path))
    assert code == 0 and "within 60 seconds" in err
    after = Config.load(path)
    assert after.peers[0].preshared_key != before.peers[0].preshared_key
    assert after.peers[0].preshared_key == Config.load(server).peers[0].preshared_key
    assert after.interface == before.interface
    assert run("peer", "rotate", SERVER, "ada", "--key", "--client", str(path))[0] == 0
    assert "ada (next key)" in run("peer", "list", SERVER)[1]
    old, new = Config.load(server).peers
    private = Config.load(path).interface.private_key
    assert private is not None
    assert (new.public_key, new.replaces) == (private.public, old.public_key)


def test_no_link_leads_to_the_file_that_is_changed(run: Run, server: Path) -> None:
    run("peer", "add", SERVER, "ada")
    path, link = server.parent / "ada.conf", server.parent / "link.conf"
    link.symlink_to(path)
    before = path.read_text(), server.read_text()
    code, _, err = run("peer", "rotate", SERVER, "ada", "--psk", "--client", "link.conf")
    assert (code, err) == (
        1,
        "pywg: link.conf is a symbolic link: name the file that it leads to\n",
    )
    assert (path.read_text(), server.read_text()) == before
    # And if it becomes one between reading and writing:
    with pytest.raises(PywgError), files.all_or_nothing() as made:
        made.change_itself(link, before[0], "x")
    assert (path.read_text(), link.is_symlink()) == (before[0], True)
    assert run("peer", "rotate", SERVER, "ada", "--psk", "--client", ".")[0] == 1


def test_a_client_s_file_that_all_can_read_is_warned_of(run: Run, server: Path) -> None:
    run("peer", "add", SERVER, "ada")
    server.parent.chmod(0o755)
    (server.parent / "ada.conf").chmod(0o644)
    err = run("peer", "rotate", SERVER, "ada", "--psk", "--client", "ada.conf")[2]
    assert "`ada.conf' is world accessible" in err


def test_without_the_client_s_file_a_new_one_is_made(run: Run, server: Path) -> None:
    run("peer", "add", SERVER, "ada")
    (server.parent / "ada.conf").unlink()
    assert run("peer", "rotate", SERVER, "ada", "--psk")[0] == 0
    text = (server.parent / "ada.conf").read_text()
    assert "# PrivateKey = ..." in text
    assert Config.load(server.parent / "ada.conf").peers[0].preshared_key is not None
    assert run("peer", "rotate", SERVER, "ada", "--key")[0] == 1, "it is there already"
    assert (
        run("peer", "rotate", SERVER, "ada", "--key", "--out", "next.conf", "--route-all")[0] == 0
    )
    assert "AllowedIPs = 0.0.0.0/0, ::/0" in (server.parent / "next.conf").read_text()


def test_names_of_peers_are_offered(run: Run, server: Path) -> None:
    for name in ("ada", "adam", "bob"):
        run("peer", "add", SERVER, name)
    context = click.Context(click.Command("remove"))
    argument = click.Argument(["word"])
    context.params["where"] = SERVER
    assert [one.value for one in peer_files.offered(context, argument, "a")] == ["ada", "adam"]
    context.params["where"] = "./nowhere.conf"
    assert peer_files.offered(context, argument, "") == []


@pytest.mark.parametrize(
    "words",
    [
        ["rotate", SERVER, "ada"],
        ["rotate", SERVER, "ada", "--key", "--client", "x", "--out", "y"],
        ["add", SERVER, "ada", "--route-all", "--routes", "10.0.0.0/8"],
        ["add", SERVER, "ada", "--public-key", "x"],
        ["add", SERVER],
        ["nothing"],
    ],
)
def test_wrong_words_change_nothing(run: Run, server: Path, words: list[str]) -> None:
    before = server.read_text()
    assert run("peer", *words)[0] == 2
    assert server.read_text() == before
