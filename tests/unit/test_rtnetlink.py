"""rtnetlink without a kernel: what is asked, and what is made of the answers."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from ipaddress import ip_interface, ip_network

import pytest

from pywg.errors import NetworkError
from pywg.host import network, rtnetlink
from pywg.host.network import Network
from pywg.host.rtnetlink import Socket, attribute, attributes, number

HEADER = struct.Struct("=IHHII")
ROUTE = struct.Struct("=BBBBBBBBI")
MULTI, INTERRUPTED, ERROR, DONE = 0x2, 0x10, 2, 3
DESTINATION, OUTPUT, TABLE = 1, 4, 15


class Kernel:
    """In the place of a netlink socket: answers each request with the next of ``scripts``, whose
    messages are (type, flags, body)."""

    def __init__(self, *scripts: list[tuple[int, int, bytes]]) -> None:
        self.asked: list[tuple[int, bytes]] = []
        self._scripts: Iterator[list[tuple[int, int, bytes]]] = iter(scripts)
        self.waiting: list[bytes] = []

    def __call__(self, *_: int) -> Kernel:
        return self

    def setsockopt(self, *_: int) -> None:
        pass

    def close(self) -> None:
        pass

    def send(self, data: bytes) -> None:
        _, kind, _, serial, _ = HEADER.unpack_from(data)
        self.asked.append((kind, data[HEADER.size :]))
        for answer in next(self._scripts):
            self.waiting.append(message(*answer, serial))

    def recv(self, _: int) -> bytes:
        return self.waiting.pop(0)


def message(kind: int, flags: int, body: bytes, serial: int) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, flags, serial, 0) + body


def code(number: int) -> bytes:
    return struct.pack("=i", -number)


def route(destination: str, index: int, table: int = 254) -> bytes:
    at = ip_network(destination)
    header = ROUTE.pack(2 if at.version == 4 else 10, at.prefixlen, 0, 0, 0, 3, 0, 1, 0)
    there = attribute(DESTINATION, at.network_address.packed)
    return header + there + attribute(OUTPUT, index) + attribute(TABLE, table)


END = (DONE, MULTI, code(0))


def use(monkeypatch: pytest.MonkeyPatch, kernel: Kernel) -> Kernel:
    monkeypatch.setattr("pywg.host.rtnetlink.socket.socket", kernel)
    monkeypatch.setattr(network, "_index", lambda name: 7)
    return kernel


def test_attributes_are_read_as_they_are_written() -> None:
    body = b"head" + attribute(3, b"abcde") + attribute(0x8000 | 4, 70_000)
    found = attributes(body, 4)
    assert found == {3: b"abcde", 4: struct.pack("=I", 70_000)}
    assert number(found[4]) == 70_000
    assert number(None) == 0


def test_half_an_attribute_ends_the_list() -> None:
    assert attributes(attribute(1, 5) + b"\0\0\0\0" + attribute(2, 6)) == {1: bytes([5, 0, 0, 0])}


def test_what_is_left_of_a_question_that_was_broken_off_is_passed_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = use(monkeypatch, Kernel([(16, 0, b"mine")]))
    kernel.waiting.append(message(16, 0, b"stale", 99))
    with Socket() as kernel_socket:
        assert kernel_socket.ask(rtnetlink.GET_LINK, b"") == b"mine"


def test_what_the_kernel_refuses_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Kernel([(ERROR, 0, code(errno.EEXIST))]))
    with Network() as kernel, pytest.raises(NetworkError, match="it is there already") as raised:
        kernel.add_route("wg0", ip_network("10.0.0.0/8"), None)
    assert raised.value.os_errno == errno.EEXIST


def test_a_dump_that_a_change_has_interrupted_is_begun_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    half = [(24, MULTI | INTERRUPTED, route("10.0.0.0/8", 7)), END]
    whole = [(24, MULTI, route("10.0.0.0/8", 7)), (24, MULTI, route("11.0.0.0/8", 7)), END]
    use(monkeypatch, Kernel(half, whole, [END]))
    with Network() as kernel:
        assert len(kernel.routes("wg0")) == 2


def test_it_is_not_begun_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    half = [(24, MULTI | INTERRUPTED, route("10.0.0.0/8", 7)), END]
    kernel = use(monkeypatch, Kernel(*[half] * 100))
    with Network() as questions, pytest.raises(NetworkError) as raised:
        questions.routes("wg0")
    assert raised.value.os_errno == errno.EINTR
    assert len(kernel.asked) < 10


def test_the_kernel_is_asked_for_what_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = use(monkeypatch, Kernel(*[[END]] * 5))
    with Network() as questions:
        questions.routes("wg0")
        questions.blocked(51820)
        questions.addresses("wg0")
    *routes, addresses = (body for _, body in kernel.asked)
    assert [attributes(body, ROUTE.size) for body in routes] == [
        *[{OUTPUT: struct.pack("=I", 7)}] * 2,
        *[{TABLE: struct.pack("=I", 51820)}] * 2,
    ]
    assert addresses == struct.pack("=BBBBI", 0, 0, 0, 0, 7)


def test_of_an_old_kernel_that_tells_everything_only_that_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    everything = [
        *((24, MULTI, route(f"10.0.{place}.0/24", 3, 77)) for place in range(9)),
        (24, MULTI, route("11.0.0.0/8", 7)),
        (24, MULTI, route("2001:db8::/32", 7, 99)),
        END,
    ]
    use(monkeypatch, Kernel(everything, everything))
    with Network() as kernel:
        found = kernel.routes("wg0")
    assert found == {(ip_network("11.0.0.0/8"), 254), (ip_network("2001:db8::/32"), 99)}


@pytest.mark.parametrize("absent", [errno.ENOENT, errno.EAFNOSUPPORT])
def test_a_table_that_never_was_is_empty(monkeypatch: pytest.MonkeyPatch, absent: int) -> None:
    use(monkeypatch, Kernel([(ERROR, 0, code(absent))], [(DONE, MULTI, code(absent))]))
    with Network() as kernel:
        assert kernel.blocked(51820) == frozenset()


def test_a_link_is_up_when_its_ipv6_addresses_take_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is late with their routes."""
    use(monkeypatch, Kernel(*[[(ERROR, 0, code(0))]] * 2))
    own = [ip_interface("10.0.0.1/24"), ip_interface("fd00::1/64")]
    answers = [set(), {own[0].ip}, {own[0].ip, own[1].ip}]
    monkeypatch.setattr(Network, "addresses", lambda self, name: own)
    monkeypatch.setattr(Network, "local_addresses", lambda self, name: answers.pop(0))
    with Network() as kernel:
        kernel.link_up("wg0", 1420)
    assert not answers


def test_who_waits_for_an_ipv6_address_in_vain_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Kernel(*[[(ERROR, 0, code(0))]] * 2))
    monkeypatch.setattr(network, "_ADDRESSES_S", 0.01)
    monkeypatch.setattr(Network, "addresses", lambda self, name: [ip_interface("fd00::1/64")])
    monkeypatch.setattr(Network, "local_addresses", lambda self, name: set())
    with Network() as kernel:
        kernel.link_up("wg0", 1420)
