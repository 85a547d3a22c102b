"""What `up` and `reload` do about endpoint names: a name that cannot be had keeps no other peer
waiting.

All names are asked for at the same time, for a few seconds. A peer whose name has no address by
then is left without endpoint, and the process that hosts the tunnel goes on asking. Where nothing
in the file can be reached, and waiting will not help, the file is refused, as wg-quick does.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from pywg.config import Config, PeerSection
from pywg.host import resolver
from pywg.host.patience import Tell, told_when_late
from pywg.host.resolver import (
    DELAY_FIRST_S,
    DELAY_MAX_S,
    FINAL,
    PATIENCE_S,
    SILENCE,
    Answer,
    LookUp,
    Question,
    has_to_be_asked,
    is_name,
    question,
)

NOTHING_SENT = "nothing is sent to it until then"
AS_BEFORE = "until then it keeps the address that it has, if it has one"

Answers = dict[Question, Answer]


def numeric(
    config: Config,
    tell: Tell,
    *,
    ask: LookUp = resolver.look_up,
    meanwhile: str = NOTHING_SENT,
    sleep: Callable[[float], None] = time.sleep,
    patience_s: float = PATIENCE_S,
) -> Config:
    """With numeric endpoints, or none. ``tell`` hears of each name that has no address, and of
    waits; ``meanwhile`` says what becomes of its peer. Raises ConfigError."""
    asked = [peer for peer in config.peers if has_to_be_asked(peer.endpoint)]
    late = f"waiting for the resolver, {patience_s:g} s at most: {_names(asked)}"
    with told_when_late(tell, late):
        answers = _search(asked, tell, ask, sleep, patience_s)
    failed = [peer for peer in asked if _error(peer, answers)]
    _check(config, failed, answers)
    for peer in failed:
        again = f"asked again every {DELAY_MAX_S:g} s"
        tell(f"{_told(peer, answers)}: {again}; {meanwhile}")
    peers = tuple(_with_address(peer, answers) for peer in config.peers)
    return replace(config, peers=peers)


def _search(
    asked: Sequence[PeerSection],
    tell: Tell,
    ask: LookUp,
    sleep: Callable[[float], None],
    patience_s: float,
) -> Answers:
    """A name that may have an address soon is asked for again, within the time."""
    limit = time.monotonic() + patience_s
    retries, delay = resolver.retries_from_environment(), DELAY_FIRST_S
    answers = resolver.look_up_all(_askers(asked, ask), patience_s)
    while True:
        soon = [peer for peer in asked if _is_temporary(_error(peer, answers))]
        retries -= 1
        if not soon or retries < 0 or time.monotonic() + delay >= limit:
            return answers
        for peer in soon:
            tell(f"{_told(peer, answers)}: asked again in {delay:.3g} s")
        sleep(delay)
        delay = resolver.longer(delay)
        answers |= resolver.look_up_all(_askers(soon, ask), limit - time.monotonic())


def _askers(peers: Sequence[PeerSection], ask: LookUp) -> dict[Question, LookUp]:
    return {question(peer): resolver.asker(peer, ask) for peer in peers}


def _check(config: Config, failed: Sequence[PeerSection], answers: Answers) -> None:
    """Raises ConfigError for a zone that is not here, which nobody will ask for again, and where
    there is no peer with an address, nor one that may come by itself, and none is to be had."""
    hopeless = [peer for peer in failed if not _is_temporary(_error(peer, answers))]
    lost = [peer for peer in hopeless if not is_name(question(peer)[0])]
    if {peer.public_key for peer in hopeless} == {peer.public_key for peer in config.peers}:
        lost = hopeless
    if lost:
        raise resolver.unknown(lost[0], config.path, _error(lost[0], answers) or SILENCE)


def _error(peer: PeerSection, answers: Answers) -> socket.gaierror | None:
    answer = answers.get(question(peer), SILENCE)
    return answer if isinstance(answer, socket.gaierror) else None


def _is_temporary(error: socket.gaierror | None) -> bool:
    return error is not None and error.errno not in FINAL


def _with_address(peer: PeerSection, answers: Answers) -> PeerSection:
    if not has_to_be_asked(peer.endpoint):
        return peer
    answer = answers.get(question(peer), SILENCE)
    return replace(peer, endpoint=None if isinstance(answer, socket.gaierror) else answer[0])


def _told(peer: PeerSection, answers: Answers) -> str:
    endpoint, _ = question(peer)
    error = _error(peer, answers) or SILENCE
    return f"peer {peer.public_key.short}: {endpoint.host} does not resolve ({error.strerror})"


def _names(asked: Sequence[PeerSection]) -> str:
    names = list(dict.fromkeys(question(peer)[0].host for peer in asked))
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
