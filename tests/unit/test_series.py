"""Metrics: names, types and labels of series, and what an interface's answer becomes."""

from __future__ import annotations

import errno
import json
import re
from ipaddress import ip_network
from pathlib import Path

import pytest

from pywg.config import Endpoint
from pywg.errors import UapiError
from pywg.keys import PresharedKey, PrivateKey, PublicKey
from pywg.monitor import exposition, series
from pywg.monitor.gathering import Gatherer, Names, look, reason_of
from pywg.monitor.series import Exporter, Sample, Seen, Series, samples
from pywg.wireguard.status import InterfaceStatus, PeerStatus, Report

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "docs" / "grafana" / "pywg.json"
NOW_S = 1_700_000_100.0
KEY = PublicKey(bytes(range(32)))
PRIVATE = PrivateKey(bytes(range(1, 33)))
PRESHARED = PresharedKey(bytes(range(2, 34)))

# As prometheus_wireguard_exporter (MindFlavor) has them, for which dashboard 12177 of Grafana was
# made, and wireguard_exporter (mdlayher): name -> type and the labels a dashboard may ask for.
OTHERS = {
    "wireguard_sent_bytes_total": (
        "counter", {"interface", "public_key", "allowed_ips", "friendly_name"}
    ),
    "wireguard_received_bytes_total": (
        "counter", {"interface", "public_key", "allowed_ips", "friendly_name"}
    ),
    "wireguard_latest_handshake_seconds": (
        "gauge", {"interface", "public_key", "allowed_ips", "friendly_name"}
    ),
    "wireguard_latest_handshake_delay_seconds": (
        "gauge", {"interface", "public_key", "allowed_ips", "friendly_name"}
    ),
    "wireguard_peers_total": ("gauge", {"interface"}),
    "wireguard_device_info": ("gauge", {"device", "public_key"}),
    "wireguard_peer_info": (
        "gauge", {"device", "public_key", "allowed_ips", "endpoint", "name"}
    ),
    "wireguard_peer_allowed_ips_info": ("gauge", {"device", "public_key", "allowed_ips"}),
    "wireguard_peer_receive_bytes_total": ("counter", {"device", "public_key"}),
    "wireguard_peer_transmit_bytes_total": ("counter", {"device", "public_key"}),
    "wireguard_peer_last_handshake_seconds": ("gauge", {"device", "public_key"}),
}  # fmt: skip


def peer() -> PeerStatus:
    return PeerStatus(
        KEY,
        PRESHARED,
        Endpoint("192.0.2.1", 51820),
        [ip_network("10.0.0.2/32"), ip_network("fd00::/64")],
        1_700_000_000 * 10**9,
        100,
        200,
        25,
    )


def seen(report: Report | None = None) -> Seen:
    status = InterfaceStatus(PRIVATE, 51820, 0, [peer()])
    return Seen("wg0", "pywg", 0.25, status, {KEY: 'office "B"'}, report, healed=3)


def values(found: list[tuple[Series, list[Sample]]]) -> dict[str, dict[tuple[str, ...], float]]:
    return {one.name: dict(there) for one, there in found if there}


def test_series_of_other_exporters_are_there_with_their_types_and_labels() -> None:
    ours = {one.name: (one.kind, set(one.labels)) for one in series.ALL}
    assert {name: ours.get(name) for name in OTHERS} == OTHERS


def test_each_series_has_a_name_and_a_help_of_its_own() -> None:
    names = [one.name for one in series.ALL]
    assert len(set(names)) == len(names)
    assert all(one.help.endswith(".") for one in series.ALL)
    assert all(re.fullmatch(r"(wireguard|pywg)_[a-z_]+", name) for name in names)


def test_a_peer_becomes_samples_of_both_families() -> None:
    found = values(samples([seen()], Exporter("1.2.3", "1.2.3"), NOW_S))
    labels = ("wg0", str(KEY), "10.0.0.2/32,fd00::/64", 'office "B"')
    assert found["wireguard_sent_bytes_total"] == {labels: 200}
    assert found["wireguard_received_bytes_total"] == {labels: 100}
    assert found["wireguard_latest_handshake_seconds"] == {labels: 1_700_000_000}
    assert found["wireguard_latest_handshake_delay_seconds"] == {labels: 100}
    assert found["wireguard_peers_total"] == {("wg0",): 1}
    assert found["wireguard_device_info"] == {("wg0", str(PRIVATE.public)): 1}
    assert found["wireguard_peer_info"] == {
        ("wg0", str(KEY), "10.0.0.2/32,fd00::/64", "192.0.2.1:51820", 'office "B"'): 1
    }
    assert len(found["wireguard_peer_allowed_ips_info"]) == 2
    assert found["pywg_interface_answered"] == {("wg0",): 1}
    assert found["pywg_healed_total"] == {("wg0",): 3}
    assert found["pywg_build_info"] == {("1.2.3", "1.2.3"): 1}


def test_a_peer_without_handshake_network_or_name_has_what_the_others_give_it() -> None:
    status = InterfaceStatus(peers=[PeerStatus(KEY)])
    found = values(samples([Seen("wg0", "kernel", 0, status)], Exporter("1"), NOW_S))
    assert found["wireguard_latest_handshake_seconds"] == {("wg0", str(KEY), "(none)", ""): 0}
    assert "wireguard_latest_handshake_delay_seconds" not in found
    assert found["wireguard_device_info"] == {("wg0", ""): 1}
    assert found["pywg_interface_info"] == {("wg0", "kernel", ""): 1}


def test_a_report_becomes_drops_offloads_and_figures() -> None:
    report = Report(
        {"udp_gso": "stepped_down EIO", "tun_tso": "active"},
        ["192.0.2.1:1"],
        [],
        {"no_peer": 7},
        "x86-64-v3",
        other={"threads": "2", "up": "true", "gso_resent": "5", "news": "0.5", "word": "x"},
    )
    found = values(samples([seen(report)], Exporter("1"), NOW_S))
    assert found["pywg_dropped_packets_total"] == {("wg0", "no_peer"): 7}
    assert found["pywg_offload_state"] == {
        ("wg0", "udp_gso", "stepped_down", "EIO"): 1,
        ("wg0", "tun_tso", "active", ""): 1,
    }
    assert found["pywg_gso_refused_endpoints"] == {("wg0",): 1}
    assert found["pywg_threads"] == {("wg0",): 2}
    assert found["pywg_link_up"] == {("wg0",): 1}
    assert found["pywg_resent_total"] == {("wg0", "udp_gso"): 5}
    assert found["pywg_figure"] == {("wg0", "news"): 0.5}
    assert found["pywg_interface_info"] == {("wg0", "pywg", "x86-64-v3"): 1}


def test_no_secret_is_in_what_is_exported() -> None:
    pytest.importorskip("prometheus_client")
    found = samples([seen(Report())], Exporter("1"), NOW_S)
    text = exposition.text(lambda: found)
    for secret in (PRIVATE, PRESHARED):
        assert secret.to_base64() not in text
        assert secret.to_hex() not in text
    assert str(KEY) in text


def test_the_library_writes_names_types_and_labels_as_they_are() -> None:
    pytest.importorskip("prometheus_client")
    text = exposition.text(lambda: samples([seen()], Exporter("1"), NOW_S))
    for name, (kind, _) in OTHERS.items():
        assert f"# TYPE {name} {kind}\n" in text
        assert re.search(rf"^{name}\{{", text, re.M), name
    assert 'friendly_name="office \\"B\\""' in text
    assert "_created" not in text


# ---- one that does not answer


def test_one_that_does_not_answer_is_counted_and_hides_no_other() -> None:
    def look(name: str, names: Names) -> Seen:
        if name == "dead":
            raise UapiError("no answer", 110)
        return Seen(name, "pywg", 0, InterfaceStatus())

    gatherer = Gatherer(("dead", "wg0", "wg0"), look=look)
    found = gatherer.gather()
    assert [(one.interface, one.status is not None) for one in found] == [
        ("dead", False),
        ("wg0", True),
    ]
    gatherer.gather()
    told = values(samples(found, Exporter("1", errors=gatherer.errors), NOW_S))
    assert told["pywg_scrape_errors_total"] == {("dead", "timeout"): 2}
    assert told["pywg_interface_answered"] == {("dead",): 0, ("wg0",): 1}


def test_one_that_hangs_costs_its_deadline_and_one_thread() -> None:
    import threading

    asked: list[str] = []
    let_go = threading.Event()

    def look(name: str, names: Names) -> Seen:
        asked.append(name)
        if name == "stuck":
            let_go.wait(30)
        return Seen(name, "pywg", 0, InterfaceStatus())

    gatherer = Gatherer(("stuck", "wg0"), 0.05, look=look)
    for _ in range(3):
        assert [one.status is not None for one in gatherer.gather()] == [False, True]
    assert asked.count("stuck") == 1
    assert gatherer.errors["stuck", "timeout"] == 3
    let_go.set()
    patient = Gatherer(("stuck",), 30, look=look)
    assert patient.gather()[0].status is not None


@pytest.mark.parametrize(
    ("code", "reason"),
    [(110, "timeout"), (13, "permission"), (2, "gone"), (111, "gone"), (71, "answer")],
)
def test_reasons_are_a_few_words(code: int, reason: str) -> None:
    assert reason_of(UapiError("text with an address", code)) == reason


def test_an_interface_of_the_kernel_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_socket(name: str) -> InterfaceStatus:
        raise UapiError("no socket", errno.ENOENT)

    monkeypatch.setattr("pywg.wireguard.socket.get", no_socket)
    monkeypatch.setattr("pywg.wireguard.get", lambda name: InterfaceStatus(peers=[peer()]))
    found = look("wg0", Names())
    assert (found.backend, found.report) == ("kernel", None)
    assert found.status is not None and len(found.status.peers) == 1


# ---- the dashboard


def expressions(dashboard: object) -> list[str]:
    if isinstance(dashboard, dict):
        own = [dashboard[key] for key in ("expr", "query", "definition") if key in dashboard]
        texts = [text for text in own if isinstance(text, str)]
        return texts + [one for value in dashboard.values() for one in expressions(value)]
    if isinstance(dashboard, list):
        return [one for value in dashboard for one in expressions(value)]
    return []


def used(expression: str) -> tuple[set[str], set[str]]:
    """The names of series, and of labels, of an expression of PromQL."""
    names = set(re.findall(r"\b(?:wireguard|pywg)_[a-z_]+\b", expression))
    labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression))
    for listed in re.findall(r"\b(?:by|on|without|group_left)\s*\(([^)]*)\)", expression):
        labels |= set(re.findall(r"\w+", listed))
    if asked := re.search(r"label_values\(.*,\s*(\w+)\)", expression):
        labels.add(asked[1])
    return names, labels


def test_the_dashboard_asks_only_for_what_is_exported() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    known = {one.name: set(one.labels) | {"job", "instance"} for one in series.ALL}
    asked = [text for text in expressions(dashboard) if "_" in text]
    assert len(asked) > 10
    for expression in asked:
        names, labels = used(expression)
        assert names, expression
        assert names <= set(known), expression
        assert labels <= set().union(*(known[name] for name in names)), expression


def test_its_legends_are_labels_that_are_exported() -> None:
    text = DASHBOARD.read_text()
    known = {label for one in series.ALL for label in one.labels} | {"instance"}
    assert set(re.findall(r"\{\{\s*(\w+)\s*\}\}", text)) <= known


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ('rate(wireguard_x_total{interface=~"$i"}[5m])', ({"wireguard_x_total"}, {"interface"})),
        ("sum by (a, b) (pywg_y)", ({"pywg_y"}, {"a", "b"})),
        ("label_values(pywg_y, interface)", ({"pywg_y"}, {"interface"})),
    ],
)
def test_expressions_are_read(expression: str, found: tuple[set[str], set[str]]) -> None:
    assert used(expression) == found


# ---- documents


def test_every_series_is_documented() -> None:
    text = (ROOT / "docs" / "monitoring.md").read_text()
    for one in series.ALL:
        assert f"`{one.name}`" in text, one.name
