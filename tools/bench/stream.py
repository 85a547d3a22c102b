"""One TCP stream, timed, perhaps through SOCKS5.

    python -m tools.bench.stream serve ADDRESS PORT
    python -m tools.bench.stream up|down SECONDS ADDRESS PORT [SOCKS_PORT]

Prints Gbit/s, by what the receiver got. The server takes one stream after another.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from ipaddress import ip_address

_CHUNK = 1 << 18
_COUNT = struct.Struct("=Qd")


def main(words: list[str]) -> int:
    if words[0] == "serve":
        return serve(words[1], int(words[2]))
    way, seconds, address, port, *proxy = words
    stream = connect(address, int(port), int(proxy[0]) if proxy else None)
    print((send if way == "up" else receive)(stream, float(seconds)))
    return 0


def serve(address: str, port: int) -> int:
    with socket.create_server((address, port)) as listener:
        print("listens", flush=True)
        while True:
            stream, _ = listener.accept()
            with stream:
                if stream.recv(1) == b"u":
                    count, seconds = drain(stream, None)
                    stream.sendall(_COUNT.pack(count, seconds))
                else:
                    fill(stream, None)


def connect(address: str, port: int, socks: int | None) -> socket.socket:
    if socks is None:
        return socket.create_connection((address, port))
    stream = socket.create_connection(("127.0.0.1", socks))
    stream.sendall(b"\5\1\0")
    assert stream.recv(2, socket.MSG_WAITALL) == b"\5\0"
    stream.sendall(b"\5\1\0\1" + ip_address(address).packed + port.to_bytes(2))
    answer = stream.recv(10, socket.MSG_WAITALL)
    assert answer[:2] == b"\5\0", answer
    return stream


def send(stream: socket.socket, seconds: float) -> float:
    stream.sendall(b"u")
    fill(stream, seconds)
    stream.shutdown(socket.SHUT_WR)
    count, took = _COUNT.unpack(stream.recv(_COUNT.size, socket.MSG_WAITALL))
    return float(count * 8 / took / 1e9)


def receive(stream: socket.socket, seconds: float) -> float:
    stream.sendall(b"d")
    count, took = drain(stream, seconds)
    return count * 8 / took / 1e9


def fill(stream: socket.socket, seconds: float | None) -> None:
    """Until then, or until the other end has gone."""
    data = bytes(_CHUNK)
    end = time.monotonic() + (seconds or float("inf"))
    try:
        while time.monotonic() < end:
            stream.sendall(data)
    except ConnectionError:
        return


def drain(stream: socket.socket, seconds: float | None) -> tuple[int, float]:
    """Bytes, and the seconds from the first to the last."""
    room = bytearray(_CHUNK)
    count = stream.recv_into(room)
    began = time.monotonic()
    end = began + (seconds or float("inf"))
    while (now := time.monotonic()) < end:
        length = stream.recv_into(room)
        if not length:
            break
        count += length
    return count, now - began


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
