"""`--backend kernel`: a whole life by the kernel's driver, then by the userspace one, and back. And
wg-quick beside pywg."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator

from tools.lab.namespaces import run
from tools.vm.guest import place
from tools.vm.guest.place import check_traffic, systemctl
from tools.vm.guest.pywg_here import pywg

NAME = "wg1"


def backend() -> str:
    shown = {}
    for choice in ("kernel", "userspace"):
        with tunnel(choice):
            shown[choice] = plain(pywg("show", NAME))
            assert plain(run("wg", "show", NAME)) == shown[choice], "wg show differs"
            check_changes()
    with tunnel("kernel"):
        pass
    assert shown["kernel"] == shown["userspace"], f"{shown}"
    return "up, show, set, reload, down by kernel and userspace, kernel again; show says the same"


@contextlib.contextmanager
def tunnel(choice: str) -> Iterator[None]:
    place.write_config(1, "ListenPort = 51999")
    pywg("up", "--backend", choice, NAME)
    try:
        assert driver(NAME) == {"kernel": "wireguard", "userspace": "tun"}[choice]
        check_traffic(1)
        yield
    finally:
        pywg("down", NAME)
    assert not place.interface_is_there(NAME), f"{NAME} is still there"


def check_changes() -> None:
    """`set` changes what runs; `reload` takes it back to the file, and the session lives on."""
    before = place.handshake(1)
    pywg("set", NAME, "peer", place.keys(1).far_public, "persistent-keepalive", "7")
    assert place.keepalive(1) == "7"
    place.write_config(1, "ListenPort = 51999", "MTU = 1400")
    pywg("reload", NAME)
    assert place.keepalive(1) == "off"
    assert link(NAME)["mtu"] == 1400
    assert place.echoes("10.99.1.2", 3), "the session did not survive the reload"
    assert place.handshake(1) == before, "a reload began a handshake"


def plain(shown: str) -> str:
    """Without what two runs may differ in."""
    return re.sub(r"(latest handshake|transfer): .*", r"\1", shown)


def beside() -> str:
    """wg1 of wg-quick by the kernel's driver, wg0 of pywg; either goes, and the other goes on."""
    place.settle(0)
    place.write_config(1)
    run("wg-quick", "up", NAME, timeout=place.PATIENCE)
    try:
        assert driver(NAME) == "wireguard"
        assert driver("wg0") == "tun"
        check_traffic(0)
        check_traffic(1)
        assert set(run("wg", "show", "interfaces").split()) == {"wg0", NAME}
        systemctl("stop", place.unit(0))
        check_traffic(1)
        systemctl("start", place.unit(0))
        check_traffic(0)
    finally:
        run("wg-quick", "down", NAME, timeout=place.PATIENCE)
    check_traffic(0)
    return "wg-quick and pywg: traffic of both, and of the other after each was taken down"


def link(name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(run("ip", "-d", "-j", "link", "show", name))[0]
    return found


def driver(name: str) -> str:
    info = link(name)["linkinfo"]
    assert isinstance(info, dict)
    return str(info["info_kind"])
