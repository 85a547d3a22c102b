"""A web site in a namespace, in clear and by TLS, whose answer names who asked."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tools.lab.namespaces import Namespace


class _Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(f"{self.path} for {self.client_address[0]}")

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            length = sum(map(len, self._chunks()))
        else:
            length = len(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        self._answer(f"{length} bytes from {self.client_address[0]}")

    def _chunks(self) -> Iterator[bytes]:
        """To the last byte: a connection closed with something unread is reset, and the reset may
        overtake the answer."""
        while True:
            chunk = self.rfile.read(int(self.rfile.readline(), 16))
            self.rfile.readline()
            if not chunk:
                return
            yield chunk

    def _answer(self, text: str) -> None:
        data = f"{text} {' '.join(f'{name}={value}' for name, value in self.headers.items())}\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data.encode())

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(("", 0), _Page, bind_and_activate=False)
        self.socket.close()
        self.socket = listener

    def handle_error(self, *_: object) -> None:
        pass


class Web:
    """At an address that the namespace has; ``authority`` is the file of who vouches for it."""

    def __init__(
        self,
        namespace: Namespace,
        address: str,
        name: str,
        folder: Path,
        ports: tuple[int, int] = (80, 443),
    ) -> None:
        self.authority = folder / "authority.pem"
        key = folder / "key.pem"
        certify(name, address, self.authority, key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.authority, key)
        self._servers: list[_Server] = []
        for port in ports:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            listener = namespace.socket(family, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port))
            listener.listen(64)
            if port == ports[1]:
                listener = context.wrap_socket(
                    listener, server_side=True, do_handshake_on_connect=False
                )
            server = _Server(listener)
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            self._servers.append(server)

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def certify(name: str, address: str, certificate: Path, key: Path) -> None:
    """One certificate for everything: authority, server and client."""
    secret = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ip_address(address))])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(secret, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        secret.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
