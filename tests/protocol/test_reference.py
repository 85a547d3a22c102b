"""The reference gives published answers, refuses what it must, and made the transcripts."""

from __future__ import annotations

import json

import pytest

from tools.reference import make_transcripts, wireguard


def test_committed_transcripts_are_what_the_reference_generates() -> None:
    transcripts = make_transcripts.make_transcripts()
    assert json.loads(make_transcripts.JSON_FILE.read_text()) == transcripts
    assert make_transcripts.JSON_FILE.read_text() == make_transcripts.to_json(transcripts)
    assert make_transcripts.ZIG_FILE.read_text() == make_transcripts.to_zig(transcripts)


def test_hchacha20_gives_the_answer_of_the_draft() -> None:
    nonce = bytes.fromhex("000000090000004a0000000031415927")
    answer = bytes.fromhex("82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc")
    assert wireguard.hchacha20(bytes(range(32)), nonce) == answer


def test_xaead_gives_the_answer_of_the_draft() -> None:
    plaintext = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip "
        b"for the future, sunscreen would be it."
    )
    ad = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    key, nonce = bytes(range(0x80, 0xA0)), bytes(range(0x40, 0x58))
    sealed = wireguard.xaead(key, nonce, plaintext, ad)
    assert sealed[:16].hex() == "bd6d179d3e83d43b9576579493c0e939"
    assert sealed[-16:].hex() == "c0875924c1c7987947deafd8780acf49"
    assert wireguard.xaead_open(key, nonce, sealed, ad) == plaintext


def handshakes(preshared_key: bytes = bytes(32)) -> tuple[wireguard.Handshake, wireguard.Handshake]:
    initiator = wireguard.Handshake(bytes([1] * 32), preshared_key=preshared_key)
    responder = wireguard.Handshake(bytes([2] * 32))
    initiator.remote_public = responder.public
    return initiator, responder


def test_another_preshared_key_is_refused() -> None:
    initiator, responder = handshakes(bytes([5] * 32))
    responder.consume_initiation(initiator.create_initiation(1, bytes([3] * 32), bytes(12)))
    with pytest.raises(wireguard.Refused):
        initiator.consume_response(responder.create_response(2, bytes([4] * 32)))


@pytest.mark.parametrize("position", [8, 39, 40, 87, 88, 115])
def test_a_changed_initiation_is_refused(position: int) -> None:
    initiator, responder = handshakes()
    message = bytearray(initiator.create_initiation(1, bytes([3] * 32), bytes(12)))
    message[position] ^= 0x80
    with pytest.raises(wireguard.Refused):
        responder.consume_initiation(bytes(message))


def test_public_keys_of_small_order_are_refused() -> None:
    initiator, _ = handshakes()
    initiator.remote_public = bytes(32)
    with pytest.raises(wireguard.Refused):
        initiator.create_initiation(1, bytes([3] * 32), bytes(12))


def test_a_cookie_belongs_to_address_and_port() -> None:
    sources = [("::1", 1), ("::1", 2), ("127.0.0.1", 1), ("127.0.0.1", 2)]
    cookies = {wireguard.make_cookie(bytes(32), address, port) for address, port in sources}
    assert len(cookies) == len(sources)
