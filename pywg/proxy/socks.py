"""A client that speaks SOCKS5: CONNECT, BIND and UDP ASSOCIATE."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket

from pywg.errors import PywgError
from pywg.proxy import socks5
from pywg.proxy.association import Association
from pywg.proxy.client import Client, Gone
from pywg.proxy.socks5 import Command, ProtocolError, Reply, Request
from pywg.rootless import dialing

_REPLIES = {
    errno.ECONNREFUSED: Reply.REFUSED,
    errno.ENETUNREACH: Reply.NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: Reply.HOST_UNREACHABLE,
    errno.ETIMEDOUT: Reply.HOST_UNREACHABLE,
    errno.EACCES: Reply.NOT_ALLOWED,
    errno.EPERM: Reply.NOT_ALLOWED,
}
_EVERYWHERE = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}  # noqa: S104 - inside


async def serve(client: Client) -> None:
    try:
        async with asyncio.timeout(client.shared.limits.first_words_s):
            await _greet(client)
            request = await client.read(socks5.request)
    except ProtocolError as error:
        if error.reply is not None:
            await client.write(socks5.reply(error.reply))
        raise Gone from None
    match request.command:
        case Command.CONNECT:
            await _connect(client, request)
        case Command.BIND:
            await _bind(client, request)
        case Command.UDP_ASSOCIATE:
            await _associate(client, request)


async def _greet(client: Client) -> None:
    methods = await client.read(socks5.greeting)
    wanted = socks5.NO_AUTH if client.shared.credentials is None else socks5.USER_PASSWORD
    if wanted not in methods:
        await client.write(socks5.method(socks5.NO_METHOD))
        raise Gone
    await client.write(socks5.method(wanted))
    if client.shared.credentials is not None:
        user, password = await client.read(socks5.credentials)
        is_right = client.shared.credentials.are(user, password)
        await client.write(socks5.verdict(is_right))
        if not is_right:
            raise Gone


async def _connect(client: Client, request: Request) -> None:
    try:
        other = await client.connect(request.target.host, request.target.port)
    except (OSError, PywgError) as error:
        await client.write(socks5.reply(reply_to(error)))
        return
    with other:
        await client.write(socks5.reply(Reply.SUCCEEDED, *other.getsockname()[:2]))
        await client.join(other)


def reply_to(error: Exception) -> Reply:
    """How a failure inside is told."""
    if isinstance(error, socket.gaierror):
        return Reply.HOST_UNREACHABLE
    return _REPLIES.get(getattr(error, "errno", None) or 0, Reply.FAILURE)


# ---- BIND


async def _bind(client: Client, request: Request) -> None:
    """Waits inside for one connection, from the host that the client names."""
    try:
        expected, listener = await _listener(client, request)
    except (OSError, PywgError) as error:
        await client.write(socks5.reply(reply_to(error)))
        return
    with listener:
        await client.write(socks5.reply(Reply.SUCCEEDED, *listener.getsockname()[:2]))
        try:
            async with asyncio.timeout(client.shared.limits.connect_s):
                other, peer = await _accept_or_gone(client, listener, expected)
        except TimeoutError:
            await client.write(socks5.reply(Reply.TTL_EXPIRED))
            return
    with other:
        await client.write(socks5.reply(Reply.SUCCEEDED, *peer[:2]))
        await client.join(other)


async def _listener(client: Client, request: Request) -> tuple[str | None, socket.socket]:
    """The address that may connect (None is any), and the socket it may connect to: at the address
    from which we would reach it."""
    target = request.target
    loop, asked = asyncio.get_running_loop(), client.shared.asked
    async with asyncio.timeout(client.shared.limits.connect_s):
        found = await dialing.look_up(asked, target.host, target.port or 1, 0, socket.SOCK_DGRAM)
    family, _, _, _, address = found[0]
    expected = None if address[0] in _EVERYWHERE.values() else address[0]
    own = _EVERYWHERE[family]
    if expected is not None:
        with await dialing.make_socket(asked, family, socket.SOCK_DGRAM) as probe:
            await loop.sock_connect(probe, address)  # sends nothing
            own = probe.getsockname()[0]
    listener = await dialing.make_socket(asked, family, socket.SOCK_STREAM)
    try:
        listener.bind((own, 0))
        listener.listen(1)
    except OSError:
        listener.close()
        raise
    return expected, listener


async def _accept_or_gone(
    client: Client, listener: socket.socket, expected: str | None
) -> tuple[socket.socket, tuple[str, int]]:
    """Others than who is expected are sent away."""
    accepting = asyncio.ensure_future(_accept(listener, expected))
    leaving = asyncio.ensure_future(dialing.readable(client.socket))
    try:
        await asyncio.wait((accepting, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not accepting.done() and not client.socket.recv(1, socket.MSG_PEEK):
            raise Gone
        return await accepting
    finally:
        for each in (accepting, leaving):
            each.cancel()
        # Not before both have let go of their sockets may somebody else wait for these.
        await asyncio.gather(accepting, leaving, return_exceptions=True)


async def _accept(
    listener: socket.socket, expected: str | None
) -> tuple[socket.socket, tuple[str, int]]:
    while True:
        other, peer = await asyncio.get_running_loop().sock_accept(listener)
        if expected in (None, peer[0]):
            return other, peer
        other.close()


# ---- UDP ASSOCIATE


async def _associate(client: Client, request: Request) -> None:
    """As long as the client's connection lasts, which is over TCP: to a unix socket no datagram
    could be bound that belongs to the same client alone."""
    if client.socket.family == socket.AF_UNIX:
        await client.write(socks5.reply(Reply.NO_SUCH_COMMAND))
        return
    association = Association(client.shared.asked, client.socket, request.target.port, client.moved)
    try:
        await client.write(socks5.reply(Reply.SUCCEEDED, *association.address))
        with contextlib.suppress(Gone):
            while True:
                await client.some()  # nothing that it says now means anything
    finally:
        association.close()
