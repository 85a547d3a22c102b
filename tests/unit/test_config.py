"""wg-quick files: what is read, and how each mistake is told."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import time
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest

from pywg.config import (
    AllowedIP,
    Config,
    Endpoint,
    InterfaceSection,
    PeerSection,
    document,
    grammar,
    parse,
    parser,
    values,
)
from pywg.errors import ConfigError, PywgError
from pywg.keys import PresharedKey, PrivateKey, PublicKey
from pywg.wireguard import setconf

PRIVATE = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
PUBLIC = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
OTHER = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0="
PSK = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE="

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.conf"))
OWN = PrivateKey.from_base64(PRIVATE).public

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


def test_a_full_file_is_read() -> None:
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


def test_case_and_whitespace_do_not_matter() -> None:
    lines = (
        "\ufeff \t[ InterFace ]\r\n\tprivatekey="
        f"{PRIVATE[:9]} {PRIVATE[9:]}\r\n  LISTEN port  =  1 2 \r\n[PEER]\r\npublickey={PUBLIC}"
    )
    config = parse(lines)
    assert config.interface.private_key == PrivateKey.from_base64(PRIVATE)
    assert config.interface.listen_port == 12
    assert config.peers[0].public_key == PublicKey.from_base64(PUBLIC)


def test_what_is_absent_is_none() -> None:
    config = parse(f"[Interface]\nPrivateKey={PRIVATE}\n[Peer]\nPublicKey={PUBLIC}\n")
    assert config.interface.listen_port is None
    assert config.interface.mtu is None
    assert config.peers[0].endpoint is None
    assert config.peers[0].persistent_keepalive is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("off", 0),
        ("OFF", 0),
        ("0", 0),
        ("51820", 51820),
        ("0xFF", 255),
        ("0x00000000ff", 255),
        ("010", 10),
        ("0xffffffff", 0xFFFFFFFF),
    ],
)
def test_fwmark(value: str, expected: int) -> None:
    assert parse(f"[Interface]\nFwMark={value}").interface.fwmark == expected


def test_signs_in_a_later_section_change_the_list_of_those_before() -> None:
    first = f"[Peer]\nPublicKey={PUBLIC}\nAllowedIPs=10.0.0.0/8, 10.1.0.0/16\n"
    for second, expected in (
        ("AllowedIPs=+10.2.0.0/16, -10.0.0.0/8", ["10.1.0.0/16", "10.2.0.0/16"]),
        ("AllowedIPs=10.2.0.0/16", ["10.2.0.0/16"]),
        ("", []),
    ):
        peers = parse(f"{first}[Peer]\n{second}\nPublicKey={PUBLIC}").peers
        assert [str(allowed) for allowed in peers[1].allowed_ips] == expected


def test_plus_and_minus_change_the_list() -> None:
    text = f"[Peer]\nPublicKey={PUBLIC}\nAllowedIPs=10.0.0.0/8,+10.1.0.0/16,-10.0.0.0/8"
    assert parse(text).peers[0].allowed_ips == (AllowedIP(ip_network("10.1.0.0/16")),)


def interface(line: str) -> str:
    return f"[Interface]\n{line}"


def peer(line: str) -> str:
    return f"[Peer]\nPublicKey = {PUBLIC}\n{line}"


WRONG = [
    # text, line, column, message
    ("PrivateKey = x", 1, 1, "a key before the first [Interface] or [Peer]"),
    (
        "[Interfaces]",
        1,
        1,
        'unknown section [Interfaces]; there are [Interface] and [Peer]; did you mean "[Interface]"?',  # noqa: E501
    ),
    (
        "  [WireGuardPeer]",
        1,
        3,
        "unknown section [WireGuardPeer]; there are [Interface] and [Peer]",
    ),
    ("[Interface]\n\n  nonsense", 3, 3, 'expected "[Section]" or "Key = Value"'),
    ("[Interface]\n;x", 2, 1, 'expected "[Section]" or "Key = Value"'),
    (
        interface("PrivateKey = abc"),
        2,
        14,
        "PrivateKey: 3 characters, a key has 44 (32 bytes in base64)",
    ),
    (
        interface("PrivateKey ="),
        2,
        13,
        "PrivateKey: 0 characters, a key has 44 (32 bytes in base64)",
    ),
    (interface("  ListenPort =   99999"), 2, 18, "ListenPort: 99999 is not between 0 and 65535"),
    (interface("ListenPort = -1"), 2, 14, "ListenPort: expected a port from 0 to 65535"),
    (interface("ListenPort = \u0661"), 2, 14, "ListenPort: expected a port from 0 to 65535"),
    (
        interface("FwMark = 0x1ffffffff"),
        2,
        10,
        'FwMark: expected "off" or a number from 0 to 0xffffffff',
    ),
    (
        interface("FwMark = 4294967296"),
        2,
        10,
        'FwMark: expected "off" or a number from 0 to 0xffffffff',
    ),
    (interface("MTU = 67"), 2, 7, "MTU: 67 is not between 68 and 65535"),
    (
        interface("Address = 10.0.0.1/24, 10.0.0.300"),
        2,
        24,
        'Address: "10.0.0.300" is not an IP address with an optional /length',
    ),
    (
        interface("Address = 10.0.0.1/33"),
        2,
        11,
        'Address: "10.0.0.1/33" is not an IP address with an optional /length',
    ),
    (
        interface("Address = 10.0.0.1/255.0.0.0"),
        2,
        11,
        'Address: "10.0.0.1/255.0.0.0" is not an IP address with an optional /length',
    ),
    (
        interface("Address = 10.0.0.01/24"),
        2,
        11,
        'Address: "10.0.0.01/24" is not an IP address with an optional /length',
    ),
    (
        interface("Address = 10.0.0.1/024"),
        2,
        11,
        'Address: "10.0.0.1/024" is not an IP address with an optional /length',
    ),
    (
        interface("Address = fe80::1%eth0/64"),
        2,
        11,
        'Address: "fe80::1%eth0/64" is not an IP address with an optional /length',
    ),
    (interface("DNS = 1.1.1.1, 1.1.1"), 2, 16, 'DNS: "1.1.1" is not an IP address'),
    (interface("DNS = a b !"), 2, 11, 'DNS: "!" is no address and no domain'),
    (
        interface("Table = 0"),
        2,
        9,
        'Table: expected "auto", "off", "main" or the number of a routing table',
    ),
    (interface("SaveConfig = yes"), 2, 14, 'SaveConfig: expected "true" or "false"'),
    (interface("#!pywg PrivateKeyFile ="), 2, 24, "PrivateKeyFile: expected the name of a file"),
    (
        interface("PrivateKeyFile = x"),
        2,
        1,
        'PrivateKeyFile: is written as a comment, so that wg-quick can read the file: "#!pywg PrivateKeyFile = ..."',  # noqa: E501
    ),
    (interface("#!pywg ListenPort = 1"), 2, 8, 'ListenPort: is no extension; leave out "#!pywg"'),
    (
        interface("#!pywg EndpointFamily = ipv4"),
        2,
        8,
        "EndpointFamily: belongs in [Peer], not in [Interface]",
    ),
    (
        peer("#!pywg EndpointFamily = v4"),
        3,
        25,
        'EndpointFamily: expected "auto", "ipv4" or "ipv6"',
    ),
    (
        peer("#!pywg ExcludedIPs = 10.0.0.0/8, -11.0.0.0/8"),
        3,
        34,
        "ExcludedIPs: expected networks without + or -",
    ),
    (
        peer("#!pywg EndpointDns = inside"),
        3,
        22,
        'EndpointDns: expected "outside" or "tunnel"',
    ),
    (
        peer(f"#!pywg Name = {'x' * 65}"),
        3,
        15,
        "Name: expected a name of 1 to 64 printable characters",
    ),
    (peer("AllowedIPs = 10.0.0.1,,10.0.0.2"), 3, 23, "AllowedIPs: an empty item in the list"),
    (
        interface("AllowedIPs = 10.0.0.0/8"),
        2,
        1,
        "AllowedIPs: belongs in [Peer], not in [Interface]",
    ),
    (peer("ListenPort = 1"), 3, 1, "ListenPort: belongs in [Interface], not in [Peer]"),
    (peer("DNS = 1.1.1.1"), 3, 1, "DNS: belongs in [Interface], not in [Peer]"),
    (
        peer("AlowedIPs = 10.0.0.0/8"),
        3,
        1,
        'unknown key "AlowedIPs" in [Peer]; did you mean "AllowedIPs"?',
    ),
    (peer("Colour = blue"), 3, 1, 'unknown key "Colour" in [Peer]'),
    (
        peer("AllowedIPs = 10.0.0.0/8, banana"),
        3,
        26,
        'AllowedIPs: "banana" is not an IP address with an optional /length',
    ),
    (peer("Endpoint = example.com"), 3, 12, "Endpoint: expected HOST:PORT or [IPv6]:PORT"),
    (peer("Endpoint = example.com:"), 3, 12, "Endpoint: expected HOST:PORT or [IPv6]:PORT"),
    (peer("Endpoint = :5"), 3, 12, "Endpoint: expected HOST:PORT or [IPv6]:PORT"),
    (peer("Endpoint = [::1]"), 3, 12, "Endpoint: expected HOST:PORT or [IPv6]:PORT"),
    (peer("Endpoint = example.com:65536"), 3, 12, "Endpoint: 65536 is not between 0 and 65535"),
    (peer("Endpoint = example.com:no"), 3, 12, "Endpoint: expected a port from 0 to 65535"),
    (
        peer("Endpoint = 2001:db8::x:51820"),
        3,
        12,
        "Endpoint: an IPv6 address goes in brackets: [IPv6]:PORT",
    ),
    (
        peer("Endpoint = [1::2::3]:51820"),
        3,
        12,
        "Endpoint: the brackets do not hold an IPv6 address",
    ),
    (peer("Endpoint = 300.1.1.1:51820"), 3, 12, 'Endpoint: "300.1.1.1" is not an IPv4 address'),
    (
        peer("PersistentKeepalive = 65536"),
        3,
        23,
        'PersistentKeepalive: expected "off" or seconds from 0 to 65535',
    ),
    (
        peer("PersistentKeepalive = on"),
        3,
        23,
        'PersistentKeepalive: expected "off" or seconds from 0 to 65535',
    ),
    ("\n[Peer]\nAllowedIPs = 10.0.0.0/8", 2, 1, "[Peer] has no PublicKey"),
    (
        interface("Address = banana"),
        2,
        11,
        'Address: "banana" is not an IP address with an optional /length',
    ),
    (interface("MTU = big"), 2, 7, "MTU: expected a number from 68 to 65535"),
    (
        peer("PersistentKeepalive = 70000"),
        3,
        23,
        'PersistentKeepalive: expected "off" or seconds from 0 to 65535',
    ),
    (peer("Endpoint = [2001:db8::1:51820"), 3, 12, "Endpoint: the bracket is not closed"),
    (
        interface("#!pywg Backend = fast"),
        2,
        18,
        'Backend: expected "userspace", "kernel" or "auto"',
    ),
    (
        interface("#!pywg BindDevice = a/b"),
        2,
        21,
        "BindDevice: expected the name of a network interface",
    ),
    (
        interface("#!pywg Netns = a/b"),
        2,
        16,
        "Netns: expected the name of a network namespace, as in: ip netns list",
    ),
    (
        interface("#!pywg BindAddress = 10.0.0.1, 10.0.0.2"),
        2,
        22,
        "BindAddress: expected one IPv4 address, one IPv6 address or one of each",
    ),
    (interface("#!pywg KillSwitch = yes"), 2, 21, 'KillSwitch: expected "on", "off" or "lan"'),
    (
        interface("#!pywg Only = user:1, mallory"),
        2,
        23,
        "Only: expected user:NAME, group:NAME or cgroup:PATH",
    ),
    (
        interface("#!pywg Except = group:a b:c"),
        2,
        25,
        "Except: expected user:NAME, group:NAME or cgroup:PATH",
    ),
    (
        interface("#!pywg Only = user:4294967295"),
        2,
        15,
        "Only: expected the name or the number of a user",
    ),
    (
        interface('#!pywg Only = cgroup:a/../b"'),
        2,
        15,
        "Only: expected the path of a cgroup, as in: systemd-cgls",
    ),
    (interface("#!pywg MemoryLimit = 0"), 2, 22, "MemoryLimit: 0 is not between 1 and 1048576"),
    (
        interface("#!pywg BindAdress = 10.0.0.1"),
        2,
        8,
        'unknown key "BindAdress" in [Interface]; did you mean "BindAddress"?',
    ),
    (
        "[Peers]\nPublicKey = x",
        1,
        1,
        'unknown section [Peers]; there are [Interface] and [Peer]; did you mean "[Peer]"?',
    ),
    (interface("PrivateKey = " + "!" * 44), 2, 14, "PrivateKey: not base64"),
    (
        interface("PrivateKey = " + "A" * 42 + "B="),
        2,
        14,
        "PrivateKey: not 32 bytes in canonical base64",
    ),
    (interface("#!pywg Sesame = open"), 2, 8, 'unknown key "Sesame" in [Interface]'),
    (interface("? = 1"), 2, 1, "unknown key in [Interface]"),
    (interface("FwMark = 0XFF"), 2, 10, 'FwMark: expected "off" or a number from 0 to 0xffffffff'),
    (interface("ListenPort = 1\u20282"), 2, 14, "ListenPort: expected a port from 0 to 65535"),
]

# What wg knows nothing of.
WRONG_FOR_WG = [
    (
        interface("DNS = 1.1.1.1"),
        2,
        1,
        "DNS: only wg-quick knows this key; `pywg strip` leaves it out",
    ),
    (
        peer("PostUp = true"),
        3,
        1,
        "PostUp: only wg-quick knows this key; `pywg strip` leaves it out",
    ),
]


@pytest.mark.parametrize(("text", "line", "column", "message"), WRONG)
def test_errors_name_file_line_and_column(text: str, line: int, column: int, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "dir/wg0.conf")
    error = caught.value
    assert (error.path, error.line, error.column) == ("dir/wg0.conf", line, column)
    assert error.message == message
    assert str(error) == f"dir/wg0.conf:{line}:{column}: {message}"


def of_wg(line: str) -> bool:
    return all(row.reader == "wg" or row.name not in line for row in grammar.KEYS)


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [*WRONG_FOR_WG, *(case for case in WRONG if of_wg(case[0]) and "#!pywg" not in case[0])],
)
def test_a_file_for_wg_has_the_same_errors(text: str, line: int, column: int, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        setconf.parse(text, "dir/wg0.conf", append=False, warn=print)
    assert str(caught.value) == f"dir/wg0.conf:{line}:{column}: {message}"


def test_every_error_of_the_parser_is_in_the_table() -> None:
    """Each text in the source, its placeholders standing for anything, must have been seen."""
    seen = [message for _, _, _, message in [*WRONG, *WRONG_FOR_WG]]
    templates = [
        template
        for module in (parser, values, grammar)
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("BadValue", "self._problem")
        for template in [pattern(node.args[0])]
    ]
    assert len(templates) > 20
    assert [one for one in templates if not any(re.search(one, text) for text in seen)] == []


def pattern(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(map(pattern, node.values))
    return re.escape(str(node.value)) if isinstance(node, ast.Constant) else ".*"


def test_all_errors_are_told_at_once_each_with_its_line_and_a_caret() -> None:
    text = (
        f"[Interface]\nPrivateKey = {PRIVATE}x\n\tMTU = 1  # low\n[Peer]\nEndpoint = a:b\nMtu = 5\n"
    )
    with pytest.raises(ConfigError) as caught:
        parse(text, "wg0.conf")
    assert str(caught.value) == (
        "wg0.conf:2:14: PrivateKey: 45 characters, a key has 44 (32 bytes in base64)\n"
        "wg0.conf:3:8: MTU: 1 is not between 68 and 65535\n"
        "wg0.conf:4:1: [Peer] has no PublicKey\n"
        "wg0.conf:5:12: Endpoint: expected a port from 0 to 65535\n"
        "wg0.conf:6:1: MTU: belongs in [Interface], not in [Peer]"
    )
    lines = [picture.split("\n")[1:] for picture in caught.value.pictures()]
    assert lines == [
        [f"  PrivateKey = {'*' * 45}", "               ^"],
        ["  \tMTU = 1  # low", "  \t      ^"],
        ["  [Peer]", "  ^"],
        ["  Endpoint = a:b", "             ^"],
        ["  Mtu = *", "  ^"],
    ]


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
def test_errors_never_repeat_a_key(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    for start in range(0, 40, 4):
        assert PRIVATE[start : start + 6] not in "".join(caught.value.pictures())


def test_repr_of_a_configuration_hides_secrets() -> None:
    text = repr(parse(FULL))
    assert PRIVATE not in text
    assert PSK not in text
    assert PUBLIC in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (interface("MTU = 65500"), "1:1: warning: MTU: 65500 cannot fit in a UDP datagram"),
        (interface("Address = fd00::1\nMTU = 1279"), "1:1: warning: MTU: 1279 is below 1280"),
        (
            interface(f"PrivateKey={PRIVATE}\n[Peer]\nPublicKey={PRIVATE}"),
            "3:1: warning: PublicKey: this is the interface's PrivateKey",
        ),
        (
            interface(f"PrivateKey={PRIVATE}\n[Peer]\nPublicKey={OWN}"),
            "3:1: warning: PublicKey: this is the interface's own key",
        ),
        (peer("AllowedIPs = 10.0.0.5/24"), "3:14: warning: AllowedIPs: 10.0.0.5/24 has host bits"),
        (peer(f"[Peer]\nPublicKey={PUBLIC}"), "3:1: warning: the same peer as on line 1"),
        (
            peer(f"AllowedIPs=10.0.0.0/8\n[Peer]\nPublicKey={OTHER}\nAllowedIPs=10.0.0.0/8"),
            "6:12: warning: AllowedIPs: 10.0.0.0/8 is also on line 3",
        ),
        ("", "no PrivateKey"),
        (
            interface(f"PrivateKey={PUBLIC}"),
            "PrivateKey: it is not as `wg genkey` makes them, and may be a public key",
        ),
        (interface("DNS = ~corp.example"), "DNS: ~corp.example does nothing without the address"),
        (peer("Endpoint = a.example:0"), "3:12: warning: Endpoint: nothing can be sent to port 0"),
        (
            peer("Endpoint = 2001:db8::1:51820"),
            "an IPv6 address goes in brackets: [2001:db8::1]:51820 is meant",
        ),
        (peer("Endpoint = 10.1:5"), "3:12: warning: Endpoint: 10.1 is read as 10.0.0.1"),
    ],
)
def test_warnings(text: str, message: str) -> None:
    assert any(message in str(warning) for warning in parse(text).warnings)


def test_host_bits_are_masked() -> None:
    config = parse(peer("AllowedIPs = 10.0.0.5/24"))
    assert str(config.peers[0].allowed_ips[0]) == "10.0.0.0/24"


def test_positions_do_not_take_part_in_equality() -> None:
    text = peer("AllowedIPs = 10.0.0.0/8\nEndpoint = 1.2.3.4:5")
    assert parse(text) == parse("\n\n" + text)


def test_a_file_is_loaded_and_a_missing_one_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "wg0.conf"
    path.write_bytes(FULL.encode() + b"# caf\xe9\n")
    assert Config.load(path) == parse(FULL)
    with pytest.raises(PywgError, match="No such file"):
        Config.load(tmp_path / "none.conf")


def test_a_line_separator_of_unicode_is_not_a_new_line() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("[Interface]\n# one \u2028 two \x0b three\nMTU = x")
    assert caught.value.line == 3


def test_a_length_of_thousands_of_digits_is_an_error_with_its_place() -> None:
    with pytest.raises(ConfigError, match=r":2:9: Address: "):
        parse(f"[Interface]\nAddress=10.0.0.1/{'9' * 5000}\n")


def test_thousands_of_allowed_ips_take_no_time() -> None:
    networks = ",".join(f"10.{number >> 8}.{number & 255}.0/24" for number in range(8000))
    lines = "".join(f"AllowedIPs={network}\n" for network in networks.split(","))
    for text in (f"AllowedIPs={networks},{networks}\n", lines):
        began = time.process_time()
        parsed = parse(f"[Peer]\nPublicKey={PUBLIC}\n{text}")
        assert len(parsed.peers[0].allowed_ips) == 8000
        assert time.process_time() - began < 3


QUICK = f"""\
[Interface]
PrivateKey = {PRIVATE}
DNS = 10.0.0.1, corp.example fd00::53
DNS = lan
Table = 0x10
PreUp = echo "%i"; true   # not this
PostUp = a
PostUp = b = c
PreDown =
PostDown = d
SaveConfig = TRUE
#!pywg PrivateKeyFile = key
   #!pywg   BindDevice=eth0
#!pywg BindAddress = 192.0.2.1 2001:db8::1
#!pywg Backend = Userspace
#!pywg Netns = blue
#!pywg SocketNetns = red
#!pywg MemoryLimit = 16
#!pywgNetns = nothing
"""


def test_what_only_wg_quick_and_pywg_know() -> None:
    interface = parse(QUICK).interface
    assert [str(server) for server in interface.dns_servers] == ["10.0.0.1", "fd00::53"]
    assert interface.dns_search == ("corp.example", "lan")
    assert interface.table == 16
    assert interface.pre_up == ('echo "%i"; true   # not this',), "the shell knows comments"
    assert interface.post_up == ("a", "b = c")
    assert (interface.pre_down, interface.post_down) == ((), ("d",))
    assert interface.save_config
    assert str(interface.private_key_file) == "key"
    assert interface.bind_device == "eth0"
    assert [str(address) for address in interface.bind_addresses] == ["192.0.2.1", "2001:db8::1"]
    assert (interface.backend, interface.netns, interface.socket_netns) == (
        "userspace",
        "blue",
        "red",
    )
    assert interface.memory_limit == 16


def test_the_documentation_names_every_key_and_word() -> None:
    usage = (Path(__file__).parents[2] / "docs" / "USAGE.md").read_text()
    for row in grammar.KEYS:
        assert (f"`#!pywg {row.name} = " if row.is_extension else f"`{row.name}`") in usage
        assert row.word in usage
    for row in grammar.rows("Interface", "wg"):
        assert f"[{row.word} " in usage
    for row in grammar.rows("Peer", "wg"):
        assert f"[{row.word} " in usage


def test_rows_and_fields_belong_together() -> None:
    """Every field is read by one row; a name is one key; only what wg reads has a word in `set`."""
    for section, kind in (("Interface", InterfaceSection), ("Peer", PeerSection)):
        fields = [name for row in grammar.KEYS if row.section == section for name in row.fields]
        assert sorted(fields) == sorted(field.name for field in dataclasses.fields(kind))
    names = [row.name.lower() for row in grammar.KEYS]
    assert len(set(names)) == len(names)
    assert all(bool(row.word) == (row.reader == "wg") for row in grammar.KEYS)


@pytest.mark.parametrize("text", [FULL, QUICK, *(path.read_text() for path in CONFIGS)])
def test_a_configuration_is_written_and_read_again(text: str) -> None:
    config = parse(text)
    assert parse(document.rewrite("", config)) == as_written(config)


def as_written(config: Config) -> Config:
    """Off is left out, so is a key that lies in a file of its own; of a peer with several sections
    the last is written."""
    interface = dataclasses.replace(
        config.interface,
        private_key=None if config.interface.private_key_file else config.interface.private_key,
        listen_port=config.interface.listen_port or None,
        fwmark=config.interface.fwmark or None,
    )
    peers = {
        peer.public_key: dataclasses.replace(
            peer, persistent_keepalive=peer.persistent_keepalive or None
        )
        for peer in config.peers
    }
    return dataclasses.replace(config, interface=interface, peers=tuple(peers.values()))


@pytest.mark.parametrize(
    ("text", "table"),
    [("", "auto"), ("Auto", "auto"), ("OFF", "off"), ("main", 254), ("1234", 1234)],
)
def test_tables(text: str, table: int | str) -> None:
    assert parse(f"[Interface]\nTable = {text}").interface.table == table


def test_keys_come_from_files_and_an_open_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{PRIVATE}\n")
    (tmp_path / "psk").write_text(PSK)
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "psk").chmod(0o644)
    file = tmp_path / "wg0.conf"
    file.write_text(
        "[Interface]\n#!pywg PrivateKeyFile = key\n"
        f"[Peer]\nPublicKey={PUBLIC}\n#!pywg PresharedKeyFile={tmp_path}/psk\n"
    )
    config = Config.load(file)
    assert config.interface.private_key == PrivateKey.from_base64(PRIVATE)
    assert config.peers[0].preshared_key == PresharedKey.from_base64(PSK)
    told = [warning.message for warning in config.warnings]
    assert told == [f"{tmp_path}/psk can be read by others: chmod 600"]


def test_a_key_file_that_is_none_says_so_without_its_content(tmp_path: Path) -> None:
    (tmp_path / "wg0.conf").write_text("[Interface]\n#!pywg PrivateKeyFile = key\n")
    with pytest.raises(PywgError, match="key: No such file"):
        Config.load(tmp_path / "wg0.conf")
    (tmp_path / "key").write_text("sesame")
    with pytest.raises(PywgError) as caught:
        Config.load(tmp_path / "wg0.conf")
    expected = f"{tmp_path}/key: no key: 6 characters, a key has 44 (32 bytes in base64)"
    assert str(caught.value) == expected


def test_half_a_key_on_a_line_of_its_own_is_not_repeated() -> None:
    half = PrivateKey.generate().to_base64()[-28:]
    half = re.sub(r"[^A-Za-z0-9=]", "a", half)
    for text in (f"[Interface]\n{half}\n", f"[{half.strip('=')}]\n"):
        with pytest.raises(ConfigError) as caught:
            parse(text)
        said = "\n".join([str(caught.value), *caught.value.pictures()])
        assert half.strip("=") not in said


@pytest.mark.parametrize(
    "hook",
    [
        'x=eth0.5; echo "${x#eth0.}"',
        "echo a#b",
        "echo 'a  #  b' # c",
        "# nothing",
        r"printf '%s\n' \\#",
        "echo \xe9 # \u2028",
    ],
)
def test_a_hook_is_all_that_stands_behind_its_equals_sign(hook: str) -> None:
    for key in ("PreUp", "postup", "PREDOWN", "PostDown"):
        text = f"[Interface]\n{key} =  {hook} \t\r\n# {key} = no\n"
        found = parse(text).interface
        assert (*found.pre_up, *found.post_up, *found.pre_down, *found.post_down) == (hook,)


def left(allowed: str, excluded: str) -> list[str]:
    text = peer(f"AllowedIPs = {allowed}\n#!pywg ExcludedIPs = {excluded}")
    return list(map(str, parse(text).peers[0].networks))


@pytest.mark.parametrize(
    ("allowed", "excluded", "expected"),
    [
        ("10.0.0.0/8", "10.0.0.0/9", ["10.128.0.0/9"]),
        ("10.0.0.0/30", "10.0.0.1", ["10.0.0.0/32", "10.0.0.2/31"]),
        ("10.0.0.0/8, 11.0.0.0/8", "10.0.0.0/8", ["11.0.0.0/8"]),
        ("10.0.0.0/8", "0.0.0.0/0", []),
        ("10.0.0.0/8, fd00::/8", "fd00::/9, 10.0.0.0/9", ["10.128.0.0/9", "fd80::/9"]),
        ("10.0.0.0/8", "11.0.0.0/8, ::/0", ["10.0.0.0/8"]),
    ],
)
def test_what_is_excluded_is_taken_out_of_what_is_allowed(
    allowed: str, excluded: str, expected: list[str]
) -> None:
    assert left(allowed, excluded) == expected


def test_the_rest_of_everything_is_everything_else() -> None:
    networks = left("0.0.0.0/0", "192.168.0.0/16, 10.0.0.0/8")
    assert sum(ip_network(network).num_addresses for network in networks) == 2**32 - 2**16 - 2**24
    assert len(networks) == 16 - 1 + 7


def test_a_minus_that_takes_nothing_away_is_warned_of_with_the_remedy() -> None:
    said = parse(peer("AllowedIPs = 0.0.0.0/0, -192.168.0.0/16")).warnings
    (warning,) = (one for one in said if "AllowedIPs" in one.message)
    assert "-192.168.0.0/16 takes nothing away" in str(warning)
    assert "#!pywg ExcludedIPs = 192.168.0.0/16" in str(warning)
    fine = parse(peer("AllowedIPs = 10.0.0.0/8, 11.0.0.0/8, -10.0.0.0/8")).warnings
    assert not [one for one in fine if "AllowedIPs" in one.message]
