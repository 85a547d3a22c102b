"""What `up` and `reload` do about names: all at the same time, with a word for each that fails."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping, Sequence

import pytest

from pywg.config import Config, Endpoint, parse
from pywg.config.model import Family
from pywg.errors import ConfigError
from pywg.host import resolver
from pywg.keys import PrivateKey
from pywg.tunnel import lookup

KEYS = [PrivateKey.generate().public for _ in range(4)]
NONAME = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
AGAIN = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


def config(*endpoints: str) -> Config:
    """An empty endpoint is that of a peer who comes by himself."""
    text = "".join(
        f"[Peer]\nPublicKey={key}\n" + (f"Endpoint={endpoint}\n" if endpoint else "")
        for key, endpoint in zip(KEYS, endpoints, strict=False)
    )
    return parse(text, "wg0.conf")


class Resolver:
    """Answers a name by its first label; a list of errors is answered one after the other."""

    def __init__(self, answers: Mapping[str, object]) -> None:
        self.answers = dict(answers)
        self.asked: list[str] = []

    def __call__(self, endpoint: Endpoint, family: Family) -> Sequence[Endpoint]:
        self.asked.append(endpoint.host)
        answer = self.answers[endpoint.host.partition(".")[0]]
        if isinstance(answer, list):
            answer = answer.pop(0)
        if isinstance(answer, socket.gaierror):
            raise answer
        return [Endpoint(str(answer), endpoint.port)]


def numeric(
    given: Config, answers: Mapping[str, object]
) -> tuple[list[str], list[str], list[float]]:
    """The endpoints, what was told, and the pauses."""
    told: list[str] = []
    pauses: list[float] = []
    done = lookup.numeric(given, told.append, ask=Resolver(answers), sleep=pauses.append)
    return [str(peer.endpoint) for peer in done.peers], told, pauses


def test_a_peer_whose_name_does_not_exist_is_left_without_endpoint_and_told() -> None:
    found, told, pauses = numeric(config("192.0.2.1:5", "nx.example:5"), {"nx": NONAME})
    assert found == ["192.0.2.1:5", "None"]
    assert told == [
        f"peer {str(KEYS[1])[:4]}…: nx.example does not resolve (Name or service not known): "
        "asked again every 20 s; nothing is sent to it until then"
    ]
    assert pauses == []


def test_a_name_that_may_resolve_soon_is_asked_again_and_each_try_is_told() -> None:
    answers = {"a": [AGAIN, AGAIN, "192.0.2.7"]}
    found, told, pauses = numeric(config("a.example:5"), answers)
    assert found == ["192.0.2.7:5"]
    assert pauses == pytest.approx([1, 1.2])
    assert [line.rpartition(": ")[2] for line in told] == [
        "asked again in 1 s",
        "asked again in 1.2 s",
    ]


@pytest.mark.parametrize(("retries", "pauses"), [("0", 0), ("1", 1), ("infinity", 3)])
def test_the_environment_allows_fewer_tries_but_no_longer_wait(
    monkeypatch: pytest.MonkeyPatch, retries: str, pauses: int
) -> None:
    monkeypatch.setenv("WG_ENDPOINT_RESOLUTION_RETRIES", retries)
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    done = lookup.numeric(
        config("a.example:5"), lambda line: None, ask=Resolver({"a": AGAIN}), sleep=sleep
    )
    assert done.peers[0].endpoint is None
    assert len(slept) == pauses
    assert sum(slept) < resolver.PATIENCE_S


@pytest.mark.parametrize(
    ("endpoints", "refused"),
    [
        (["nx.example:5"], True),
        (["nx.example:5", "ny.example:5"], True),
        (["nx.example:5", "soon.example:5"], False),
        (["nx.example:5", "192.0.2.1:5"], False),
        (["nx.example:5", ""], False),
        (["192.0.2.1:5", "[fe80::1%nozone]:5"], True),
    ],
)
def test_only_a_file_that_reaches_nobody_is_refused(endpoints: list[str], refused: bool) -> None:
    answers = {"nx": NONAME, "ny": NONAME, "soon": AGAIN, "[fe80": NONAME, "fe80::1%nozone": NONAME}
    given = config(*endpoints)
    if not refused:
        numeric(given, answers)
        return
    with pytest.raises(ConfigError, match="cannot resolve") as caught:
        numeric(given, answers)
    assert caught.value.line == (6 if "%" in endpoints[-1] else 3)


def test_a_resolver_that_hangs_keeps_nobody_for_longer_than_the_patience() -> None:
    release = threading.Event()

    def hang(endpoint: Endpoint, family: Family) -> Sequence[Endpoint]:
        if endpoint.host == "hangs.example":
            release.wait(60)
        return [Endpoint("192.0.2.7", endpoint.port)]

    told: list[str] = []
    given = config("hangs.example:5", "b.example:5", "c.example:5")
    began = time.monotonic()
    try:
        done = lookup.numeric(given, told.append, ask=hang, patience_s=0.3)
    finally:
        release.set()
    assert time.monotonic() - began < 30
    assert [str(peer.endpoint) for peer in done.peers] == ["None", "192.0.2.7:5", "192.0.2.7:5"]
    assert "hangs.example does not resolve (the resolver does not answer)" in told[0]


def test_a_name_that_says_so_is_asked_for_as_any_program_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resolver, "look_up", Resolver({"a": "10.9.0.1"}))
    text = f"[Peer]\nPublicKey={KEYS[0]}\nEndpoint=a.example:5\n#!pywg EndpointDns = tunnel\n"
    found, told, _ = numeric(parse(text, "wg0.conf"), {})
    assert (found, told) == (["10.9.0.1:5"], [])


def test_a_name_of_several_peers_is_asked_for_once() -> None:
    answers = Resolver({"a": "192.0.2.7"})
    given = config("a.example:5", "a.example:5")
    lookup.numeric(given, lambda line: None, ask=answers)
    assert answers.asked == ["a.example"]


def test_many_names_are_asked_for_and_those_left_over_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More names than threads: what nobody began is not begun when nobody waits any more."""
    monkeypatch.setattr(resolver, "THREADS", 1)
    release, answers = threading.Event(), Resolver({"a": "192.0.2.7", "b": "192.0.2.8"})

    def hang(endpoint: Endpoint, family: Family) -> Sequence[Endpoint]:
        release.wait(60)
        return answers(endpoint, family)

    lookup.numeric(
        config("a.example:5", "b.example:5"), lambda line: None, ask=hang, patience_s=0.1
    )
    release.set()
    threads = [thread for thread in threading.enumerate() if "_work" in thread.name]
    for thread in threads:
        thread.join(10)
    assert len(answers.asked) <= 1


# ---- a program that has the configuration in its hand


def test_all_names_are_asked_for_at_once_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(2, timeout=10)

    def look_up(endpoint: Endpoint, family: Family) -> Sequence[Endpoint]:
        together.wait()
        return [Endpoint("192.0.2.9", endpoint.port)]

    monkeypatch.setattr(resolver, "look_up", look_up)
    found = resolver.resolve_now(config("a.example:5", "192.0.2.1:6", "b.example:7"))
    hosts = [str(peer.endpoint) for peer in found.peers]
    assert hosts == ["192.0.2.9:5", "192.0.2.1:6", "192.0.2.9:7"]


def test_a_name_without_an_address_is_an_error_with_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    never = threading.Event()

    def hang(endpoint: Endpoint, family: Family) -> Sequence[Endpoint]:
        never.wait(30)
        return []

    monkeypatch.setattr(resolver, "look_up", hang)
    try:
        with pytest.raises(ConfigError, match=r"cannot resolve a\.example: the resolver does not"):
            resolver.resolve_now(config("a.example:5"), 0.1)
    finally:
        never.set()
