"""`pywg exporter`, `pywg events` and `pywg up --metrics`: their words."""

from __future__ import annotations

import builtins
import contextlib
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from pywg.cli import main
from pywg.monitor import exposition, server
from pywg.monitor.place import parse

FILE = "[Interface]\nPrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n"


@pytest.fixture
def no_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pywg.wireguard.socket.SOCKET_DIRECTORY", tmp_path / "none")
    monkeypatch.setattr("pywg.wireguard.KERNEL_MODULE", tmp_path / "none")


def without(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    imported = builtins.__import__

    def fail(name: str, *arguments: Any, **more: Any) -> Any:
        if name.split(".", maxsplit=1)[0] == library:
            raise ImportError(name)
        return imported(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", fail)


@pytest.mark.parametrize("words", [["exporter"], ["exporter", "--once", "wg0"]])
def test_without_the_library_one_line_says_what_to_install(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without(monkeypatch, "prometheus_client")
    assert main(words) == 1
    assert capsys.readouterr().err == f"pywg: {exposition.MISSING}\n"


def test_up_says_so_before_it_does_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wg0.conf"
    path.touch(0o600)
    path.write_text(FILE)
    without(monkeypatch, "prometheus_client")
    assert main(["up", "--metrics", "127.0.0.1:0", str(path)]) == 1
    assert capsys.readouterr().err == f"pywg: {exposition.MISSING}\n"


def test_the_kernel_has_no_process_to_serve_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wg0.conf"
    path.touch(0o600)
    path.write_text(FILE)
    assert main(["up", "--metrics", "127.0.0.1:0", "--backend", "kernel", str(path)]) == 1
    said = capsys.readouterr().err
    assert said == "pywg: --metrics is for a userspace interface: pywg exporter wg0\n"


@pytest.mark.parametrize("place", ["localhost:9586", "127.0.0.1:99999", "x"])
def test_a_place_that_is_none_is_wrong_usage(
    place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["exporter", "--listen", place]) == 2
    assert "expected" in capsys.readouterr().err


def test_a_port_that_is_taken_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("prometheus_client")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main(["exporter", "--listen", place]) == 1
    assert capsys.readouterr().err == f"pywg: cannot listen on {place}: Address already in use\n"


def test_names_are_those_of_interfaces(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("exporter", "events"):
        assert main([verb, "../x"]) == 1


@pytest.mark.usefixtures("no_sockets")
def test_events_of_what_is_not_there_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["events", "wg0"]) == 1
    assert "no userspace WireGuard interface" in capsys.readouterr().err


@pytest.mark.usefixtures("no_sockets")
def test_once_prints_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("prometheus_client")
    assert main(["exporter", "--once", "wg0"]) == 0
    text = capsys.readouterr().out
    assert 'pywg_interface_answered{interface="wg0"} 0.0\n' in text
    assert 'pywg_scrape_errors_total{interface="wg0",reason="gone"} 1.0\n' in text


# ---- HTTP


def test_callers_that_say_nothing_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.setattr(server, "CALLERS", 3)
    monkeypatch.setattr(server._Handler, "timeout", 0.2)
    listening = server.listen(parse("127.0.0.1:0"))
    address = listening.getsockname()

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"here"]

    threading.Thread(target=server.serve, args=(listening, application), daemon=True).start()
    silent = [socket.create_connection(address) for _ in range(10)]
    for stream in silent:  # sent away at once, or when their time is over
        stream.settimeout(30)
        assert stream.recv(1) == b""
    with socket.create_connection(address, timeout=30) as stream:
        stream.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert stream.makefile("rb").read().endswith(b"here")


def test_a_caller_that_never_comes_to_an_end_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.setattr(server, "CALLER_S", 0.3)
    listening = server.listen(parse("127.0.0.1:0"))
    threading.Thread(target=server.serve, args=(listening, list), daemon=True).start()
    with socket.create_connection(listening.getsockname(), timeout=30) as stream:
        with contextlib.suppress(OSError):
            while True:  # a byte now and then, so that no read of one takes long
                stream.sendall(b"x")
                time.sleep(0.02)
        with contextlib.suppress(ConnectionResetError):
            assert stream.recv(1) == b""


def test_only_metrics_are_there() -> None:
    pytest.importorskip("prometheus_client")
    application = exposition.application(list)
    said: list[str] = []

    def start_response(status: str, headers: object) -> None:
        said.append(status)

    for path in ("/metrics", "/", "/etc/passwd"):
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "HTTP_ACCEPT": "*/*"}
        b"".join(application(environ, start_response))
    assert said == ["200 OK", "200 OK", "404 Not Found"]
