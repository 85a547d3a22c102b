"""wg-quick files: what is read, and how each mistake is told."""

import time
from ipaddress import ip_interface, ip_network

import pytest

from pywg.config import AllowedIP, Config, Endpoint, parse
from pywg.errors import ConfigError, PywgError
from pywg.keys import PresharedKey, PrivateKey, PublicKey

PRIVATE = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
PUBLIC = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
OTHER = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0="
PSK = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE="

FULL = f"""\
# a comment
[Interface]
PrivateKey = {PRIVATE}
ListenPort = 51820   # another
FwMark = 0xca6c
Address = 10.0.0.1/24, fd00::1/64
Address = 192.168.5.1
MTU = 1380

[Peer]
PublicKey = {PUBLIC}
PresharedKey = {PSK}
AllowedIPs = 10.0.0.2/32, fd00::2/128
AllowedIPs = 10.1.0.0/16
Endpoint = vpn.example.com:51820
PersistentKeepalive = 25

[Peer]
PublicKey = {OTHER}
AllowedIPs =
Endpoint = [2001:db8::1]:1234
PersistentKeepalive = off
"""


def test_a_full_file_is_read():
    config = parse(FULL, "wg0.conf")
    interface = config.interface
    assert interface.private_key == PrivateKey.from_base64(PRIVATE)
    assert interface.listen_port == 51820
    assert interface.fwmark == 0xCA6C
    assert interface.addresses == tuple(
        ip_interface(text) for text in ("10.0.0.1/24", "fd00::1/64", "192.168.5.1/32")
    )
    assert interface.mtu == 1380
    first, second = config.peers
    assert first.public_key == PublicKey.from_base64(PUBLIC)
    assert first.preshared_key == PresharedKey.from_base64(PSK)
    assert [str(allowed) for allowed in first.allowed_ips] == [
        "10.0.0.2/32",
        "fd00::2/128",
        "10.1.0.0/16",
    ]
    assert first.endpoint == Endpoint("vpn.example.com", 51820)
    assert first.persistent_keepalive == 25
    assert second.allowed_ips == ()
    assert second.endpoint == Endpoint("2001:db8::1", 1234)
    assert second.persistent_keepalive == 0
    assert config.warnings == ()


def test_case_and_whitespace_do_not_matter():
    lines = (
        "\ufeff \t[ InterFace ]\r\n\tprivatekey="
        f"{PRIVATE[:9]} {PRIVATE[9:]}\r\n  LISTEN port  =  1 2 \r\n[PEER]\r\npublickey={PUBLIC}"
    )
    config = parse(lines)
    assert config.interface.private_key == PrivateKey.from_base64(PRIVATE)
    assert config.interface.listen_port == 12
    assert config.peers[0].public_key == PublicKey.from_base64(PUBLIC)


def test_what_is_absent_is_none():
    config = parse(f"[Interface]\nPrivateKey={PRIVATE}\n[Peer]\nPublicKey={PUBLIC}\n")
    assert config.interface.listen_port is None
    assert config.interface.mtu is None
    assert config.peers[0].endpoint is None
    assert config.peers[0].persistent_keepalive is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [("off", 0), ("OFF", 0), ("0", 0), ("51820", 51820), ("0xFF", 255), ("0xffffffff", 0xFFFFFFFF)],
)
def test_fwmark(value, expected):
    assert parse(f"[Interface]\nFwMark={value}").interface.fwmark == expected


def test_plus_and_minus_change_the_list():
    text = f"[Peer]\nPublicKey={PUBLIC}\nAllowedIPs=10.0.0.0/8,+10.1.0.0/16,-10.0.0.0/8"
    assert parse(text).peers[0].allowed_ips == (AllowedIP(ip_network("10.1.0.0/16")),)


def interface(line: str) -> str:
    return f"[Interface]\n{line}"


def peer(line: str) -> str:
    return f"[Peer]\nPublicKey = {PUBLIC}\n{line}"


WRONG = [
    # text, line, column, part of the message
    ("PrivateKey = x", 1, 1, "before the first"),
    ("[Interfaces]", 1, 1, "unknown section"),
    ("  [WireGuardPeer]", 1, 3, "unknown section"),
    ("[Interface]\n\n  nonsense", 3, 3, 'expected "[Section]" or "Key = Value"'),
    ("[Interface]\n;x", 2, 1, "expected"),
    (interface("PrivateKey = abc"), 2, 14, "PrivateKey: 3 characters, a key has 44"),
    (interface("PrivateKey ="), 2, 13, "PrivateKey: 0 characters"),
    (interface("  ListenPort =   99999"), 2, 18, "ListenPort: 99999 is not between 0 and 65535"),
    (interface("ListenPort = -1"), 2, 14, "ListenPort: expected a number"),
    (interface("ListenPort = \u0661"), 2, 14, "ListenPort: expected a number"),
    (interface("FwMark = 0x1ffffffff"), 2, 10, "FwMark: expected"),
    (interface("FwMark = 4294967296"), 2, 10, "FwMark: expected"),
    (interface("MTU = 67"), 2, 7, "MTU: 67 is not between 68 and 65535"),
    (interface("Address = 10.0.0.1/24, 10.0.0.300"), 2, 24, 'Address: "10.0.0.300" is not'),
    (interface("Address = 10.0.0.1/33"), 2, 11, "Address:"),
    (interface("Address = 10.0.0.1/255.0.0.0"), 2, 11, "Address:"),
    (interface("Address = 10.0.0.01/24"), 2, 11, "Address:"),
    (interface("Address = 10.0.0.1/024"), 2, 11, "Address:"),
    (interface("Address = fe80::1%eth0/64"), 2, 11, "Address:"),
    (interface("DNS = 1.1.1.1, 1.1.1"), 2, 16, 'DNS: "1.1.1" is not an IP address'),
    (interface("DNS = a b !"), 2, 11, 'DNS: "!" is no address and no domain'),
    (interface("Table = 0"), 2, 9, 'Table: expected "auto", "off", "main" or the number'),
    (interface("SaveConfig = yes"), 2, 14, 'SaveConfig: expected "true" or "false"'),
    (interface("#!pywg PrivateKeyFile ="), 2, 24, "PrivateKeyFile: expected the name of a file"),
    (interface("PrivateKeyFile = x"), 2, 1, "PrivateKeyFile: is written as a comment"),
    (interface("#!pywg ListenPort = 1"), 2, 8, 'ListenPort: is no extension; leave out "#!pywg"'),
    (interface("#!pywg EndpointFamily = ipv4"), 2, 8, "EndpointFamily: belongs in [Peer]"),
    (peer("#!pywg EndpointFamily = v4"), 3, 25, 'EndpointFamily: expected "auto", "ipv4" or "ip'),
    (peer("AllowedIPs = 10.0.0.1,,10.0.0.2"), 3, 23, "AllowedIPs: an empty item"),
    (interface("AllowedIPs = 10.0.0.0/8"), 2, 1, "AllowedIPs: belongs in [Peer]"),
    (peer("ListenPort = 1"), 3, 1, "ListenPort: belongs in [Interface]"),
    (peer("DNS = 1.1.1.1"), 3, 1, "DNS: belongs in [Interface]"),
    (peer("AlowedIPs = 10.0.0.0/8"), 3, 1, 'unknown key "AlowedIPs" in [Peer]; did you mean "All'),
    (peer("Colour = blue"), 3, 1, 'unknown key "Colour" in [Peer]'),
    (peer("AllowedIPs = 10.0.0.0/8, banana"), 3, 26, 'AllowedIPs: "banana" is not'),
    (peer("Endpoint = example.com"), 3, 12, "Endpoint: expected HOST:PORT"),
    (peer("Endpoint = example.com:"), 3, 12, "Endpoint: expected HOST:PORT"),
    (peer("Endpoint = example.com:0"), 3, 12, "Endpoint: 0 is not between 1 and 65535"),
    (peer("Endpoint = example.com:http"), 3, 12, "Endpoint: expected a number"),
    (peer("Endpoint = 2001:db8::1:51820"), 3, 12, "Endpoint: an IPv6 address goes in brackets"),
    (peer("Endpoint = [nothing]:51820"), 3, 12, "Endpoint: the brackets"),
    (peer("Endpoint = 300.1.1.1:51820"), 3, 12, "Endpoint:"),
    (peer("PersistentKeepalive = 65536"), 3, 23, "PersistentKeepalive: 65536"),
    (peer("PersistentKeepalive = on"), 3, 23, "PersistentKeepalive: expected a number"),
    ("\n[Peer]\nAllowedIPs = 10.0.0.0/8", 2, 1, "[Peer] has no PublicKey"),
]


@pytest.mark.parametrize(("text", "line", "column", "message"), WRONG)
def test_errors_name_file_line_and_column(text, line, column, message):
    with pytest.raises(ConfigError) as caught:
        parse(text, "dir/wg0.conf")
    error = caught.value
    assert (error.path, error.line, error.column) == ("dir/wg0.conf", line, column)
    assert message in error.message
    assert str(error).startswith(f"dir/wg0.conf:{line}:{column}: ")
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    "text",
    [
        interface(f"PrivateKey = {PRIVATE[:-1]}"),
        interface(f"PrivateKey = {PRIVATE}="),
        interface(f"PrivateKey {PRIVATE[:-1]}"),
        interface(PRIVATE),
        interface(f"{PRIVATE} = PrivateKey"),
        interface(f"PrivatKey = {PRIVATE}"),
        f"[{PRIVATE}]",
        peer(f"PresharedKey = {PRIVATE}{PRIVATE}"),
        PRIVATE,
    ],
)
def test_errors_never_repeat_a_key(text):
    with pytest.raises(ConfigError) as caught:
        parse(text)
    for start in range(0, 40, 4):
        assert PRIVATE[start : start + 6] not in str(caught.value)


def test_repr_of_a_configuration_hides_secrets():
    text = repr(parse(FULL))
    assert PRIVATE not in text
    assert PSK not in text
    assert PUBLIC in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (peer("AllowedIPs = 10.0.0.5/24"), "3:14: warning: AllowedIPs: 10.0.0.5/24 has host bits"),
        (peer(f"[Peer]\nPublicKey={PUBLIC}"), "3:1: warning: the same peer as on line 1"),
        (
            peer(f"AllowedIPs=10.0.0.0/8\n[Peer]\nPublicKey={OTHER}\nAllowedIPs=10.0.0.0/8"),
            "6:12: warning: AllowedIPs: 10.0.0.0/8 is also on line 3",
        ),
        ("", "no PrivateKey"),
    ],
)
def test_warnings(text, message):
    assert any(message in str(warning) for warning in parse(text).warnings)


def test_host_bits_are_masked():
    config = parse(peer("AllowedIPs = 10.0.0.5/24"))
    assert str(config.peers[0].allowed_ips[0]) == "10.0.0.0/24"


def test_positions_do_not_take_part_in_equality():
    text = peer("AllowedIPs = 10.0.0.0/8\nEndpoint = 1.2.3.4:5")
    assert parse(text) == parse("\n\n" + text)


def test_a_file_is_loaded_and_a_missing_one_is_one_line(tmp_path):
    path = tmp_path / "wg0.conf"
    path.write_bytes(FULL.encode() + b"# caf\xe9\n")
    assert Config.load(path) == parse(FULL)
    with pytest.raises(PywgError, match="No such file"):
        Config.load(tmp_path / "none.conf")


def test_a_line_separator_of_unicode_is_not_a_new_line():
    with pytest.raises(ConfigError) as caught:
        parse("[Interface]\n# one \u2028 two \x0b three\nMTU = x")
    assert caught.value.line == 3


def test_a_length_of_thousands_of_digits_is_an_error_with_its_place():
    with pytest.raises(ConfigError, match=r":2:9: Address: "):
        parse(f"[Interface]\nAddress=10.0.0.1/{'9' * 5000}\n")


def test_thousands_of_allowed_ips_take_no_time():
    networks = ",".join(f"10.{number >> 8}.{number & 255}.0/24" for number in range(8000))
    began = time.monotonic()
    parsed = parse(f"[Peer]\nPublicKey={PUBLIC}\nAllowedIPs={networks},{networks}\n")
    assert len(parsed.peers[0].allowed_ips) == 8000
    assert time.monotonic() - began < 3
