"""What a command asks of the kernel does not grow with what others have on the host.

Nothing is timed: messages of the kernel are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from pywg.host import rtnetlink, tables
from pywg.host.network import Network
from tools.lab.namespaces import Namespace, run, unique, wait_for_addresses, wait_for_link

MANY = 2000
QUESTIONS: dict[str, Callable[[Network, str], Any]] = {
    "addresses": lambda kernel, name: kernel.addresses(name),
    "blocked": lambda kernel, name: kernel.blocked(51820),
    "default route": lambda kernel, name: kernel.default_route_mtu(),
    "kind": lambda kernel, name: kernel.kind(name),
    "local addresses": lambda kernel, name: kernel.local_addresses(name),
    "mtu": lambda kernel, name: kernel.mtu(name),
    "path": lambda kernel, name: kernel.path_mtus(["192.0.2.9", "2001:db8::9"]),
    "routes": lambda kernel, name: kernel.routes(name),
    "state": lambda kernel, name: kernel.is_up(name),
    "tables": lambda kernel, name: tables.used_from(51820),
}


@pytest.fixture
def host() -> Iterator[tuple[Namespace, str, str]]:
    """With two links: ours, and that of others."""
    namespace, ours, other = Namespace("s"), unique("o"), unique("x")
    try:
        namespace.ip("link", "add", ours, "type", "veth", "peer", "name", other)
        for name in (ours, other):
            namespace.ip("link", "set", name, "addrgenmode", "none")
            namespace.ip("link", "set", name, "up")
        for name in (ours, other):
            wait_for_link(namespace, name)
        namespace.ip("address", "add", "192.0.2.1/24", "dev", ours)
        namespace.ip("address", "add", "2001:db8::1/64", "dev", ours, "nodad")
        wait_for_addresses(namespace, ["2001:db8::1/64"])
        namespace.ip("route", "add", "203.0.113.0/24", "dev", ours, "table", "51820")
        yield namespace, ours, other
    finally:
        namespace.close()


def fill(namespace: Namespace, other: str) -> None:
    """Routes in a table of others and in the one we might take, addresses, links."""
    lines = []
    for place in range(MANY):
        lines.append(f"route add 10.0.{place >> 8}.{place & 255} dev {other} table 1000")
        lines.append(f"route add 10.1.{place >> 8}.{place & 255} dev {other} table 51820")
        lines.append(f"route add fd00::{place:x} dev {other} table 1000")
    lines += [f"address add 172.16.0.{place}/32 dev {other}" for place in range(1, 250)]
    lines += [f"link add {unique('l')} type veth peer name {unique('r')}" for _ in range(20)]
    run("ip", "-n", namespace.name, "-batch", "-", text="\n".join(lines) + "\n")


def told(monkeypatch: pytest.MonkeyPatch, namespace: Namespace, name: str) -> dict[str, Any]:
    """What each question finds, and how many messages it reads."""
    count, read = 0, rtnetlink._messages

    def counting(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        nonlocal count
        for found in read(data):
            count += 1
            yield found

    seen = {}
    monkeypatch.setattr(rtnetlink, "_messages", counting)
    with namespace.entered(), Network() as kernel:
        for title, ask in QUESTIONS.items():
            before = count
            found = ask(kernel, name)
            seen[title] = (found, count - before)
    monkeypatch.undo()
    return seen


def test_no_question_costs_more_where_others_have_more(
    host: tuple[Namespace, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace, ours, other = host
    before = told(monkeypatch, namespace, ours)
    fill(namespace, other)
    assert told(monkeypatch, namespace, ours) == before
    assert ip_address("2001:db8::1") in before["local addresses"][0]
    assert before["routes"][0] == {(ip_network("203.0.113.0/24"), 51820)}


def test_endpoints_on_one_way_are_one_link_to_look_at(
    host: tuple[Namespace, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace, _, _ = host
    asked = []
    tell = rtnetlink.Socket.ask

    def noting(self: rtnetlink.Socket, kind: int, body: bytes) -> bytes:
        asked.append(kind)
        return tell(self, kind, body)

    monkeypatch.setattr(rtnetlink.Socket, "ask", noting)
    with namespace.entered(), Network() as kernel:
        assert kernel.path_mtus(f"192.0.2.{place}" for place in range(2, 250)) == (1500,)
    assert asked.count(rtnetlink.GET_LINK) == 1
