"""Metrics of real interfaces, and a real Prometheus that scrapes them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.lab import programs
from tools.lab.daemon import socket_path
from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace
from tools.lab.programs import CACHE, REPOSITORY
from tools.lab.waiting import wait_until

from .test_cli import Place

pytestmark = pytest.mark.pywgd_only

PROMETHEUS = CACHE.parent / "debian" / "prometheus" / "usr" / "bin" / "prometheus"
PORT, OTHER_PORT = 51901, 51902


@pytest.fixture
def place(lab: Lab, tmp_path: Path) -> Place:
    made = Place(lab, tmp_path)
    text = made.file.read_text()
    made.file.write_text(text.replace("[Peer]", "[Peer]\n#!pywg Name = office", 1))
    return made


def get(namespace: Namespace, path: str, port: int = PORT) -> str:
    """By HTTP, from inside."""
    with namespace.entered(), socket.create_connection(("127.0.0.1", port), timeout=30) as stream:
        stream.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        answer = stream.makefile("rb").read().decode()
    head, _, body = answer.partition("\r\n\r\n")
    assert " 200 " in head.splitlines()[0], head
    return body


def answers(namespace: Namespace, port: int = PORT) -> bool:
    try:
        get(namespace, "/metrics", port)
    except OSError:
        return False
    return True


def value(text: str, series: str, **labels: str) -> float | None:
    for line in text.splitlines():
        if line.startswith((f"{series}{{", f"{series} ")) and all(
            f'{key}="{wanted}"' in line for key, wanted in labels.items()
        ):
            return float(line.rpartition(" ")[2])
    return None


@contextlib.contextmanager
def running(namespace: Namespace, *argv: str) -> Iterator[subprocess.Popen[str]]:
    process = namespace.popen(
        list(argv), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def exporting(
    namespace: Namespace, *arguments: str
) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    listen = ("--listen", f"127.0.0.1:{PORT}")
    return running(namespace, sys.executable, "-m", "pywg", "exporter", *listen, *arguments)


def test_a_tunnel_serves_its_metrics_for_as_long_as_it_is_up(place: Place) -> None:
    listen = f"127.0.0.1:{PORT}"
    done = place.attempt("up", "--metrics", listen, str(place.file))
    assert done.stderr.splitlines()[-1] == f"pywg: metrics at http://{listen}/metrics"
    place.here.run("ping", "-c", "1", "-W", "5", "10.99.0.2")
    text = get(place.here, "/metrics")
    labels = {"interface": place.name, "friendly_name": "office"}
    assert (value(text, "wireguard_received_bytes_total", **labels) or 0) > 0
    assert (value(text, "wireguard_latest_handshake_seconds", **labels) or 0) > 1_600_000_000
    assert value(text, "wireguard_peer_info", device=place.name, name="office") == 1
    assert value(text, "pywg_interface_answered", interface=place.name) == 1
    assert value(text, "pywg_interface_info", backend="pywg") == 1
    assert value(text, "pywg_dropped_packets_total", reason="not_authentic") == 0
    assert place.key.private not in text
    refused = place.attempt("up", "--metrics", listen, str(place.file))
    assert refused.returncode == 1
    assert refused.stderr == f"pywg: cannot listen on {listen}: Address already in use\n"
    place.pywg("down", place.name)
    wait_until(lambda: not answers(place.here), "nobody listens any more")


def test_what_serves_is_there_again_when_it_was_killed(place: Place) -> None:
    place.pywg("up", "--metrics", f"127.0.0.1:{PORT}", str(place.file))

    def children() -> list[int]:
        return [pid for pid in processes(place.name) if parent(pid) in processes(place.name)]

    (serving,) = wait_until(children, "it serves")
    os.kill(serving, signal.SIGKILL)
    wait_until(lambda: children() not in ([], [serving]), "another one is there")
    assert answers(place.here)
    place.pywg("down", place.name)
    wait_until(lambda: not processes(place.name), "all have ended")


def processes(name: str) -> list[int]:
    """Those that serve metrics of this interface."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"exporter" in words and name.encode() in words:
                found.append(int(folder.name))
    return found


def parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def test_what_serves_has_no_capability(place: Place) -> None:
    place.pywg("up", "--metrics", f"127.0.0.1:{PORT}", str(place.file))
    assert answers(place.here)
    for pid in processes(place.name):
        status = Path(f"/proc/{pid}/status").read_text()
        assert re.search(r"^CapEff:\t0+$", status, re.M)
        assert re.search(r"^CapBnd:\t0+$", status, re.M)
    place.pywg("down", place.name)


def test_an_interface_that_hangs_and_one_that_is_dead_hide_no_other(place: Place) -> None:
    place.pywg("up", str(place.file))
    hangs, dead = f"{place.name[:13]}h", f"{place.name[:13]}d"
    with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as gone:
        silent.bind(str(socket_path(hangs)))
        silent.listen(8)
        gone.bind(str(socket_path(dead)))
    with socket.socket(socket.AF_UNIX) as silent:
        socket_path(hangs).unlink()
        silent.bind(str(socket_path(hangs)))
        silent.listen(8)
        try:
            names = (hangs, dead, place.name)
            with exporting(place.here, "--timeout", "0.5", *names):
                wait_until(lambda: answers(place.here), "it serves")
                text = get(place.here, "/metrics")
        finally:
            for name in (hangs, dead):
                socket_path(name).unlink()
    found = {name: value(text, "pywg_interface_answered", interface=name) for name in names}
    assert found == {hangs: 0, dead: 0, place.name: 1}
    assert (value(text, "pywg_scrape_errors_total", interface=hangs, reason="timeout") or 0) >= 1
    assert (value(text, "pywg_scrape_errors_total", interface=dead, reason="gone") or 0) >= 1
    place.pywg("down", place.name)


def test_without_names_all_are_told_those_of_another_program_too(place: Place) -> None:
    place.pywg("up", str(place.file))
    text = place.pywg("exporter", "--once")
    other = place.peer.daemon.name  # of pywgd
    for name in (place.name, other):
        assert value(text, "wireguard_peers_total", interface=name) == 1
    place.pywg("down", place.name)


def test_only_who_says_so_serves_others(place: Place) -> None:
    with running(
        place.here, sys.executable, "-m", "pywg", "exporter", "--listen", f"0.0.0.0:{PORT}"
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == f"pywg: metrics at http://0.0.0.0:{PORT}/metrics\n"
        assert process.stderr.readline().startswith("[!] others can reach this")


# ---- Prometheus


def prometheus(namespace: Namespace, folder: Path) -> contextlib.AbstractContextManager[object]:
    """Of Debian, run from where it was unpacked: no service, no file outside of ``folder``."""
    assert PROMETHEUS.is_file(), "prometheus is not unpacked: run scripts/peers"
    (folder / "prometheus.yml").write_text(
        "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n"
        f"scrape_configs:\n- job_name: wireguard\n  static_configs:\n"
        f"  - targets: ['127.0.0.1:{PORT}']\n"
    )
    return running(
        namespace,
        str(PROMETHEUS),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{OTHER_PORT}",
        "--log.level=error",
    )


def ask(namespace: Namespace, expression: str) -> list[dict[str, Any]]:
    """The result of an instant query; empty while nobody answers."""
    try:
        path = f"/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        answer = json.loads(get(namespace, path, OTHER_PORT))
    except (OSError, AssertionError, ValueError):
        return []
    result: list[dict[str, Any]] = answer["data"]["result"]
    return result


# What published dashboards for both exporters ask, and the labels that they show.
ASKED: dict[str, tuple[str, ...]] = {
    "rate(wireguard_received_bytes_total[5m])": ("public_key", "allowed_ips", "interface"),
    "sum by (instance) (rate(wireguard_sent_bytes_total[5m]))": ("instance",),
    "count(time() - wireguard_latest_handshake_seconds < 300)": (),
    "(time() - wireguard_latest_handshake_seconds) / 60": ("public_key", "friendly_name"),
    "wireguard_latest_handshake_delay_seconds": ("public_key",),
    "wireguard_peer_receive_bytes_total * on (public_key, device) group_left(name) "
    "wireguard_peer_info * on (instance) group_left(device) wireguard_device_info": ("name",),
}


def test_a_real_prometheus_scrapes_it(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "prometheus"
    folder.mkdir()
    place.pywg("up", "--metrics", f"127.0.0.1:{PORT}", str(place.file))
    place.here.run("ping", "-c", "1", "-W", "5", "10.99.0.2")
    with prometheus(place.here, folder):
        (found,) = wait_until(
            lambda: ask(place.here, f'wireguard_sent_bytes_total{{interface="{place.name}"}}'),
            "it has scraped",
            seconds=60,
        )
        labels = found["metric"]
        assert labels["friendly_name"] == "office"
        assert labels["allowed_ips"] == "10.98.0.0/16,10.99.0.2/32,fd99::2/128"
        assert float(found["value"][1]) > 0
        for expression, shown in ASKED.items():
            (found,) = wait_until(
                lambda: ask(place.here, expression),  # noqa: B023
                expression,
                seconds=60,
            )
            assert set(shown) <= set(found["metric"]), expression
        metadata = json.loads(get(place.here, "/api/v1/metadata", OTHER_PORT))["data"]
        assert metadata["wireguard_sent_bytes_total"][0]["type"] == "counter"
        assert metadata["wireguard_peers_total"][0]["type"] == "gauge"
        dashboard = json.loads((REPOSITORY / "docs" / "grafana" / "pywg.json").read_text())
        for expression in expressions_of(dashboard):
            path = f"/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
            assert json.loads(get(place.here, path, OTHER_PORT))["status"] == "success"
    place.pywg("down", place.name)


def expressions_of(dashboard: dict[str, Any]) -> list[str]:
    """With what Grafana would put in."""
    return [
        target["expr"].replace("$interface", ".*").replace("$__rate_interval", "1m")
        for panel in dashboard["panels"]
        for target in panel["targets"]
    ]


def test_another_implementation_is_told_with_what_it_offers(lab: Lab) -> None:
    tunnel = lab.tunnel(programs.wireguard_go_debian())
    tunnel.session()
    foreign, own = tunnel.a, tunnel.b
    done = programs.pywg(tunnel.a.namespace, "exporter", "--once", foreign.daemon.name)
    text = done.stdout
    assert value(text, "pywg_interface_info", backend="userspace") == 1
    peer = {"interface": foreign.daemon.name, "public_key": own.key.public}
    assert (value(text, "wireguard_received_bytes_total", **peer) or 0) > 0
    assert (value(text, "wireguard_latest_handshake_seconds", **peer) or 0) > 0
    assert value(text, "pywg_dropped_packets_total") is None
