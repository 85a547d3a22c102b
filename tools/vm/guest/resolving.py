"""`DNS =` with the real systemd-resolved: the tunnel's server is asked while the tunnel is up."""

from __future__ import annotations

from tools.lab.namespaces import run
from tools.lab.waiting import wait_until
from tools.vm.guest import place
from tools.vm.guest.far import ELSEWHERE, INSIDE, OUTSIDE, OUTSIDE_ADDRESS
from tools.vm.guest.place import EVERY, FAR, PATIENCE, UPLINK
from tools.vm.guest.pywg_here import pywg

SERVER = "10.99.1.2"


def resolved() -> str:
    """A name that only the tunnel's server knows; before, meanwhile and after."""
    run("resolvectl", "dns", UPLINK, FAR)
    run("resolvectl", "domain", UPLINK, "~.")
    try:
        wait_until(
            lambda: asked(OUTSIDE) == OUTSIDE_ADDRESS, "the uplink's server", PATIENCE, EVERY
        )
        assert asked(INSIDE) == "", "the name is known without the tunnel"
        place.write_config(1, f"DNS = {SERVER}, corp.pywg.example")
        pywg("up", "wg1")
        try:
            wait_until(lambda: asked(INSIDE) == SERVER, "the tunnel's server", PATIENCE, EVERY)
            assert looked_up(INSIDE) == SERVER, "getaddrinfo does not know what resolved knows"
            seen = run("resolvectl", "status", "wg1")
            assert "corp.pywg.example" in seen, seen
        finally:
            pywg("down", "wg1")
        check_split()
        assert asked(INSIDE) == "", "the name is still known without the tunnel"
        assert asked(OUTSIDE) == OUTSIDE_ADDRESS, "the uplink's server is no longer asked"
    finally:
        run("resolvectl", "revert", UPLINK)
    return "resolvectl and getent ask the tunnel's server, of ~domain alone; before and after not"


def check_split() -> None:
    """Names of one domain go to the tunnel's server, and no others."""
    place.write_config(1, f"DNS = {SERVER}, ~{INSIDE}")
    pywg("up", "wg1")
    try:
        wait_until(lambda: asked(INSIDE) == SERVER, "the tunnel's server", PATIENCE, EVERY)
        assert asked(ELSEWHERE) == "", "the tunnel's server is asked for a name of others"
        assert asked(OUTSIDE) == OUTSIDE_ADDRESS, "the uplink's server is not asked"
    finally:
        pywg("down", "wg1")


def asked(name: str) -> str:
    """The IPv4 address as resolved has it, without its cache; or nothing."""
    said = run("resolvectl", "query", "-4", "--cache=no", "--legend=no", name, check=False)
    words = said.partition(": ")[2].split()
    return words[0] if words else ""


def looked_up(name: str) -> str:
    """As programs do it: by nsswitch and resolv.conf."""
    words = run("getent", "ahostsv4", name, check=False).split()
    return words[0] if words else ""
