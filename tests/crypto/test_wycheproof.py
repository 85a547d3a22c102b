"""scripts/wycheproof, with files of our own in Wycheproof's format: right vectors pass, and a wrong
one of any kind is found by every implementation that it is for. Wycheproof's own are not shipped.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

pytest.importorskip("ziglang")

from tools import wycheproof
from tools.reference import wireguard
from tools.wycheproof import FILES, Ours, Tally

KEY = bytes(range(32))
WIREGUARD_NONCE = bytes(4) + (2**40 + 7).to_bytes(8, "little")
OTHER_NONCE = bytes(range(1, 13))
LONG_NONCE = bytes(range(24))
PLAIN = b"ends of tunnels" * 20

Vector = dict[str, Any]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Ours:
    try:
        return Ours(tmp_path_factory.mktemp("wycheproof"))
    except SystemExit as missing:  # how the script says that there is no zig
        pytest.skip(str(missing))


@pytest.fixture
def run(
    ours: Ours,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, str]]:
    """The command on a folder with these files: exit code and output."""
    monkeypatch.setattr(wycheproof, "Ours", lambda directory: ours)

    def run(**files: list[Vector]) -> tuple[int, str]:
        for name, vectors in files.items():
            numbered = [{"tcId": i, **vector} for i, vector in enumerate(vectors, 1)]
            text = json.dumps({"testGroups": [{"tests": numbered[:1]}, {"tests": numbered[1:]}]})
            (tmp_path / f"{name}_test.json").write_text(text)
        code = wycheproof.main([str(tmp_path)])
        return code, capsys.readouterr().out

    return run


def agreement(public: bytes, shared: bytes | None = None) -> Vector:
    private = wireguard.clamp(b"\x77" * 32)
    secret = wireguard.dh(private, public) if shared is None else shared
    names = {"private": private, "public": public, "shared": secret}
    return {name: value.hex() for name, value in names.items()} | {"result": "acceptable"}


def sealed(nonce: bytes, ad: bytes = b"", plain: bytes = PLAIN) -> Vector:
    if len(nonce) == 24:
        text = wireguard.xaead(KEY, nonce, plain, ad)
    else:
        text = ChaCha20Poly1305(KEY).encrypt(nonce, plain, ad)
    names = {"key": KEY, "iv": nonce, "aad": ad, "msg": plain, "ct": text[:-16], "tag": text[-16:]}
    return {name: value.hex() for name, value in names.items()} | {"result": "valid"}


def forged(vector: Vector) -> Vector:
    tag = bytes.fromhex(vector["tag"])
    return vector | {"tag": (tag[:-1] + bytes([tag[-1] ^ 1])).hex()}


HONEST = wireguard.dh_pubkey(b"\x44" * 32)


def test_right_vectors_pass_and_what_cannot_be_asked_is_left_out_with_its_reason(
    run: Callable[..., tuple[int, str]],
) -> None:
    short = sealed(WIREGUARD_NONCE) | {"iv": "00" * 11, "result": "invalid"}
    code, said = run(
        x25519=[agreement(HONEST), agreement(bytes(32), bytes(32))],
        chacha20_poly1305=[
            sealed(WIREGUARD_NONCE),
            forged(sealed(WIREGUARD_NONCE)) | {"result": "invalid"},
            sealed(WIREGUARD_NONCE, ad=b"header"),
            sealed(OTHER_NONCE),
            short,
            sealed(WIREGUARD_NONCE) | {"tag": "00", "result": "invalid"},
        ],
        xchacha20_poly1305=[sealed(LONG_NONCE), sealed(LONG_NONCE, b"header", b"")],
    )
    assert code == 0, said
    lines = {line[2:36].strip(): line[36:] for line in said.splitlines() if line[0] == " "}
    assert lines["X25519, as installed"] == "2 passed"
    assert lines["refused in handshakes"] == "1 passed; 1 left out (the secret is not zero)"
    text = said.partition("xchacha20")[0]
    kernels = next(line for line in text.splitlines() if "  kernels, baseline" in line)
    assert "2 passed" in kernels
    reasons = ("form of nonce", "length of nonce", "length of tag")
    for reason in (*(f"another {words}" for words in reasons), "associated data"):
        assert f"1 left out ({reason})" in kernels
    handshakes = [line for line in text.splitlines() if "  of handshakes and cookies" in line]
    assert "3 passed" in handshakes[0]


@pytest.mark.parametrize(
    ("file", "vector", "finders"),
    [
        ("x25519", agreement(HONEST, bytes(31) + b"\1"), {"X25519"}),
        # It says that there is no secret; there is one, and a handshake goes on.
        ("x25519", agreement(HONEST, bytes(32)), {"X25519", "refused"}),
        ("x25519", agreement(bytes(32), b"\1" + bytes(31)), {"X25519"}),
        (
            "chacha20_poly1305",
            forged(sealed(WIREGUARD_NONCE)),
            {"kernels,", "Poly1305", "of handshakes"},
        ),
        (
            "chacha20_poly1305",
            sealed(WIREGUARD_NONCE) | {"result": "invalid"},
            {"kernels,", "Poly1305", "of handshakes"},
        ),
        (
            "xchacha20_poly1305",
            sealed(LONG_NONCE) | {"msg": (b"x" + PLAIN[1:]).hex()},
            {"kernels,", "ciphertexts", "of handshakes"},
        ),
        (
            "xchacha20_poly1305",
            forged(sealed(LONG_NONCE, b"header")),
            {"Poly1305", "of handshakes"},
        ),
    ],
)
def test_a_wrong_vector_is_found(
    run: Callable[..., tuple[int, str]], file: str, vector: Vector, finders: set[str]
) -> None:
    right = {"x25519": agreement(HONEST)}.get(file) or sealed(
        LONG_NONCE if file.startswith("x") else WIREGUARD_NONCE
    )
    code, said = run(**{file: [right, vector]})
    assert code == 1, said
    for line in said.splitlines():
        if line.startswith("  "):
            expected = any(line[2:].startswith(name) for name in finders)
            assert ("FAILED: 2" in line) == expected, line
            assert "FAILED: 1" not in line


def test_a_folder_without_vectors_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "aes_gcm_test.json").write_text("{}")
    assert wycheproof.main([str(tmp_path)]) == 2


def test_a_whole_copy_of_wycheproof_has_them_in_a_folder(tmp_path: Path) -> None:
    place = tmp_path / "testvectors_v1"
    place.mkdir()
    for name in FILES:
        (place / name).write_text("{}")
    assert wycheproof.find(tmp_path) == {name: place / name for name in FILES}


def test_a_tally_says_all_of_it() -> None:
    tally = Tally("something", passed=3, failed=[7, 9])
    tally.left_out["a reason"] += 2
    assert str(tally).split(maxsplit=1)[1] == "3 passed; FAILED: 7, 9; 2 left out (a reason)"
