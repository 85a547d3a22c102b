"""Serves a WSGI application by HTTP on one socket: for a Prometheus, and for whoever tries to hang.

Knows HTTP, nothing of metrics. Invariant: at most ``CALLERS`` at the same time, each for at most
``CALLER_S`` until its question is there, and ``ANSWER_S`` more to take the answer.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from socketserver import BaseServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer

from pywg.errors import system_call
from pywg.monitor.place import Place

CALLERS = 16
CALLER_S = 10.0
ANSWER_S = 30.0


def listen(place: Place) -> socket.socket:
    """Raises PywgError where the port is taken or the address is none of ours."""
    family = socket.AF_INET6 if place.address.version == 6 else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind((str(place.address), place.port))
        listening.listen(CALLERS)
    except OSError as error:
        listening.close()
        raise system_call(error, f"cannot listen on {place}") from None
    return listening


def place_of(listening: socket.socket) -> str:
    """ADDR:PORT, with the port that the kernel chose."""
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if listening.family == socket.AF_INET6 else f"{host}:{port}"


class _Handler(WSGIRequestHandler):
    timeout = CALLER_S
    server_version = "pywg"
    sys_version = ""

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: a line for each scrape is no news."""

    def address_string(self) -> str:
        """Never a name: that would ask a resolver."""
        return str(self.client_address[0])

    def handle(self) -> None:
        # A caller that hangs up, or says nothing, is no fault of ours.
        self._allow(CALLER_S)
        try:
            with contextlib.suppress(OSError):
                super().handle()
        finally:
            self._limit.cancel()

    def parse_request(self) -> bool:
        """Its first line is there; it is all there when this returns."""
        is_right = super().parse_request()
        self._limit.cancel()
        self._allow(ANSWER_S)
        return is_right

    def _allow(self, seconds: float) -> None:
        self._limit = threading.Timer(seconds, self._hang_up)
        self._limit.daemon = True
        self._limit.start()

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, listening: socket.socket) -> None:
        self.address_family = listening.family
        self._free = threading.BoundedSemaphore(CALLERS)
        BaseServer.__init__(self, listening.getsockname(), _Handler)
        self.socket = listening
        self.server_name, self.server_port = "pywg", listening.getsockname()[1]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """One more than there may be is sent away at once, rather than kept waiting."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no more threads to be had
            self._free.release()
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Told by the answer, or there is nobody to tell."""


def serve(listening: socket.socket, application: Callable[..., Any]) -> None:
    """For ever."""
    ServerHandler.server_software = "pywg"
    server = _Server(listening)
    server.set_app(application)
    server.serve_forever(poll_interval=3600)
