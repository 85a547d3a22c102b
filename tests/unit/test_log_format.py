"""Lines of a tunnel's log: text, JSON, and fields of the journal."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from pywg.native.options import LogLevel
from pywg.service import log
from pywg.service.log import Relay, Writer, journal_of, json_of

PEER = "A" * 43 + "="


def test_json_has_time_level_interface_message_and_peer() -> None:
    line = json_of("wg0", f"peer {PEER}: does not answer", LogLevel.ERROR, 0)
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.000Z",
        "level": "error",
        "interface": "wg0",
        "message": f"peer {PEER}: does not answer",
        "peer": PEER,
    }
    assert "peer" not in json.loads(json_of("wg0", "up", LogLevel.VERBOSE, 0))


def test_the_journal_gets_fields() -> None:
    told = journal_of("wg0", "peer AbCd…: x\ny", LogLevel.ERROR).decode().splitlines()
    assert told == [
        "MESSAGE=wg0: peer AbCd…: x y",
        "PRIORITY=4",
        "SYSLOG_IDENTIFIER=pywg",
        "PYWG_INTERFACE=wg0",
        "PYWG_PEER=AbCd…",
    ]


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    place = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    place.bind(str(tmp_path / "journal"))
    place.settimeout(30)
    monkeypatch.setattr(log, "JOURNAL", str(tmp_path / "journal"))
    return place


def test_what_is_connected_with_the_journal_goes_there_as_fields(
    journal: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "stderr").open("w") as stderr:
        found = os.fstat(stderr.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        writer = Writer("wg0", stderr.fileno(), "text")
        assert not writer.is_plain
        writer.write("healed", LogLevel.ERROR)
        assert b"MESSAGE=wg0: healed\n" in journal.recv(4096)
        Writer("wg0", stderr.fileno(), "json").write("asked for", LogLevel.ERROR)
    assert json.loads((tmp_path / "stderr").read_text())["message"] == "asked for"


def test_a_descriptor_of_ours_is_not_the_journals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    reading, writing = os.pipe()
    assert Writer("wg0", writing, "text").is_plain
    assert not log.leads_to_journal(-1)
    for fd in (reading, writing):
        os.close(fd)


def test_without_a_journal_the_line_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "JOURNAL", "/nowhere")
    path = tmp_path / "stderr"
    with path.open("w") as stderr:
        found = os.fstat(stderr.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        Writer("wg0", stderr.fileno(), "text").write("healed", LogLevel.ERROR)
    assert path.read_text() == "pywg: wg0: healed\n"


def test_no_form_shows_a_key(tmp_path: Path) -> None:
    secret = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
    path = tmp_path / "log"
    with path.open("w") as file:
        Writer("wg0", file.fileno(), "json").write(f"PrivateKey = {secret}", LogLevel.ERROR)
    assert secret not in path.read_text()


def test_what_the_core_writes_goes_on_without_its_prefix() -> None:
    told: list[str] = []
    relay = Relay("wg0", told.append)
    os.write(relay.fd, b"pywg: wg0: up, listening on port 5\npywg: wg0: dow")
    relay.start()
    os.write(relay.fd, b"n\n")
    relay.close()
    assert told == ["up, listening on port 5", "down"]


def test_a_line_is_no_longer_than_a_pipe_takes_at_once_and_may_have_any_bytes() -> None:
    reading, writing = os.pipe()
    try:
        os.write(writing, bytes(60_000))  # of 65536
        log.write_line(writing, "false M\udcfcnchen" + "x" * 9_000)  # else: waits, or raises
        assert os.read(reading, 60_000) == bytes(60_000)
        line = os.read(reading, 60_000)
        assert line.startswith(b"false M?nchen") and line.endswith(b"x\n") and len(line) == 4096
    finally:
        os.close(reading)
        os.close(writing)
