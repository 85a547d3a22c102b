import ssl
from collections.abc import Iterator
from typing import Any

import httpcore
import httpx

import pywg


class Stream(httpcore.NetworkStream):
    def __init__(self, sock: Any) -> None:
        self._socket = sock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._socket.settimeout(timeout)
        data: bytes = self._socket.recv(max_bytes)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._socket.settimeout(timeout)
        self._socket.sendall(buffer)

    def close(self) -> None:
        self._socket.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> "Stream":
        self._socket.settimeout(timeout)
        return Stream(ssl_context.wrap_socket(self._socket, server_hostname=server_hostname))


class Backend(httpcore.NetworkBackend):
    def __init__(self, tunnel: pywg.Tunnel) -> None:
        self._tunnel = tunnel

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *_: Any, **__: Any
    ) -> Stream:
        return Stream(self._tunnel.create_connection((host, port), timeout))


class Body(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        return self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()


class TunnelTransport(httpx.BaseTransport):
    def __init__(self, tunnel: pywg.Tunnel) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl.create_default_context(), network_backend=Backend(tunnel)
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._pool.handle_request(
            httpcore.Request(
                request.method,
                str(request.url),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(answer.status, headers=answer.headers, stream=Body(answer))

    def close(self) -> None:
        self._pool.close()


with (
    pywg.Tunnel("work.conf") as tunnel,
    # trust_env: a proxy that the environment names would be asked beside the tunnel
    httpx.Client(transport=TunnelTransport(tunnel), trust_env=False) as client,
):
    print(client.get("http://intranet.example/").text)
    print(client.get("https://intranet.example/").status_code)
