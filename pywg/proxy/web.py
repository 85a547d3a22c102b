"""A client that speaks HTTP: CONNECT, one request to be passed on, or a question to the proxy
itself."""

from __future__ import annotations

import asyncio
import errno
import socket

from pywg.errors import PywgError
from pywg.proxy import http
from pywg.proxy.client import Client
from pywg.proxy.http import BadRequest, Chunks, Head

HEALTH = b"/healthz"


async def serve(client: Client) -> None:
    try:
        async with asyncio.timeout(client.shared.limits.first_words_s):
            head = await client.read(http.parse)
        await _answer(client, head)
    except BadRequest as error:
        await client.write(http.response(error.status, f"pywg: {error}\n"))


async def _answer(client: Client, head: Head) -> None:
    if head.target is None:
        await _about_itself(client, head)
    elif not _may_pass(client, head):
        await client.write(http.response(407, "pywg: user and password, please\n"))
    else:
        await _pass_on(client, head)


async def _about_itself(client: Client, head: Head) -> None:
    """Needs no password: it tells no secret."""
    if head.path.partition(b"?")[0] != HEALTH:
        raise BadRequest("this is a proxy, and knows only /healthz itself", 404)
    if head.method not in (b"GET", b"HEAD"):
        raise BadRequest("only GET", 405)
    status, text = await client.shared.health()
    answer = http.response(status, text, kind="application/json")
    await client.write(answer if head.method == b"GET" else answer[: -len(text.encode())])


def _may_pass(client: Client, head: Head) -> bool:
    wanted = client.shared.credentials
    if wanted is None:
        return True
    given = http.credentials(head)
    return given is not None and wanted.are(*given)


async def _pass_on(client: Client, head: Head) -> None:
    assert head.target is not None  # noqa: S101 - else it is for us
    framing = http.framing(head)
    try:
        other = await client.connect(head.target.host, head.target.port)
    except (OSError, PywgError) as error:
        await client.write(http.response(status_of(error), f"pywg: {_said(error)}\n"))
        return
    with other:
        if head.method == b"CONNECT":
            await client.write(http.ESTABLISHED)
            await client.join(other)
            return
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(other, http.passed_on(head))
        limit = framing.length
        if limit is None:
            await _pass_chunks(client, other)
            limit = 0
        early = client.unread(limit)
        await loop.sock_sendall(other, early)
        if client.unread():
            raise BadRequest("one request for each connection")
        await client.join(other, limit - len(early))


async def _pass_chunks(client: Client, other: socket.socket) -> None:
    """To the end of a body of chunks; silence is limited as everywhere."""
    chunks = Chunks()
    loop = asyncio.get_running_loop()
    while not chunks.is_done:
        data = await client.some()
        client.moved()
        taken = chunks.feed(data)
        await loop.sock_sendall(other, data[:taken])
        if taken < len(data):
            raise BadRequest("one request for each connection")


def status_of(error: Exception) -> int:
    """How a failure inside is told."""
    return 504 if getattr(error, "errno", 0) == errno.ETIMEDOUT else 502


def _said(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)) if str(error) else "no connection"
