"""sd_notify: what a service manager hears."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pywg.service import notify


@pytest.fixture(params=["file", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        if request.param == "file":
            listener.bind(str(tmp_path / "notify"))
            monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        else:
            name = f"pywg-test-{os.getpid()}"
            listener.bind(f"\0{name}")
            monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        listener.settimeout(5)
        yield listener


@pytest.mark.parametrize(
    ("tell", "heard"),
    [
        (notify.ready, b"READY=1"),
        (lambda: notify.ready("wg0 is up"), b"READY=1\nSTATUS=wg0 is up"),
        (notify.stopping, b"STOPPING=1"),
        (lambda: notify.status("two\nlines"), b"STATUS=two lines"),
    ],
)
def test_the_manager_hears(
    manager: socket.socket, tell: Callable[[], object], heard: bytes
) -> None:
    assert tell()
    assert manager.recv(4096) == heard


@pytest.mark.parametrize("address", ["", "nonsense", "/nowhere/notify", "@pywg-nobody-listens"])
def test_without_a_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify.ready()
