"""Key pairs and preshared keys, in base64 as wg writes them."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass

from pywg.keys import PrivateKey


@dataclass(frozen=True)
class Key:
    private: str
    public: str

    def __repr__(self) -> str:
        return f"Key({self.public})"


def new_key() -> Key:
    private = PrivateKey.generate()
    return Key(private.to_base64(), private.public.to_base64())


def new_psk() -> str:
    return encode(os.urandom(32))


def encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def decode(text: str) -> bytes:
    return base64.b64decode(text)
