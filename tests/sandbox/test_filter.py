"""pywgd's filter of system calls lets through exactly what the table in docs/security.md says.

Twice, because a filter that nobody runs proves little and calls that nobody makes prove nothing:
the program is walked on every way through it, for each architecture, and the kernel is asked with
the filter installed (core/check/filter.zig).
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("ziglang")

from tools.build import checks, core

from .bpf import ALLOW, JUMP_EQUAL, RETURN, Call, Instruction, Odd, allowed
from .table import DOCUMENT, VALUES, documented

AUDIT_ARCHITECTURES = {
    "x86_64": 0xC000003E,
    "aarch64": 0xC00000B7,
    "armv6": 0x40000028,
    "armv7l": 0x40000028,
    "riscv64": 0xC00000F3,
}
EPERM = 0x50001
NO_FILTER_HERE = 3
# Newer kernels do not ask a filter about these.
UNASKED = {"uretprobe", "uprobe"}

ANYTHING = 2**64 - 1  # no descriptor, no address, no process, no flag
X32 = 0x40000000


@dataclass(frozen=True)
class Filter:
    """As core/check/filter.zig tells it."""

    command: list[str]
    architecture: int
    refusal: int
    program: list[Instruction]
    numbers: dict[str, int]

    def allowed(self) -> set[Call]:
        return allowed(self.program, self.architecture, self.refusal)

    def documented(self) -> set[Call]:
        return documented(DOCUMENT.read_text(), self.numbers)


def read(command: list[str]) -> Filter:
    said = subprocess.run([*command, "program"], capture_output=True, text=True, check=True)
    lines = [line.split() for line in said.stdout.splitlines()]
    single = {line[0]: int(line[1]) for line in lines if len(line) == 2}
    program = [tuple(map(int, line[1:])) for line in lines if line[0] == "instruction"]
    return Filter(
        command,
        single["architecture"],
        single["refusal"],
        [(code, jt, jf, k) for code, jt, jf, k in program],
        {line[1]: int(line[2]) for line in lines if line[0] == "call"},
    )


def build(directory: Path, arch: str) -> Filter:
    emulator = checks.emulator(arch)
    if emulator and shutil.which(emulator[0]) is None:
        pytest.skip(f"needs {emulator[0]} (Debian: qemu-user-static, scripts/peers)")
    try:
        return read([*emulator, str(checks.build_filter(directory, arch))])
    except SystemExit as missing:  # how the script says that there is no zig
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Filter:
    return build(tmp_path_factory.mktemp("filter"), core.find_arch())


# ---- every way through the program ---------------------------------------------------------------


def test_the_filter_lets_through_what_the_table_says_and_nothing_else(ours: Filter) -> None:
    assert ours.allowed() == ours.documented()
    assert ours.refusal == EPERM
    assert ours.architecture == AUDIT_ARCHITECTURES[core.find_arch()]


@pytest.mark.parametrize("arch", sorted(set(AUDIT_ARCHITECTURES) - {core.find_arch(), "armv6"}))
def test_so_does_that_of_other_architectures(arch: str, tmp_path: Path) -> None:
    other = build(tmp_path, arch)
    assert other.allowed() == other.documented()
    assert other.architecture == AUDIT_ARCHITECTURES[arch]


# Calls of a 32-bit x86 and of s390x have arguments in memory, which no filter sees.
@pytest.mark.parametrize("arch", ["i686", "s390x"])
def test_others_have_none_and_say_so(arch: str, tmp_path: Path) -> None:
    other = build(tmp_path, arch)
    assert other.architecture == 0
    tried = subprocess.run([*other.command, "probe"], check=False, stdin=subprocess.DEVNULL)
    assert tried.returncode == NO_FILTER_HERE


def test_a_change_of_any_comparison_is_seen(ours: Filter) -> None:
    """One bit of the constant, and the outcome turned round."""
    for at, (code, jump_true, jump_false, k) in enumerate(ours.program):
        if code == JUMP_EQUAL:
            for changed in (
                (code, jump_true, jump_false, k ^ 64),
                (code, jump_false, jump_true, k),
            ):
                assert is_different(ours, at, changed), (at, changed)


def test_an_answer_that_is_another_is_seen(ours: Filter) -> None:
    for at, (code, *_, k) in enumerate(ours.program):
        if code == RETURN:
            other = ours.refusal if k == ALLOW else ALLOW
            assert is_different(ours, at, (code, 0, 0, other)), at


def is_different(ours: Filter, at: int, changed: Instruction) -> bool:
    program = [*ours.program[:at], changed, *ours.program[at + 1 :]]
    try:
        return allowed(program, ours.architecture, ours.refusal) != ours.documented()
    except (Odd, KeyError, IndexError):
        return True


def test_a_table_that_says_less_or_more_is_seen(ours: Filter) -> None:
    text = DOCUMENT.read_text()
    for old, new in (
        (", `SO_MARK`", ""),
        ("`munmap`, ", ""),
        ("protocol: `0`", "protocol: `0`, `SO_MARK`"),
        ("; protocol: `NETLINK_ROUTE`", ""),
        ("| `tkill` | signal: `SIGABRT` |\n", ""),
    ):
        changed = text.replace(old, new)
        assert changed != text
        assert ours.allowed() != documented(changed, ours.numbers)


# ---- the kernel, with the filter installed -------------------------------------------------------

# A number and six arguments.
Made = tuple[int, ...]
# Of a way in which the call may be made.
Needed = frozenset[tuple[int, int]]

product = itertools.product


def test_the_kernel_agrees_about_every_number(ours: Filter) -> None:
    """Those of x32 and negative ones, too. All arguments are nonsense, so nothing happens."""
    numbers = [*range(4096), *(X32 | n for n in range(1024)), *range(2**32 - 64, 2**32)]
    agree(ours, ((number, *[ANYTHING] * 6) for number in numbers))


def test_the_kernel_agrees_about_sockets(ours: Filter) -> None:
    flags = (0, VALUES["SOCK_CLOEXEC"], VALUES["SOCK_NONBLOCK"])
    types = [kind | one | other for kind in range(16) for one in flags for other in flags]
    some = [*range(20), 33, 94, 115, 132, 136, 255, 262]
    families = [number for name, number in VALUES.items() if name.startswith("AF_")]
    grids = [(range(48), types, some), (families, types, range(300))]
    agree(ours, (arguments(ours, "socket", *each) for grid in grids for each in product(*grid)))


@pytest.mark.parametrize("call", ["setsockopt", "getsockopt"])
def test_the_kernel_agrees_about_options(ours: Filter, call: str) -> None:
    grid = product([ANYTHING], range(300), range(256))
    agree(ours, (arguments(ours, call, *each) for each in grid))


def test_the_kernel_agrees_about_descriptors(ours: Filter) -> None:
    """Commands of fcntl, and requests of terminals, TUN and sockets, with any size."""
    commands = product([ANYTHING], range(1200))
    words = product(range(4), (0, 4, 8, 16, 32, 40), (0x54, 0x89), range(256))
    requests = [way << 30 | size << 16 | kind << 8 | number for way, size, kind, number in words]
    agree(ours, (arguments(ours, "fcntl", *each) for each in commands))
    agree(ours, (arguments(ours, "ioctl", ANYTHING, request) for request in requests))


def test_the_kernel_agrees_about_memory(ours: Filter) -> None:
    bits = [0, *(1 << bit for bit in range(32))]
    flags = [low | high for low in range(64) for high in bits]
    maps = product([0], [4096], [*range(32), 1 << 24, 1 << 25], flags, [ANYTHING], [0])
    agree(ours, (arguments(ours, "mmap", *each) for each in maps))
    moves = product([ANYTHING], [0], [0], range(64))
    agree(ours, (arguments(ours, "mremap", *each) for each in moves))


def test_the_kernel_agrees_about_locks_signals_and_precedence(ours: Filter) -> None:
    agree(ours, (arguments(ours, "futex", ANYTHING, operation) for operation in range(1024)))
    agree(ours, (arguments(ours, "tkill", ANYTHING, signal) for signal in range(128)))
    policies = [flag | policy for flag in (0, 1 << 30) for policy in range(64)]
    grid = product((0, 1, ANYTHING), policies, [ANYTHING])  # no parameters
    agree(ours, (arguments(ours, "sched_setscheduler", *each) for each in grid))


def test_the_kernel_agrees_about_the_upper_half_of_arguments(ours: Filter) -> None:
    """What of 64 bits the kernel itself may not look at."""
    probes: list[Made] = []
    for number, needed in ours.documented():
        whole = dict.fromkeys(range(6), ANYTHING) | dict(needed)
        if needed:
            probes.append((number, *whole.values()))
            for place, value in needed:
                for bit in (32, 63):
                    changed = whole | {place: value | 1 << bit}
                    probes.append((number, *changed.values()))
    assert len(probes) > 100
    agree(ours, probes)


def arguments(ours: Filter, call: str, *given: int) -> Made:
    return ours.numbers[call], *given, *[0] * (6 - len(given))


def agree(ours: Filter, probes: Iterable[Made]) -> None:
    """The kernel lets through those of the calls that the table has. It really makes them."""
    unasked = {ours.numbers[name] for name in UNASKED & ours.numbers.keys()}
    calls = [probe for probe in probes if probe[0] not in unasked]
    ways: dict[int, list[Needed]] = {}
    for number, needed in ours.documented():
        ways.setdefault(number, []).append(needed)
    wrong = [
        (call, verdict)
        for call, verdict in zip(calls, verdicts(ours, calls), strict=True)
        if (verdict != "refused") != any(is_of(call, way) for way in ways.get(call[0], []))
    ]
    assert wrong == []


def is_of(call: Made, needed: Needed) -> bool:
    return all(call[1 + place] == value for place, value in needed)


def verdicts(ours: Filter, calls: list[Made]) -> list[str]:
    """Of each: refused (by the filter), allowed, or deadly to who made it."""
    text = "\n".join(" ".join(map(str, call)) for call in calls)
    done = subprocess.run(
        [*ours.command, "probe"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode == NO_FILTER_HERE:
        pytest.skip("no seccomp here")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
