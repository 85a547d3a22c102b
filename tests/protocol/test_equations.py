"""The equations of sections 5.4.2 to 5.4.5 as docs/PROTOCOL.md has them: computed line by line as
they are written, they give the messages and keys of the transcripts, which are the core's.

A line assigns: `msg.field := ...`, `(C, κ) := ...`. Names are values, functions those of section
5.4; what the two ends have at the same place is computed once, since the whitepaper writes it once.
"""

from __future__ import annotations

import ast
import json
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tools.reference import make_transcripts, wireguard

DOCUMENT = Path(__file__).parents[2] / "docs" / "PROTOCOL.md"
TRANSCRIPTS = json.loads(make_transcripts.JSON_FILE.read_text())

# What the document has in the place of a word or sign of Python's.
SPELLINGS = {
    "0^16": "NOTHING_16",
    "m'": "m",
    "\N{GREEK SMALL LETTER ALPHA}": "alpha",
    "β": "beta",
    "^": "_",
    "‖": "+",
    "-": "_",
}
Value = bytes | int
LAYOUTS = {
    1: "type reserved sender ephemeral static timestamp mac1 mac2",
    2: "type reserved sender receiver ephemeral empty mac1 mac2",
}


@dataclass(frozen=True)
class Line:
    """What one equation says, in Python's words."""

    targets: tuple[str, ...]
    expression: str

    def __str__(self) -> str:
        return f"{', '.join(self.targets)} := {self.expression}"


def section(number: str) -> list[Line]:
    """The equations in the first column of the table below this heading."""
    body = DOCUMENT.read_text().partition(f"\n### {number} ")[2].partition("\n#")[0]
    cells = [line.split(" | ")[0] for line in body.splitlines() if line.startswith("| ")]
    return [parse(text) for cell in cells for text in re.findall(r"`(.+? := .+?)`", cell)]


def parse(text: str) -> Line:
    for old, new in SPELLINGS.items():
        text = text.replace(old, new)
    left, _, right = text.partition(" := ")
    return Line(tuple(left.strip("()").split(", ")), right)


def kdf(count: int) -> Callable[[bytes, bytes], tuple[bytes, ...]]:
    return lambda key, data: tuple(wireguard.kdf(count, key, data))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "HASH": wireguard.blake2s,
    "MAC": wireguard.mac,
    "AEAD": wireguard.aead,
    "DH": wireguard.dh,
    "DH_PUBKEY": wireguard.dh_pubkey,
    "KDF1": lambda key, data: wireguard.kdf(1, key, data)[0],
    "KDF2": kdf(2),
    "KDF3": kdf(3),
}


class Handshake:
    """All names of both ends, and the message that is being made."""

    def __init__(self, transcript: dict[str, Any]) -> None:
        def raw(name: str) -> bytes:
            return bytes.fromhex(transcript[name])

        self.values: dict[str, Any] = {
            "CONSTRUCTION": wireguard.CONSTRUCTION,
            "IDENTIFIER": wireguard.IDENTIFIER,
            "LABEL_MAC1": wireguard.LABEL_MAC1,
            "NOTHING_16": bytes(16),
            "ε": b"",
            "S_i_priv": raw("initiator_private"),
            "S_i_pub": raw("initiator_public"),
            "S_r_priv": raw("responder_private"),
            "S_r_pub": raw("responder_public"),
            "E_i_priv": raw("initiator_ephemeral"),
            "E_r_priv": raw("responder_ephemeral"),
            "I_i": transcript["initiator_index"],
            "I_r": transcript["responder_index"],
            "Q": raw("preshared_key"),
        }
        self.functions = {**FUNCTIONS, "TIMESTAMP": lambda: raw("timestamp")}
        self.fields: dict[str, Value] = {}

    def message(self, lines: Sequence[Line], receiver: str, cookie: bytes | None = None) -> bytes:
        self.fields = {"reserved": 0}
        self.run(lines)
        self.values |= {"S_m_pub": self.values[f"S_{receiver}_pub"], "L": cookie}
        mac1, with_cookie, without = section("5.4.4")
        self.values["msg_alpha"] = self.bytes()
        self.run([mac1])
        self.values["msg_beta"] = self.bytes()
        self.run([without if cookie is None else with_cookie])
        return self.bytes()

    def bytes(self) -> bytes:
        """What there is of the message. Type and reserved bytes are one word, as in the kernel."""
        names = LAYOUTS[int(self.fields["type"])].split()
        parts = [self.fields[name] for name in names if name in self.fields and name != "reserved"]
        return b"".join(p if isinstance(p, bytes) else struct.pack("<I", p) for p in parts)

    def run(self, lines: Sequence[Line]) -> None:
        for line in lines:
            result = self.evaluate(ast.parse(line.expression, mode="eval").body)
            results = (result,) if len(line.targets) == 1 else result
            for target, value in zip(line.targets, results, strict=True):
                if target.startswith("msg."):
                    self.fields[target.removeprefix("msg.")] = value
                else:
                    self.values[target] = value

    def evaluate(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value):
                return value
            case ast.Name(name):
                return self.values[name]
            case ast.Attribute(ast.Name("msg"), name):
                return self.fields[name]
            case ast.BinOp(left, ast.Add(), right):
                return self.evaluate(left) + self.evaluate(right)
            case ast.Call(ast.Name(name), words):
                return self.functions[name](*map(self.evaluate, words))
            case _:
                raise AssertionError(f"no equation has {ast.dump(node)}")


def compute(
    transcript: dict[str, Any], initiation: Sequence[Line], response: Sequence[Line]
) -> dict[str, str]:
    """Everything that the transcript says of the handshake, by its names there."""
    both = Handshake(transcript)
    found = {"initiation": both.message(initiation, "r")}
    found["initiation_hash"] = both.values["H"]
    found["initiation_chaining_key"] = both.values["C"]
    found["response"] = both.message(response, "i")
    found["final_hash"] = both.values["H"]
    found["final_chaining_key"] = both.values["C"]
    both.run(section("5.4.5"))
    found["initiator_sending"] = both.values["T_i_send"]
    found["initiator_receiving"] = both.values["T_i_recv"]
    assert (both.values["T_r_recv"], both.values["T_r_send"]) == (
        both.values["T_i_send"],
        both.values["T_i_recv"],
    )
    counters = {name: value for name, value in both.values.items() if name.startswith("N_")}
    assert counters == dict.fromkeys(("N_i_send", "N_i_recv", "N_r_send", "N_r_recv"), 0)
    forgotten = ("E_i_priv", "E_i_pub", "E_r_priv", "E_r_pub", "C", "H")
    assert all(both.values[name] == b"" for name in forgotten)
    with_cookie = Handshake(transcript)
    cookie = bytes.fromhex(transcript["cookie"])
    found["initiation_with_cookie"] = with_cookie.message(initiation, "r", cookie)
    return {name: value.hex() for name, value in found.items()}


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda it: str(it["name"]))
def test_the_equations_give_the_messages_and_keys(transcript: dict[str, Any]) -> None:
    found = compute(transcript, section("5.4.2"), section("5.4.3"))
    assert found == {name: transcript[name] for name in found}


def test_every_equation_counts() -> None:
    """Without any of them it is another handshake, or none."""
    transcript = TRANSCRIPTS[1]
    initiation, response = section("5.4.2"), section("5.4.3")
    assert (len(initiation), len(response)) == (15, 13)
    right = compute(transcript, initiation, response)
    for at, line in enumerate(initiation):
        assert is_another(transcript, without(initiation, at), response, right), line
    for at, line in enumerate(response):
        assert is_another(transcript, initiation, without(response, at), right), line


def without(lines: list[Line], at: int) -> list[Line]:
    return lines[:at] + lines[at + 1 :]


def is_another(
    transcript: dict[str, Any], initiation: list[Line], response: list[Line], right: dict[str, str]
) -> bool:
    try:
        return compute(transcript, initiation, response) != right
    except KeyError:  # a name that nobody has assigned
        return True
