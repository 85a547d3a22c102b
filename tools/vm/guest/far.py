"""The far end of every tunnel: a namespace with the kernel's driver and a name server. A service of
the guest, which stays for the name server."""

from __future__ import annotations

import json
import threading

from pywg.service import notify
from tools.lab.nameserver import NameServer
from tools.lab.namespaces import Namespace, add_address, run
from tools.vm.guest.place import FAR, KEYS, NEAR, TUNNELS, UPLINK, Keys, keys

# What every server here knows, and what only that of a tunnel knows: itself, by two names.
OUTSIDE, OUTSIDE_ADDRESS = "outside.pywg.example", "198.51.100.7"
INSIDE = "inside.pywg.example"
ELSEWHERE = "elsewhere.pywg.example"


def main() -> None:
    make_keys()
    far = Namespace("far")
    far.ip("link", "add", "far0", "type", "veth", "peer", "name", UPLINK, "netns", "1")
    add_address(far, "far0", f"{FAR}/24")
    far.ip("link", "set", "far0", "up")
    run("ip", "address", "add", f"{NEAR}/24", "dev", UPLINK)
    run("ip", "link", "set", UPLINK, "up")
    run("ip", "route", "add", "default", "via", FAR, "dev", UPLINK)
    for number in range(TUNNELS):
        make_tunnel(far, number, keys(number))
        address = f"10.99.{number}.2"
        known = {OUTSIDE: [OUTSIDE_ADDRESS], INSIDE: [address], ELSEWHERE: [address]}
        NameServer(far, address, **known)
    NameServer(far, FAR, **{OUTSIDE: [OUTSIDE_ADDRESS]})
    notify.ready()
    threading.Event().wait()


def make_keys() -> None:
    """Once for both boots: the files of the tunnels hold them."""
    if KEYS.exists():
        return
    KEYS.parent.mkdir(parents=True, exist_ok=True)
    made = []
    for _ in range(2 * TUNNELS):
        private = run("wg", "genkey").strip()
        made.append((private, run("wg", "pubkey", text=private).strip()))
    KEYS.write_text(json.dumps(made))


def make_tunnel(far: Namespace, number: int, own: Keys) -> None:
    name = f"wg{number}"
    far.ip("link", "add", name, "type", "wireguard")
    text = (
        f"[Interface]\nPrivateKey = {own.far_private}\nListenPort = {51820 + number}\n"
        f"[Peer]\nPublicKey = {own.near_public}\n"
        f"AllowedIPs = 10.99.{number}.1/32, fd99:{number}::1/128\n"
    )
    far.run("wg", "setconf", name, "/dev/stdin", text=text)
    add_address(far, name, f"10.99.{number}.2/24")
    add_address(far, name, f"fd99:{number}::2/64")
    far.ip("link", "set", name, "up")


if __name__ == "__main__":
    main()
