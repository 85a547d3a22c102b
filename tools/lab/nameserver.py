"""A name server in a namespace, by UDP and TCP: says what it is told to, or nothing, and remembers
who asked for what."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Sequence
from typing import Self

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from tools.lab.namespaces import Namespace

PORT = 53


class NameServer:
    """At an address that the namespace has. ``records`` may be changed at any time; a name that is
    not in it does not exist."""

    def __init__(self, namespace: Namespace, address: str, **records: Sequence[str]) -> None:
        self.records: dict[str, Sequence[str]] = dict(records)
        self.is_silent = False
        self.cuts_udp = False  # every answer by UDP is cut, so that TCP is tried
        self.asked: list[str] = []  # "udp vpn.example.test. A 192.0.2.1"
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._udp = namespace.socket(family, socket.SOCK_DGRAM)
        self._tcp = namespace.socket(family, socket.SOCK_STREAM)
        for sock in (self._udp, self._tcp):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, PORT))
        self._tcp.listen()
        for work in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=work, daemon=True).start()

    def close(self) -> None:
        for sock in (self._udp, self._tcp):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # ends the thread that waits
            sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve_udp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                request, source = self._udp.recvfrom(1 << 16)
                if not request:
                    return  # shut down
                answer = self._answer("udp", request, source[0])
                if answer is not None:
                    self._udp.sendto(answer, source)

    def _serve_tcp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, source = self._tcp.accept()
                with client, contextlib.suppress(OSError, struct.error):
                    (length,) = struct.unpack("!H", client.recv(2, socket.MSG_WAITALL))
                    request = client.recv(length, socket.MSG_WAITALL)
                    answer = self._answer("tcp", request, source[0])
                    if answer is not None:
                        client.sendall(struct.pack("!H", len(answer)) + answer)

    def _answer(self, way: str, request: bytes, source: str) -> bytes | None:
        message = dns.message.from_wire(request)
        question = message.question[0]
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append(f"{way} {question.name} {kind} {source}")
        if self.is_silent:
            return None
        answer = dns.message.make_response(message)
        addresses = self.records.get(question.name.to_text(omit_final_dot=True))
        if addresses is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif way == "udp" and self.cuts_udp:
            answer.flags |= dns.flags.TC
        else:
            wanted = [address for address in addresses if (":" in address) == (kind == "AAAA")]
            if wanted:
                answer.answer.append(dns.rrset.from_text_list(question.name, 0, "IN", kind, wanted))
        return answer.to_wire()
