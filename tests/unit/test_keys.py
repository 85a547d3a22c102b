"""Keys: strict in, hidden out."""

from __future__ import annotations

import copy
import pickle

import pytest

from pywg.errors import KeyFormatError
from pywg.keys import PresharedKey, PrivateKey, PublicKey

AnyKey = PrivateKey | PublicKey | PresharedKey
KINDS = [PrivateKey, PublicKey, PresharedKey]
SECRETS = [PrivateKey, PresharedKey]
RAW = bytes(range(32))
BASE64 = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


@pytest.mark.parametrize("kind", KINDS)
def test_base64_and_hex_come_back_as_they_went_in(kind: type[AnyKey]) -> None:
    assert kind.from_base64(BASE64) == kind(RAW)
    assert kind(RAW).to_base64() == BASE64
    assert kind.from_hex(RAW.hex()) == kind(RAW)
    assert kind(RAW).to_hex() == RAW.hex()
    assert bytes(kind(RAW)) == RAW


@pytest.mark.parametrize(
    "text",
    [
        "",
        BASE64[:-1],  # no padding
        BASE64 + "=",
        BASE64[:-2] + "9=",  # stray low bits: the same bytes to a lax decoder
        BASE64[:-3] + "h==",  # 31 bytes
        BASE64.replace("A", "-"),  # the URL alphabet
        " " + BASE64[1:],
        BASE64[:-1] + "\n",
        "é" + BASE64[1:],
        "=" * 44,
        "A" * 44,  # 33 bytes
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_base64_is_strict_and_errors_never_repeat_the_text(kind: type[AnyKey], text: str) -> None:
    with pytest.raises(KeyFormatError) as caught:
        kind.from_base64(text)
    if len(text) > 8:
        assert text[4:12] not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("text", ["", "00", "0" * 63, "0" * 65, "g" * 64, " " * 64, "é" * 64])
def test_hex_is_strict(text: str) -> None:
    with pytest.raises(KeyFormatError):
        PrivateKey.from_hex(text)


def test_a_key_has_32_bytes() -> None:
    with pytest.raises(KeyFormatError, match="31"):
        PublicKey(bytes(31))
    with pytest.raises(TypeError):
        PublicKey("A" * 32)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", SECRETS)
def test_secrets_do_not_print(kind: type[AnyKey]) -> None:
    key = kind(RAW)
    for text in (repr(key), str(key), f"{key}", f"{[key]}", f"{key!r:>80}"):
        assert "AAEC" not in text
        assert RAW.hex()[:8] not in text
        assert "hidden" in text


def test_a_public_key_prints_as_base64() -> None:
    assert str(PublicKey(RAW)) == BASE64
    assert repr(PublicKey(RAW)) == f"PublicKey('{BASE64}')"


def test_keys_cannot_be_changed() -> None:
    key = PrivateKey(RAW)
    with pytest.raises(AttributeError):
        key._raw = bytes(32)
    with pytest.raises(AttributeError):
        del key._raw
    with pytest.raises(AttributeError):
        key.other = 1


def test_equality_is_by_kind_and_content() -> None:
    assert PrivateKey(RAW) == PrivateKey(RAW)
    assert PrivateKey(RAW) != PrivateKey(bytes(32))
    assert PrivateKey(RAW) != PresharedKey(RAW)
    assert PrivateKey(RAW) != RAW
    assert len({PublicKey(RAW), PublicKey(RAW), PrivateKey(RAW)}) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_keys_survive_copy_and_pickle(kind: type[AnyKey]) -> None:
    key = kind(RAW)
    assert copy.deepcopy(key) == copy.copy(key) == pickle.loads(pickle.dumps(key)) == key


def test_public_keys_agree_with_rfc_7748() -> None:
    # Section 5.2: the first iteration, of scalar 9 with the base point 9.
    scalar = PrivateKey.from_hex("09" + "00" * 31)
    once = "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    assert scalar.public.to_hex() == once


def test_generated_keys_are_clamped_and_differ() -> None:
    keys = [PrivateKey.generate() for _ in range(20)]
    assert len(set(keys)) == 20
    for key in keys:
        raw = bytes(key)
        assert raw[0] & 7 == 0
        assert raw[31] & 0xC0 == 0x40
    assert PresharedKey.generate() != PresharedKey.generate()


def test_zero_means_no_key() -> None:
    assert PrivateKey(bytes(32)).is_zero()
    assert not PrivateKey(RAW).is_zero()
