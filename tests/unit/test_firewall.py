"""The texts for iptables, which few hosts of tests have; those for nft are compared in netns/."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pywg.host import firewall

MARKER = '-m comment --comment "pywg rule for wg0"'


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A host with iptables of its own; returns what adds a program."""
    monkeypatch.setenv("PATH", f"{tmp_path}")

    def add(name: str, script: str) -> None:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return add


def test_the_rules_are_those_of_wg_quick() -> None:
    assert firewall.iptables_rules("wg0", 4, 51820, ["10.0.0.2"]) == (
        "*raw\n"
        f"-I PREROUTING ! -i wg0 -d 10.0.0.2 -m addrtype ! --src-type LOCAL -j DROP {MARKER}\n"
        "COMMIT\n*mangle\n"
        f"-I POSTROUTING -m mark --mark 51820 -p udp -j CONNMARK --save-mark {MARKER}\n"
        f"-I PREROUTING -p udp -j CONNMARK --restore-mark {MARKER}\n"
        "COMMIT\n"
    )


SAVED = f"""# Generated
*mangle
:PREROUTING ACCEPT [0:0]
-A PREROUTING -p udp -j CONNMARK --restore-mark {MARKER}
-A PREROUTING -p udp -m comment --comment "pywg rule for wg01" -j ACCEPT
-A POSTROUTING -m mark --mark 0xca6c -p udp {MARKER} -j CONNMARK --save-mark
COMMIT
"""


def test_only_our_rules_are_removed() -> None:
    assert firewall.iptables_removal(SAVED, firewall.comment("pywg", "wg0")) == (
        f"*mangle\n-D PREROUTING -p udp -j CONNMARK --restore-mark {MARKER}\n"
        f"-D POSTROUTING -m mark --mark 0xca6c -p udp {MARKER} -j CONNMARK --save-mark\nCOMMIT\n"
    )
    assert firewall.iptables_removal(SAVED, firewall.comment("wg-quick", "wg0")) == ""
    assert firewall.comment("wg-quick", "wg0") == "wg-quick(8) rule for wg0"


def test_iptables_is_used_where_there_is_no_nft(host: Callable[..., None], tmp_path: Path) -> None:
    assert firewall.tools() == []
    (tmp_path / "saved").write_text(SAVED)
    told = tmp_path / "told"
    read = 'while read -r line; do echo "$line"; done'
    host("iptables-save", f"{read} < {tmp_path}/saved")
    host("iptables-restore", f'{{ echo "restore $*"; {read}; }} >> {told}')
    assert firewall.tools() == ["iptables"]
    assert list(firewall.found("wg0")) == [("iptables", 4, "pywg")]
    firewall.apply("iptables", "wg0", 4, 51820, ["10.0.0.2"])
    removal = firewall.iptables_removal(SAVED, "pywg rule for wg0")
    rules = firewall.iptables_rules("wg0", 4, 51820, ["10.0.0.2"])
    assert told.read_text() == f"restore -w 5 -n\n{removal}restore -w 5 -n\n{rules}"


def test_nft_comes_first(host: Callable[..., None]) -> None:
    host("nft", "")
    host("iptables-restore", "")
    assert firewall.tools() == ["nft", "iptables"]
