"""What `pywg demo` says: the chart, the table, what to type next, and the line that lives."""

from __future__ import annotations

import io
import json
import shlex
import socket
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pywg.cli import COMMANDS, live
from pywg.demo import next_steps as steps
from pywg.demo.next_steps import Reader, next_steps
from pywg.demo.outcome import BAR_WIDTH, as_json, chart, describe, speeds
from pywg.demo.process import Channel

PATH = "/home/me/pywg/.venv/bin/pywg"
SOMEBODY = Reader(PATH, PATH, ("up", "show", "exec"), is_root=False, sudo=True, has_tun=True)
ROOT = replace(SOMEBODY, is_root=True)


def transfer(mbit_per_s: float) -> dict[str, Any]:
    return {
        "direction": "a to b",
        "mbit_per_s": mbit_per_s,
        "cpu_seconds_per_gib": 1.25,
        "tool": "iperf3",
        "retransmits": 3,
    }


def outcome() -> dict[str, Any]:
    return {
        "tier": "root",
        "version": "1.2.3",
        "cipher": "x86-64-v3",
        "handshake_ms": 0.5,
        "ping_ms": [9.0, 0.2, 0.3, 0.4],
        "transfers": [transfer(3000), transfer(5000)],
        "beside": {
            "bare veth": [transfer(15_000), transfer(17_000)],
            "wireguard-go": [transfer(900), transfer(1_100)],
        },
        "beside_notes": {"bare veth": "the cable without any tunnel"},
        "threads": 1,
        "offloads": {end: {"tun_tso": "active", "tun_tunnel": "unsupported"} for end in "ab"},
        "dropped": {"a": {"no_peer": 2}, "b": {"no_peer": 2, "too_old": 1}},
    }


# ---- the result


def test_speeds_are_means_of_both_directions_the_fastest_first() -> None:
    assert list(speeds(outcome()).items()) == [
        ("bare veth", 16_000.0),
        ("pywg", 4000.0),
        ("wireguard-go", 1000.0),
    ]


def test_bars_are_as_long_as_their_share() -> None:
    title, *bars = chart({"pywg": 4000.0, "other": 1000.0, "nothing": 0.0}, {}, unicode=False)
    assert title.startswith("TCP")
    assert [bar.count("#") for bar in bars] == [BAR_WIDTH, BAR_WIDTH // 4, 1]
    _, first, second = chart({"pywg": 4000.0, "other": 500.0}, {"other": "v7"})
    assert first.count("█") == BAR_WIDTH and "4.00 Gbit/s" in first
    assert "████▌ " in second and second.endswith("500 Mbit/s  (v7)")


def test_the_result_says_what_is_fast_and_what_is_active() -> None:
    text = describe(outcome(), unicode=False)
    assert "bare veth" in text and "(the cable without any tunnel)" in text
    assert "active      cipher x86-64-v3, 1 thread for each end, offloads tun tso\n" in text
    assert "not active  tun tunnel (unsupported)\n" in text
    assert "3000 Mbit/s, 1.25 CPU seconds per GiB, 3 retransmits (iperf3)" in text


def test_the_kernels_own_packets_are_no_fault_of_the_tunnel() -> None:
    text = describe(outcome(), unicode=False)
    assert "no peer" not in text and "dropped a" not in text
    assert "dropped b   too old 1" in text


def test_the_result_ends_with_what_to_type() -> None:
    shown = describe(outcome() | {"next": as_json(next_steps("root", ROOT))}, unicode=False)
    assert shown.splitlines()[-4] == "Next:"
    assert shown.splitlines()[-1].split("#")[0].strip() == f"{PATH} --help"


# ---- what to type


@pytest.mark.parametrize("tier", ["root", "userns", "loopback"])
@pytest.mark.parametrize("is_root", [True, False])
@pytest.mark.parametrize("sudo", [True, False])
@pytest.mark.parametrize("has_tun", [True, False])
def test_lines_are_three_at_most_and_of_this_installation(
    tier: str, is_root: bool, sudo: bool, has_tun: bool
) -> None:
    reader = replace(SOMEBODY, is_root=is_root, sudo=sudo, has_tun=has_tun, verbs=COMMANDS)
    found = next_steps(tier, reader)
    assert 2 <= len(found) <= 3
    for step in found:
        words = shlex.split(step.command)
        if words[0] == "su":
            assert not is_root and not sudo
            words = shlex.split(words[2])
        if words[0] == "sudo":
            assert sudo and not is_root
            words = words[1:]
        if words[0] == "modprobe":
            assert not has_tun
            continue
        assert words[0] == PATH
        assert words[1] == "--help" or words[1] in COMMANDS


def test_an_ordinary_user_is_not_told_what_cannot_work() -> None:
    found = next_steps("loopback", SOMEBODY)
    assert found[0].command == f"sudo {PATH} demo", "sudo finds no venv by itself"
    found = next_steps("loopback", replace(SOMEBODY, sudo=False))
    assert found[0].command == f"su -c '{PATH} demo'"
    found = next_steps("loopback", replace(SOMEBODY, has_tun=False))
    assert found[0].command == "sudo modprobe tun"
    found = next_steps("loopback", ROOT)
    assert not any("demo" in step.command for step in found), "it has just failed as root"


def test_a_user_without_root_is_shown_what_goes_without_root() -> None:
    first = next_steps("userns", SOMEBODY)[0]
    assert first.command.startswith(f"{PATH} exec ")
    assert "sudo" not in first.command


def test_a_pywg_that_makes_files_is_asked_for_one() -> None:
    reader = replace(ROOT, pywg="pywg", verbs=("init", "peer", "up"))
    assert [step.command for step in next_steps("root", reader)] == [
        "pywg init wg0 --endpoint vpn.example.com",
        "pywg up wg0",
        "pywg --help",
    ]


def test_the_reader_types_pywg_only_where_the_shell_finds_this_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "pywg").touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert steps.reader(COMMANDS).pywg == "pywg"
    monkeypatch.setenv("PATH", "/nowhere")
    assert steps.reader(COMMANDS).pywg == str(tmp_path / "pywg")
    (tmp_path / "pywg").unlink()
    assert steps.reader(COMMANDS).path == f"{tmp_path}/python -m pywg"


# ---- while it works


class Terminal(io.TextIOWrapper):
    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding=encoding)

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        self.flush()
        data = self.buffer
        assert isinstance(data, io.BytesIO)
        return data.getvalue().decode(self.encoding)


def test_in_a_pipe_there_are_only_words() -> None:
    stream = io.StringIO()
    told = live.progress(stream)
    told.begin("TCP", 3)
    told.wait()
    told.note("handshake: 1 ms")
    told.close()
    assert stream.getvalue() == "handshake: 1 ms\n"


def test_on_a_terminal_the_line_lives_and_goes() -> None:
    stream = Terminal()
    told = live.progress(stream)
    told.begin("TCP through pywg", 3)
    assert stream.text().endswith("⠋ TCP through pywg: 0 of 3 s")
    told.note("a to b: 5 Mbit/s")
    told.begin("a moment", 0)
    told.close()
    assert stream.text().endswith("\r\033[K⠋ a moment: 0 s\r\033[K")
    assert "\r\033[Ka to b: 5 Mbit/s\n" in stream.text()


def test_a_terminal_without_utf8_gets_signs_that_it_has() -> None:
    stream = Terminal("latin-1")
    live.progress(stream).begin("TCP", 3)
    assert stream.text().endswith("| TCP: 0 of 3 s")


def test_a_line_is_no_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    stream = Terminal()
    live.progress(stream).begin("x" * 100, 3)
    assert len(stream.text().rpartition("\033[K")[2]) == 19


def test_messages_arrive_one_by_one_and_waiting_is_told() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    waited = threading.Event()

    def talk() -> None:
        assert waited.wait(30)
        theirs.sendall(b'{"one": 1}\n{"tw')
        theirs.sendall(b'o": 2}\n')
        theirs.close()

    talker = threading.Thread(target=talk)
    talker.start()
    assert channel.receive(waited.set) == {"one": 1}
    assert channel.receive(waited.set) == {"two": 2}
    assert channel.receive() is None
    talker.join()
    channel.close()


def test_what_is_next_is_in_the_json_too() -> None:
    assert json.dumps(as_json(next_steps("root", ROOT)))
