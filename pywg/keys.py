"""Keys as values: PrivateKey, PublicKey, PresharedKey. Strict base64, X25519 by the core.

Knows nothing of files or devices. Invariant: a secret leaves its object only through a method
whose name says so (``to_base64``, ``to_hex``, ``bytes()``); ``repr``, ``str`` and errors hide it.
"""

from __future__ import annotations

import base64
import binascii
import ctypes
import hmac
import os
from typing import Any, ClassVar, NoReturn, Self

from pywg.errors import KeyFormatError
from pywg.native import library

LENGTH = 32
BASE64_LENGTH = 44


class _Key:
    """32 bytes that cannot change.

    ``KeyFormatError``: they are not 32. ``TypeError``: they are no bytes.
    """

    __slots__ = ("_raw",)
    _raw: bytes
    _noun: ClassVar[str] = "key"

    def __init__(self, raw: bytes) -> None:
        if not isinstance(raw, (bytes, bytearray, memoryview)):
            raise TypeError(f"a {self._noun} is made of bytes, not {type(raw).__name__}")
        if len(raw) != LENGTH:
            raise KeyFormatError(f"a {self._noun} has {LENGTH} bytes, not {len(raw)}")
        object.__setattr__(self, "_raw", bytes(raw))

    @classmethod
    def from_base64(cls, text: str) -> Self:
        """Exactly what `wg` takes: 44 characters, padded, without stray low bits.

        KeyFormatError: the text is anything else.
        """
        if len(text) != BASE64_LENGTH:
            raise KeyFormatError(
                f"{len(text)} characters, a key has {BASE64_LENGTH} (32 bytes in base64)"
            )
        try:
            raw = base64.b64decode(text.encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError, ValueError):
            raise KeyFormatError("not base64") from None
        if len(raw) != LENGTH or base64.b64encode(raw).decode("ascii") != text:
            raise KeyFormatError("not 32 bytes in canonical base64")
        return cls(raw)

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """The spelling of UAPI: 64 hexadecimal digits.

        KeyFormatError: the text is anything else.
        """
        try:
            if len(text) != 2 * LENGTH:
                raise ValueError
            return cls(binascii.unhexlify(text.encode("ascii")))
        except ValueError:
            raise KeyFormatError("a key in hex has 64 digits") from None

    def to_base64(self) -> str:
        """As `wg` and files write it: 44 characters."""
        return base64.b64encode(self._raw).decode("ascii")

    def to_hex(self) -> str:
        """As UAPI writes it: 64 digits."""
        return self._raw.hex()

    def __bytes__(self) -> bytes:
        return self._raw

    def is_zero(self) -> bool:
        """All zero means "no key" in UAPI."""
        return hmac.compare_digest(self._raw, bytes(LENGTH))

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        assert isinstance(other, _Key)  # noqa: S101 - narrows the type for mypy
        return hmac.compare_digest(self._raw, other._raw)

    def __hash__(self) -> int:
        return hash((type(self), self._raw))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a {self._noun} cannot be changed")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a {self._noun} cannot be changed")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[type[Self], tuple[bytes]]:
        return type(self), (self._raw,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(hidden)"

    def __str__(self) -> str:
        return repr(self)


class PublicKey(_Key):
    """Curve25519 public key; names a peer and may be shown to anybody."""

    __slots__ = ()
    _noun = "public key"

    def __repr__(self) -> str:
        return f"PublicKey({self.to_base64()!r})"

    def __str__(self) -> str:
        return self.to_base64()

    @property
    def short(self) -> str:
        """For a line about a peer: ``AbCd…``."""
        return f"{self.to_base64()[:4]}…"


class PrivateKey(_Key):
    """Curve25519 private key."""

    __slots__ = ()
    _noun = "private key"

    @classmethod
    def generate(cls) -> Self:
        """A new one: 32 bytes of the kernel's randomness, clamped as `wg genkey` does it.

        CoreLoadError: there is no core to load.
        """
        raw = bytearray(LENGTH)
        _check(library.load().pywg_key_generate(_buffer(raw)))
        key = cls(bytes(raw))
        raw[:] = bytes(LENGTH)
        return key

    def is_clamped(self) -> bool:
        """Whether three low bits and the highest are 0, and the second highest is 1, as `wg genkey`
        leaves them (RFC 7748, section 5). A key that is not works as if it were; fifteen of sixteen
        public keys are not."""
        return self._raw[0] & 7 == 0 and self._raw[31] & 0xC0 == 0x40

    @property
    def public(self) -> PublicKey:
        """The public key of this one: X25519 with the base point (RFC 7748, section 6.1).

        CoreLoadError: there is no core to load.
        """
        raw = bytearray(LENGTH)
        _check(library.load().pywg_key_public(self._raw, _buffer(raw)))
        return PublicKey(bytes(raw))


class PresharedKey(_Key):
    """Symmetric key mixed into the handshake, against quantum computers of the future."""

    __slots__ = ()
    _noun = "preshared key"

    @classmethod
    def generate(cls) -> Self:
        """A new one: 32 bytes of the kernel's randomness."""
        return cls(os.urandom(LENGTH))


def _buffer(raw: bytearray) -> object:
    return (ctypes.c_char * len(raw)).from_buffer(raw)


def _check(status: int) -> None:
    if status:
        raise AssertionError(f"the core cannot make a key: status {status}")
