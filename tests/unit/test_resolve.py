"""Names to addresses: one question to the resolver, and which family is asked for."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from typing import Any

import pytest

from pywg.config import Config, Endpoint, parse
from pywg.config.model import Family, PeerSection
from pywg.errors import ConfigError
from pywg.host import patience
from pywg.host import resolver as resolve
from pywg.keys import PrivateKey
from pywg.service import endpoints as watch

NAME = Endpoint("vpn.example.com", 51820)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Answers with one address twice and one of the other family, and notes what it was asked."""
    asked = []

    def getaddrinfo(host: str, port: int, family: int = 0, type: int = 0) -> list[Any]:
        asked.append((host, family, type))
        answer = [
            (socket.AF_INET6, type, 17, "", ("2001:db8::1", port, 0, 0)),
            (socket.AF_INET, type, 17, "", ("192.0.2.1", port)),
            (socket.AF_INET, type, 17, "", ("192.0.2.1", port)),
        ]
        return [entry for entry in answer if family in (socket.AF_UNSPEC, entry[0])]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_all_addresses_come_in_the_order_of_the_resolver_and_once(
    resolver: list[tuple[str, int, int]],
) -> None:
    assert resolve.look_up(NAME) == (Endpoint("2001:db8::1", 51820), Endpoint("192.0.2.1", 51820))
    assert resolver == [("vpn.example.com", socket.AF_UNSPEC, socket.SOCK_DGRAM)]


@pytest.mark.parametrize(("family", "host"), [("ipv4", "192.0.2.1"), ("ipv6", "2001:db8::1")])
def test_a_family_that_is_asked_for_is_the_only_one(
    resolver: list[tuple[str, int, int]], family: Family, host: str
) -> None:
    assert resolve.look_up(NAME, family) == (Endpoint(host, 51820),)


def peer(endpoint: Endpoint | None) -> PeerSection:
    """One that says which family it wants."""
    key = PrivateKey.generate().public
    return PeerSection(key, endpoint=endpoint, endpoint_family="ipv6")


def test_an_address_that_is_written_out_has_its_own_family() -> None:
    assert resolve.family_of(peer(NAME)) == "ipv6"
    assert resolve.family_of(peer(Endpoint("192.0.2.1", 5))) == "auto"
    assert resolve.family_of(peer(None)) == "auto"


def test_a_name_without_an_address_of_the_family_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(host: str, port: int, family: int = 0, type: int = 0) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(resolve, "family_of", lambda peer: "ipv6")
    config = parse(
        f"[Peer]\nPublicKey={PrivateKey.generate().public}\nEndpoint=vpn.example.com:5\n",
        "wg0.conf",
    )
    with pytest.raises(ConfigError) as caught:
        resolve.resolve(config)
    assert (
        str(caught.value)
        .splitlines()[0]
        .endswith(
            "Endpoint: cannot resolve vpn.example.com to an IPv6 address: Name or service not known"
        )
    )


def test_what_can_be_no_host_name_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(socket.gaierror) as caught:
        resolve.look_up(Endpoint("x" * 70 + ".example.com", 5))
    assert caught.value.errno in resolve.FINAL


@pytest.mark.parametrize(
    ("hosts", "order"),
    [
        ([], []),
        (["192.0.2.1"], ["192.0.2.1"]),
        (
            ["2001:db8::1", "2001:db8::2", "192.0.2.1"],
            ["2001:db8::1", "192.0.2.1", "2001:db8::2"],
        ),
        (["192.0.2.1", "192.0.2.2", "2001:db8::1"], ["192.0.2.1", "2001:db8::1", "192.0.2.2"]),
    ],
)
def test_families_take_turns(hosts: list[str], order: list[str]) -> None:
    found = watch.alternate([Endpoint(host, 5) for host in hosts])
    assert [endpoint.host for endpoint in found] == order


# ---- the patience of wg(8)


def named(*hosts: str) -> Config:
    keys = (PrivateKey.generate().public for _ in hosts)
    peers = (
        PeerSection(key, endpoint=Endpoint(host, 5)) for key, host in zip(keys, hosts, strict=True)
    )
    return Config(peers=tuple(peers))


def test_each_try_is_told_in_the_words_of_wg(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")] * 20

    def ask(endpoint: Endpoint, family: Family) -> list[Endpoint]:
        if errors:
            raise errors.pop()
        return [endpoint]

    monkeypatch.setenv("WG_ENDPOINT_RESOLUTION_RETRIES", "infinity")
    told: list[str] = []
    resolve.resolve(named("vpn.example"), lambda seconds: None, tell=told.append, ask=ask)
    first = "Temporary failure in name resolution: `vpn.example:5'. Trying again in 1.00 seconds..."
    assert told[0] == first
    assert len(told) == 20
    assert told[-1].endswith("Trying again in 20.00 seconds...")


def test_a_resolver_that_takes_long_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "TOLD_AFTER_S", 0.01)
    heard = threading.Event()
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        heard.set()

    def ask(endpoint: Endpoint, family: Family) -> list[Endpoint]:
        heard.wait(30)
        return [endpoint]

    resolve.resolve(named("vpn.example"), tell=tell, ask=ask)
    assert told == ["waiting for the resolver: vpn.example:5"]


def test_the_package_is_imported_without_the_library_that_asks_name_servers() -> None:
    """It takes a tenth of a second, and few runs need it."""
    code = "import sys, pywg.tunnel, pywg.cli.up; sys.exit('dns' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
