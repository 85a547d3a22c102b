"""Endpoint names to addresses by the C library, with the patience of wg(8).

The only module that asks the C library, which reads /etc/hosts and resolv.conf anew where they have
changed (glibc since 2.26, musl always). Time is an argument: ``sleep`` can be replaced. Invariant:
no wait of more than two seconds goes untold.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from pywg.config import Config, Endpoint, Family, PeerSection
from pywg.config.values import shown_host
from pywg.errors import ConfigError
from pywg.host.patience import Tell, told_when_late

RETRIES_DEFAULT = 15
DELAY_FIRST_S = 1.0
DELAY_GROWTH = 1.2
DELAY_MAX_S = 20.0
# The name does not exist: waiting will not help.
FINAL = frozenset({socket.EAI_NONAME, socket.EAI_FAIL, getattr(socket, "EAI_NODATA", -5)})

#: For all names and all tries together, of whoever is not `wg`.
PATIENCE_S = 5.0
#: Questions at the same time.
THREADS = 32

# A name is asked for as this; and what may come back.
Question = tuple[Endpoint, Family]
Answer = Sequence[Endpoint] | socket.gaierror
LookUp = Callable[[Endpoint, Family], Sequence[Endpoint]]

SILENCE = socket.gaierror(socket.EAI_AGAIN, "the resolver does not answer")

FAMILIES: dict[Family, socket.AddressFamily] = {
    "auto": socket.AF_UNSPEC,
    "ipv4": socket.AF_INET,
    "ipv6": socket.AF_INET6,
}


def retries_from_environment() -> float:
    """WG_ENDPOINT_RESOLUTION_RETRIES: a number, or `infinity`."""
    text = os.environ.get("WG_ENDPOINT_RESOLUTION_RETRIES", "")
    if text == "infinity":
        return float("inf")
    return float(text) if text.isascii() and text.isdigit() else float(RETRIES_DEFAULT)


def is_name(endpoint: Endpoint) -> bool:
    """Whether its host can come to mean another address."""
    return endpoint.address() is None


def family_of(peer: PeerSection) -> Family:
    """``EndpointFamily``; an address that is written out has its own."""
    family = peer.endpoint_family
    return family if peer.endpoint is not None and is_name(peer.endpoint) else "auto"


def look_up(endpoint: Endpoint, family: Family = "auto") -> tuple[Endpoint, ...]:
    """All addresses of the host, in the resolver's order. Asks once.

    Raises socket.gaierror, also for what can be no host name. The resolver puts first what this
    machine can reach (RFC 6724): on a host without IPv6 that is an IPv4 address.
    """
    try:
        found = socket.getaddrinfo(
            endpoint.host, endpoint.port, family=FAMILIES[family], type=socket.SOCK_DGRAM
        )
    except UnicodeError:
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from None
    numeric = (_numeric(endpoint, entry[4]) for entry in found)
    return tuple(dict.fromkeys(numeric))


def entries(
    host: str | None, port: str, family: int, kind: int, *, protocol: int, flags: int
) -> list[tuple[int | str, ...]]:
    """getaddrinfo(3) for a program: family, kind, protocol, canonical name, then the address.
    Raises socket.gaierror, and UnicodeError for what can be no host name."""
    found = socket.getaddrinfo(host, port or None, family, kind, protocol, flags)
    return [
        (int(entry[0]), int(entry[1]), entry[2], entry[3], *map(_plain, entry[4]))
        for entry in found
    ]


def _plain(part: object) -> int | str:
    return part if isinstance(part, int) else str(part)


def spelled(endpoint: Endpoint) -> Endpoint:
    """A numeric endpoint as the C library writes it: a zone by the name of its interface, where
    there is one of that name or index here. Nothing is looked up outside this machine."""
    try:
        found = socket.getaddrinfo(
            endpoint.host, endpoint.port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
        )
        numeric = socket.NI_DGRAM | socket.NI_NUMERICSERV | socket.NI_NUMERICHOST
        host, _ = socket.getnameinfo(found[0][4], numeric)
    except OSError:
        return endpoint  # a zone of another network namespace: as the device spells it
    return replace(endpoint, host=host)


def resolve(
    config: Config,
    sleep: Callable[[float], None] = time.sleep,
    *,
    tell: Tell = lambda line: None,
    ask: LookUp = look_up,
) -> Config:
    """The same configuration with every endpoint numeric: the first address that is found. A name
    that has none now is asked for again as wg(8) does it, and ``tell`` hears each time."""
    peers = tuple(
        peer
        if peer.endpoint is None
        else replace(peer, endpoint=_resolve(peer, config.path, sleep, tell, ask))
        for peer in config.peers
    )
    return replace(config, peers=peers)


def _resolve(
    peer: PeerSection, path: str, sleep: Callable[[float], None], tell: Tell, ask: LookUp
) -> Endpoint:
    assert peer.endpoint is not None  # noqa: S101 - see above
    if not is_name(peer.endpoint) and "%" not in peer.endpoint.host:
        return peer.endpoint
    attempts = retries_from_environment()
    delay = DELAY_FIRST_S
    while True:
        try:
            with told_when_late(tell, f"waiting for the resolver: {peer.endpoint}"):
                return _beside(asker(peer, ask), peer.endpoint, family_of(peer))[0]
        except socket.gaierror as error:
            attempts -= 1
            if error.errno in FINAL or attempts < 0:
                raise unknown(peer, path, error) from None
            tell(f"{error.strerror}: `{peer.endpoint}'. Trying again in {delay:.2f} seconds...")
        sleep(delay)
        delay = longer(delay)


def _beside(ask: LookUp, endpoint: Endpoint, family: Family) -> Sequence[Endpoint]:
    """The answer of another thread: while the C library waits for a server, Ctrl-C and SIGTERM
    would have to wait, too. The thread is left behind, and ends with its answer."""
    answers: queue.SimpleQueue[Sequence[Endpoint] | BaseException] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put(ask(endpoint, family))
        except BaseException as error:
            answers.put(error)

    threading.Thread(target=work, daemon=True).start()
    answer = answers.get()
    if isinstance(answer, BaseException):
        raise answer
    return answer


def resolve_now(config: Config, seconds: float = PATIENCE_S) -> Config:
    """The same configuration with every endpoint numeric, for a program that has it in its hand.

    All names are asked for at the same time, once, each in a thread of its own: `up` is what waits
    longer, and asks again. Raises ConfigError for a name that has no address after so many seconds.
    """
    named = [peer for peer in config.peers if has_to_be_asked(peer.endpoint)]
    answers = look_up_all({question(peer): look_up for peer in named}, seconds)
    return replace(
        config, peers=tuple(_answered(peer, config.path, answers) for peer in config.peers)
    )


def _answered(peer: PeerSection, path: str, answers: Mapping[Question, Answer]) -> PeerSection:
    if not has_to_be_asked(peer.endpoint):
        return peer
    answer = answers.get(question(peer), SILENCE)
    if isinstance(answer, socket.gaierror):
        raise unknown(peer, path, answer)
    return replace(peer, endpoint=answer[0])


def has_to_be_asked(endpoint: Endpoint | None) -> bool:
    """A name, or a zone, which becomes a number."""
    return endpoint is not None and (is_name(endpoint) or "%" in endpoint.host)


def question(peer: PeerSection) -> Question:
    assert peer.endpoint is not None  # noqa: S101 - nobody asks for another
    return peer.endpoint, family_of(peer)


def asker(peer: PeerSection, outside: LookUp) -> LookUp:
    """``EndpointDns``: a peer whose name only the tunnel's name servers know is asked for as any
    program here asks."""
    return look_up if peer.endpoint_dns == "tunnel" else outside


def longer(delay: float) -> float:
    """The pause after this one."""
    return min(delay * DELAY_GROWTH, DELAY_MAX_S)


def unknown(peer: PeerSection, path: str, error: socket.gaierror) -> ConfigError:
    """That a peer's endpoint cannot be resolved, with its line."""
    assert peer.endpoint is not None  # noqa: S101 - nothing was asked for otherwise
    at, family = peer.endpoint.position, family_of(peer)
    what = "" if family == "auto" else f" to an {_spelled(family)} address"
    host = shown_host(peer.endpoint.host)
    message = f"Endpoint: cannot resolve {host}{what}: {error.strerror}"
    return ConfigError(path, at.line, at.column, message)


def look_up_all(askers: Mapping[Question, LookUp], seconds: float) -> dict[Question, Answer]:
    """All at the same time, each by its own way; what has no answer in time is missing. A thread
    that still waits for one then is left behind: nobody waits for it, and it ends with its answer.
    """
    waiting: queue.SimpleQueue[tuple[Question, LookUp]] = queue.SimpleQueue()
    answers: queue.SimpleQueue[tuple[Question, Answer]] = queue.SimpleQueue()
    for item in askers.items():
        waiting.put(item)
    for _ in range(min(len(askers), THREADS)):
        threading.Thread(target=_work, args=(waiting, answers), daemon=True).start()
    found: dict[Question, Answer] = {}
    limit = time.monotonic() + seconds
    with contextlib.suppress(queue.Empty):
        while len(found) < len(askers):
            question, answer = answers.get(timeout=max(limit - time.monotonic(), 0))
            found[question] = answer
    with contextlib.suppress(queue.Empty):
        while True:
            waiting.get_nowait()
    return found


def _work(
    waiting: queue.SimpleQueue[tuple[Question, LookUp]],
    answers: queue.SimpleQueue[tuple[Question, Answer]],
) -> None:
    with contextlib.suppress(queue.Empty):
        while True:
            question, ask = waiting.get_nowait()
            try:
                answers.put((question, ask(*question)))
            except socket.gaierror as error:
                answers.put((question, error))


def _spelled(family: Family) -> str:
    return "IPv4" if family == "ipv4" else "IPv6"


def _numeric(endpoint: Endpoint, address: tuple[object, ...]) -> Endpoint:
    """One address found; a zone becomes its interface index."""
    host = str(address[0]).partition("%")[0]
    scope_id = address[3] if len(address) == 4 else 0
    return replace(endpoint, host=f"{host}%{scope_id}" if scope_id else host)
