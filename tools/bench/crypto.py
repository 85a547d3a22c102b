"""Measures our cryptography beside OpenSSL, Zig's std and Go: the AEAD, X25519, BLAKE2s, whole
handshakes beside wireguard-go's, and the Internet checksum. `zig build bench` runs this, too.

All take turns in every round of one run, because machines are noisy: only ratios within a run
count. Time is CPU time of one thread. What is missing here (openssl, go) is left out and named.
Nothing is written but the compilers' caches and ~/.cache/pywg-peers/bench.

    scripts/bench_crypto [--quick] [--only KIND...] [--ours] [--rounds N] [--milliseconds MS]
                         [--cpu N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tools.build import checks, core

HERE = Path(__file__).resolve().parent

CACHE = Path(os.environ.get("PYWG_PEERS") or Path.home() / ".cache" / "pywg-peers") / "bench"

# What a program is asked for, and how much longer than the rest.
Case = tuple[str, int]
# Who, and how many messages at once.
Row = tuple[str, int]
CASES: dict[Case, int] = {
    ("aead", 64): 1,
    ("aead", 256): 1,
    ("aead", 1420): 1,
    ("aead_mixed", 0): 1,
    ("checksum", 1420): 1,
    ("checksum", 65536): 1,
    ("x25519", 0): 1,
    ("blake2s", 64): 1,
    ("blake2s", 1024): 1,
    ("handshake", 0): 4,
}
# Of the AEAD's messages. Those of no length are batches of all lengths from 64 to 1420.
LENGTHS = {64: "64 bytes", 256: "256 bytes", 1420: "1420 bytes", 0: "64 to 1420"}
PRIMITIVES = ("aead", "x25519", "blake2s")
SPEED_SECONDS = 1  # the least that openssl speed takes


# What our flavours are compared to where nobody else is measured: the first that this CPU runs.
OURS = ("pywg x86-64-v4", "pywg x86-64-v3", "pywg baseline")


class Missing(Exception):
    """Why a contestant is left out."""


@dataclass(frozen=True)
class Line:
    """What one program says of one operation."""

    contestant: str
    operation: str
    bytes: int
    batch: int
    value: float

    @property
    def row(self) -> Row:
        return self.contestant, self.batch

    @property
    def column(self) -> Case:
        return self.operation, self.bytes


@dataclass
class Subject:
    """A program that measures, or something like it."""

    label: str
    kinds: Sequence[str]
    measure: Callable[[Case, int], list[Line]]
    is_ours: bool = False


@dataclass(frozen=True)
class Table:
    """Contestants down, operations across; ratios are to one of the contestants."""

    title: str
    base: str
    columns: dict[Case, str]


TABLES = [
    Table(
        "ChaCha20-Poly1305, sealing, GB/s of payload",
        "OpenSSL EVP",
        {("seal", length): label for length, label in LENGTHS.items()},
    ),
    Table(
        "ChaCha20-Poly1305, opening, GB/s of payload",
        "OpenSSL EVP",
        {("open", length): label for length, label in LENGTHS.items()},
    ),
    Table(
        "X25519, 1/s; BLAKE2s, MB/s",
        "OpenSSL EVP",
        {("x25519", 0): "X25519", ("blake2s", 64): "64 bytes", ("blake2s", 1024): "1 KiB"},
    ),
    Table(
        "Handshakes of both sides on one core, 1/s",
        "wireguard-go",
        {("handshake", 0): "handshakes"},
    ),
    Table(
        "Internet checksum, GB/s",
        "libc memcpy",
        {("checksum", 1420): "1420 bytes", ("checksum", 65536): "64 KiB"},
    ),
]


# ---- the run -------------------------------------------------------------------------------------


@dataclass
class Run:
    """All that was measured, in the order of the subjects."""

    rounds: dict[Row, dict[Case, list[float]]] = field(default_factory=dict)
    places: dict[Row, int] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, line: Line, place: int) -> None:
        row = self.rounds.setdefault(line.row, {})
        row.setdefault(line.column, []).append(line.value)
        self.places.setdefault(line.row, place)

    def tables(self) -> list[Table]:
        """What was measured. Alone, our flavours are compared to one of them."""
        names = {name for name, _ in self.rounds}
        measured = {column for columns in self.rounds.values() for column in columns}
        tables = [table for table in TABLES if measured & table.columns.keys()]
        alone = any(name.startswith("pywg ") for name in names) and "OpenSSL EVP" not in names
        if not alone:
            return tables
        base = next((name for name in OURS if name in names), "")
        return [
            replace(table, base=base) if table.base == "OpenSSL EVP" else table for table in tables
        ]

    def rows(self) -> list[tuple[Row, dict[Case, list[float]]]]:
        return sorted(self.rounds.items(), key=lambda item: self.places[item[0]])

    def base(self, table: Table, column: Case, batch: int) -> list[float]:
        """With as many messages at once, if it takes several."""
        batches = {of: row for (name, of), row in self.rounds.items() if name == table.base}
        return (batches.get(batch) or next(iter(batches.values()), {})).get(column, [])

    def ratio(
        self, table: Table, column: Case, values: list[float], batch: int = 1
    ) -> float | None:
        """The median over the rounds: what slowed one down slowed its neighbour, too."""
        pairs = list(zip(values, self.base(table, column, batch), strict=False))
        return statistics.median(own / other for own, other in pairs) if pairs else None

    def deviation(self) -> float:
        """How far a single round is from its median, typically."""
        away = [
            abs(value / statistics.median(values) - 1)
            for columns in self.rounds.values()
            for values in columns.values()
            for value in values
        ]
        return statistics.median(away)


def main() -> int:
    options = arguments()
    run = Run()
    try:
        subjects = prepare(options, run)
    except Missing as missing:
        print(f"bench_crypto: {missing}", file=sys.stderr)
        return 1
    if options.cpu is not None:
        os.sched_setaffinity(0, {options.cpu})
    header = surroundings(options)
    if options.json != "-":
        print_header(header, run)
    for number in range(options.rounds):
        one_round(subjects, run, number, options)
        if options.json != "-":
            print(f"round {number + 1} of {options.rounds}", flush=True)
    if options.json != "-":
        print_tables(run)
    if options.json:
        text = json.dumps({**header, "missing": run.missing, "results": as_json(run)}, indent=2)
        if options.json == "-":
            print(text)
        else:
            Path(options.json).write_text(text + "\n", encoding="utf-8")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench_crypto",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=9, help="turns of each (9)")
    parser.add_argument(
        "--milliseconds", type=int, default=60, help="for each operation in a turn (60)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="two short rounds, to see that it works"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=sorted({kind for kind, _ in CASES}),
        default=sorted({kind for kind, _ in CASES}),
        metavar="KIND",
        help="measure these only: aead, aead_mixed, checksum, x25519, blake2s, handshake",
    )
    parser.add_argument(
        "--ours", action="store_true", help="our flavours only, in turns in every round"
    )
    parser.add_argument("--cpu", type=int, help="run on this CPU only")
    parser.add_argument(
        "--json", metavar="FILE", help="write everything to FILE, or `-` for standard output alone"
    )
    parser.add_argument(
        "--programs",
        nargs=2,
        type=lambda text: Path(text).resolve(),
        metavar=("SAFE", "FAST"),
        help="our programs, as an install is compiled and in ReleaseFast, instead of building them",
    )
    parser.add_argument("--zig", type=Path, help="the compiler, instead of the one found")
    options = parser.parse_args()
    if options.zig:
        os.environ["PYWG_ZIG"] = shlex.quote(str(options.zig.resolve()))
    if options.quick:
        options.rounds, options.milliseconds = 2, 40
    if options.rounds < 1 or options.milliseconds < 1:
        parser.error("--rounds and --milliseconds must be positive")
    return options


def one_round(subjects: list[Subject], run: Run, number: int, options: argparse.Namespace) -> None:
    """Case by case, so that those compared are measured one after the other."""
    turn = number % len(subjects)  # each round begins with another
    places = list(enumerate(subjects))
    for case, factor in CASES.items():
        if case[0] not in options.only:
            continue
        for place, subject in places[turn:] + places[:turn]:
            if case[0] not in subject.kinds or subject.label in run.missing:
                continue
            try:
                for line in subject.measure(case, options.milliseconds * factor):
                    run.add(line, place)
            except Missing as missing:
                if subject.is_ours:
                    raise SystemExit(f"bench_crypto: {missing}") from missing
                run.missing[subject.label] = str(missing)


def prepare(options: argparse.Namespace, run: Run) -> list[Subject]:
    """Builds the programs; those that cannot be are noted in `run`."""
    CACHE.mkdir(parents=True, exist_ok=True)
    safe, fast = options.programs or build_ours()
    everything = sorted({kind for kind, _ in CASES})
    subjects = [
        Subject("pywg", everything, program(safe), is_ours=True),
        Subject("pywg in ReleaseFast", everything, program(fast), is_ours=True),
    ]
    if options.ours:
        return subjects[:1]
    optional: list[tuple[str, Sequence[str], Callable[[], Callable[[Case, int], list[Line]]]]] = [
        ("OpenSSL", ("aead", "x25519", "blake2s", "checksum"), lambda: program(build_openssl())),
        ("openssl speed", ("aead",), find_openssl_speed),
        ("Go", (*PRIMITIVES, "handshake"), lambda: program(build_go())),
    ]
    for label, kinds, make in optional:
        try:
            subjects.append(Subject(label, kinds, make()))
        except Missing as missing:
            run.missing[label] = str(missing)
    return subjects


# ---- the subjects --------------------------------------------------------------------------------


def program(path: Path) -> Callable[[Case, int], list[Line]]:
    """One that speaks as core/check/bench.zig does."""

    def measure(case: Case, milliseconds: int) -> list[Line]:
        kind, length = case
        answer = command(str(path), str(milliseconds), kind, str(length), seconds=60)
        lines = [line.split("\t") for line in answer.splitlines()]
        return [Line(n, op, int(length), int(batch), float(v)) for n, op, length, batch, v in lines]

    return measure


def find_openssl_speed() -> Callable[[Case, int], list[Line]]:
    if shutil.which("openssl") is None:
        raise Missing("openssl is not installed")
    return openssl_speed


def openssl_speed(case: Case, milliseconds: int) -> list[Line]:
    """`openssl speed` on one buffer that stays in the first cache.

    With -aead one iteration should be: nonce, 13 bytes of AAD, payload, end; when opening, a wrong
    tag. But OpenSSL 3.0 ignores -aead for this cipher: an iteration is one EVP_EncryptUpdate (or
    DecryptUpdate) of a message that never ends. No nonce, no block for the Poly1305 key and no tag
    make it too cheap, most of all for small packets; so openssl.c does it in full.
    Its least time is a second, whatever `milliseconds` says.
    """
    lines = []
    for operation, flags in (("seal", []), ("open", ["-decrypt"])):
        answer = command(
            *("openssl", "speed", "-mr", "-evp", "chacha20-poly1305", "-aead", *flags),
            *("-bytes", str(case[1]), "-seconds", str(SPEED_SECONDS)),
            seconds=30,
        )
        found = [line for line in answer.splitlines() if line.startswith("+F:")]
        if not found:
            raise Missing("openssl speed gave no figure")
        value = float(found[-1].rsplit(":", 1)[1]) / 1e9
        lines.append(Line("openssl speed", operation, case[1], 1, value))
    return lines


def build_ours() -> tuple[Path, Path]:
    """As build.zig does, with the commands of an install."""
    zig, arch = find_zig(), core.find_arch()
    job = core.Build(zig, arch, core.OPTIMIZE_DEFAULT, core.version(), CACHE, graph=checks.MODULES)
    job.write_options()
    for flavour, cpu in job.flavours:
        command(*job.kernels(flavour, cpu))
    paths = []
    for optimize in (core.OPTIMIZE_DEFAULT, "ReleaseFast"):
        path = CACHE / f"bench-{optimize}"
        target = ["-target", job.target, "-mcpu", core.BASELINE.get(arch, "baseline")]
        flags = ["-O", optimize, "-fstrip", "-static", f"-femit-bin={path}", "--name", "bench"]
        command(*zig, "build-exe", *target, *flags, *job.objects, *job.modules("bench"))
        paths.append(path)
    return paths[0], paths[1]


def build_openssl() -> Path:
    source, path = HERE / "openssl.c", CACHE / "bench_openssl"
    command(*find_zig(), "cc", "-O2", "-Wall", "-o", str(path), str(source), "-ldl")
    command(str(path), "1", "x25519")  # says what it misses
    return path


def build_go() -> Path:
    if shutil.which("go") is None:
        raise Missing("go is not installed")
    path = CACHE / "bench_go"
    command("go", "build", "-C", str(HERE / "go"), "-o", str(path), ".")
    return path


def find_zig() -> list[str]:
    try:
        return core.find_zig()
    except SystemExit as missing:  # how it says that there is none
        raise Missing(str(missing)) from missing


def command(*argv: str, seconds: float = 600) -> str:
    try:
        done = subprocess.run(
            argv, cwd=core.ROOT, capture_output=True, text=True, check=False, timeout=seconds
        )
    except (OSError, subprocess.TimeoutExpired) as failure:
        raise Missing(f"{Path(argv[0]).name}: {failure}") from failure
    if done.returncode != 0:
        said = (done.stderr.strip() or "no reason given").splitlines()
        raise Missing(f"{Path(argv[0]).name} failed with {done.returncode}: {said[-1]}")
    return done.stdout


# ---- what is said --------------------------------------------------------------------------------


def surroundings(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "machine": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "openssl": first_line("openssl", "version"),
        "go": first_line("go", "version"),
        "rounds": options.rounds,
        "milliseconds": options.milliseconds,
        "load_before": os.getloadavg()[0],
    }


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def first_line(*argv: str) -> str:
    try:
        return command(*argv, seconds=10).splitlines()[0]
    except (Missing, IndexError):
        return "not installed"


def print_header(header: dict[str, Any], run: Run) -> None:
    print(f"{header['machine']}, {header['cores']} cores, Linux {header['kernel']}")
    print(f"  {header['openssl']}; {header['go']}")
    print(
        f"{header['rounds']} rounds, {header['milliseconds']} ms of CPU time for each operation; "
        f"load before: {header['load_before']:.1f}"
    )
    for label, reason in run.missing.items():
        print(f"not measured: {label}: {reason}")
    print(flush=True)


def print_tables(run: Run) -> None:
    for table in run.tables():
        heads = "".join(f"{head:>12}{'':>8}" for head in table.columns.values())
        print(f"\n{table.title}; ratio to {table.base}\n{'':<34}{heads}".rstrip())
        for (contestant, batch), columns in run.rows():
            if not columns.keys() & table.columns.keys():
                continue
            cells = "".join(
                cell(run, table, column, columns.get(column), batch) for column in table.columns
            )
            print(f"{label_of(run, contestant, batch):<34}{cells}".rstrip())
    print(
        f"\nMedians of values, and of the ratios within a round. "
        f"A single value is typically {run.deviation():.0%} from its median."
    )
    for label, reason in run.missing.items():
        print(f"not measured: {label}: {reason}")


def label_of(run: Run, contestant: str, batch: int) -> str:
    """Who takes batches is shown with their length."""
    is_batching = sum(name == contestant for name, _ in run.rounds) > 1
    return f"{contestant}, {batch} at once" if is_batching else contestant


def cell(run: Run, table: Table, column: Case, values: list[float] | None, batch: int) -> str:
    if not values:
        return f"{'-':>12}{'':>8}"
    median = statistics.median(values)
    ratio = run.ratio(table, column, values, batch)
    digits = 0 if median >= 100 else 1 if median >= 10 else 2
    return f"{median:>12.{digits}f}" + (f"{ratio:>7.2f}x" if ratio is not None else f"{'':>8}")


def as_json(run: Run) -> list[dict[str, Any]]:
    results = []
    for table in run.tables():
        for (contestant, batch), columns in run.rows():
            for operation, length in table.columns:
                values = columns.get((operation, length))
                if not values:
                    continue
                results.append(
                    {
                        "contestant": contestant,
                        "operation": operation,
                        "bytes": length,
                        "batch": batch,
                        "median": statistics.median(values),
                        "ratio": run.ratio(table, (operation, length), values, batch),
                        "ratio_to": table.base,
                        "rounds": values,
                    }
                )
    return results


if __name__ == "__main__":
    sys.exit(main())
