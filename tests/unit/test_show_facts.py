"""What `show --json` tells beside what wg knows: MTU, version, uptime, memory."""

from __future__ import annotations

import json

import pytest

from pywg import cli
from pywg.cli.show_facts import facts, of_report
from pywg.errors import NetworkError, UapiError
from pywg.host import network
from pywg.wireguard import socket as uapi_socket
from pywg.wireguard.status import Report

TOLD = {"mtu": "1420", "version": "0.1.0", "opened": "100", "memory_bytes": "4096"}


def test_a_report_has_them_all() -> None:
    assert of_report(TOLD, lambda: 161.9) == {
        "mtu": 1420,
        "version": "0.1.0",
        "uptime": 61,
        "memoryBytes": 4096,
    }


@pytest.mark.parametrize("name", TOLD)
def test_what_is_not_told_is_left_out(name: str) -> None:
    told = {key: value for key, value in TOLD.items() if key != name}
    assert len(of_report(told, lambda: 161.0)) == 3


def test_nonsense_is_left_out_and_no_time_is_negative() -> None:
    assert of_report({"mtu": "-1", "opened": "x", "memory_bytes": ""}, lambda: 1.0) == {}
    assert of_report({"opened": "100"}, lambda: 5.0) == {"uptime": 0}


def refuse(name: str) -> Report:
    raise UapiError("it knows no such question", 22)


def test_the_kernel_knows_the_mtu_of_another_implementation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uapi_socket, "report", refuse)
    assert facts("lo", None) == {"mtu": 65536}

    def fail(self: object, name: str) -> int:
        raise NetworkError("it is elsewhere")

    monkeypatch.setattr(network.Network, "mtu", fail)
    assert facts("lo", None) == {}


def test_they_stand_beside_the_peers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(uapi_socket, "interfaces", lambda: ["wg0"])
    monkeypatch.setattr(uapi_socket, "request", lambda name, text, timeout_s=0.0: "listen_port=5\n")
    monkeypatch.setattr(uapi_socket, "report", lambda name: Report(other=dict(TOLD)))
    assert cli.main(["show", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["wg0"]
    assert set(shown) == {"mtu", "version", "uptime", "memoryBytes", "listenPort", "peers"}
