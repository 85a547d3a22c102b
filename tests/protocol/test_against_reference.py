"""The core, through its C ABI, against the naive reference: both roles, with and without a PSK."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from pywg.native.interface import Interface, Now, Verdict
from tools.reference import wireguard
from tools.reference.wireguard import Handshake, Keys

CORE_PRIVATE = wireguard.clamp(b"\x11" * 32)
OTHER_PRIVATE = wireguard.clamp(b"\x22" * 32)
CORE_PUBLIC = wireguard.dh_pubkey(CORE_PRIVATE)
OTHER_PUBLIC = wireguard.dh_pubkey(OTHER_PRIVATE)
PSK = b"\x33" * 32
ADDRESS = ("192.0.2.7", 4242)
SECOND = 10**9
START = Now(boot_ns=1000 * SECOND, unix_ns=1_700_000_000 * SECOND)


def after(step_ns: int) -> Now:
    return Now(START.boot_ns + step_ns, START.unix_ns + step_ns)


def timestamp(now: Now) -> bytes:
    return struct.pack(">QI", 0x400000000000000A + now.unix_ns // SECOND, now.unix_ns % SECOND)


def ipv4(source: str, destination: str, length: int) -> bytes:
    def packed(text: str) -> bytes:
        return bytes(int(part) for part in text.split("."))

    head = struct.pack(">BBHHHBBH", 0x45, 0, length, 0, 0, 64, 17, 0)
    return head + packed(source) + packed(destination) + bytes(length - 20)


@pytest.fixture(params=[None, PSK], ids=["no psk", "psk"])
def psk(request: pytest.FixtureRequest) -> bytes | None:
    chosen: bytes | None = request.param
    return chosen


@pytest.fixture
def core(psk: bytes | None) -> Iterator[Interface]:
    text = f"private_key={CORE_PRIVATE.hex()}\npublic_key={OTHER_PUBLIC.hex()}\n"
    text += f"endpoint={ADDRESS[0]}:{ADDRESS[1]}\nallowed_ip=10.0.0.2/32\n"
    if psk:
        text += f"preshared_key={psk.hex()}\n"
    with Interface(text, now=START) as interface:
        yield interface


def other(psk: bytes | None) -> Handshake:
    return Handshake(OTHER_PRIVATE, CORE_PUBLIC, psk or wireguard.NO_PRESHARED_KEY)


def shake_hands_as_initiator(core: Interface, psk: bytes | None, now: Now = START) -> Keys:
    """The reference begins; the core answers."""
    handshake = other(psk)
    message = handshake.create_initiation(77, b"\x44" * 32, timestamp(now))
    (answer,) = core.receive([(wireguard.add_macs(message, CORE_PUBLIC), ADDRESS)], now)
    assert answer.verdict == Verdict.HANDSHAKE
    (response,) = core.poll(now)
    assert wireguard.has_valid_mac1(response.data, OTHER_PUBLIC)
    handshake.consume_response(response.data)
    return handshake.begin_session()


def test_core_answers_the_reference(core: Interface, psk: bytes | None) -> None:
    keys = shake_hands_as_initiator(core, psk)
    packet = ipv4("10.0.0.2", "10.0.0.1", 101)
    (delivered,) = core.receive([(wireguard.seal_transport(keys, 0, packet), ADDRESS)], START)
    assert (delivered.verdict, delivered.data) == (Verdict.DELIVER, packet)
    back = ipv4("10.0.0.1", "10.0.0.2", 300)
    (sealed,) = core.seal([back], START)
    assert (sealed.verdict, sealed.address) == (Verdict.SEALED, ADDRESS)
    counter, plain = wireguard.open_transport(keys, sealed.data)
    assert (counter, plain[:300], len(plain)) == (0, back, 304)


def test_core_may_not_send_before_the_initiator_has_confirmed(
    core: Interface, psk: bytes | None
) -> None:
    keys = shake_hands_as_initiator(core, psk)
    (held,) = core.seal([ipv4("10.0.0.1", "10.0.0.2", 60)], START)
    assert held.verdict == Verdict.STAGED
    (confirmed,) = core.receive([(wireguard.seal_transport(keys, 0, b""), ADDRESS)], START)
    assert confirmed.verdict == Verdict.KEEPALIVE
    sent = [packet for packet in core.poll(START) if packet.data[0] == 4]
    assert len(sent) == 1
    assert wireguard.open_transport(keys, sent[0].data)[1][:60] == ipv4("10.0.0.1", "10.0.0.2", 60)


def test_core_begins_and_the_reference_answers(core: Interface, psk: bytes | None) -> None:
    packet = ipv4("10.0.0.1", "10.0.0.2", 90)
    assert core.seal([packet], START)[0].verdict == Verdict.STAGED
    (initiation,) = core.poll(START)
    assert wireguard.has_valid_mac1(initiation.data, OTHER_PUBLIC)
    handshake = Handshake(OTHER_PRIVATE, preshared_key=psk or wireguard.NO_PRESHARED_KEY)
    handshake.consume_initiation(initiation.data)
    assert handshake.remote_public == CORE_PUBLIC
    assert int.from_bytes(handshake.timestamp[8:], "big") % 2**24 == 0  # whitened
    response = wireguard.add_macs(handshake.create_response(99, b"\x55" * 32), CORE_PUBLIC)
    (accepted,) = core.receive([(response, ADDRESS)], START)
    assert accepted.verdict == Verdict.HANDSHAKE
    (data,) = core.poll(START)
    assert wireguard.open_transport(handshake.begin_session(), data.data)[1][:90] == packet


def test_cookie_of_the_core_opens_its_door_under_load(core: Interface, psk: bytes | None) -> None:
    handshake = other(psk)
    message = wireguard.add_macs(
        handshake.create_initiation(5, b"\x66" * 32, timestamp(START)), CORE_PUBLIC
    )
    (refused,) = core.receive([(message, ADDRESS)], START, under_load=True)
    assert refused.drop == "cookie_required"
    (reply,) = core.poll(START)
    cookie = wireguard.consume_cookie_reply(reply.data, CORE_PUBLIC, message[-32:-16])
    again = wireguard.add_macs(message, CORE_PUBLIC, cookie)
    (elsewhere,) = core.receive([(again, ("192.0.2.7", 4243))], START, under_load=True)
    assert elsewhere.drop == "cookie_required"
    core.poll(START)
    (accepted,) = core.receive([(again, ADDRESS)], START, under_load=True)
    assert accepted.verdict == Verdict.HANDSHAKE


def test_core_takes_a_cookie_and_shows_it(core: Interface, psk: bytes | None) -> None:
    core.seal([ipv4("10.0.0.1", "10.0.0.2", 90)], START)
    (first,) = core.poll(START)
    cookie = wireguard.make_cookie(b"\x77" * 32, "198.51.100.1", 51820)
    reply = wireguard.create_cookie_reply(first.data, OTHER_PUBLIC, cookie, b"\x88" * 24)
    (taken,) = core.receive([(reply, ADDRESS)], START)
    assert taken.verdict == Verdict.HANDSHAKE
    assert core.poll(START) == []  # not at once, ...
    deadline = core.deadline()
    assert deadline is not None
    soon = after(deadline - START.boot_ns)
    core.expire(soon)
    (second,) = core.poll(soon)  # ... but within half a second, and not only after REKEY_TIMEOUT
    assert SECOND // 10 <= deadline - START.boot_ns < SECOND // 2
    assert wireguard.has_valid_mac2(second.data, cookie)


@pytest.mark.parametrize("private", [None, "low order"])
def test_keys_that_would_give_zero_secrets_are_refused(
    private: str | None, core: Interface, psk: bytes | None
) -> None:
    handshake = other(psk)
    message = bytearray(handshake.create_initiation(5, b"\x66" * 32, timestamp(START)))
    message[8:40] = bytes(32) if private is None else (1).to_bytes(32, "little")
    (refused,) = core.receive([(wireguard.add_macs(bytes(message), CORE_PUBLIC), ADDRESS)], START)
    assert refused.drop == "invalid_handshake"


def test_every_kind_of_bad_packet_is_dropped_and_counted(
    core: Interface, psk: bytes | None
) -> None:
    keys = shake_hands_as_initiator(core, psk)
    good = wireguard.seal_transport(keys, 0, ipv4("10.0.0.2", "10.0.0.1", 64))
    lie = bytearray(ipv4("10.0.0.2", "10.0.0.1", 64))
    lie[2:4] = (200).to_bytes(2, "big")
    cases = {
        "malformed": [
            b"",
            b"\x04",
            good[:31],
            b"\x05" + good[1:],
            b"\x04\x01" + good[2:],
            bytes(148),
        ],
        "unknown_index": [good[:4] + b"\xff\xff\xff\xff" + good[8:]],
        "not_authentic": [good[:-1] + bytes([good[-1] ^ 1]), good[:8] + b"\x09" + good[9:]],
        "malformed_inner": [
            wireguard.seal_transport(keys, 10, bytes(lie)),
            wireguard.seal_transport(keys, 11, b"\x55" + bytes(63)),
            wireguard.seal_transport(keys, 12, b"\x60" + bytes(3) + b"\xff\xff" + bytes(58)),
        ],
        "disallowed_source": [wireguard.seal_transport(keys, 13, ipv4("10.0.0.3", "10.0.0.1", 64))],
        "invalid_mac1": [b"\x01\x00\x00\x00" + bytes(144), b"\x02\x00\x00\x00" + bytes(88)],
    }
    for reason, datagrams in cases.items():
        before = core.dropped()[reason]
        for datagram in datagrams:
            (refused,) = core.receive([(datagram, ADDRESS)], START)
            assert (refused.verdict, refused.drop) == (Verdict.DROPPED, reason)
        assert core.dropped()[reason] == before + len(datagrams)
    assert core.receive([(good, ADDRESS)], START)[0].verdict == Verdict.DELIVER
    assert core.receive([(good, ADDRESS)], START)[0].drop == "replayed"
