"""Names of peers: written beside their keys, found by the name of the interface."""

from __future__ import annotations

from pathlib import Path

import pytest

from pywg.keys import PrivateKey
from pywg.plan.facts import Location
from pywg.tunnel import names, record
from pywg.tunnel.record import Record

PHONE, OTHER = (PrivateKey.generate().public for _ in range(2))
NAMED = f"[Peer]\nPublicKey = {PHONE}\n#!pywg Name = Ada's phone\n"
TEXT = f"{NAMED}[Peer]\nPublicKey = {OTHER}\n"


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(names, "CONFIG_DIRECTORY", tmp_path)
    monkeypatch.setattr(record, "DIRECTORY", tmp_path / "run")
    return tmp_path


def test_those_of_the_file_that_up_would_take(folder: Path) -> None:
    (folder / "wg0.conf").write_text(TEXT)
    assert names.names_of("wg0") == {PHONE: "Ada's phone"}


def test_those_of_the_file_that_up_was_given(folder: Path) -> None:
    file = folder / "elsewhere.conf"
    file.write_text(TEXT)
    record.write(Record("wg0", str(file), Location(), ()))
    assert names.names_of("wg0") == {PHONE: "Ada's phone"}


def test_those_that_other_programs_wrote(folder: Path) -> None:
    (folder / "wg0.conf").write_text(f"{TEXT}# friendly_name = Bob's laptop\n")
    assert names.names_of("wg0") == {PHONE: "Ada's phone", OTHER: "Bob's laptop"}


@pytest.mark.parametrize("text", [None, "[Peer]\nPublicKey = nonsense\n", "\0"])
def test_without_a_file_that_can_be_read_there_are_none(folder: Path, text: str | None) -> None:
    if text is not None:
        (folder / "wg0.conf").write_text(text)
    assert names.names_of("wg0") == {}
    assert names.names_of("no/name") == {}
