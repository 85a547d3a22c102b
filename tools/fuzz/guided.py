"""Coverage steers what the core is fed: libFuzzer of clang around one target of core/check/guided/.

What was new is kept under .zig-cache/fuzz/guided/TARGET/corpus, and goes on from there next time.
The smallest set that covers as much is in tests/data/corpora/guided/TARGET.zip.
"""

from __future__ import annotations

import argparse
import fcntl
import random
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.build import checks, core

CORPORA = core.ROOT / "tests" / "data" / "corpora"
KEPT = CORPORA / "guided"
FOUND = 1


@dataclass(frozen=True)
class Target:
    """Of one target: how long an input may be, and what a fuzzer begins with."""

    length_max: int
    # Folder of tests/data/corpora/ whose files are inputs of it: made by hand, or findings.
    made_by_hand: str | None = None
    # Its bytes are decisions: without any of them nothing happens, so it begins with random ones.
    by_choices: bool = False
    words: Sequence[str] = ()


UAPI_WORDS = (
    *("private_key=", "public_key=", "preshared_key=", "listen_port=", "fwmark=", "0x"),
    *("replace_peers=true", "remove=true", "update_only=true", "replace_allowed_ips=true"),
    *("persistent_keepalive_interval=", "protocol_version=1", "endpoint=", "allowed_ip="),
    *("pywg_bind_device=", "pywg_bind_address=", "10.0.0.1/32", "fd00::1/128", "[::1]:51820"),
    *("192.0.2.1:51820", "%eth0", "\n", "\n\n", "40" * 32, "48" * 32, "00" * 32),
)
TARGETS: dict[str, Target] = {
    "abi": Target(2000, by_choices=True),
    "control": Target(512, made_by_hand="vnet"),
    "gro": Target(4000, by_choices=True),
    "gso": Target(400, by_choices=True),
    "messages": Target(4000, by_choices=True),
    "netlink": Target(1000, made_by_hand="netlink"),
    "sim": Target(16000, made_by_hand="sim", by_choices=True),
    "uapi": Target(4000, made_by_hand="uapi", words=UAPI_WORDS),
    "vnet": Target(4000, made_by_hand="vnet"),
}
SEED_FILES = 8


@dataclass(frozen=True)
class Outcome:
    """What libFuzzer said when it ended."""

    code: int
    said: str
    finding: Path | None

    @property
    def executions(self) -> int:
        return max(map(int, re.findall(r"^#(\d+)\t", self.said, re.MULTILINE)), default=0)

    @property
    def seconds(self) -> int:
        known = re.search(r"^Done \d+ runs in (\d+) second", self.said, re.MULTILINE)
        return int(known[1]) if known else 0

    @property
    def covered(self) -> int:
        return max(map(int, re.findall(r"\bcov: (\d+)", self.said)), default=0)

    @property
    def edges(self) -> int:
        known = re.search(r"\((\d+) inline 8-bit counters\)", self.said)
        return int(known[1]) if known else 0

    @property
    def reason(self) -> str:
        """The line that says what was found."""
        lines = re.findall(r"^(?:mismatch|violation|panic): .*", self.said, re.MULTILINE)
        sudden = re.findall(r"ERROR: libFuzzer: (.*)", self.said)
        return str((lines or sudden or ["it ended"])[-1])

    @property
    def frames(self) -> list[str]:
        """Where it was, as far as llvm-symbolizer is there to tell."""
        found = re.findall(r"#\d+ \S+ in (.*) \S*/(core/(?!check/\.venv)\S+)", self.said)
        return [f"{function} {at}" for function, at in found if "onPanic" not in function]


def find_compiler() -> str:
    for name in ("clang", *(f"clang-{version}" for version in range(22, 13, -1))):
        path = shutil.which(name)
        if path is None:
            continue
        library = f"libclang_rt.fuzzer-{core.find_arch()}.a"
        asked = subprocess.run(
            [path, f"-print-file-name={library}"], capture_output=True, text=True, check=False
        )
        resources = subprocess.run(
            [path, "-print-resource-dir"], capture_output=True, text=True, check=False
        ).stdout.strip()
        if Path(asked.stdout.strip()).is_file() or any(Path(resources).rglob("*fuzzer*.a")):
            return path
    raise SystemExit("fuzz: --guided needs clang and libFuzzer (Debian: clang libclang-rt-dev)")


def build(name: str) -> Path:
    """The program with libFuzzer; zig's cache has what did not change."""
    directory = place(name)
    with open(directory / ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            return checks.build_guided(directory, name, find_compiler())
        except checks.Failed as failed:
            raise SystemExit(str(failed)) from None


def build_replay() -> Path:
    """The program without, which needs no clang."""
    directory = place("replay")
    try:
        return checks.build_replay(directory)
    except checks.Failed as failed:
        raise SystemExit(str(failed)) from None


def place(name: str) -> Path:
    directory = core.ROOT / ".zig-cache" / "fuzz" / "guided" / name
    directory.mkdir(parents=True, exist_ok=True)
    return directory


# ---- corpora -------------------------------------------------------------------------------------


def unpack(name: str, directory: Path) -> list[Path]:
    """The kept inputs as files."""
    directory.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(KEPT / f"{name}.zip") as kept:
        kept.extractall(directory)
    return sorted(directory.iterdir())


def pack(name: str, inputs: Iterator[Path]) -> Path:
    """The same bytes for the same inputs."""
    KEPT.mkdir(exist_ok=True)
    path = KEPT / f"{name}.zip"
    with zipfile.ZipFile(path, "w") as kept:
        for number, each in enumerate(sorted(inputs)):
            entry = zipfile.ZipInfo(f"{number:03}")
            entry.compress_type = zipfile.ZIP_DEFLATED
            kept.writestr(entry, each.read_bytes(), compresslevel=9)
    return path


def seeds(name: str, directory: Path) -> list[Path]:
    """Folders that a run begins with, besides what earlier runs kept."""
    target, found = TARGETS[name], []
    if (KEPT / f"{name}.zip").is_file():
        unpack(name, directory / "kept")
        found.append(directory / "kept")
    if target.made_by_hand:
        found.append(CORPORA / target.made_by_hand)
    if target.by_choices:
        random_bytes(name, directory / "random")
        found.append(directory / "random")
    return found


def random_bytes(name: str, directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for number in range(SEED_FILES):
        rng = random.Random(f"{name}/{number}")
        length = TARGETS[name].length_max >> (number % 4)
        (directory / str(number)).write_bytes(rng.randbytes(length))
    return directory


# ---- runs ----------------------------------------------------------------------------------------


def fuzz(program: Path, name: str, words: Sequence[str], corpora: Sequence[Path]) -> Outcome:
    """Runs libFuzzer. What it finds it keeps beside the program."""
    findings = place(name) / "findings"
    findings.mkdir(exist_ok=True)
    command = [str(program), f"-max_len={TARGETS[name].length_max}"]
    command += (
        ["-len_control=0"] if TARGETS[name].by_choices else []
    )  # else it begins with short ones
    command += ["-timeout=30", "-rss_limit_mb=1024", *dictionary(name)]
    command += [f"-artifact_prefix={findings}/", *words, *map(str, corpora)]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    kept = re.search(r"Test unit written to (\S+)", done.stdout)
    return Outcome(done.returncode, done.stdout, Path(kept[1]) if kept else None)


def dictionary(name: str) -> list[str]:
    """Words that libFuzzer puts in as they are: it does not see what bytes are compared with."""
    if not TARGETS[name].words:
        return []
    path = place(name) / "words"
    quoted = ("".join(f"\\x{byte:02x}" for byte in word.encode()) for word in TARGETS[name].words)
    path.write_text("".join(f'"{word}"\n' for word in quoted), encoding="ascii")
    return [f"-dict={path}"]


def run(options: argparse.Namespace) -> int:
    """The command line's way in."""
    name = options.target
    if options.file:
        return replay(name, options.file, options.fault)
    program = build(name)
    if options.shrink:
        return shrink(program, name, options.shrink)
    if options.keep:
        return keep(program, name)
    words = [f"-seed={options.seed % 2**32}", f"-max_total_time={options.seconds}"]
    with tempfile.TemporaryDirectory() as scratch:
        own = place(name) / "corpus"
        if options.fault:  # what leads to it is of no use to others
            own = Path(scratch) / "corpus"
            words.append(f"--fault={options.fault}")
        own.mkdir(exist_ok=True)
        print(f"{name}: seed {options.seed}", flush=True)
        outcome = fuzz(program, name, words, [own, *seeds(name, Path(scratch))])
    return tell(name, outcome)


def tell(name: str, outcome: Outcome) -> int:
    said = f"{name}: {outcome.executions} executions"
    if outcome.code == 0:
        said += f" in {outcome.seconds} s"
    print(f"{said}, {outcome.covered} of {outcome.edges} edges covered")
    if outcome.code == 0:
        return 0
    if outcome.finding is None:
        print(outcome.said)
        return 2
    print(outcome.reason)
    for frame in outcome.frames:
        print(f"  {frame}")
    print(f"replay: scripts/fuzz --guided {name} --file {outcome.finding}")
    return FOUND


def replay(name: str, file: str, fault: str | None) -> int:
    words = ["--fault", fault] if fault else []
    return subprocess.run([str(build_replay()), name, *words, file], check=False).returncode


def shrink(program: Path, name: str, file: str) -> int:
    """A finding with as few bytes as still lead to it."""
    smaller = f"{file}.small"
    words = ["-minimize_crash=1", "-runs=20000", f"-exact_artifact_path={smaller}"]
    fuzz(program, name, words, [Path(file)])
    if not Path(smaller).is_file():
        print(f"{name}: no fewer bytes than {Path(file).stat().st_size} lead to it")
        return 0
    print(f"{smaller}: {Path(smaller).stat().st_size} bytes")
    return 0


def keep(program: Path, name: str) -> int:
    """Writes the fewest inputs that cover every edge that all known ones cover."""
    with tempfile.TemporaryDirectory() as scratch:
        fewest = Path(scratch) / "fewest"
        fewest.mkdir()
        own = place(name) / "corpus"
        own.mkdir(exist_ok=True)
        known = [own, *seeds(name, Path(scratch))]
        outcome = fuzz(program, name, ["-set_cover_merge=1", "-use_counters=0"], [fewest, *known])
        if outcome.code != 0:
            print(outcome.said)
            return 2
        path = pack(name, fewest.iterdir())
        count = len(list(fewest.iterdir()))
    print(f"{path.relative_to(core.ROOT)}: {count} inputs, {path.stat().st_size} bytes")
    return 0
