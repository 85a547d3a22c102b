"""What a proxy understands and answers, by plain values: SOCKS5, HTTP, places, health."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywg.errors import PywgError
from pywg.proxy import access, health, http, socks5
from pywg.proxy.access import Credentials, Place, parse_place
from pywg.proxy.http import BadRequest, Chunks, Framing, Head
from pywg.proxy.socks import reply_to
from pywg.proxy.socks5 import Command, ProtocolError, Reply, Target
from pywg.proxy.web import status_of
from pywg.rootless.messages import State

ADDRESSES = st.ip_addresses().map(str)
NAMES = st.from_regex(r"[a-z0-9.-]{1,255}", fullmatch=True)
PORTS = st.integers(0, 65535)

# ---- SOCKS5


@pytest.mark.parametrize(
    ("data", "methods"),
    [(b"\5\1\0", b"\0"), (b"\5\2\0\2", b"\0\2"), (b"\5\0", b"")],
)
def test_a_greeting_offers_methods(data: bytes, methods: bytes) -> None:
    assert socks5.greeting(data + b"more") == (frozenset(methods), len(data))


def test_credentials_are_two_words() -> None:
    data = b"\1\4user\4pass"
    assert socks5.credentials(data + b"x") == ((b"user", b"pass"), len(data))


@pytest.mark.parametrize(
    ("raw", "host"),
    [
        (b"\1\12\143\0\2", "10.99.0.2"),
        (b"\4" + socket.inet_pton(socket.AF_INET6, "fd99::2"), "fd99::2"),
        (b"\3\12www.a.test", "www.a.test"),
    ],
)
@pytest.mark.parametrize("command", list(Command))
def test_a_request_names_a_target(raw: bytes, host: str, command: Command) -> None:
    data = bytes((5, command, 0)) + raw + b"\1\273"
    found = socks5.request(data + b"early")
    assert found is not None
    assert found == (socks5.Request(command, Target(host, 443)), len(data))


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (b"\4\1\0\1", None),
        (b"\5\11\0\1\12\0\0\1\0\120", Reply.NO_SUCH_COMMAND),
        (b"\5\1\0\2", Reply.NO_SUCH_ADDRESS_TYPE),
        (b"\5\1\0\3\0\0\120", Reply.HOST_UNREACHABLE),
        (b"\5\1\0\3\3a\nb\0\120", Reply.HOST_UNREACHABLE),
        (b"\5\1\0\3\3a\0b\0\120", Reply.HOST_UNREACHABLE),
        (b"\5\1\0\3\2\xc3\xa9\0\120", Reply.HOST_UNREACHABLE),
    ],
)
def test_a_wrong_request_has_its_reply(data: bytes, reply: Reply | None) -> None:
    with pytest.raises(ProtocolError) as caught:
        socks5.request(data)
    assert caught.value.reply == reply


@pytest.mark.parametrize(
    ("parse", "whole"),
    [
        (socks5.greeting, b"\5\3\0\1\2"),
        (socks5.credentials, b"\1\4user\4pass"),
        (socks5.request, b"\5\1\0\3\4host\0\120"),
        (socks5.request, b"\5\3\0\4" + bytes(16) + b"\0\120"),
        (http.parse, b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    ],
)
def test_a_message_that_is_cut_waits_for_the_rest(parse: object, whole: bytes) -> None:
    assert callable(parse)
    assert [parse(whole[:length]) for length in range(len(whole))] == [None] * len(whole)
    assert parse(whole)[1] == len(whole)


@given(ADDRESSES, PORTS, st.binary(max_size=50))
def test_a_datagram_comes_back_as_it_was(host: str, port: int, data: bytes) -> None:
    wire = socks5.datagram_header(host, port) + data
    found = socks5.datagram(wire)
    assert (ip_address(found.target.host), found.target.port) == (ip_address(host), port)
    assert wire[found.start :] == data


@given(NAMES, PORTS, st.binary(max_size=50))
def test_a_datagram_to_a_name_is_read(name: str, port: int, data: bytes) -> None:
    wire = b"\0\0\0\3" + bytes((len(name),)) + name.encode() + port.to_bytes(2) + data
    found = socks5.datagram(wire)
    assert (found.target, wire[found.start :]) == (Target(name, port), data)


@given(st.binary(max_size=600))
def test_any_bytes_are_a_message_or_wait_or_are_refused(data: bytes) -> None:
    for head in (b"", b"\5", b"\5\1\0", b"\1", b"\0\0\0"):
        for parse in (socks5.greeting, socks5.credentials, socks5.request):
            with contextlib.suppress(ProtocolError):
                found = parse(head + data)
                # Waits only as long as a message can be.
                assert found is not None or len(head + data) < socks5.BYTES_MAX
                assert found is None or found[1] <= len(head + data)
        with contextlib.suppress(ProtocolError):
            assert socks5.datagram(head + data).start <= len(head + data)


@pytest.mark.parametrize(
    ("error", "reply", "status"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, ""), Reply.REFUSED, 502),
        (OSError(errno.ENETUNREACH, ""), Reply.NETWORK_UNREACHABLE, 502),
        (OSError(errno.ETIMEDOUT, ""), Reply.HOST_UNREACHABLE, 504),
        (socket.gaierror(socket.EAI_NONAME, ""), Reply.HOST_UNREACHABLE, 502),
        (OSError(errno.EMFILE, ""), Reply.FAILURE, 502),
        (PywgError("gone"), Reply.FAILURE, 502),
    ],
)
def test_what_fails_inside_is_told(error: Exception, reply: Reply, status: int) -> None:
    assert (reply_to(error), status_of(error)) == (reply, status)


# ---- HTTP


def head(text: str) -> Head:
    found = http.parse(text.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    assert found is not None
    return found[0]


@pytest.mark.parametrize(
    ("line", "target", "path"),
    [
        ("CONNECT a.test:443 HTTP/1.1", Target("a.test", 443), b""),
        ("CONNECT [fd99::2]:443 HTTP/1.1", Target("fd99::2", 443), b""),
        ("GET http://a.test HTTP/1.1", Target("a.test", 80), b"/"),
        ("GET HTTP://a.test:81/x?y HTTP/1.0", Target("a.test", 81), b"/x?y"),
        ("GET http://[fd99::2]?q HTTP/1.1", Target("fd99::2", 80), b"/?q"),
        ("GET /healthz HTTP/1.1", None, b"/healthz"),
    ],
)
def test_a_request_line_names_its_target(line: str, target: Target | None, path: bytes) -> None:
    found = head(line)
    assert (found.target, found.path) == (target, path)


@pytest.mark.parametrize(
    "text",
    [
        "GET",
        "GET  http://a/ HTTP/1.1",
        "GET http://a/ HTTP/2.0",
        "GET https://a/ HTTP/1.1",
        "GET http://user@a/ HTTP/1.1",
        "GET http://a/#x HTTP/1.1",
        "GET http://a:0/ HTTP/1.1",
        "GET http://a:65536/ HTTP/1.1",
        "GET * HTTP/1.1",
        "CONNECT a HTTP/1.1",
        "CONNECT fd99::2:443 HTTP/1.1",
        "CONNECT http://a/ HTTP/1.1",
        "GET http://a/ HTTP/1.1\nno colon",
        "GET http://a/ HTTP/1.1\nspace : x",
        "GET http://a/ HTTP/1.1\nX: y\n folded",
        "GET http://a/ HTTP/1.1\nX: \0",
        "GET http://a/ HTTP/1.1\nX: a\rb",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        head(text)


def test_a_head_without_end_is_refused_in_the_end() -> None:
    with pytest.raises(BadRequest) as caught:
        http.parse(b"GET http://a/ HTTP/1.1\r\n" + b"X: y\r\n" * http.HEAD_BYTES_MAX)
    assert caught.value.status == 431


@pytest.mark.parametrize(
    ("fields", "framing"),
    [
        ("X: y", Framing(0)),
        ("Content-Length: 7", Framing(7)),
        ("Transfer-Encoding: Chunked", Framing(None)),
    ],
)
def test_a_body_has_one_end(fields: str, framing: Framing) -> None:
    assert http.framing(head(f"POST http://a/ HTTP/1.1\n{fields}")) == framing


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ("Content-Length: 1\nContent-Length: 1", 400),
        ("Content-Length: -1", 400),
        ("Content-Length: +1", 400),
        ("Content-Length: 1, 1", 400),
        ("Content-Length: 1\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: gzip, chunked", 501),
        ("Transfer-Encoding: chunked\nTransfer-Encoding: chunked", 501),
    ],
)
def test_a_body_with_two_ends_is_refused(fields: str, status: int) -> None:
    with pytest.raises(BadRequest) as caught:
        http.framing(head(f"POST http://a/ HTTP/1.1\n{fields}"))
    assert caught.value.status == status


def test_what_is_of_the_hop_alone_is_not_passed_on() -> None:
    text = (
        "POST http://a.test:81/x HTTP/1.1\nHost: other\nX-Kept: 1\nProxy-Authorization: Basic x\n"
        "Connection: close, X-Named, content-length\nX-Named: 2\nProxy-Connection: keep-alive\n"
        "TE: trailers\nUpgrade: h2c\nContent-Length: 3"
    )
    assert http.passed_on(head(text)) == (
        b"POST /x HTTP/1.1\r\nHost: a.test:81\r\nX-Kept: 1\r\nContent-Length: 3\r\n"
        b"Connection: close\r\n\r\n"
    )
    assert b"Host: [fd99::2]\r\n" in http.passed_on(head("GET http://[fd99::2]/ HTTP/1.1"))


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("Basic dXNlcjpwYXNzOndvcmQ=", (b"user", b"pass:word")),
        ("basic dXNlcjo=", (b"user", b"")),
        ("Basic dXNlcg==", None),
        ("Basic ?", None),
        ("Bearer dXNlcjo=", None),
    ],
)
def test_user_and_password_of_a_head(value: str, found: tuple[bytes, bytes] | None) -> None:
    text = f"GET http://a/ HTTP/1.1\nProxy-Authorization: {value}"
    assert http.credentials(head(text)) == found


CHUNKED = b"4\r\nWiki\r\n6;name=x\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\nX: y\r\n\r\n"


@given(st.lists(st.integers(1, 9), min_size=1))
def test_chunks_end_where_they_end_however_they_come(steps: list[int]) -> None:
    chunks, at, data = Chunks(), 0, CHUNKED + b"GET /"
    while not chunks.is_done:
        for step in steps:
            taken = chunks.feed(data[at : at + step])
            at += taken
            if chunks.is_done:
                break
    assert at == len(CHUNKED)


@pytest.mark.parametrize(
    "data", [b"\r\n", b"x\r\n", b"-1\r\n", b"1\n", b"1\r\nab\r\n;\r\n", b"0x1\r\n"]
)
def test_chunks_that_are_none_are_refused(data: bytes) -> None:
    with pytest.raises(BadRequest):
        Chunks().feed(data)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_head_or_wait_or_are_refused(data: bytes) -> None:
    for begin in (b"", b"GET http://a/ HTTP/1.1\r\n", b"CONNECT "):
        with contextlib.suppress(BadRequest):
            found = http.parse(begin + data + b"\r\n\r\n")
            assert found is not None
            if found[0].target is not None:
                http.framing(found[0])
                again = http.passed_on(found[0])
                assert again.count(b"\r\n\r\n") == 1
                assert again.endswith(b"\r\n\r\n")
    with contextlib.suppress(BadRequest):
        assert Chunks().feed(data) <= len(data)


# ---- places and passwords


@pytest.mark.parametrize(
    ("text", "place", "is_remote"),
    [
        ("1080", Place(("127.0.0.1", "::1"), 1080), False),
        (":1080", Place(("127.0.0.1", "::1"), 1080), False),
        ("0", Place(("127.0.0.1",), 0), False),
        ("localhost:1", Place(("127.0.0.1", "::1"), 1), False),
        ("127.0.0.2:1", Place(("127.0.0.2",), 1), False),
        ("[::1]:1", Place(("::1",), 1), False),
        ("0.0.0.0:1", Place(("0.0.0.0",), 1), True),
        ("[::]:1", Place(("::",), 1), True),
        ("192.0.2.1:1", Place(("192.0.2.1",), 1), True),
        ("unix:/run/x", Place(path="/run/x"), False),
    ],
)
def test_a_place_is_for_this_machine_unless_it_says_otherwise(
    text: str, place: Place, is_remote: bool
) -> None:
    assert parse_place(text) == place
    assert place.is_remote == is_remote


@pytest.mark.parametrize(
    "text", ["", "x", "*:1", "a.test:1", "::1:1", "[::1]", "1.2.3.4:65536", "[1.2.3.4]:1", "unix:"]
)
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        parse_place(text)


def test_a_password_is_compared_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "auth"
    file.write_text("user:pass:word\n")
    file.chmod(0o600)
    found = access.credentials(file)
    assert found is not None
    assert found.are(b"user", b"pass:word")
    assert not found.are(b"user", b"pass:wor")
    assert not found.are(b"userp", b"ass:word")
    assert "pass" not in repr(found)
    monkeypatch.setenv(access.VARIABLE, "a:b")
    assert access.credentials(None) == Credentials.of(b"a", b"b")
    assert access.credentials(None) is None  # it has been taken away


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("word", 0o600, "USER:PASSWORD"),
        (":secretword", 0o600, "USER:PASSWORD"),
        ("a:b\nc:d", 0o600, "USER:PASSWORD"),
        ("a:" + "secretword" * 30, 0o600, "USER:PASSWORD"),
        ("a:secretword", 0o644, "chmod 600"),
    ],
)
def test_a_file_of_a_password_is_strict(tmp_path: Path, text: str, mode: int, said: str) -> None:
    file = tmp_path / "auth"
    file.write_text(text)
    file.chmod(mode)
    with pytest.raises(PywgError, match=said) as caught:
        access.credentials(file)
    assert "secretword" not in str(caught.value)


# ---- health


@pytest.mark.parametrize(
    ("state", "verdict", "status"),
    [
        (State(-1, 0, 0, 0), "idle", 200),
        (State(-1, 148, 0, 0), "no handshake", 503),
        (State(3, 148, 92, 0), "ok", 200),
        (State(9999, 148, 92, 0), "ok", 200),
        (State(205, 148, 92, 25), "ok", 200),
        (State(206, 148, 92, 25), "stale", 503),
    ],
)
def test_a_tunnel_is_well_or_not(state: State, verdict: str, status: int) -> None:
    code, text = health.answer(state, 1, 0)
    assert (code, json.loads(text)["status"]) == (status, verdict)
