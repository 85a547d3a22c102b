"""Connections inside a tunnel for who has an asyncio loop: nothing here blocks it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from pywg.rootless.inside import AddressInfo, addresses, as_socket, receive
from pywg.rootless.messages import Answer, LookUp, MakeSocket, Request
from pywg.rootless.sockets import is_numeric

#: Sends a request; from the socket it returns the answer can be read: Inside.asked.
Asked = Callable[[Request], socket.socket]


async def answer_to(asked: Asked, request: Request) -> tuple[Answer, list[int]]:
    """The answer, and the descriptors that came with it. Raises inside.HelperGone."""
    with asked(request) as reply:
        await readable(reply)
        return receive(reply)


async def make_socket(asked: Asked, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """A socket inside that does not block. Raises OSError."""
    made = as_socket(*await answer_to(asked, MakeSocket(family, kind, protocol)))
    made.setblocking(False)
    return made


async def look_up(
    asked: Asked, host: str, port: int | str, family: int = 0, kind: int = socket.SOCK_STREAM
) -> list[AddressInfo]:
    """Addresses of a host, in the order in which they are to be tried. Raises socket.gaierror. A
    numeric one asks nobody."""
    if is_numeric(host) and isinstance(port, int):
        return [numeric_entry(host, port, kind)]
    answer, _ = await answer_to(asked, LookUp(host, str(port), family, kind, 0, 0))
    return addresses(answer)


async def connect(
    asked: Asked, host: str, port: int | str, *, each_s: float | None = None
) -> socket.socket:
    """A TCP connection inside; each address in turn, for at most ``each_s`` seconds while there are
    more. Raises OSError: socket.gaierror, or what the last address said."""
    entries = await look_up(asked, host, port)
    last: OSError | None = None
    for number, (family, kind, protocol, _, target) in enumerate(entries, 1):
        stream = await make_socket(asked, family, kind, protocol)
        try:
            async with asyncio.timeout(each_s if number < len(entries) else None):
                await asyncio.get_running_loop().sock_connect(stream, target)
            return stream
        except OSError as error:  # TimeoutError too
            stream.close()
            last = error
        except BaseException:
            stream.close()
            raise
    raise last or OSError(f"{host}: no address")


def numeric_entry(host: str, port: int, kind: int = socket.SOCK_STREAM) -> AddressInfo:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return family, socket.SocketKind(kind), 0, "", (host, port)


async def readable(stream: socket.socket) -> None:
    """Until there is something to read, or its other end has gone."""
    loop = asyncio.get_running_loop()
    is_there = loop.create_future()

    def tell() -> None:
        if not is_there.done():
            is_there.set_result(None)

    loop.add_reader(stream, tell)
    try:
        await is_there
    finally:
        with contextlib.suppress(ValueError):  # closed meanwhile
            loop.remove_reader(stream)
