"""How `pywg up`, `reload`, `show` and `down` grow with the file and with the host.

    scripts/bench_host [--cases WORD ...]

Each case is a host of its own (tools/lab/host.py) and one file. The commands run as a user runs
them, Python's start included. Prints a table: seconds that passed and, after a slash, seconds of
CPU, which say more on a busy machine; and the most memory that one of the commands took. Needs
root.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from tools.lab.host import Host, hosted
from tools.lab.keys import encode, new_key
from tools.lab.namespaces import run, sweep, unique
from tools.lab.programs import REPOSITORY

COMMANDS = ("up", "reload", "reload, one changed", "show", "down")
FILL_S_MAX = 600.0
FULL = "AllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = 198.51.100.10:51820\n"
FIRST_TABLE = 51820  # what a full tunnel takes if it is free


@dataclass(frozen=True)
class Case:
    """``changed`` is the file with one network exchanged; ``fill`` makes the host what the case is
    about."""

    title: str
    text: str
    changed: str
    fill: Callable[[Host], None] = lambda host: None


@dataclass(frozen=True)
class Figures:
    """Of one command, without the process that it leaves behind."""

    seconds: float
    cpu_s: float
    peak_mib: float


# ---- cases


def interface() -> str:
    return f"[Interface]\nPrivateKey = {new_key().private}\nAddress = 10.254.0.1/24, fd00::1/64\n"


def peer(number: int) -> str:
    """Any 32 bytes will do for a public key."""
    return f"\n[Peer]\nPublicKey = {encode(number.to_bytes(32, 'big'))}\n"


def networks(count: int) -> list[str]:
    """No two are neighbours, and none is covered by an address of the interface."""
    spread = IPv4Network("11.0.0.0/8").subnets(new_prefix=25)
    return [str(network) for network in itertools.islice(spread, 0, 2 * count, 2)]


def spaced(count: int) -> str:
    return f"{count:,}".replace(",", " ")


def allowed(count: int) -> Case:
    found = networks(count + 1)
    head = f"{interface()}{peer(1)}AllowedIPs = "
    before, after = ", ".join(found[:-1]), ", ".join(found[1:])
    return Case(f"{spaced(count)} AllowedIPs of one peer", f"{head}{before}\n", f"{head}{after}\n")


def peers(count: int) -> Case:
    """Each with a network and an endpoint of its own."""
    head = interface()
    sections = [
        f"{peer(number)}AllowedIPs = {network}\n"
        f"Endpoint = 198.18.{number // 250}.{number % 250 + 1}:51820\n"
        for number, network in enumerate(networks(count), start=1)
    ]
    last = sections[-1].replace("/25", "/26")
    return Case(
        f"{spaced(count)} peers", head + "".join(sections), head + "".join([*sections[:-1], last])
    )


def full(title: str, fill: Callable[[Host], None]) -> Case:
    text = f"{interface()}{peer(1)}{FULL}"
    return Case(title, text, text.replace("0.0.0.0/0", "0.0.0.0/0, 11.0.0.0/24"), fill)


def routes(count: int, table: int) -> Callable[[Host], None]:
    found = (
        f"route add 20.{place >> 16}.{place >> 8 & 255}.{place & 255} dev veth table {table}"
        for place in range(count)
    )
    return lambda host: batch(host, found)


def addresses(count: int) -> Callable[[Host], None]:
    found = (
        f"address add 172.16.{place // 250}.{place % 250 + 1}/32 dev veth" for place in range(count)
    )
    return lambda host: batch(host, found)


def links(count: int) -> Callable[[Host], None]:
    found = (f"link add {unique('l')} type veth peer name {unique('r')}" for _ in range(count // 2))
    return lambda host: batch(host, found)


def rules(count: int) -> Callable[[Host], None]:
    found = (f"rule add from 172.16.0.1 table {1000 + place}" for place in range(count))
    return lambda host: batch(host, found)


def batch(host: Host, lines: Iterable[str]) -> None:
    path = host.directory / "batch"
    with path.open("w") as file:
        file.writelines(f"{line}\n" for line in lines)
    run("ip", "-n", host.namespace.name, "-batch", str(path), timeout=FILL_S_MAX)


# By a word that picks them on the command line. Made when they are measured: a command's peak is at
# least that of the process that starts it.
CASES: dict[str, Callable[[], Case]] = {
    "plain": lambda: full("nothing else on the host", lambda host: None),
    "routes-200000": lambda: full("200 000 routes in another table", routes(200_000, 1000)),
    "routes-1000000": lambda: full("1 000 000 routes in another table", routes(1_000_000, 1000)),
    "taken-1000000": lambda: full(
        f"1 000 000 routes in table {FIRST_TABLE}", routes(1_000_000, FIRST_TABLE)
    ),
    "addresses-1000": lambda: full("1 000 addresses on another link", addresses(1000)),
    "links-1000": lambda: full("1 000 links", links(1000)),
    "rules-5000": lambda: full("5 000 rules", rules(5000)),
    "allowed-1000": lambda: allowed(1000),
    "allowed-5000": lambda: allowed(5000),
    "allowed-15000": lambda: allowed(15_000),
    "peers-1000": lambda: peers(1000),
    "peers-10000": lambda: peers(10_000),
}


# ---- measuring


def measured(case: Case, directory: Path) -> list[Figures]:
    """In the order of COMMANDS."""
    with hosted(directory) as host:
        case.fill(host)
        name = unique("wg")
        path = str(host.config(name, case.text))
        return list(turns(host, name, path, case.changed))


def turns(host: Host, name: str, path: str, changed: str) -> Iterator[Figures]:
    yield timed(host, "up", path)
    try:
        yield timed(host, "reload", path)
        Path(path).write_text(changed)
        yield timed(host, "reload", path)
        yield timed(host, "show", name)
    finally:
        last = timed(host, "down", path)
    yield last


def timed(host: Host, *arguments: str) -> Figures:
    command = host.inside(sys.executable, "-m", "pywg", *arguments)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with tempfile.TemporaryFile() as said:
        began = time.monotonic()
        with host.namespace.entered():
            started = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment
            )
        try:
            _, status, usage = os.wait4(started.pid, 0)
        except BaseException:
            started.kill()
            raise
        seconds = time.monotonic() - began
        started.returncode = os.waitstatus_to_exitcode(status)
        if started.returncode != 0:
            said.seek(0)
            raise AssertionError(f"{arguments}: {said.read()[-2000:].decode(errors='replace')}")
    return Figures(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


# ---- the table


HEAD = ("", *(f"{command}, s" for command in COMMANDS), "peak RSS, MiB")


def row(title: str, figures: Sequence[Figures]) -> str:
    peak = max(found.peak_mib for found in figures)
    cells = [title, *(f"{f.seconds:.2f} / {f.cpu_s:.2f}" for f in figures), f"{peak:.0f}"]
    return f"| {' | '.join(cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench_host",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cases", nargs="+", metavar="WORD", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root: it makes network namespaces")
    sweep()
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for word in options.cases:
        with tempfile.TemporaryDirectory(prefix="pywg-host-") as directory:
            case = CASES[word]()
            print(row(case.title, measured(case, Path(directory))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
