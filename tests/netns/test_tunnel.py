"""The tunnel from end to end, and the life of its interface, under wg, wg-quick and ip."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.lab.daemon import Daemon, ask, is_listening, make_stale, pid_of, socket_path
from tools.lab.lab import PORT, Lab, Side
from tools.lab.namespaces import add_address, cable
from tools.lab.programs import Program
from tools.lab.traffic import Datagrams, exchange, ping, ping_attempt
from tools.lab.waiting import wait_until
from tools.lab.wire import Wire

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x1000, 0x4000

# Packets.


@pytest.mark.parametrize("psk", [False, True], ids=["no-psk", "psk"])
@pytest.mark.parametrize("outer", [4, 6], ids=["over-v4", "over-v6"])
def test_both_families_pass_inside_over_either_family_outside(
    lab: Lab, outer: int, psk: bool
) -> None:
    tunnel = lab.tunnel(outer=outer, psk=psk)
    tunnel.ping()
    tunnel.ping(sender="b")
    exchange(tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner6, 1 << 20, 1 << 20)


def test_different_preshared_keys_make_no_session(lab: Lab) -> None:
    tunnel = lab.tunnel(psk=True)
    wire = Wire(tunnel.b.namespace)
    tunnel.a.daemon.wg(
        "set",
        tunnel.a.daemon.name,
        "peer",
        tunnel.b.key.public,
        "preshared-key",
        "/dev/stdin",
        text=lab.preshared_key(),
    )
    assert ping_attempt(tunnel.a.namespace, tunnel.b.inner4).returncode != 0
    assert wire["initiation_input"] == 1
    assert wire["response_output"] == 1
    assert wire["data_input"] + wire["data_output"] == 0


def test_an_initiation_is_answered_when_only_one_side_knows_the_endpoint(lab: Lab) -> None:
    tunnel = lab.tunnel(knows="b")
    tunnel.ping(sender="b")
    tunnel.ping(sender="a")
    assert tunnel.a.daemon.peer(tunnel.b.key.public)["endpoint"] == tunnel.b.endpoint()


def test_a_persistent_keepalive_opens_the_session_and_keeps_to_its_interval(lab: Lab) -> None:
    tunnel = lab.tunnel(knows="a")
    wire = Wire(tunnel.b.namespace)
    tunnel.a.daemon.set("peer", tunnel.b.key.public, "persistent-keepalive", "1")
    wait_until(lambda: wire["keepalive_input"] >= 3, "three keepalives came")
    assert wire["initiation_input"] == 1
    assert wire["keepalive_output"] == 0, "a keepalive was answered"
    assert int(tunnel.b.daemon.peer(tunnel.a.key.public)["rx"]) >= 148 + 3 * 32
    assert tunnel.a.daemon.peer(tunnel.b.key.public)["keepalive"] == "1"


@pytest.mark.slow
def test_who_only_receives_answers_once_with_a_keepalive_after_ten_seconds(lab: Lab) -> None:
    tunnel = lab.tunnel()
    tunnel.session()
    wire = Wire(tunnel.b.namespace)
    with Datagrams(tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner4) as datagrams:
        started = time.monotonic()
        datagrams.passes(b"no answer to this")
        # Within fifteen seconds, after which silence would be a reason for a handshake.
        wait_until(lambda: wire["keepalive_output"] == 1, "the passive keepalive", 14, every=0.05)
        assert time.monotonic() - started > 9
    assert wire["keepalive_input"] == 0, "a keepalive was answered"


def test_counters_count_whole_datagrams(lab: Lab) -> None:
    tunnel = lab.tunnel()
    tunnel.session()
    a = tunnel.a.daemon.peer(tunnel.b.key.public)
    # One initiation, one response; one echo of 84 bytes padded to 96, each way, with 32 bytes
    # around it.
    assert int(a["tx"]) == 148 + 128
    assert int(a["rx"]) == 92 + 128
    b = tunnel.b.daemon.peer(tunnel.a.key.public)
    assert (b["tx"], b["rx"]) == (a["rx"], a["tx"])


# wg.


def test_wg_show_tells_what_wg_set_was_told(lab: Lab) -> None:
    daemon = lab.daemon(None, lab.namespace("a"))
    key, peer, psk = lab.key(), lab.key(), lab.preshared_key()
    daemon.wg(
        "set",
        daemon.name,
        "private-key",
        "/dev/stdin",
        "listen-port",
        "4711",
        "fwmark",
        "0x12",
        text=key.private,
    )
    daemon.wg(
        "set",
        daemon.name,
        "peer",
        peer.public,
        "preshared-key",
        "/dev/stdin",
        "endpoint",
        "[2001:db8::9]:77",
        "persistent-keepalive",
        "25",
        "allowed-ips",
        "10.1.2.3/8,fd00::1/64,0.0.0.0/0",
        text=psk,
    )
    device, shown = daemon.show("dump")
    assert device == [key.private, key.public, "4711", "0x12"]
    assert shown[:3] == [peer.public, psk, "[2001:db8::9]:77"]
    assert set(shown[3].split(",")) == {"10.0.0.0/8", "fd00::/64", "0.0.0.0/0"}, (
        "host bits are masked"
    )
    assert shown[4:] == ["0", "0", "0", "25"]
    assert daemon.name in daemon.wg("show", "interfaces").split()

    daemon.set("fwmark", "off", "peer", peer.public, "persistent-keepalive", "off")
    assert daemon.show("fwmark") == [["off"]]
    assert daemon.show("persistent-keepalive") == [[peer.public, "off"]]
    daemon.set("peer", peer.public, "remove")
    assert daemon.show("peers") == []


def test_showconf_is_what_setconf_takes(lab: Lab) -> None:
    daemon = lab.daemon(None, lab.namespace("a"))
    key, peers = lab.key(), [lab.key() for _ in range(3)]
    sections = [
        f"[Peer]\nPublicKey = {peer.public}\nPresharedKey = {lab.preshared_key()}\n"
        f"AllowedIPs = 10.7.{number}.0/24, fd00:{number}::/32\nEndpoint = 192.0.2.{number}:9\n"
        for number, peer in enumerate(peers)
    ]
    daemon.setconf(
        f"[Interface]\nPrivateKey = {key.private}\nListenPort = 4712\nFwMark = 0x99\n"
        + "".join(sections)
    )
    shown = daemon.wg("showconf", daemon.name)
    daemon.setconf("[Interface]\n")
    assert daemon.show("dump")[0][:2] == ["(none)", "(none)"]
    assert daemon.show("peers") == []
    daemon.setconf(shown)
    again = daemon.wg("showconf", daemon.name)
    assert sorted(again.splitlines()) == sorted(shown.splitlines())
    assert all(peer.public in again for peer in peers)


def test_addconf_adds_and_syncconf_takes_away(lab: Lab) -> None:
    daemon = lab.daemon(None, lab.namespace("a"))
    key, old, new = lab.key(), lab.key(), lab.key()
    interface = f"[Interface]\nPrivateKey = {key.private}\n"
    daemon.setconf(f"{interface}[Peer]\nPublicKey = {old.public}\nAllowedIPs = 10.1.0.0/16\n")
    added = f"[Peer]\nPublicKey = {new.public}\nAllowedIPs = 10.2.0.0/16\n"
    daemon.wg("addconf", daemon.name, "/dev/stdin", text=added)
    assert {line[0] for line in daemon.show("peers")} == {old.public, new.public}
    daemon.wg("syncconf", daemon.name, "/dev/stdin", text=interface + added)
    assert daemon.show("allowed-ips") == [[new.public, "10.2.0.0/16"]]


def test_a_bad_request_is_answered_with_an_error_and_changes_nothing_else(lab: Lab) -> None:
    daemon = lab.daemon(None, lab.namespace("a"))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(socket_path(daemon.name)))
        connection.sendall(b"set=1\nlisten_port=no number\n\n")
        answer = connection.recv(4096).decode()
    assert answer.startswith("errno=") and answer != "errno=0\n\n", answer
    assert is_listening(daemon.name)
    daemon.show("dump")


def test_a_client_that_never_speaks_keeps_no_other_waiting(lab: Lab) -> None:
    daemon = lab.daemon(None, lab.namespace("a"))
    silent = [socket.socket(socket.AF_UNIX) for _ in range(4)]
    for connection in silent:
        connection.connect(str(socket_path(daemon.name)))
    silent[0].sendall(b"get=1")
    daemon.show("dump")
    for connection in silent:
        connection.close()


# Changes under way.


def test_peers_updated_in_place_keep_their_session(lab: Lab) -> None:
    tunnel = lab.tunnel()
    tunnel.session()
    before = tunnel.a.daemon.peer(tunnel.b.key.public)
    wire = Wire(tunnel.a.namespace)
    tunnel.a.daemon.set(
        "peer", tunnel.b.key.public, "allowed-ips", "10.99.0.2/32,fd99::2/128,10.50.0.0/16"
    )
    tunnel.a.daemon.wg(
        "addconf", tunnel.a.daemon.name, "/dev/stdin", text=tunnel.b.peer_section(outer=4)
    )
    tunnel.a.daemon.wg(
        "syncconf", tunnel.a.daemon.name, "/dev/stdin", text=tunnel.configuration("a")
    )
    tunnel.ping()
    after = tunnel.a.daemon.peer(tunnel.b.key.public)
    assert wire["initiation_output"] + wire["initiation_input"] == 0
    assert after["handshake"] == before["handshake"]
    assert int(after["tx"]) > int(before["tx"])


@pytest.mark.pywgd_only
def test_equal_settings_are_no_ops(lab: Lab) -> None:
    tunnel = lab.tunnel(psk=True, keepalive=25)
    tunnel.session()
    daemon = tunnel.a.daemon
    wire = Wire(tunnel.a.namespace)

    def is_still() -> bool:
        counts = wire.counts()
        time.sleep(0.1)
        return wire.counts() == counts

    # The keepalive that confirms the session may still be on its way out.
    wait_until(is_still, "what was under way has arrived")
    counts, sockets, before = wire.counts(), _udp_sockets(daemon), daemon.show("dump")
    started = time.monotonic()
    for _ in range(5):
        daemon.set("listen-port", str(PORT))
        daemon.set("fwmark", "0")
        daemon.wg("set", daemon.name, "private-key", "/dev/stdin", text=tunnel.a.key.private)
        daemon.set("peer", tunnel.b.key.public, "persistent-keepalive", "25")
        daemon.set("peer", tunnel.b.key.public, "endpoint", tunnel.b.endpoint())
        daemon.wg("syncconf", daemon.name, "/dev/stdin", text=tunnel.configuration("a"))
    assert _udp_sockets(daemon) == sockets, "the sockets were opened anew"
    assert time.monotonic() - started < 9, "too slow to tell a passive keepalive from an effect"
    assert wire.counts() == counts, "packets were sent"
    assert daemon.show("dump") == before
    tunnel.ping()
    after = wire.counts()
    assert all(after[name] == counts[name] for name in ("initiation_output", "initiation_input"))


def test_a_new_listen_port_is_listened_on(lab: Lab) -> None:
    tunnel = lab.tunnel(knows="a")
    tunnel.session()
    tunnel.b.daemon.set("listen-port", "4800")
    tunnel.a.daemon.set("peer", tunnel.b.key.public, "endpoint", "192.0.2.2:4800")
    tunnel.ping()
    assert tunnel.b.daemon.show("listen-port") == [["4800"]]


def test_a_new_private_key_needs_a_new_handshake(lab: Lab) -> None:
    tunnel = lab.tunnel()
    tunnel.session()
    key = lab.key()
    tunnel.b.daemon.wg("set", tunnel.b.daemon.name, "private-key", "/dev/stdin", text=key.private)
    name = tunnel.a.daemon.name
    tunnel.a.daemon.set("peer", tunnel.b.key.public, "remove")
    tunnel.b.key = key
    tunnel.a.daemon.wg("addconf", name, "/dev/stdin", text=tunnel.b.peer_section(outer=4))
    tunnel.ping()


def test_moving_an_allowed_ip_moves_the_traffic(lab: Lab) -> None:
    tunnel = lab.tunnel()
    tunnel.session()
    third = lab.namespace("c")
    cable(
        (tunnel.a.namespace, "veth2", ["198.51.100.1/24"]),
        (third, "veth", ["198.51.100.3/24"]),
    )
    c = lab.side(None, 3, third)
    c.outer4 = "198.51.100.3"
    c.daemon.setconf(
        c.interface_section() + tunnel.a.peer_section() + f"Endpoint = 198.51.100.1:{PORT}\n"
    )
    c.daemon.up("10.99.0.3/24", "10.99.0.42/32")
    tunnel.b.daemon.up("10.99.0.42/32")
    daemon = tunnel.a.daemon
    daemon.wg("addconf", daemon.name, "/dev/stdin", text=c.peer_section(outer=4))
    daemon.set("peer", tunnel.b.key.public, "allowed-ips", "10.99.0.2/32,fd99::2/128,10.99.0.42/32")
    for peer, other in ((tunnel.b, c), (c, tunnel.b), (tunnel.b, c)):
        daemon.set(
            "peer",
            peer.key.public,
            "allowed-ips",
            f"{peer.inner4}/32,{peer.inner6}/128,10.99.0.42/32",
        )
        assert "10.99.0.42/32" not in daemon.peer(other.key.public)["allowed_ips"]
        with tunnel.a.namespace.entered(), socket.create_server(("10.99.0.1", 0)) as listener:
            listener.settimeout(30)
            with peer.namespace.socket(kind=socket.SOCK_STREAM) as connection:
                connection.settimeout(30)
                connection.bind(("10.99.0.42", 0))
                connection.connect(listener.getsockname())
        assert (
            ping_attempt(other.namespace, "10.99.0.1", options=("-I", "10.99.0.42")).returncode != 0
        )


# The link.


def test_link_down_and_up_brings_the_tunnel_back(lab: Lab, subject: Program) -> None:
    tunnel = lab.tunnel()
    tunnel.session()
    name = tunnel.a.daemon.name
    dump = tunnel.a.daemon.show("dump")[0]
    for _ in range(10):
        tunnel.a.namespace.ip("link", "set", name, "down")
        if subject.is_pywgd:
            wait_until(lambda: not _udp_sockets(tunnel.a.daemon), "link down closes the sockets")
        tunnel.a.namespace.ip("link", "set", name, "up")
        wait_until(lambda: _udp_sockets(tunnel.a.daemon), "link up opens the sockets")
    add_address(
        tunnel.a.namespace, name, "fd99::1/64"
    )  # The kernel takes IPv6 addresses away with the link.
    assert tunnel.a.daemon.show("dump")[0] == dump
    tunnel.ping()
    tunnel.ping(sender="b")


def test_the_mtu_may_change_while_packets_pass(lab: Lab) -> None:
    tunnel = lab.tunnel()

    def set_mtu(mtu: int) -> None:
        for side in (tunnel.a, tunnel.b):
            side.namespace.ip("link", "set", side.daemon.name, "mtu", str(mtu))

    for mtu in (1420, 1280, 9000, 576, 65000, 1421, 1420):
        set_mtu(mtu)
        ping(tunnel.a.namespace, tunnel.b.inner4, 2, size=mtu - 28, options=("-M", "do"))
        exchange(tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner4, 1 << 18, 1 << 18)
    # The kernel allows more than fits a datagram (65507 - 32); what does fit must still pass.
    set_mtu(65535)
    ping(tunnel.a.namespace, tunnel.b.inner4, 2, size=65000)


def test_padding_never_goes_beyond_the_mtu(lab: Lab) -> None:
    tunnel = lab.tunnel(mtu=1421)
    tunnel.session()
    wire = Wire(
        tunnel.a.namespace,
        padded="udp length 1464",
        clamped="udp length 1461",
        rounded="udp length 1448",
    )
    ping(tunnel.a.namespace, tunnel.b.inner4, 1, size=1421 - 28, once=True)
    ping(tunnel.a.namespace, tunnel.b.inner4, 1, size=1400 - 28, once=True)
    assert wire["padded"] == 0
    assert wire["clamped"] == 1
    assert wire["rounded"] == 1


def test_an_interface_moved_to_another_namespace_keeps_working(lab: Lab) -> None:
    tunnel = lab.tunnel()
    tunnel.session()
    inside = lab.namespace("c")
    name = tunnel.a.daemon.name
    tunnel.a.namespace.ip("link", "set", name, "netns", inside.name)
    for address in ("10.99.0.1/24", "fd99::1/64"):
        add_address(inside, name, address)
    inside.ip("link", "set", name, "up")
    ping(inside, tunnel.b.inner4, 2)
    ping(inside, tunnel.b.inner6, 2)
    ping(tunnel.b.namespace, tunnel.a.inner4, 2)
    exchange(inside, tunnel.b.namespace, tunnel.b.inner4, 1 << 20, 1 << 20)


# The end, and the next beginning.


def test_the_daemon_ends_when_its_interface_is_deleted(lab: Lab) -> None:
    tunnel = lab.tunnel()
    tunnel.session()
    daemon = tunnel.a.daemon
    tunnel.a.namespace.ip("link", "delete", daemon.name)
    assert daemon.wait() == 0
    assert not socket_path(daemon.name).exists()


def test_the_daemon_ends_when_its_socket_is_removed(lab: Lab) -> None:
    daemon = lab.daemon(None, lab.namespace("a"))
    socket_path(daemon.name).unlink()
    assert daemon.wait() == 0
    assert daemon.namespace.link(daemon.name) is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_the_daemon_and_leaves_nothing(lab: Lab, number: signal.Signals) -> None:
    tunnel = lab.tunnel()
    tunnel.session()
    daemon = tunnel.a.daemon
    daemon.process.send_signal(number)
    assert daemon.wait() == 0
    assert not socket_path(daemon.name).exists()
    assert daemon.namespace.link(daemon.name) is None


def test_after_kill_9_the_next_start_succeeds_despite_the_stale_socket(lab: Lab) -> None:
    namespace, name = lab.namespace("a"), lab.name("w")
    for _ in range(5):
        daemon = lab.daemon(None, namespace, name)
        daemon.kill()
        make_stale(name)
        assert namespace.link(name) is None
    daemon = lab.daemon(None, namespace, name)
    daemon.show("dump")


def test_a_second_daemon_of_the_same_name_is_refused(lab: Lab, subject: Program) -> None:
    daemon = lab.daemon(None, lab.namespace("a"))
    # In the same namespace the interface is in the way, in another one the socket.
    for namespace in (daemon.namespace, lab.namespace("b")):
        second = namespace.attempt(subject.path, "-f", daemon.name, timeout=30)
        assert second.returncode == 1, second.stdout + second.stderr
        assert namespace is daemon.namespace or namespace.link(daemon.name) is None
    assert is_listening(daemon.name)
    daemon.show("dump")


def test_in_the_background_it_returns_when_it_is_ready(lab: Lab, subject: Program) -> None:
    namespace, name = lab.namespace("a"), lab.name("w")
    started = namespace.attempt(subject.path, name)
    assert started.returncode == 0, started.stderr
    link = namespace.link(name)
    assert link is not None and link["mtu"] == 1420 and "UP" not in link["flags"]
    assert is_listening(name)
    assert socket_path(name).stat().st_mode & 0o077 == 0, "others may talk to the socket"
    pid = pid_of(name)
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    wait_until(
        lambda: not socket_path(name).exists() and namespace.link(name) is None, "it left nothing"
    )


def test_wg_process_foreground_keeps_it_in_the_foreground(lab: Lab, subject: Program) -> None:
    namespace, name = lab.namespace("a"), lab.name("w")
    process = namespace.popen(
        [subject.path, name],
        env={**os.environ, "WG_PROCESS_FOREGROUND": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: is_listening(name), "it listens")
        assert process.poll() is None
    finally:
        process.terminate()
        assert process.wait(5) == 0


@pytest.mark.parametrize("superpackets", [False, True], ids=["plain", "virtio-header"])
def test_a_supervisor_may_hand_over_tun_and_socket(
    lab: Lab, subject: Program, superpackets: bool
) -> None:
    if superpackets and not subject.is_pywgd:
        pytest.skip("the wireguard-go of 2022 knows no virtio header")
    namespace, name = lab.namespace("a"), lab.name("w")
    flags = IFF_TUN | IFF_NO_PI | (IFF_VNET_HDR if superpackets else 0)
    with namespace.entered():
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    listener = socket.socket(socket.AF_UNIX)
    socket_path(name).parent.mkdir(mode=0o755, exist_ok=True)
    listener.bind(str(socket_path(name)))
    listener.listen()
    descriptors = {"WG_TUN_FD": str(tun), "WG_UAPI_FD": str(listener.fileno())}
    process = namespace.popen(
        [subject.path, "-f", name],
        env={**os.environ, **descriptors},
        pass_fds=(tun, listener.fileno()),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(tun)
    listener.close()
    try:
        shown = wait_until(lambda: ask_if_alive(process, name), "it answers")
        assert shown["errno"] == "0"
        namespace.ip("link", "set", name, "up")
        wait_until(lambda: "listen_port" in ask(name, "get=1"), "it listens for peers")
    finally:
        process.terminate()
        assert process.wait(5) == 0


def ask_if_alive(process: subprocess.Popen[bytes], name: str) -> dict[str, str]:
    assert process.poll() is None, "it ended"
    return ask(name, "get=1")


# wg-quick.


@pytest.fixture
def quick(
    lab: Lab, subject: Program, tmp_path: Path
) -> Iterator[tuple[Lab, list[str], dict[str, str]]]:
    """wg-quick with the subject as its userspace implementation, also on a kernel that has
    WireGuard: a copy of wg-quick looks for `ip` beside itself first, and finds one that knows no
    such link type."""
    (tmp_path / "wg-quick").write_bytes(Path("/usr/bin/wg-quick").read_bytes())
    shim = tmp_path / "ip"
    shim.write_text(
        "#!/bin/sh\n"
        'case "$*" in *"type wireguard"*) echo "Unknown device type." >&2; exit 2;; esac\n'
        'exec /usr/bin/env -S PATH="${PATH#*:}" ip "$@"\n'
    )
    shim.chmod(0o755)
    hidden = "mount -t tmpfs none /sys/module && " if Path("/sys/module/wireguard").exists() else ""
    command = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        f'{hidden}exec bash {tmp_path}/wg-quick "$@"',
        "wg-quick",
    ]
    yield lab, command, {**os.environ, "WG_QUICK_USERSPACE_IMPLEMENTATION": subject.path}


def test_wg_quick_up_and_down_run_it(
    quick: tuple[Lab, list[str], dict[str, str]], tmp_path: Path
) -> None:
    lab, command, environment = quick
    a, b = lab.cabled()
    far: Side = lab.side(None, 2, b)
    name, key = lab.name("q"), lab.key()
    far.daemon.setconf(
        far.interface_section()
        + f"[Peer]\nPublicKey = {key.public}\nAllowedIPs = 10.99.0.1/32, fd99::1/128\n"
    )
    far.daemon.up("10.99.0.2/24", "fd99::2/64")
    path = tmp_path / f"{name}.conf"
    path.touch(0o600)
    path.write_text(
        f"[Interface]\nPrivateKey = {key.private}\nMTU = 1400\n"
        "Address = 10.99.0.1/32, fd99::1/128\n"
        f"{far.peer_section(outer=4)}"
    )
    a.run(*command, "up", str(path), env=environment)
    try:
        link = a.link(name)
        assert link is not None and link["mtu"] == 1400
        ping(a, far.inner4)
        ping(a, far.inner6)
        a.run(*command, "save", str(path), env=environment)
        assert far.key.public in path.read_text()
    finally:
        a.run(*command, "down", str(path), env=environment)
    wait_until(lambda: a.link(name) is None and not socket_path(name).exists(), "down left nothing")
    wait_until(lambda: pid_of(name) is None, "the daemon has ended")


def test_wg_quick_routes_everything_through_it(
    quick: tuple[Lab, list[str], dict[str, str]], tmp_path: Path
) -> None:
    lab, command, environment = quick
    a, b = lab.cabled()
    far = lab.side(None, 2, b)
    name, key = lab.name("q"), lab.key()
    far.daemon.setconf(
        far.interface_section()
        + f"[Peer]\nPublicKey = {key.public}\nAllowedIPs = 10.99.0.1/32, fd99::1/128\n"
    )
    far.daemon.up("10.99.0.2/24", "fd99::2/64", "203.0.113.7/32", "2001:db8:7::7/128")
    path = tmp_path / f"{name}.conf"
    path.touch(0o600)
    path.write_text(
        f"[Interface]\nPrivateKey = {key.private}\nAddress = 10.99.0.1/24, fd99::1/64\n"
        f"[Peer]\nPublicKey = {far.key.public}\nEndpoint = {far.endpoint()}\n"
        "AllowedIPs = 0.0.0.0/0, ::/0\n"
    )
    a.run(*command, "up", str(path), env=environment)
    try:
        ping(a, "203.0.113.7")
        ping(a, "2001:db8:7::7")
        assert lab_fwmark(name) == "51820"
    finally:
        a.run(*command, "down", str(path), env=environment)
    wait_until(lambda: a.link(name) is None, "down left nothing")
    assert "51820" not in a.ip("rule", "show")


def lab_fwmark(name: str) -> str:
    """The mark as wg shows it, in decimal."""
    shown = subprocess.run(
        ["wg", "show", name, "fwmark"], capture_output=True, text=True, check=True
    ).stdout
    return str(int(shown, 16))


def _udp_sockets(daemon: Daemon) -> set[int]:
    """Inodes of the UDP sockets this process has open, by its namespace's tables."""
    bound: set[int] = set()
    for table in ("udp", "udp6"):
        rows = Path(f"/proc/{daemon.pid}/net/{table}").read_text().splitlines()[1:]
        bound |= {int(row.split()[9]) for row in rows}
    held: set[int] = set()
    for descriptor in Path(f"/proc/{daemon.pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            held.add(int(target[8:-1]))
    return bound & held


def test_the_drawing_is_true(lab: Lab) -> None:
    """Without daemons nothing passes inside, and the cable does."""
    a, b = lab.cabled()
    ping(a, "192.0.2.2")
    ping(b, "2001:db8::1")
    assert ping_attempt(a, "10.99.0.2").returncode != 0
