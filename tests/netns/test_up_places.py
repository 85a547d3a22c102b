"""`pywg up` in places that lack something, and across network namespaces."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pywg.plan.build import NO_IPV6
from tools.lab import programs
from tools.lab.daemon import is_listening, socket_path
from tools.lab.host import RESOLV_CONF, Host
from tools.lab.lab import Lab
from tools.lab.namespaces import unique
from tools.lab.traffic import ping
from tools.lab.waiting import wait_until

from .test_up_compare import FILES, file

pytestmark = pytest.mark.pywgd_only


def up(host: Host, path: Path, *prefix: str) -> list[str]:
    """Its warnings."""
    command = [*prefix, sys.executable, "-m", "pywg", "up", str(path)]
    answer = host.attempt(*command)
    assert answer.returncode == 0, answer.stderr
    return [line for line in answer.stderr.splitlines() if line.startswith("[!]")]


READ_ONLY = "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys"


def read_only(host: Host, path: Path) -> list[str]:
    """As up, where /proc/sys cannot be written."""
    return up(host, path, "unshare", "--mount", "sh", "-c", f'{READ_ONLY} && exec "$@"', "sh")


def test_a_tunnel_that_carries_ipv6_is_given_it_where_new_interfaces_have_none(host: Host) -> None:
    host.run("sysctl", "-q", "net.ipv6.conf.default.disable_ipv6=1")
    name = unique("p")
    before = host.look(name)
    assert up(host, host.config(name, FILES["full, both families"])) == []
    seen = host.namespace.ip("-6", "address", "show", "dev", name)
    assert "fd99::2/64" in seen
    assert name in host.namespace.ip("-6", "route", "get", "2001:db8:9::1")
    host.pywg("down", name)
    assert host.look(name) == before


def test_ipv6_that_cannot_be_switched_on_is_blocked_and_does_not_leave_in_clear(host: Host) -> None:
    host.run("sysctl", "-q", "net.ipv6.conf.default.disable_ipv6=1")
    name = unique("p")
    before = host.look(name)
    path = host.config(name, FILES["full, both families"])
    warnings = [line for line in read_only(host, path) if "src_valid_mark" not in line]
    assert warnings == [
        f"[!] no address fd99::2/64: {NO_IPV6}",
        f"[!] no route fd30::/32: {NO_IPV6}",
        f"[!] net.ipv6.conf.{name}.disable_ipv6 is 1 and cannot be written: "
        f"IPv6 is blocked, but for local networks, until {name} is down "
        "(to carry it, make /proc/sys/net writable)",
    ]
    way = host.attempt("ip", "-6", "route", "get", "2001:db8:9::1")
    assert "No route to host" in way.stderr
    assert "dev veth" in host.namespace.ip("-6", "route", "get", "2001:db8::2")
    assert "10.30.0.0/16" in host.namespace.ip("route")
    host.pywg("down", name)
    assert host.look(name) == before


def test_where_nobody_has_ipv6_it_is_passed_over(host: Host) -> None:
    for place in ("all", "default"):
        host.run("sysctl", "-q", f"net.ipv6.conf.{place}.disable_ipv6=1")
    name = unique("p")
    before = host.look(name)
    warnings = read_only(host, host.config(name, FILES["full, both families"]))
    assert [line for line in warnings if "src_valid_mark" not in line] == [
        f"[!] no address fd99::2/64: {NO_IPV6}",
        f"[!] no route fd30::/32: {NO_IPV6}",
        f"[!] no route ::/0: {NO_IPV6}",
    ]
    host.pywg("down", name)
    assert host.look(name) == before


def test_with_a_read_only_proc_it_warns(host: Host) -> None:
    name = unique("p")
    before = host.look(name)
    (warning,) = read_only(host, host.config(name, FILES["full"]))
    assert "src_valid_mark cannot be written (Read-only file system)" in warning
    host.pywg("down", name)
    assert host.look(name) == before


def test_without_nft_and_iptables_it_warns(host: Host) -> None:
    name = unique("p")
    before = host.look(name)
    empty = host.directory / "empty"
    empty.mkdir()
    path = host.config(name, FILES["full"])
    (warning,) = up(host, path, "env", f"PATH={empty}")
    assert warning.startswith(f"[!] neither nft nor iptables is here: no IPv4 guard for {name}: ")
    assert warning.endswith(f"(install nftables, then: pywg reload {name})")
    host.pywg("down", name)
    assert host.look(name) == before


def test_without_resolvconf_the_file_is_written_and_comes_back(host: Host) -> None:
    name = unique("p")
    assert up(host, host.config(name, FILES["full, both families"])) == []
    assert host.read("/etc/resolv.conf").splitlines()[1:] == [
        "nameserver 10.9.0.1",
        "nameserver fd99::1",
        "search corp.example lab.example",
    ]
    host.pywg("down", name)
    assert host.read("/etc/resolv.conf") == RESOLV_CONF


def test_where_resolv_conf_cannot_be_written_it_warns(host: Host) -> None:
    name = unique("p")
    script = 'mount -o remount,ro,bind /etc/resolv.conf && exec "$@"'
    path = host.config(name, FILES["full"])
    (warning,) = up(host, path, "unshare", "--mount", "sh", "-c", script, "sh")
    assert warning.startswith("[!] DNS is not set: there is no resolvconf")
    host.pywg("down", name)


def test_without_the_module_the_kernel_backend_says_what_to_do(host: Host) -> None:
    if Path("/sys/module/wireguard").exists():
        pytest.skip("this kernel has WireGuard")
    name = unique("p")
    before = host.look(name)
    path = host.config(name, FILES["split"])
    answer = host.attempt(sys.executable, "-m", "pywg", "up", "--backend", "kernel", str(path))
    assert answer.returncode == 1
    assert answer.stderr.splitlines() == [
        f"[#] ip link add {name} type wireguard",
        f"pywg: {name}: this kernel has no WireGuard: modprobe wireguard, "
        "or choose --backend userspace",
    ]
    assert host.look(name) == before


# Two network namespaces.


def test_sockets_and_interface_may_be_in_different_namespaces(lab: Lab, tmp_path: Path) -> None:
    """The sockets are at the cable; the interface is alone in a namespace without any other."""
    outside, there = lab.cabled()
    inside = lab.namespace("i")
    key, name = lab.key(), lab.name("p")
    peer = lab.side(None, 2, there)
    peer.daemon.setconf(
        peer.interface_section()
        + f"[Peer]\nPublicKey = {key.public}\nAllowedIPs = 10.99.0.1/32, fd99::1/128\n"
    )
    peer.daemon.up("10.99.0.2/24", "fd99::2/64")
    home = lab.namespace("h")
    path = tmp_path / f"{name}.conf"
    path.touch(0o600)
    path.write_text(
        f"[Interface]\nPrivateKey = {key.private}\nAddress = 10.99.0.1/24, fd99::1/64\n"
        f"PostUp = ip link show %i > {tmp_path}/hook\n#!pywg Netns = {inside.name}\n"
        + peer.peer_section(outer=4).replace("AllowedIPs = ", "AllowedIPs = 0.0.0.0/0, ::/0, ")
    )
    answer = programs.pywg(home, "up", "--socket-netns", outside.name, str(path))
    assert answer.returncode == 0, answer.stderr
    assert f"ip -n {outside.name} link set {name} netns {inside.name}" in answer.stderr
    assert name in (tmp_path / "hook").read_text()
    ping(inside, "10.99.0.2", 1)
    ping(inside, "fd99::2", 1)
    assert outside.link(name) is None
    assert home.link(name) is None
    assert "51820" in inside.ip("rule"), "the rules are there too"
    assert len(outside.ip("rule").splitlines()) == 3
    path.write_text(path.read_text().replace("10.99.0.1/24", "10.99.0.1/24, 10.98.0.1/24"))
    answer = programs.pywg(home, "reload", name)
    assert answer.returncode == 0, answer.stderr
    assert "10.98.0.1/24" in inside.ip("address")
    answer = programs.pywg(home, "down", name)
    assert answer.returncode == 0, answer.stderr
    assert inside.link(name) is None
    assert len(inside.ip("rule").splitlines()) == 3
    assert inside.run("nft", "list", "ruleset") == ""


@pytest.mark.parametrize("how", ["--netns", "--socket-netns"])
def test_the_other_namespace_may_be_ours(lab: Lab, tmp_path: Path, how: str) -> None:
    here, other, name = lab.namespace("a"), lab.namespace("b"), lab.name("p")
    path = tmp_path / f"{name}.conf"
    path.touch(0o600)
    path.write_text(file("Address = 10.9.0.2/24", "AllowedIPs = 10.1.0.0/16"))
    answer = programs.pywg(here, "up", how, other.name, str(path))
    assert answer.returncode == 0, answer.stderr
    place = other if how == "--netns" else here
    assert "10.1.0.0/16" in place.ip("route")
    programs.pywg(here, "down", name)
    wait_until(lambda: place.link(name) is None, "it is gone")


def test_names_of_a_namespace_are_in_a_file_of_its_own(host: Host, lab: Lab) -> None:
    inside, name = lab.namespace("i"), lab.name("p")
    path = host.config(name, FILES["full"])
    place = Path("/etc/netns") / inside.name
    try:
        host.pywg("up", "--netns", inside.name, str(path))
        assert (place / "resolv.conf").read_text().endswith("nameserver 10.9.0.1\n")
        assert host.read("/etc/resolv.conf") == RESOLV_CONF
        host.pywg("down", name)
        assert not (place / "resolv.conf").exists()
    finally:
        if place.exists():
            place.rmdir()


@pytest.mark.parametrize("then", ["down", "up"])
def test_a_namespace_that_goes_takes_the_tunnel_with_it(
    lab: Lab, tmp_path: Path, then: str
) -> None:
    here, inside, name = lab.namespace("a"), lab.namespace("b"), lab.name("p")
    path = tmp_path / f"{name}.conf"
    path.touch(0o600)
    path.write_text(file("Address = 10.9.0.2/24", "AllowedIPs = 0.0.0.0/0"))
    answer = programs.pywg(here, "up", "--netns", inside.name, str(path))
    assert answer.returncode == 0, answer.stderr
    inside.close()
    wait_until(lambda: not is_listening(name), "its process ends", seconds=30)
    if then == "up":
        answer = programs.pywg(here, "up", str(path))
        assert answer.returncode == 0, answer.stderr
    answer = programs.pywg(here, "down", name)
    assert answer.returncode == 0, answer.stderr
    assert not socket_path(name).exists()
    assert len(here.ip("rule").splitlines()) == 3


@pytest.mark.parametrize("how", ["--netns", "--socket-netns"])
def test_a_namespace_that_is_not_there_is_named(host: Host, how: str) -> None:
    name = unique("p")
    before = host.look(name)
    path = host.config(name, FILES["split"])
    answer = host.attempt(sys.executable, "-m", "pywg", "up", how, "nowhere", str(path))
    assert answer.returncode == 1
    expected = "pywg: there is no network namespace nowhere (make it: ip netns add nowhere)\n"
    assert answer.stderr == expected
    assert host.look(name) == before


def test_a_name_that_is_taken_in_the_other_namespace_is_refused(host: Host, lab: Lab) -> None:
    inside, name = lab.namespace("i"), unique("p")
    inside.ip("link", "add", name, "type", "veth", "peer", "name", "other")
    path = host.config(name, FILES["split"])
    answer = host.attempt(sys.executable, "-m", "pywg", "up", "--netns", inside.name, str(path))
    assert answer.returncode == 1
    assert "already exists" in answer.stderr
    assert inside.link(name) is not None
