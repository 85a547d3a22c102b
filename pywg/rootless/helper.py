"""The helper: a small process inside, with one thread, that makes what has to be made there.

It makes its namespaces, then answers requests until the process that started it has gone. Runs by
itself (`python -m`), so it knows no key, and inherits no descriptor but its two and no lock of
another thread. It looks names up in children of its own, since the C library waits for answers.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import NoReturn

from pywg.errors import NetworkError
from pywg.host import link_settings, resolver, rtnetlink
from pywg.host.network import Network
from pywg.rootless import calls, leftovers, privacy, sweep
from pywg.rootless.messages import (
    BYTES_MAX,
    AddRoutes,
    Answer,
    Failed,
    Found,
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

#: Names that are being looked up at the same time.
LOOK_UPS_MAX = 64
_NO_IPV6 = frozenset({errno.EACCES, errno.EOPNOTSUPP, errno.EAFNOSUPPORT})
_IFF_MULTICAST = 0x1000
_GSO_MAX_SEGMENTS = 40  # IFLA_GSO_MAX_SEGS
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
# IFLA_AF_SPEC, AF_INET6, IFLA_INET6_ADDR_GEN_MODE: IN6_ADDR_GEN_MODE_NONE
_NO_ADDRESS_BY_ITSELF = rtnetlink.attribute(
    26, rtnetlink.attribute(10, rtnetlink.attribute(8, b"\x01"))
)


class _Refused(Exception):
    def __init__(self, step: str, error: OSError) -> None:
        super().__init__(step)
        self.answer = Failed(step, error.errno or 0, error.strerror or "")


def main(requests_fd: int, life_fd: int) -> NoReturn:
    """Ends when ``life_fd`` reads as closed: then whoever has the other end is gone."""
    requests = socket.socket(fileno=requests_fd)
    refusal: Failed | None = None
    try:
        enter_new_namespaces()
    except _Refused as refused:
        refusal = refused.answer
    children: set[int] = set()
    poll = select.poll()
    for fd in (requests_fd, life_fd):
        poll.register(fd, select.POLLIN)
    while True:
        ready = dict(poll.poll(1000 if children else None))
        if life_fd in ready:
            _end(refusal)
        children = {pid for pid in children if os.waitpid(pid, os.WNOHANG)[0] == 0}
        if requests_fd in ready:
            _serve(requests, refusal, children)


def _end(refusal: Failed | None) -> NoReturn:
    """With whatever else runs in this user namespace: who started us may have been killed together
    with those who would have done that."""
    if refusal is None:
        sweep.kill_all(os.open("/proc/self/ns/user", os.O_RDONLY | os.O_CLOEXEC))
    os._exit(0)


def enter_new_namespaces() -> None:
    """Of users, of the network and of mounts; raises what the kernel refused, by its step."""
    uid, gid = os.geteuid(), os.getegid()
    with _step("user namespace"):
        calls.unshare(calls.CLONE_NEWUSER)
    with _step("uid_map"):
        calls.write_ids(uid, gid)
    with _step("network namespace"):
        calls.unshare(calls.CLONE_NEWNET | calls.CLONE_NEWNS)
    with _step("lo"), Network() as network:
        network.link_up("lo", 65536)
    with contextlib.suppress(OSError):  # a /proc/sys that cannot be written: then no ping
        Path("/proc/sys/net/ipv4/ping_group_range").write_text(f"{gid} {gid}", encoding="ascii")


@contextlib.contextmanager
def _step(name: str) -> Iterator[None]:
    try:
        yield
    except NetworkError as error:
        raise _Refused(name, OSError(error.os_errno, str(error))) from None
    except OSError as error:
        raise _Refused(name, error) from None


def _serve(requests: socket.socket, refusal: Failed | None, children: set[int]) -> None:
    """One request. Whoever asks wrongly gets no answer but the end of his socket."""
    data, fds = calls.receive_with_fds(requests, BYTES_MAX, 4)
    for fd in fds[1:]:
        os.close(fd)
    if not fds:
        return
    with socket.socket(fileno=fds[0]) as reply:
        try:
            request = decode(data)
        except MessageError:
            return
        if not isinstance(request, Request):
            return
        if isinstance(request, LookUp) and refusal is None:
            _look_up_in_child(request, reply, children)
            return
        made: list[int] = []
        answer = refusal or _answer(request, made)
        try:
            with contextlib.suppress(OSError):  # nobody waits for it any more
                socket.send_fds(reply, [encode(answer)], made)
        finally:
            for fd in made:
                os.close(fd)


def _answer(request: Request, made: list[int]) -> Answer:
    """``made`` is filled with the descriptors that go with it."""
    try:
        match request:
            case MakeInterface():
                return _make_interface(request, made)
            case AddRoutes(name, networks):
                with _step("route"), Network() as network:
                    return Made(tuple(_add_routes(network, name, networks)))
            case MakeSocket(family, kind, protocol):
                with _step("socket"):
                    made.append(socket.socket(family, kind, protocol).detach())
                return Made()
            case WhatIsLeft():
                return leftovers.look()
            case LookUp():
                raise AssertionError("it is for a child")
    except _Refused as refused:
        for fd in made:
            os.close(fd)
        made.clear()
        return refused.answer


def _make_interface(request: MakeInterface, made: list[int]) -> Made:
    with _step("mount"):
        privacy.hide_resolvers(request.resolv_conf)
    with _step("/dev/net/tun"):
        descriptor, name = calls.open_tun(request.name)
        made.append(descriptor)
        leftovers.watch(descriptor, name)
    notes: list[str] = []
    with _step("interface"), Network() as network:
        _settle(name, request.segments)
        for address in map(ip_interface, request.addresses):
            with note_if_there_is_no_ipv6(f"address {address}", address.version, notes):
                network.add_address(name, address)
        network.link_up(name, request.mtu)
    with _step("namespaces"):
        made += [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY) for kind in ("user", "net")]
    return Made(tuple(notes))


def _add_routes(network: Network, name: str, networks: Sequence[str]) -> list[str]:
    notes: list[str] = []
    for each in map(ip_network, networks):
        with note_if_there_is_no_ipv6(f"route {each}", each.version, notes):
            network.add_route(name, each, None)
    return notes


@contextlib.contextmanager
def note_if_there_is_no_ipv6(what: str, version: int, notes: list[str]) -> Iterator[None]:
    """A host without IPv6 has none inside either, and no way out by it."""
    try:
        yield
    except NetworkError as error:
        if version == 4 or error.os_errno not in _NO_IPV6:
            raise
        notes.append(f"no {what}: {error}")


def _settle(name: str, segments: int) -> None:
    """What core/io/link_settings.zig and core/device/link.zig would set, but cannot from outside:
    no multicast, no address by itself, superpackets that fit a train."""
    index = socket.if_nametoindex(name)
    with contextlib.suppress(OSError), rtnetlink.Socket() as kernel:
        header = _LINK.pack(0, 0, index, 0, _IFF_MULTICAST)
        kernel.tell(rtnetlink.NEW_LINK, header)
        segments_at_most = rtnetlink.attribute(_GSO_MAX_SEGMENTS, segments)
        kernel.tell(rtnetlink.NEW_LINK, _LINK.pack(0, 0, index, 0, 0) + segments_at_most)
        # Also where /proc/sys cannot be written, as in containers.
        kernel.tell(rtnetlink.NEW_LINK, _LINK.pack(0, 0, index, 0, 0) + _NO_ADDRESS_BY_ITSELF)
    link_settings.settle(name)


def _look_up_in_child(request: LookUp, reply: socket.socket, children: set[int]) -> None:
    if len(children) >= LOOK_UPS_MAX:
        with contextlib.suppress(OSError):
            reply.send(encode(Unknown(socket.EAI_AGAIN, "too many names at the same time")))
        return
    parent = os.getpid()
    child = os.fork()
    if child:
        children.add(child)
        return
    try:
        calls.die_with_parent(parent)
        with contextlib.suppress(OSError):
            reply.send(encode(_looked_up(request)))
    finally:
        os._exit(0)


def _looked_up(request: LookUp) -> Found | Unknown:
    try:
        entries = resolver.entries(
            request.host,
            request.port,
            request.family,
            request.kind,
            protocol=request.protocol,
            flags=request.flags,
        )
    except socket.gaierror as error:
        return Unknown(error.errno or socket.EAI_FAIL, error.strerror or "")
    except UnicodeError:
        return Unknown(socket.EAI_NONAME, "not a host name")
    return Found(tuple(entries))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
