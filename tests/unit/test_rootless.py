"""What is decided for a tunnel without root, by plain values: messages, refusals, layout, texts."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import socket
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywg.config import Config
from pywg.config.parser import parse
from pywg.errors import NetworkError
from pywg.rootless import layout, leftovers, privacy, sweep
from pywg.rootless.forward import EVERYWHERE, LOOPBACK, Forward
from pywg.rootless.forward import parse as parse_forward
from pywg.rootless.forwarding import FLOW_IDLE_S, FLOWS_MAX, overdue
from pywg.rootless.helper import note_if_there_is_no_ipv6
from pywg.rootless.messages import (
    BYTES_MAX,
    ITEMS_MAX,
    AddRoutes,
    Answer,
    Failed,
    Found,
    Left,
    LookUp,
    Made,
    MakeInterface,
    MakeSocket,
    MessageError,
    Request,
    Unknown,
    WhatIsLeft,
    decode,
    encode,
)
from pywg.rootless.refusal import Facts, explain, profile

KEY = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
PEER = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="


# ---- messages


@pytest.mark.parametrize(
    "message",
    [
        MakeInterface("wg0", 1420, 45, ("10.0.0.1/24", "fd00::1/64"), "nameserver 10.0.0.2\n"),
        AddRoutes("wg0", ("0.0.0.0/0", "::/0")),
        MakeSocket(socket.AF_INET6, socket.SOCK_STREAM, 0),
        LookUp("example.org", "443", 0, socket.SOCK_STREAM, 0, 0),
        LookUp(None, "", 0, 0, 0, socket.AI_PASSIVE),
        Made(),
        Made(("a note",)),
        Found(((2, 1, 6, "", "127.0.0.1", 80), (10, 1, 6, "", "::1", 80, 0, 0))),
        Unknown(socket.EAI_NONAME, "Name or service not known"),
        WhatIsLeft(),
        Left(1, 2, 3),
        Failed("uid_map", errno.EPERM, "Operation not permitted"),
    ],
)
def test_a_message_comes_back_as_it_was(message: Request | Answer) -> None:
    assert decode(encode(message)) == message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b'"Made"',
        b'["Xyzzy", {}]',
        b'["Made", []]',
        b'["Made", {"notes": "text"}]',
        b'["Made", {"notes": [1]}]',
        b'["MakeSocket", {"family": 2}]',
        b'["MakeSocket", {"family": 2, "kind": true, "protocol": 0}]',
        b'["MakeSocket", {"family": 2, "kind": "1", "protocol": 0}]',
        b'["MakeSocket", {"family": 2, "kind": 1, "protocol": 0, "more": 1}]',
        b'["Found", {"entries": [1]}]',
        b'[["Made"], {}]',
    ],
)
def test_other_bytes_are_no_message(data: bytes) -> None:
    with pytest.raises(MessageError):
        decode(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    try:
        decode(data)
    except MessageError:
        return
    assert json.loads(data)


def test_a_full_message_of_routes_fits_and_a_longer_one_is_refused() -> None:
    longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"
    assert len(encode(AddRoutes("w" * 15, (longest,) * ITEMS_MAX))) <= BYTES_MAX
    with pytest.raises(MessageError):
        encode(AddRoutes("wg0", (longest,) * 4 * ITEMS_MAX))


# ---- refusals

USER = "user namespace"
ALLOWED = Facts(USER, errno.EPERM, tun_mode=0o666, max_user_namespaces=15000)


@pytest.mark.parametrize(
    ("facts", "reason", "mends"),
    [
        (replace(ALLOWED, step="/dev/net/tun", os_errno=errno.ENOENT), "no tun", "modprobe tun"),
        (replace(ALLOWED, step="/dev/net/tun", os_errno=errno.ENODEV), "no tun", "modprobe tun"),
        (
            replace(ALLOWED, step="/dev/net/tun", os_errno=errno.EACCES, tun_mode=0o600),
            "tun not openable",
            "chmod 666 /dev/net/tun",
        ),
        (
            replace(ALLOWED, step="/dev/net/tun", os_errno=errno.EPERM),
            "tun not openable",
            "--device /dev/net/tun",
        ),
        (
            replace(ALLOWED, step="/dev/net/tun", os_errno=errno.EPERM, apparmor_restricts=True),
            "apparmor",
            "--print-apparmor-profile",
        ),
        (
            replace(ALLOWED, os_errno=errno.ENOSPC, max_user_namespaces=0),
            "user namespaces off",
            "user.max_user_namespaces",
        ),
        (
            replace(ALLOWED, os_errno=errno.ENOSPC),
            "user namespaces used up",
            "user.max_user_namespaces",
        ),
        (replace(ALLOWED, os_errno=errno.EINVAL), "user namespaces off", "CONFIG_USER_NS"),
        (
            replace(ALLOWED, unprivileged_userns_clone=0),
            "user namespaces off",
            "kernel.unprivileged_userns_clone=1",
        ),
        (replace(ALLOWED, has_seccomp_filter=True), "seccomp", "seccomp=unconfined"),
        (replace(ALLOWED, is_mapped=False), "unmapped user", "--map-current-user"),
        (
            replace(ALLOWED, step="uid_map", apparmor_restricts=True),
            "apparmor",
            "--print-apparmor-profile",
        ),
        (
            replace(ALLOWED, step="network namespace", apparmor_restricts=True),
            "apparmor",
            "--print-apparmor-profile",
        ),
        (
            replace(ALLOWED, step="network namespace", os_errno=errno.ENOSPC),
            "other namespaces off",
            "user.max_net_namespaces",
        ),
        (
            replace(
                ALLOWED, step="mount", os_errno=errno.EACCES, apparmor_profile="docker-default"
            ),
            "apparmor of a container",
            "apparmor=unconfined",
        ),
        (ALLOWED, "other", ""),
        (replace(ALLOWED, step="interface", os_errno=errno.EBUSY, text="busy"), "other", ""),
    ],
)
def test_a_refusal_has_a_reason_and_the_line_that_mends_it(
    facts: Facts, reason: str, mends: str
) -> None:
    refusal = explain(facts)
    assert refusal.reason == reason
    assert mends in refusal.remedy
    assert bool(mends) == bool(refusal.remedy)
    assert refusal.cause in str(refusal)


def test_the_profile_allows_one_program_user_namespaces() -> None:
    text = profile("/usr/bin/pywg")
    assert 'profile pywg "/usr/bin/pywg" flags=(unconfined) {' in text
    assert "  userns,\n" in text


# ---- what a file means


def config(interface: str = "", allowed: str = "0.0.0.0/0, ::/0") -> Config:
    return parse(
        f"[Interface]\nPrivateKey = {KEY}\n{interface}\n"
        f"[Peer]\nPublicKey = {PEER}\nAllowedIPs = {allowed}\n",
        "work.conf",
    )


def test_a_file_becomes_an_interface_with_all_its_routes() -> None:
    file = config("Address = 10.0.0.1/24, fd00::1/64\nDNS = 10.0.0.2, corp.example")
    wanted = layout.interface("work", file, 1420)
    assert wanted.addresses == ("10.0.0.1/24", "fd00::1/64")
    assert "nameserver 10.0.0.2\nsearch corp.example\n" in wanted.resolv_conf
    assert set(layout.routes(file)) == {"0.0.0.0/0", "::/0"}


def test_a_file_without_ipv6_has_no_route_for_it() -> None:
    assert layout.routes(config("Address = 10.0.0.1/24", "0.0.0.0/0")) == ("0.0.0.0/0",)


@pytest.mark.parametrize(("mtu", "segments"), [(1420, 45), (1280, 49), (576, 64), (65507, 1)])
def test_a_superpacket_fits_one_train(mtu: int, segments: int) -> None:
    assert layout.segments(mtu) == segments


def test_what_concerns_the_host_is_not_used_and_said_once() -> None:
    file = config("DNS = 10.0.0.2\nTable = 7\nFwMark = 8\nPreUp = true\nPostUp = true")
    assert layout.unused(file) == ("PreUp", "PostUp", "Table", "FwMark")
    (said,) = layout.notes(file)
    assert said == "work.conf: without root not used: PreUp, PostUp, Table, FwMark"
    assert layout.for_device(file).interface.fwmark is None


def test_a_file_that_has_nothing_of_the_kind_is_taken_without_a_word() -> None:
    assert layout.notes(config("DNS = 10.0.0.2")) == ()


def test_a_file_without_dns_looks_no_name_up_and_says_so() -> None:
    (said,) = layout.notes(config())
    assert "no DNS" in said
    assert "nameserver" not in layout.interface("work", config(), 1420).resolv_conf


def test_a_host_without_ipv6_is_a_note_and_no_failure() -> None:
    notes: list[str] = []
    with note_if_there_is_no_ipv6("route ::/0", 6, notes):
        raise NetworkError("Operation not supported", errno.EOPNOTSUPP)
    assert notes == ["no route ::/0: Operation not supported"]
    for version, code in ((4, errno.EOPNOTSUPP), (6, errno.EEXIST)):
        with (
            pytest.raises(NetworkError),
            note_if_there_is_no_ipv6("route", version, notes),
        ):
            raise NetworkError("refused", code)
    assert len(notes) == 1


# ---- forwarding


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("8080:web:80", Forward("tcp", LOOPBACK, 8080, "web", 80)),
        ("tcp:8080:web:80", Forward("tcp", LOOPBACK, 8080, "web", 80)),
        ("udp:53:10.0.0.2:53", Forward("udp", LOOPBACK, 53, "10.0.0.2", 53)),
        ("localhost:1:web:2", Forward("tcp", LOOPBACK, 1, "web", 2)),
        ("*:1:web:2", Forward("tcp", EVERYWHERE, 1, "web", 2)),
        (":1:web:2", Forward("tcp", EVERYWHERE, 1, "web", 2)),
        ("192.0.2.1:1:web:2", Forward("tcp", ("192.0.2.1",), 1, "web", 2)),
        ("[2001:db8::1]:1:[fd00::2]:2", Forward("tcp", ("2001:db8::1",), 1, "fd00::2", 2)),
    ],
)
def test_a_forward_is_read_as_ssh_reads_it(text: str, wanted: Forward) -> None:
    assert parse_forward(text) == wanted
    assert parse_forward(text, is_reverse=True) == replace(wanted, is_reverse=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "80",
        "8080:web",
        "8080::80",
        "0:web:80",
        "8080:web:65536",
        "a:web:80",
        "1:2:3:4:5",
        "fd00::1:1:web:2",
        "[fd00::1:1:web:2",
        "[::1]x:1:web:2",
        "8080:web:",
    ],
)
def test_another_forward_is_refused_with_its_form(text: str) -> None:
    with pytest.raises(ValueError, match=r"PORT|no port"):
        parse_forward(text)


@pytest.mark.parametrize(
    ("heard", "count"),
    [
        ([], 0),
        ([100.0], 0),
        ([10.0, 20.0, 100.0], 2),
        ([100.0] * (FLOWS_MAX - 1), 0),
        ([100.0] * FLOWS_MAX, 1),
    ],
)
def test_flows_that_are_silent_or_too_many_are_forgotten(heard: list[float], count: int) -> None:
    assert max(overdue(heard, 20.0 + FLOW_IDLE_S), 0) == count


# ---- what is left


def test_the_end_of_a_process_is_seen_by_a_descriptor_of_any_number() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] != resource.RLIM_INFINITY and limits[1] < 2048:
        pytest.skip("needs 2048 descriptors")
    high = -1
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 2048), limits[1]))
    process = subprocess.Popen(["sleep", "1000"])
    try:
        low = os.pidfd_open(process.pid)
        high = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 1500)
        os.close(low)
        assert not sweep.has_ended(high)
        process.kill()
        assert sweep.has_ended(high, 30)
    finally:
        process.kill()
        process.wait()
        if high >= 0:
            os.close(high)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0
   1: 0100630A:B0D2 0200630A:0050 04 00000000:00000000 01:00000014 00000000     0
   2: 0100630A:B0D4 0200630A:0050 01 00000000:00000000 00:00000000 00000000     0
   3: 0100630A:B0D6 0200630A:0050 06 00000000:00000000 03:00001000 00000000     0
   4: 0100630A:B0D8 0200630A:0050 09 00000000:00000000 01:00000014 00000000     0
"""
DEV = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop
    lo:       0       0    0    0    0     0          0         0        0       0    0    0
  work:     500       7    0    0    0     0          0         0      900      11    0    0
"""


def test_streams_that_are_not_wholly_delivered_are_counted() -> None:
    assert leftovers.closing_in(TCP) == 2
    assert leftovers.closing_in("") == 0


def test_packets_into_an_interface_are_read() -> None:
    assert leftovers.sent_by("work", DEV) == 11
    assert leftovers.sent_by("wg0", DEV) == 0


# ---- files


def test_names_come_from_files_and_dns_and_the_rest_stays() -> None:
    host = "passwd: files sss\nhosts: files mymachines resolve [!UNAVAIL=return] dns\n# x\n"
    assert privacy.nsswitch(host) == "passwd: files sss\n# x\nhosts: files dns\n"
    assert privacy.nsswitch("") == "hosts: files dns\n"
