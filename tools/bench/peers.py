"""What many silent peers, and changes to them, take from a session that is alive.

    scripts/bench_peers [--peers N] [--live N] [--seconds S] [--rounds N]
    scripts/bench_peers --calls [--peers N] [--rounds N]

Through one tunnel goes an echo request each millisecond. Meanwhile one end is given N peers that
never answer, each with a persistent keepalive, in one request; then their handshakes are tried for
S seconds; all is asked for; they are given again; the mark of the sockets is changed, which forgets
every source that was learnt; and they are taken away. At last live peers have shaken hands, so that
it is known from which address each is answered, and a route changes. Each line tells the longest
that an echo request of that time took, how many were lost, and how long the request at the socket
took. A pause is a long answer. Needs root.

With --calls it is told instead what the calls of pywg.Device take that change one peer or all.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tools.bench import peer_calls
from tools.lab.handshake import Initiator, public
from tools.lab.keys import decode
from tools.lab.lab import PORT, Lab, Tunnel
from tools.lab.namespaces import sweep
from tools.lab.prober import probing
from tools.lab.silent import deafen, request, silent_peers

REST = 1.0


def live_peers(tunnel: Tunnel, count: int) -> None:
    """So many peers of side a, each of which has begun a handshake from b's address: slowly enough
    that no cookie is demanded."""
    daemon = tunnel.a.daemon
    keys = [os.urandom(32) for _ in range(count)]
    lines = [f"public_key={public(key).hex()}\n" for key in keys]
    request(daemon, f"set=1\n{''.join(lines)}")
    responder = decode(tunnel.a.key.public)
    with tunnel.b.namespace.socket() as sender:
        for number, key in enumerate(keys):
            message = Initiator(key, responder).initiation(time.time_ns())
            sender.sendto(message, (tunnel.a.outer4, PORT))
            if number % 20 == 19:
                time.sleep(0.1)
    known = sum(line[1] != "(none)" for line in daemon.show("endpoints"))
    assert known > count * 0.99, f"{known} of {count} live peers are known"


def one_round(count: int, live: int, seconds: float) -> dict[str, tuple[float, int, float]]:
    """By the name of what was done: worst answer, lost requests, how long the request took."""
    spans: dict[str, tuple[float, float, float]] = {}
    with tempfile.TemporaryDirectory(prefix="pywg-peers-") as directory:
        lab = Lab(Path(directory))
        try:
            tunnel = lab.tunnel(log_level="error")
            deafen(tunnel.b.namespace)
            tunnel.session()
            daemon = tunnel.a.daemon
            text = silent_peers(count, tunnel.b.outer4)
            gone = "".join(
                f"{line}\nremove=true\n"
                for line in text.splitlines()
                if line.startswith("public_key")
            )
            steps = [
                ("set, all new", f"set=1\n{text}"),
                ("get", "get=1\n"),
                ("set, the same", f"set=1\n{text}"),
                ("set, new mark", "set=1\nfwmark=1\n"),
                ("set, none left", f"set=1\n{gone}"),
            ]
            with probing(tunnel.b.namespace, tunnel.a.inner4) as found:
                began = time.monotonic()
                time.sleep(REST)
                spans["nothing"] = (began, time.monotonic(), 0.0)
                for name, words in steps:
                    began = time.monotonic()
                    taken = request(daemon, words)
                    # What was sent just before waits, too.
                    spans[name] = (began - 0.05, time.monotonic(), taken)
                    if name == "set, all new":
                        began = time.monotonic()
                        time.sleep(seconds)
                        spans["handshakes"] = (began, time.monotonic(), 0.0)
                    time.sleep(REST)
                live_peers(tunnel, live)
                time.sleep(REST)
                began = time.monotonic()
                tunnel.a.namespace.ip("route", "add", "203.0.113.0/24", "dev", "veth")
                time.sleep(REST)
                spans["route change"] = (began, time.monotonic(), 0.0)
                taken = request(daemon, "set=1\nfwmark=2\n")
                spans["new mark, live"] = (began + REST, time.monotonic(), taken)
                time.sleep(REST)
        finally:
            lab.close()
    return {
        name: (found.worst(since, until), found.lost(since, until), taken)
        for name, (since, until, taken) in spans.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench_peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--peers", type=int, default=20_000)
    parser.add_argument("--live", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--calls", action="store_true")
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root: it makes network namespaces and TUN interfaces")
    sweep()
    if options.calls:
        peer_calls.measure(options.peers, options.rounds)
        return 0
    rounds = [
        one_round(options.peers, options.live, options.seconds) for _ in range(options.rounds)
    ]
    print(f"{options.peers} silent, {options.live} live peers; medians of {options.rounds}")
    for name in rounds[0]:
        worst = statistics.median(found[name][0] for found in rounds) * 1e3
        lost = statistics.median(found[name][1] for found in rounds)
        taken = statistics.median(found[name][2] for found in rounds) * 1e3
        request_took = f", the request {taken:.0f} ms" if taken else ""
        print(f"{name:15} longest answer {worst:7.1f} ms, {lost:.0f} lost{request_took}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
