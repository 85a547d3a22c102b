"""DNS: who is told, what he is told, and that a plain resolv.conf comes back as it was."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from pywg.errors import PywgError
from pywg.host import dns, resolv_conf
from pywg.host.dns import Found, Manager
from pywg.host.resolv_conf import Content

TEXT = "nameserver 192.0.2.53\nsearch example.com\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for /etc and one for the records."""
    monkeypatch.setattr(resolv_conf, "DIRECTORY", tmp_path / "var")
    etc = tmp_path / "etc"
    etc.mkdir()
    return etc


def nothing_is_recorded(place: Path) -> bool:
    return [path.name for path in (place.parent / "var").iterdir()] == ["lock"]


def look(path: Path) -> object:
    """Everything there is to know about it."""
    if not os.path.lexists(path):
        return None
    status = path.lstat()
    content = path.readlink() if path.is_symlink() else path.read_bytes()
    return content, stat.S_IMODE(status.st_mode), status.st_uid, stat.S_IFMT(status.st_mode)


def make_file(path: Path) -> None:
    path.write_bytes(b"nameserver 10.0.0.1\n# \xff no UTF-8")
    path.chmod(0o640)


def make_link(path: Path) -> None:
    (path.parent / "stub").write_text("nameserver 127.0.0.53\n")
    path.symlink_to("stub")


def make_dangling_link(path: Path) -> None:
    path.symlink_to("../nowhere/resolv.conf")


@pytest.mark.parametrize(
    "make", [make_file, make_link, make_dangling_link, lambda path: None], ids=lambda f: f.__name__
)
def test_whatever_was_there_comes_back(place: Path, make: Callable[[Path], None]) -> None:
    path = place / "resolv.conf"
    make(path)
    before = look(path)
    resolv_conf.add(path, "wg0", TEXT)
    assert path.read_text().endswith(TEXT)
    assert stat.S_IMODE(path.stat().st_mode) & 0o444
    if path.parent.joinpath("stub").exists():
        assert path.parent.joinpath("stub").read_text() == "nameserver 127.0.0.53\n"
    resolv_conf.remove(path, "wg0")
    assert look(path) == before
    assert nothing_is_recorded(place)


@pytest.mark.parametrize("order", [("a", "b", "c"), ("c", "b", "a"), ("b", "c", "a")])
def test_tunnels_may_go_in_any_order(place: Path, order: tuple[str, str, str]) -> None:
    path = place / "resolv.conf"
    make_file(path)
    before = look(path)
    present = ["a", "b", "c"]
    for name in present:
        resolv_conf.add(path, name, f"nameserver 192.0.2.{ord(name)}\n")
    for name in order:
        assert dns.servers_in(path.read_text()) == [f"192.0.2.{ord(present[-1])}"]
        assert resolv_conf.changed_by(name) == [path]
        resolv_conf.remove(path, name)
        present.remove(name)
    assert look(path) == before
    assert nothing_is_recorded(place)


def test_what_somebody_else_wrote_stays(place: Path) -> None:
    path = place / "resolv.conf"
    make_file(path)
    resolv_conf.add(path, "wg0", TEXT)
    path.write_text("nameserver 198.51.100.1\n")
    resolv_conf.remove(path, "wg0")
    assert path.read_text() == "nameserver 198.51.100.1\n"


def test_what_somebody_else_wrote_comes_back_after_the_next_tunnel(place: Path) -> None:
    path = place / "resolv.conf"
    make_file(path)
    resolv_conf.add(path, "a", TEXT)
    path.write_text("nameserver 198.51.100.1\n")
    resolv_conf.add(path, "b", TEXT)
    resolv_conf.remove(path, "a")
    assert path.read_text().endswith(TEXT)
    resolv_conf.remove(path, "b")
    assert path.read_text() == "nameserver 198.51.100.1\n"


def test_changed_for_a_tunnel_that_is_up_already_it_still_comes_back(place: Path) -> None:
    path = place / "resolv.conf"
    make_file(path)
    before = look(path)
    resolv_conf.add(path, "wg0", TEXT)
    resolv_conf.add(path, "wg0", "nameserver 192.0.2.99\n")
    assert dns.servers_in(path.read_text()) == ["192.0.2.99"]
    resolv_conf.remove(path, "wg0")
    assert look(path) == before


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("others", [[], ["a"]])
def test_a_crash_while_the_file_is_changed_can_be_undone(
    place: Path, monkeypatch: pytest.MonkeyPatch, others: list[str], done: bool
) -> None:
    path = place / "resolv.conf"
    make_file(path)
    before = look(path)
    for name in others:
        resolv_conf.add(path, name, "nameserver 192.0.2.1\n")
    put = resolv_conf._put

    def crash(path: Path, content: Content) -> None:
        if done:
            put(path, content)
        raise KeyboardInterrupt

    monkeypatch.setattr(resolv_conf, "_put", crash)
    with pytest.raises(KeyboardInterrupt):
        resolv_conf.add(path, "wg0", TEXT)
    monkeypatch.setattr(resolv_conf, "_put", put)
    resolv_conf.remove(path, "wg0")
    for name in others:
        assert dns.servers_in(path.read_text()) == ["192.0.2.1"]
        resolv_conf.remove(path, name)
    assert look(path) == before
    assert nothing_is_recorded(place)


def test_tunnels_of_before_a_reboot_are_forgotten_but_not_what_was_before_them(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = place / "resolv.conf"
    make_file(path)
    before = look(path)
    boot = tmp_path / "boot_id"
    monkeypatch.setattr(resolv_conf, "BOOT_ID", boot)
    boot.write_text("one")
    resolv_conf.add(path, "old", TEXT)
    boot.write_text("two")
    resolv_conf.add(path, "new", TEXT)
    resolv_conf.remove(path, "new")
    assert look(path) == before


def test_a_file_that_cannot_be_written_leaves_no_record(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place / "resolv.conf"
    make_file(path)

    def fail(path: Path, content: Content) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(resolv_conf, "_put", fail)
    with pytest.raises(PywgError, match=r"resolv\.conf: No space left"):
        resolv_conf.add(path, "wg0", TEXT)
    assert nothing_is_recorded(place)


def test_what_was_never_added_is_no_error(place: Path) -> None:
    resolv_conf.remove(place / "resolv.conf", "wg0")


def test_a_damaged_record_is_named(place: Path) -> None:
    path = place / "resolv.conf"
    resolv_conf.add(path, "wg0", TEXT)
    record = next((place.parent / "var").glob("*.json"))
    record.write_text(json.dumps([]))
    with pytest.raises(PywgError, match="damaged"):
        resolv_conf.remove(path, "wg0")


# Who is told.


@pytest.fixture
def host(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A host without any program for names; returns what adds one."""
    programs = place.parent / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(dns, "ETC", place)
    monkeypatch.setattr(dns, "RESOLVED_DIRECTORY", place.parent / "resolve")

    def add(name: str, script: str = "exit 0") -> None:
        path = programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return add


def test_resolvconf_comes_first(host: Callable[..., None]) -> None:
    host("resolvconf")
    host("resolvectl")
    assert dns.find("wg0") == Found("resolvconf", "wg0")


def test_debians_resolvconf_has_an_order(host: Callable[..., None], place: Path) -> None:
    host("resolvconf")
    (place / "resolvconf").mkdir()
    (place / "resolvconf" / "interface-order").write_text("# order\nlo.*\ntun*\neth*\n")
    assert dns.find("wg0") == Found("resolvconf", "tun.wg0")


def test_resolvconf_that_is_a_link_has_none(host: Callable[..., None], place: Path) -> None:
    host("resolvectl")
    (place.parent / "bin" / "resolvconf").symlink_to("resolvectl")
    (place / "resolvconf").mkdir()
    (place / "resolvconf" / "interface-order").write_text("tun*\n")
    assert dns.find("wg0") == Found("resolvconf", "wg0")


def test_resolved_is_told_only_where_it_is_asked(host: Callable[..., None], place: Path) -> None:
    host("resolvectl")
    path = place / "resolv.conf"
    path.write_text("nameserver 127.0.0.53\n")
    assert dns.find("wg0") == Found("file", str(path)), "it does not run"
    (place.parent / "resolve").mkdir()
    assert dns.find("wg0") == Found("resolved", "wg0")
    path.write_text("nameserver 192.0.2.1\n")
    assert dns.find("wg0") == Found("file", str(path)), "nobody asks it"
    path.unlink()
    path.symlink_to(place.parent / "resolve" / "stub-resolv.conf")
    assert dns.find("wg0") == Found("resolved", "wg0")


def test_a_network_namespace_has_its_own_file(host: Callable[..., None], place: Path) -> None:
    host("resolvconf")
    assert dns.find("wg0", "inside") == Found("file", str(place / "netns/inside/resolv.conf"))


def test_where_nobody_can_be_told_it_says_why(
    host: Callable[..., None], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    found = dns.find("wg0")
    assert found.manager == "none"
    assert "no resolvconf" in found.target


# What he is told.


@pytest.mark.parametrize("manager", ["resolvconf", "resolved"])
def test_programs_are_told_as_wg_quick_tells_them(
    host: Callable[..., None],
    place: Path,
    tmp_path: Path,
    manager: Manager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = tmp_path / "said"
    script = f'echo "$0 $*" | sed "s,.*/,," >> {said}; cat >> {said}'
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    host("resolvconf", script)
    host("resolvectl", script)
    dns.add("lo", manager, "lo", ("192.0.2.1", "2001:db8::1"), ("a.example", "b.example"))
    dns.remove("lo", manager, "lo")
    assert said.read_text().splitlines() == (
        [
            "resolvconf -a lo -m 0 -x",
            "nameserver 192.0.2.1",
            "nameserver 2001:db8::1",
            "search a.example b.example",
            "resolvconf -d lo -f",
        ]
        if manager == "resolvconf"
        else [
            "resolvectl dns lo 192.0.2.1 2001:db8::1",
            "resolvectl domain lo ~. a.example b.example",
            "resolvectl default-route lo true",
            "resolvectl revert lo",
        ]
    )


def test_a_program_that_fails_says_why(host: Callable[..., None]) -> None:
    host("resolvconf", "echo it is broken >&2; exit 3")
    with pytest.raises(PywgError, match="resolvconf -a wg0: it is broken"):
        dns.add("wg0", "resolvconf", "wg0", ("192.0.2.1",), ())


# Which names.


SPLIT = ("~corp.example", "lan.example")


@pytest.mark.parametrize(
    ("manager", "told"),
    [
        (
            "resolvconf",
            [
                "resolvconf -a lo -m 0 -p",
                "nameserver 192.0.2.1",
                "search corp.example lan.example",
            ],
        ),
        (
            "resolved",
            [
                "resolvectl dns lo 192.0.2.1",
                "resolvectl domain lo ~corp.example lan.example",
                "resolvectl default-route lo false",
            ],
        ),
    ],
)
def test_a_server_for_some_names_alone(
    host: Callable[..., None],
    tmp_path: Path,
    manager: Manager,
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = tmp_path / "said"
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    for program in ("resolvconf", "resolvectl"):
        host(program, f'echo "{program} $*" >> {said}; cat >> {said}')
    dns.add("lo", manager, "lo", ("192.0.2.1",), SPLIT)
    assert said.read_text().splitlines() == told


def test_a_server_for_all_names_is_told_no_tilde(place: Path) -> None:
    path = place / "resolv.conf"
    dns.add("wg0", "file", str(path), ("192.0.2.1",), ("~.", "~corp.example", "lan.example"))
    assert path.read_text().splitlines()[1:] == ["nameserver 192.0.2.1", "search lan.example"]
    assert dns.stands("wg0", "file", str(path), ("192.0.2.1",), ("~.", "lan.example"))


def test_who_can_split_goes_first_where_that_is_wanted(
    host: Callable[..., None], place: Path
) -> None:
    host("resolvconf")
    host("resolvectl")
    path = place / "resolv.conf"
    (place.parent / "resolve").mkdir()
    path.write_text("nameserver 127.0.0.53\n")
    assert dns.find("wg0") == Found("resolvconf", "wg0")
    assert dns.find("wg0", wants_split=True) == Found("resolved", "wg0")
    path.write_text("nameserver 127.0.0.1\n")
    assert not dns.splits(Found("resolvconf", "wg0")), "no openresolv"
    (place / "resolvconf.conf").touch()
    assert dns.splits(dns.find("wg0", wants_split=True))
    path.write_text("nameserver 192.0.2.1\n")
    assert not dns.splits(Found("resolvconf", "wg0")), "no resolver of this host's own"
