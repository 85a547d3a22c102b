"""Keys below a prefix of etcd: all of them at one revision, then a watch from the next one on.

By http.client: the client package that we looked at does not tell of compaction, of the end of a
watch, nor of the revision, and knows one member; these are most of this file. After an outage the
watch goes on where it was, so nothing is missed; where etcd has forgotten what was between, all is
read again. So it is where the store is another one, or was restored: a watch from a revision that
is yet to come would hear nothing.
"""

from __future__ import annotations

import http.client
import json
import random
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any

from pywg.config.model import PeerSource
from pywg.errors import PywgError
from pywg.sources import gateway, tls
from pywg.sources.backoff import Backoff
from pywg.sources.gateway import Header, Refused, Watched
from pywg.sources.news import Away, Hear, Part, Same, Whole

CONNECT_S, ANSWER_S = 5.0, 30.0
#: A watch says something every ten minutes at least.
SILENCE_S = 15 * 60.0
#: When a member that is gone without a word is noticed: keepalive of TCP (tcp(7)).
_KEEPALIVE = (
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 25_000),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
)
#: Of one answer or message.
SIZE_MAX = 64 << 20
FAILURES = (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError)


class Etcd:
    """One prefix of one cluster."""

    def __init__(self, source: PeerSource) -> None:
        """Raises PywgError for certificates that cannot be used."""
        self._source = source
        self._prefix = source.place
        self._context = tls.context(source)
        self._member = random.randrange(len(source.endpoints))  # noqa: S311 - gateways spread
        self._known: Header | None = None  # all is known up to this revision
        self._token = ""

    def run(self, hear: Hear) -> None:
        backoff = Backoff(random.random)
        while True:
            reason = "it ended the watch"
            try:
                for news in self._follow():
                    backoff.succeeded()
                    hear(news)
            except Refused as error:
                reason = self._after(error)
            except ssl.SSLCertVerificationError as error:
                reason = f"its certificate is not to be trusted: {error.verify_message} (ca=FILE)"
            except (*FAILURES, PywgError) as error:
                reason = _reason(error)
            if reason:
                hear(Away(f"{self._host()}: {reason}"))
                self._member = (self._member + 1) % len(self._source.endpoints)
            time.sleep(backoff.next_s())

    def _after(self, error: Refused) -> str:
        """Why the store is away; empty where all is simply to be read again."""
        if error.is_login:
            self._token = ""
        if error.is_compacted:
            self._known = None
            return ""
        return str(error)

    def _host(self) -> str:
        host, port = self._source.endpoints[self._member]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    # ---- one connection after the other to one member

    def _follow(self) -> Iterator[Whole | Part | Same]:
        """Until it ends. Raises Refused, FAILURES and PywgError."""
        if self._known is None:
            whole, header = self._read_all()
            self._known = header
            yield whole
        known = self._known
        request = gateway.watch_request(self._prefix, known.revision + 1)
        for message in self._watch(request):
            if message.is_created and _is_another(known, message.header):
                raise Refused("another store, or one that was restored", gateway.OUT_OF_RANGE)
            if message.compacted:
                raise Refused("what was between is compacted", gateway.OUT_OF_RANGE)
            if message.is_canceled:
                raise Refused(message.reason or "it ended the watch", 0)
            if not message.is_part and not message.is_created:
                self._known = message.header
            position = str(message.header.revision)
            yield Part(message.texts, position) if message.texts else Same(position)

    def _read_all(self) -> tuple[Whole, Header]:
        """In pages, all at the revision of the first."""
        texts: dict[str, str] = {}
        connection = self._connect()
        try:
            after, revision = b"", 0
            header: Header | None = None
            while header is None or after:
                request = gateway.range_request(self._prefix, after, revision)
                page = gateway.page(self._prefix, self._ask(connection, "/v3/kv/range", request))
                texts.update(page.texts)
                header = header or page.header
                revision = header.revision
                after = page.last if page.has_more else b""
        finally:
            connection.close()
        texts.pop("", None)
        return Whole(texts, str(revision)), header

    def _watch(self, request: dict[str, Any]) -> Iterator[Watched]:
        connection = self._connect()
        try:
            answer = self._send(connection, "/v3/watch", request)
            assert connection.sock is not None  # noqa: S101 - an open answer has one
            connection.sock.settimeout(SILENCE_S)
            while line := answer.readline(SIZE_MAX):
                if line.strip():
                    yield gateway.watched(self._prefix, line)
        finally:
            connection.close()

    # ---- HTTP

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._source.endpoints[self._member]
        if self._context is None:
            made = http.client.HTTPConnection(host, port, timeout=CONNECT_S)
        else:
            made = http.client.HTTPSConnection(host, port, timeout=CONNECT_S, context=self._context)
        try:
            made.connect()
            for level, name, value in _KEEPALIVE:
                made.sock.setsockopt(level, name, value)
            made.sock.settimeout(ANSWER_S)
            self._log_in(made)
        except BaseException:
            made.close()
            raise
        return made

    def _log_in(self, connection: http.client.HTTPConnection) -> None:
        if self._source.token is not None:
            self._token = tls.secret(self._source.token)
        elif self._source.login is not None and not self._token:
            user, password = tls.login(self._source.login)
            request = {"name": user, "password": password}
            self._token = gateway.token(self._ask(connection, "/v3/auth/authenticate", request))

    def _ask(
        self, connection: http.client.HTTPConnection, path: str, body: dict[str, Any]
    ) -> bytes:
        answer = self._send(connection, path, body)
        data = answer.read(SIZE_MAX)
        answer.read()  # so that the connection is free for the next question
        return data

    def _send(
        self, connection: http.client.HTTPConnection, path: str, body: dict[str, Any]
    ) -> http.client.HTTPResponse:
        # As with WithRequireLeader: a member that is cut off from the others says so.
        headers = {"Content-Type": "application/json", "Grpc-Metadata-Hasleader": "true"}
        if self._token:
            headers["Authorization"] = self._token
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        if answer.status == 404:
            raise Refused("it has no /v3: expected etcd 3.4 or newer, and its client port", 0)
        return answer


def _is_another(known: Header, now: Header) -> bool:
    return now.cluster != known.cluster or now.revision < known.revision


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, (ValueError, KeyError, TypeError, AttributeError)):
        return "its answer is none of etcd's"
    return str(error) or type(error).__name__
