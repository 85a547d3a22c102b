"""pywg show FIELD and showconf: the columns of wg. No root, no device."""

from __future__ import annotations

import pytest

from pywg import cli
from pywg.cli import show_fields as fields
from pywg.cli.showconf import configuration
from pywg.errors import UapiError
from pywg.keys import PrivateKey
from pywg.wireguard import socket as uapi_socket
from pywg.wireguard import uapi
from pywg.wireguard.status import InterfaceStatus

PRIVATE = PrivateKey(bytes([8] * 31 + [72]))
STATUS = uapi.parse_get(
    f"private_key={PRIVATE.to_hex()}\nlisten_port=51820\nfwmark=51820\n"
    f"public_key={'00' * 31}01\nallowed_ip=10.0.0.2/32\nallowed_ip=::ffff:1.2.3.0/120\n"
    f"public_key={'00' * 31}02\npreshared_key={'01' * 32}\nendpoint=[2001:db8::1]:5\n"
    "last_handshake_time_sec=1000\nlast_handshake_time_nsec=999999999\n"
    "rx_bytes=1436549\ntx_bytes=12\npersistent_keepalive_interval=25\n"
)
ONE = "A" * 42 + "E="
TWO = "A" * 42 + "I="
PSK = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
TABLE = {
    "public-key": f"{PRIVATE.public}\n",
    "private-key": f"{PRIVATE.to_base64()}\n",
    "listen-port": "51820\n",
    "fwmark": "0xca6c\n",
    "peers": f"{ONE}\n{TWO}\n",
    "preshared-keys": f"{ONE}\t(none)\n{TWO}\t{PSK}\n",
    "endpoints": f"{ONE}\t(none)\n{TWO}\t[2001:db8::1]:5\n",
    "allowed-ips": f"{ONE}\t10.0.0.2/32 ::ffff:1.2.3.0/120\n{TWO}\t(none)\n",
    "latest-handshakes": f"{ONE}\t0\n{TWO}\t1000\n",
    "transfer": f"{ONE}\t0\t0\n{TWO}\t1436549\t12\n",
    "persistent-keepalive": f"{ONE}\toff\n{TWO}\t25\n",
    "dump": f"{PRIVATE.to_base64()}\t{PRIVATE.public}\t51820\t0xca6c\n"
    f"{ONE}\t(none)\t(none)\t10.0.0.2/32,::ffff:1.2.3.0/120\t0\t0\t0\toff\n"
    f"{TWO}\t{PSK}\t[2001:db8::1]:5\t(none)\t1000\t1436549\t12\t25\n",
}


def test_every_field_is_in_the_table() -> None:
    assert list(TABLE) == list(fields.FIELDS)


@pytest.mark.parametrize("field", TABLE)
def test_a_field_of_one_and_of_all(field: str) -> None:
    text = TABLE[field]
    named = "".join(f"wg0\t{line}\n" for line in text.splitlines())
    assert fields.lines("wg0", STATUS, field, with_name=False) == text
    assert fields.lines("wg0", STATUS, field, with_name=True) == named


def test_nothing_has_words_of_its_own() -> None:
    nothing = InterfaceStatus()
    assert fields.lines("wg0", nothing, "dump", with_name=False) == "(none)\t(none)\t0\toff\n"
    assert fields.lines("wg0", nothing, "peers", with_name=True) == ""
    assert configuration(nothing) == "[Interface]\n\n"


def test_showconf_writes_what_setconf_reads() -> None:
    assert configuration(STATUS) == (
        "[Interface]\nListenPort = 51820\nFwMark = 0xca6c\n"
        f"PrivateKey = {PRIVATE.to_base64()}\n\n"
        f"[Peer]\nPublicKey = {ONE}\nAllowedIPs = 10.0.0.2/32, ::ffff:1.2.3.0/120\n\n"
        f"[Peer]\nPublicKey = {TWO}\nPresharedKey = {PSK}\nEndpoint = [2001:db8::1]:5\n"
        "PersistentKeepalive = 25\n"
    )


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uapi_socket, "interfaces", lambda: ["wg1", "wg0"])
    monkeypatch.setattr(uapi_socket, "get", lambda name: STATUS)


def test_fields_on_the_command_line(running: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", "wg0", "fwmark"]) == 0
    assert capsys.readouterr() == ("0xca6c\n", "")
    assert cli.main(["show", "all", "fwmark"]) == 0
    assert capsys.readouterr() == ("wg1\t0xca6c\nwg0\t0xca6c\n", "")
    assert cli.main(["show", "interfaces"]) == 0
    assert capsys.readouterr() == ("wg1 wg0\n", "")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["wg0", "transfers"], 1, 'there is no field "transfers"; did you mean "transfer"?'),
        (["wg0", "x"], 1, 'there is no field "x"; there are public-key, '),
        (["wg0", "dump", "x"], 1, "usage: pywg show "),
        (["interfaces", "dump"], 1, "usage: pywg show "),
        (["wg0", "dump", "--json"], 2, "--json and --offload show everything"),
    ],
)
def test_wrong_words(
    running: None, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    assert cli.main(["show", *words]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"pywg: {message}")


def test_one_that_has_gone_hides_none_of_the_others(
    running: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def get(name: str) -> InterfaceStatus:
        if name == "wg1":
            raise UapiError("wg1: gone")
        return STATUS

    monkeypatch.setattr(uapi_socket, "get", get)
    assert cli.main(["show", "all", "fwmark"]) == 1
    assert capsys.readouterr() == ("wg0\t0xca6c\n", "pywg: wg1: gone\n")
