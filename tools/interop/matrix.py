"""The interop matrix: pywg and each peer, whoever begins, over either family, with and without a
preshared key, and over a rekey. For scripts/interop and for test_matrix.py."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from tools.lab import programs
from tools.lab.lab import Lab, Tunnel, handshake_seconds, wait_for_session
from tools.lab.programs import Missing, Program
from tools.lab.traffic import exchange

# Whitepaper section 6.1: the initiator's first packet after this begins a new handshake.
REKEY_AFTER_TIME = 120
# Long enough for that, a retry, and packets after it.
REKEY_SECONDS = REKEY_AFTER_TIME + 20

PEERS: dict[str, Callable[[], Program]] = {
    "wireguard-go": programs.wireguard_go_current,
    "wireguard-go-debian": programs.wireguard_go_debian,
    "boringtun": programs.boringtun,
    "gotatun": programs.gotatun,
    "pywgd": programs.subject,
}


@dataclass(frozen=True)
class Case:
    """One cell of the table."""

    peer: str
    beginner: str  # "pywg" or "peer"
    outer: int
    psk: bool


def cases(peers: Iterable[str]) -> list[Case]:
    combinations = product(peers, ("pywg", "peer"), (4, 6), (False, True))
    return [Case(*combination) for combination in combinations]


class Meeting:
    """Two daemons of one case, alive until close()."""

    def __init__(self, case: Case, partner: Program, directory: Path) -> None:
        self.case = case
        self._lab = Lab(directory)
        self._pings: list[subprocess.Popen[str]] = []
        self._begins = "a" if case.beginner == "pywg" else "b"
        self._first_handshake = 0
        try:
            self.tunnel: Tunnel = self._lab.tunnel(
                b=partner, outer=case.outer, psk=case.psk, knows=self._begins, log_level="error"
            )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for ping in self._pings:
            if ping.poll() is None:
                ping.kill()
            ping.wait()
        self._lab.close()

    def check(self) -> None:
        """Who begins shakes hands, both talk, and what is sent arrives whole."""
        tunnel, begins = self.tunnel, self._begins
        tunnel.ping(sender=begins)
        tunnel.ping(sender="b" if begins == "a" else "a")
        wait_for_session(tunnel.a, tunnel.b)
        wait_for_session(tunnel.b, tunnel.a)
        exchange(tunnel.a.namespace, tunnel.b.namespace, tunnel.b.inner4, 1 << 20, 1 << 20)
        self._first_handshake = handshake_seconds(tunnel.a, tunnel.b)

    def start_rekey(self) -> None:
        """Two packets a second each way, for longer than a session is sent with."""
        for here, there in ((self.tunnel.a, self.tunnel.b), (self.tunnel.b, self.tunnel.a)):
            words = ["ping", "-q", "-n", "-i", "0.5", "-w", str(REKEY_SECONDS), there.inner6]
            self._pings.append(here.namespace.popen(words, stdout=subprocess.PIPE, text=True))

    def finish_rekey(self) -> None:
        for ping in self._pings:
            said, _ = ping.communicate(timeout=REKEY_SECONDS + 30)
            found = re.search(r"(\d+) packets transmitted, (\d+) received", said)
            assert found is not None, said
            lost = int(found[1]) - int(found[2])
            assert lost == 0 and int(found[1]) > REKEY_SECONDS, f"{lost} of {found[1]} echoes lost"
        assert handshake_seconds(self.tunnel.a, self.tunnel.b) > self._first_handshake, "no rekey"


def run(
    peers: Iterable[str], directory: Path, *, rekey: bool, tell: Callable[[str], None] = print
) -> dict[Case, str]:
    """What became of each case: `ok`, `fail: ...` or `skip: ...`. All rekeys are waited for at
    once."""
    results: dict[Case, str] = {}
    with contextlib.ExitStack() as stack:
        meetings: list[Meeting] = []
        for number, case in enumerate(cases(peers)):
            folder = directory / str(number)
            folder.mkdir()
            with judged(case, results, tell):
                meeting = Meeting(case, PEERS[case.peer](), folder)
                stack.callback(meeting.close)
                meeting.check()
                meetings.append(meeting)
        if rekey:
            for meeting in meetings:
                meeting.start_rekey()
            for meeting in meetings:
                with judged(meeting.case, results, tell, "ok, rekey"):
                    meeting.finish_rekey()
    return results


@contextlib.contextmanager
def judged(
    case: Case, results: dict[Case, str], tell: Callable[[str], None], good: str = "ok"
) -> Iterator[None]:
    try:
        yield
        results[case] = good
    except Missing as missing:
        results[case] = f"skip: {missing}"
    except (AssertionError, OSError, subprocess.SubprocessError) as error:
        results[case] = f"fail: {str(error).splitlines()[0][:200]}"
    with_psk = ", preshared key" if case.psk else ""
    tell(f"{case.peer}, {case.beginner} begins, IPv{case.outer}{with_psk}: {results[case]}")


def table(results: dict[Case, str], versions: dict[str, str]) -> str:
    """Markdown, a row for each peer and beginner."""
    columns = [(4, False), (4, True), (6, False), (6, True)]
    heads = [f"IPv{outer}{', PSK' if psk else ''}" for outer, psk in columns]
    lines = [f"| peer | who begins | {' | '.join(heads)} |", "|---" * 6 + "|"]
    for peer in dict.fromkeys(case.peer for case in results):
        for beginner in ("pywg", "peer"):
            cells = [results[Case(peer, beginner, *column)] for column in columns]
            lines.append(f"| {versions.get(peer, peer)} | {beginner} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
