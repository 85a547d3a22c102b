"""What `up` writes down: whole, for root alone, without keys, and read back as it was."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pywg.errors import PywgError
from pywg.plan import build, change
from pywg.plan.facts import Facts, Location
from pywg.tunnel import record as state
from pywg.tunnel.record import Record
from tests.unit.test_plan import config


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(state, "DIRECTORY", tmp_path / "run")
    return tmp_path / "run"


STEPS = change.lasting(
    build.plan("wg0", config("Address=10.0.0.2/32\nDNS=10.0.0.1", "0.0.0.0/0,::/0"), Facts())
)
RECORD = Record("wg0", "/etc/wireguard/wg0.conf", Location(netns="inside"), tuple(STEPS))


def test_a_record_is_read_as_it_was_written(directory: Path) -> None:
    state.write(RECORD)
    assert state.read("wg0") == RECORD
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "wg0.json").stat().st_mode) == 0o600
    assert [path.name for path in directory.iterdir()] == ["wg0.json"]


def test_a_second_one_takes_its_place(directory: Path) -> None:
    state.write(RECORD)
    (directory / "wg0.new").write_text("left by a crash")
    state.write(Record("wg0", "/x", Location(), ()))
    found = state.read("wg0")
    assert found is not None
    assert found.config == "/x"


def test_nothing_is_none() -> None:
    assert state.read("wg0") is None
    state.remove("wg0")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"steps": 3}'])
def test_a_damaged_one_is_named(directory: Path, text: str) -> None:
    state.write(RECORD)
    (directory / "wg0.json").write_text(text)
    with pytest.raises(PywgError, match=r"wg0\.json is damaged"):
        state.read("wg0")


def test_what_is_left_without_the_interface_is_undone_backwards() -> None:
    assert [str(step) for step in state.undoing(STEPS)] == [
        "ip -6 rule delete not fwmark 51820 table 51820",
        "ip -6 rule delete table main suppress_prefixlength 0",
        "nft delete table ip6 pywg-wg0",
        "ip -4 rule delete not fwmark 51820 table 51820",
        "ip -4 rule delete table main suppress_prefixlength 0",
        "nft delete table ip pywg-wg0",
        "restore /etc/resolv.conf",
    ]
