"""What many silent peers, and changes to them, take from a session that is alive.

    scripts/bench_peers [--peers N] [--seconds S] [--rounds N]

Through one tunnel goes an echo request each millisecond. Meanwhile one end is given N peers that
never answer, each with a persistent keepalive, in one request; then their handshakes are tried for
S seconds; all is asked for; they are given again in the place of the same; the mark of the sockets
is changed, which forgets every source that was learnt; and they are taken away. Each line tells the
longest that a request of that time took, how many were lost, and how long the request at the socket
took. A pause is a long answer. Needs root.
"""

from __future__ import annotations

import argparse
import os
import secrets
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tools.lab.daemon import Daemon, socket_path
from tools.lab.lab import Lab, Tunnel
from tools.lab.namespaces import sweep
from tools.lab.prober import probing

# Nobody listens there, and the other end does not say so.
SILENT_PORT = 9
REST = 1.0


def silent_peers(count: int, address: str, keepalive: int = 25) -> str:
    """Lines of a UAPI "set"; the keys are points of the curve or of its twist, which do as well."""
    lines = []
    for number in range(count):
        inner = f"10.{100 + number // 65536}.{number // 256 % 256}.{number % 256}"
        lines.append(
            f"public_key={secrets.token_hex(32)}\n"
            f"endpoint={address}:{SILENT_PORT}\n"
            f"persistent_keepalive_interval={keepalive}\n"
            f"replace_allowed_ips=true\nallowed_ip={inner}/32\n"
        )
    return "".join(lines)


def deafen(tunnel: Tunnel) -> None:
    """The other end answers nothing that comes for silent peers."""
    tunnel.b.namespace.nft(
        "table inet deaf {\nchain in {\ntype filter hook input priority 0;\n"
        f"udp dport {SILENT_PORT} drop\n}}\n}}\n"
    )


def request(daemon: Daemon, text: str) -> float:
    """How long it took; it must succeed."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(socket_path(daemon.name)))
        began = time.monotonic()
        connection.sendall(text.encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n\n"):
            answer += connection.recv(1 << 20)
        assert answer.endswith(b"errno=0\n\n"), answer[-100:]
        return time.monotonic() - began


def one_round(count: int, seconds: float) -> dict[str, tuple[float, int, float]]:
    """By the name of what was done: worst answer, lost requests, how long the request took."""
    spans: dict[str, tuple[float, float, float]] = {}
    with tempfile.TemporaryDirectory(prefix="pywg-peers-") as directory:
        lab = Lab(Path(directory))
        try:
            tunnel = lab.tunnel(log_level="error")
            deafen(tunnel)
            tunnel.session()
            daemon = tunnel.a.daemon
            text = silent_peers(count, tunnel.b.outer4)
            gone = "".join(
                f"{line}\nremove=true\n"
                for line in text.splitlines()
                if line.startswith("public_key")
            )
            steps = [
                ("nothing", ""),
                ("set, all new", f"set=1\n{text}"),
                ("get", "get=1\n"),
                ("set, the same", f"set=1\n{text}"),
                ("set, new mark", "set=1\nfwmark=1\n"),
                ("set, none left", f"set=1\n{gone}"),
            ]
            whole = len(steps) * REST * 4 + seconds + 5
            with probing(tunnel.b.namespace, tunnel.a.inner4, whole) as found:
                time.sleep(REST)
                for name, words in steps:
                    began = time.monotonic()
                    taken = request(daemon, words) if words else 0.0
                    # What was sent just before waits, too.
                    spans[name] = (began - 0.05, time.monotonic(), taken)
                    if name == "set, all new":
                        began = time.monotonic()
                        time.sleep(seconds)
                        spans["handshakes"] = (began, time.monotonic(), 0.0)
                    time.sleep(REST)
                    if name == "nothing":
                        spans[name] = (began, time.monotonic(), 0.0)
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
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root: it makes network namespaces and TUN interfaces")
    sweep()
    rounds = [one_round(options.peers, options.seconds) for _ in range(options.rounds)]
    print(f"{options.peers} silent peers; medians of {options.rounds} rounds")
    for name in rounds[0]:
        worst = statistics.median(found[name][0] for found in rounds) * 1e3
        lost = statistics.median(found[name][1] for found in rounds)
        taken = statistics.median(found[name][2] for found in rounds) * 1e3
        request_took = f", the request {taken:.0f} ms" if taken else ""
        print(f"{name:15} longest answer {worst:7.1f} ms, {lost:.0f} lost{request_took}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
