"""Files as pywgd reads them by itself, without Python: `pywgd check` beside pywg/config, on the
same texts. Verdict, line, column, words and values are the same.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pywg.config.parser import read_sections
from pywg.errors import ConfigError
from pywg.wireguard.changes import NO_PRIVATE_KEY, Changes, PeerChange
from pywg.wireguard.setconf import _peer_change
from pywg.wireguard.uapi import changes_text
from tools.lab import programs

KEY = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
OTHER = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
PEER = f"[Interface]\nPrivateKey = {KEY}\n[Peer]\nPublicKey = {OTHER}\n"

# Right and wrong, one key each: the text stands behind `=` in a file that is right without it.
VALUES: dict[str, list[str]] = {
    "PrivateKey": [
        KEY,
        KEY[:-1],
        f"{KEY[:20]} {KEY[20:]}",
        KEY[:-2] + "l=",
        "",
        "é" + KEY[1:],
        "A" * 44,
        "A" * 42 + "==",
        "=" * 44,
        KEY[:20] + "=" + KEY[21:],
    ],
    "ListenPort": ["0", "51820", "65535", "65536", "+5", "0005", "-1", "0x10", "", "99999999999"],
    "FwMark": [
        "off",
        "OFF",
        "0",
        "0xca6c",
        "0xffffffff",
        "0x100000000",
        "4294967296",
        "0x",
        "0X1",
        "0x000000000000001",
        "x",
        "",
    ],
    "Address": [
        "10.0.0.1/24",
        "fd00::1",
        "10.0.0.1/24, fd00::1/64",
        "10.0.0.1/024",
        "10.0.0.1/33",
        "10.0.0.1/255.255.255.0",
        "fe80::1%eth0/64",
        "10.0.0.1/24 10.0.0.2/24",
        "",
        "x",
        "1.2.3.4::/64",
        "::1.2.3.4/64",
        "01.2.3.4/8",
        "10.0.0.1/",
        "10.0.0.1/8/8",
    ],
    "MTU": ["1420", "68", "67", "65536", "", "x", "1 420"],
    "DNS": [
        "1.1.1.1",
        "1.1.1.1, example.org ~corp",
        "1.1.1.1.1",
        "fe80::1%eth0",
        "a_b",
        "-x",
        "~",
        "ex!ample",
        "1.2.3.4::",
        "x" * 253,
        "x" * 254,
    ],
    "Table": ["auto", "off", "main", "51820", "0", "0x1f", "4294967295", "4294967296", "x", ""],
    "SaveConfig": ["true", "false", "TRUE", "yes", ""],
    "PublicKey": [OTHER, OTHER[:-1]],
    "PresharedKey": [KEY, "not a key", "(none)"],
    "AllowedIPs": [
        "10.0.0.0/8",
        "10.1.2.3/8, ::/0",
        "10.0.0.0",
        "::",
        "10.0.0.0/8,",
        ", 10.0.0.0/8",
        "+10.0.0.0/8, -::/0",
        "10.0.0.0/33",
        "10.0.0.0/+8",
        "10.0.0.0/08",
        "x",
        "",
        "10.0.0.0/8 , 1 0.0.0.1 / 32",
        "1.2.3.4::/8",
        "64:ff9b::1.2.3.4/128",
        "-",
        "10.0.0.0/",
    ],
    "Endpoint": [
        "192.0.2.1:51820",
        "[2001:db8::1]:51820",
        "2001:db8::1:51820",
        "[fe80::1%eth0]:5",
        "192.0.2.1",
        "192.0.2.1:",
        ":5",
        "[2001:db8::1]",
        "[2001:db8::1:5",
        "[x::y]:5",
        "10.1:5",
        "010.0.0.1:5",
        "256.1.1.1:5",
        "1.2.3.4:0",
        "1.2.3.4:65536",
        "[1.2.3.4]:5",
        "fe80::1%:5",
        "[::1%a%b]:5",
        "[]:5",
        "1.2.3.4:5 ",
        "1.2.3.4 : 5",
        "",
    ],
    "PersistentKeepalive": ["off", "0", "25", "65535", "65536", "x", "25s", ""],
    "#!pywg BindDevice": ["eth0", "a/b", "x" * 16, ".."],
    "#!pywg BindAddress": [
        "192.0.2.1",
        "192.0.2.1, 2001:db8::1",
        "192.0.2.1, 192.0.2.2",
        "host",
        "",
    ],
    "#!pywg MemoryLimit": ["16", "0", "1048577", "x"],
    "#!pywg Backend": ["userspace", "auto", "x"],
    "#!pywg KillSwitch": ["off", "x"],
    "#!pywg Netns": ["a/b", "", ".."],
    "#!pywg Pool": ["10.0.0.0/24, fd00::/64", "+10.0.0.0/24", "x"],
    "#!pywg PublicEndpoint": ["vpn.example.org:51820", "x"],
    "#!pywg ClientDNS": ["1.1.1.1 example.org", "1.1.1.1.1"],
    "#!pywg PrivateKeyFile": [""],
    "#!pywg Name": ["laptop", "a name # of two words", "", "x" * 65],
    "#!pywg Replaces": [KEY, "x"],
    "#!pywg EndpointFamily": ["auto", "IPv6", "ipv5"],
    "#!pywg EndpointDns": ["tunnel", "outside", "x"],
    "#!pywg ExcludedIPs": ["", "+10.0.0.0/8", "x"],
}
OF_A_PEER = (
    "PublicKey",
    "PresharedKey",
    "AllowedIPs",
    "Endpoint",
    "PersistentKeepalive",
    "Name",
    "Replaces",
    "EndpointFamily",
    "EndpointDns",
    "ExcludedIPs",
)

FILES = {
    "empty": "",
    "only spaces": " \t\r\n\v\n",
    "a byte order mark": "\ufeff" + PEER,
    "windows": PEER.replace("\n", "\r\n"),
    "a string of C ends": PEER + "AllowedIPs = 10.0.0.0/8\0 nonsense\n",
    "comments": "# a\n[Interface] # b\nPrivateKey = " + KEY + " # c\n#!pywgx Foo = 1\n",
    "no section": "ListenPort = 1\n",
    "no equals sign": "[Interface]\nListenPort\n",
    "an unknown section": "[Interface]\n[Pear]\nPublicKey = x\n[WireGuardPeer]\n[x y]\n[\n[]\n",
    "sections in any case": f"[ INTERFACE ]\nprivatekey={KEY}\n[pEEr]\nPUBLICKEY={OTHER}\n",
    "two interfaces": f"[Peer]\nPublicKey={KEY}\n[Interface]\nMTU=80\n[Interface]\nFwMark=2\n",
    "no public key": "[Peer]\nEndpoint = x\n\n[Peer]\n",
    "a bad public key": "[Peer]\nPublicKey = x\n",
    "said twice": PEER + f"PublicKey = {KEY}\nEndpoint = 1.2.3.4:5\nEndpoint = 1.2.3.4:6\n",
    "signs": PEER + "AllowedIPs = 10.0.0.0/8\nAllowedIPs = +11.0.0.0/8, -10.0.0.0/8\n",
    "signs, then none": PEER + "AllowedIPs = +10.0.0.0/8\nAllowedIPs = 11.0.0.0/8\n",
    "no allowed ips": PEER + "AllowedIPs =\n",
    "keys in the wrong place": PEER + "ListenPort = 1\n[Interface]\nAllowedIPs = ::/0\n",
    "no extension": PEER + "Name = x\n#!pywg PublicKey = x\n#!pywg Netns = x\n#!pywg [Peer]\n",
    "mistyped": "[Interface]\nPrivatKey = x\nAdress = x\nPSK = x\nPost-Up = x\n"
    "[Peer]\nAlowedIPs = x\nAllowed IPs = ::/0\nEndpont = x\nAllowed_IPs = x\nx y z = x\n"
    + KEY
    + " = x\n",
    "letters of two bytes": "[Interface]\nPrivateKey = éé x\n  éé = 1\né x\n",
    "many mistakes": "".join(f"[Peer]\nEndpoint = {n}\n" for n in range(45)),
}


@dataclass
class Said:
    """What one of the two makes of a text: what is wrong, what is odd, and if nothing is wrong the
    values."""

    wrong: list[str]
    odd: list[str]
    values: list[str]


def by_python(text: str) -> Said:
    try:
        said = read_sections(text, "F", ("wg", "wg-quick", "pywg"))
    except ConfigError as error:
        return Said(str(error).splitlines(), [], [])
    interface = said.interface.values()
    device = Changes(NO_PRIVATE_KEY, listen_port=0, fwmark=0, replace_peers=True)
    given: dict[str, Any] = {"bind_addresses": ()} | {
        name: interface[name]
        for name in ("private_key", "listen_port", "fwmark", "bind_device", "bind_addresses")
        if name in interface
    }
    peers = tuple(
        _peer_change({k: v for k, v in peer.values().items() if k in PEER_KEYS}, replaces=True)
        for peer in said.peers
    )
    changes = Changes(**{**vars_of(device), **given, "peers": peers})
    return Said([], [str(warning) for warning in said.warnings], hidden(changes_text(changes)))


PEER_KEYS = [*PeerChange.__dataclass_fields__]


def vars_of(changes: Changes) -> dict[str, Any]:
    return {name: getattr(changes, name) for name in Changes.__dataclass_fields__}


def hidden(text: str) -> list[str]:
    """Without keys, and without the two lines that Python leaves out where pywgd says "none"."""
    lines = re.sub(r"(private_key|preshared_key)=.*", r"\1=(hidden)", text).splitlines()
    return [line for line in lines if line not in ("pywg_bind_device=", "pywg_bind_address=")]


def by_pywgd(path: Path, text: str) -> Said:
    """Without what only pywgd says: which keys it does not do."""
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    path.chmod(0o600)
    answer = subprocess.run(
        [programs.subject().path, "check", "--no-hooks", path], capture_output=True, check=False
    )
    lines = answer.stderr.decode("utf-8", "replace").replace(str(path), "F").splitlines()
    lines = [line for line in lines if ": not done: " not in line]
    odd = [line for line in lines if ": warning: " in line]
    wrong = [line for line in lines if line not in odd]
    assert answer.returncode == (1 if wrong else 0), answer
    values = [
        line for line in answer.stdout.decode().splitlines() if not re.match("address=|mtu=", line)
    ]
    return Said(wrong, [] if wrong else odd, hidden("\n".join(values)))


def compare(path: Path, text: str) -> None:
    assert by_pywgd(path, text) == by_python(text)


@pytest.mark.parametrize("key", VALUES)
def test_values_are_read_as_python_reads_them(tmp_path: Path, key: str) -> None:
    for value in VALUES[key]:
        section = "" if key.removeprefix("#!pywg ") in OF_A_PEER else "[Interface]\n"
        compare(tmp_path / "f.conf", f"{PEER}{section}{key} = {value}\n")


@pytest.mark.parametrize("name", FILES)
def test_files_are_read_as_python_reads_them(tmp_path: Path, name: str) -> None:
    compare(tmp_path / "f.conf", FILES[name])


PIECES = st.sampled_from(
    [
        *(f"{key} = {value}" for key, some in VALUES.items() for value in some),
        *(f"[{name}]" for name in ("Interface", "Peer", "peer", "Pear", "")),
        *("# comment", "", " ", "=", "x", "\u00e9 = \u00e9", "PostUp = echo # x", "\ufeff", "\0"),
    ]
)
NOISE = st.text(alphabet="abPubKey[]=#,:./0123 \t\r\u00e9+-%", max_size=30)


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.one_of(PIECES, PIECES, PIECES, NOISE), max_size=14))
def test_any_text_is_read_as_python_reads_it(tmp_path: Path, lines: list[str]) -> None:
    compare(tmp_path / "f.conf", "\n".join(lines))
