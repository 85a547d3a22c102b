"""`pywg up` and `down` beside the real wg-quick: the same file leaves the same addresses, routes,
rules, guard, names and keys; and afterwards everything is as it was before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.lab.host import Host, hosted
from tools.lab.namespaces import unique
from tools.lab.programs import Program

pytestmark = pytest.mark.pywgd_only

PRIVATE = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
PEERS = [
    "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
    "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=",
]
PSK = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE="


def file(interface: str, *peers: str) -> str:
    sections = [
        f"[Peer]\nPublicKey={key}\n{peer}\n" for key, peer in zip(PEERS, peers, strict=False)
    ]
    return f"[Interface]\nPrivateKey = {PRIVATE}\n{interface}\n" + "".join(sections)


FILES = {
    "nothing": file(""),
    "split": file(
        "Address = 10.9.0.2/24\nListenPort = 51820",
        f"AllowedIPs = 10.9.0.0/24, 10.20.0.0/16\nPresharedKey = {PSK}\nEndpoint = 192.0.2.2:51820",
    ),
    "longest first": file(
        "Address = 10.9.0.2/32", "AllowedIPs = 10.0.0.0/8, 10.1.0.0/16", "AllowedIPs = 10.1.1.0/24"
    ),
    "full": file(
        "Address = 10.9.0.2/32\nDNS = 10.9.0.1",
        "AllowedIPs = 0.0.0.0/0\nEndpoint = 192.0.2.2:51820\nPersistentKeepalive = 25",
    ),
    "full, both families": file(
        "Address = 10.9.0.2/24, fd99::2/64\nDNS = 10.9.0.1, fd99::1, corp.example, lab.example",
        "AllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = [2001:db8::2]:51820",
        "AllowedIPs = 10.30.0.0/16, fd30::/32",
    ),
    "full, IPv6 alone": file("Address = fd99::2/128", "AllowedIPs = ::/0"),
    "full, without an address": file("", "AllowedIPs = 0.0.0.0/0"),
    "full, with a mark": file(
        "Address = 10.9.0.2/32\nFwMark = 0x1234", "AllowedIPs = 0.0.0.0/0, ::/0"
    ),
    "two halves": file(
        "Address = 10.9.0.2/32", "AllowedIPs = 0.0.0.0/1, 128.0.0.0/1, ::/1, 8000::/1"
    ),
    "table off": file("Address = 10.9.0.2/32\nTable = off", "AllowedIPs = 0.0.0.0/0, 10.1.0.0/16"),
    "table by number": file(
        "Address = 10.9.0.2/24\nTable = 1234", "AllowedIPs = 0.0.0.0/0, 10.9.0.0/24, ::/0"
    ),
    "mtu and mark": file(
        "Address = 10.9.0.2/24\nMTU = 1280\nFwMark = 7", "AllowedIPs = 10.1.0.0/16"
    ),
    "several addresses": file(
        "Address = 10.9.0.2/24, 10.9.0.3/24\nAddress = fd99::2/64,fd99::3/128",
        "AllowedIPs = 10.9.0.7/32, fd99::/64, fd98::/64",
    ),
    "hooks": file(
        "Address = 10.9.0.2/24\n"
        "PreUp = echo pre %i $INTERFACE >> $HOOKS\n"
        "PostUp = ip -4 -o address show %i | wc -l >> $HOOKS\n"
        "PostUp = false || echo second %i %i >> $HOOKS\n"
        "PreDown = ip route add 203.0.113.0/24 dev %i\n"
        "PreDown = [[ -e /sys/class/net ]] && echo pre down >> $HOOKS\n"
        "PostDown = echo post down %i >> $HOOKS",
        "AllowedIPs = 10.1.0.0/16",
    ),
}
CORPUS = sorted((Path(__file__).parents[1] / "data" / "configs").glob("*.conf"))
# Appends what it is told, with its input.
RESOLVCONF = '[[ $1 == -l ]] || echo "resolvconf $*" >> $CALLS; [[ $1 != -a ]] || cat >> $CALLS'


@pytest.fixture(scope="module")
def host(subject: Program, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with hosted(tmp_path_factory.mktemp("host")) as made:
        made.program("resolvconf", RESOLVCONF.replace("$CALLS", str(made.directory / "calls")))
        yield made


def said(host: Host, name: str) -> str:
    path = host.directory / name
    text = path.read_text() if path.exists() else ""
    path.unlink(missing_ok=True)
    return text


def life(host: Host, tool: Any, path: Path, name: str) -> dict[str, Any]:
    """Up and down; what could be seen in between, and that it is gone afterwards."""
    before = host.look(name)
    tool("up", str(path))
    seen = {**host.look(name), "showconf": host.showconf(name)}
    del seen["left"]
    if "listenport" not in path.read_text().lower():  # then it is a random one
        seen["showconf"] = [line for line in seen["showconf"] if not line.startswith("ListenPort")]
    tool("down", str(path))
    assert host.look(name) == before
    seen["resolvconf"] = said(host, "calls")
    seen["hooks"] = said(host, "hooks")
    return seen


def compare(host: Host, text: str) -> None:
    name = unique("q")
    path = host.config(name, text.replace("$HOOKS", str(host.directory / "hooks")))
    theirs = life(host, host.wg_quick, path, name)
    host.run("sysctl", "-q", "net.ipv4.conf.all.src_valid_mark=0")
    ours = life(host, host.pywg, path, name)
    for what, expected in theirs.items():
        assert ours[what] == expected, what


@pytest.mark.parametrize("what", FILES)
def test_the_same_as_wg_quick(host: Host, what: str) -> None:
    compare(host, FILES[what])


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_files_of_the_corpus_are_the_same_as_with_wg_quick(host: Host, path: Path) -> None:
    with path.open(newline="") as text:
        compare(host, text.read())


def test_a_table_that_is_taken_is_passed_over(host: Host) -> None:
    host.namespace.ip("route", "add", "198.51.100.0/24", "dev", "veth", "table", "51820")
    host.namespace.ip("-6", "route", "add", "fd77::/64", "dev", "veth", "table", "51821")
    compare(host, FILES["full"])
    host.namespace.ip("route", "flush", "table", "51820")
    host.namespace.ip("-6", "route", "flush", "table", "51821")


def test_two_full_tunnels_may_go_in_any_order(host: Host) -> None:
    names = [unique("q"), unique("q")]
    text = FILES["full, both families"]
    other = text.replace("10.9.0.", "10.8.0.").replace("fd99:", "fd88:").replace("30", "31")
    paths = [host.config(names[0], text), host.config(names[1], other)]
    before = host.look("")
    host.pywg("up", str(paths[0]))
    one = host.look("")
    host.pywg("up", str(paths[1]))
    host.pywg("down", str(paths[1]))
    assert host.look("") == one
    host.pywg("up", str(paths[1]))
    host.pywg("down", names[0])
    priorities = [rule["priority"] for rule in host.look("")["rules -4"]]
    assert len(priorities) == 5, "those of the second tunnel"
    host.pywg("down", names[1])
    assert host.look("") == before


def test_down_takes_down_what_wg_quick_brought_up(host: Host) -> None:
    name = unique("q")
    path = host.config(name, FILES["full, both families"])
    before = host.look(name)
    host.wg_quick("up", str(path))
    host.pywg("down", str(path))
    assert host.look(name) == before


def test_wg_quick_takes_down_most_of_what_pywg_brought_up(host: Host) -> None:
    """All but its record and its guard, which `pywg up` removes when it comes again."""
    name = unique("q")
    path = host.config(name, FILES["full, both families"])
    before = host.look(name)
    host.pywg("up", str(path))
    host.wg_quick("down", str(path))
    after = host.look(name)
    for what in ("addresses", "rules -4", "rules -6", "routes -4", "routes -6"):
        assert after[what] == before[what]
    host.pywg("up", str(path))
    host.pywg("down", str(path))
    assert host.look(name) == before
