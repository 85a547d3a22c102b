"""The targets of scripts/fuzz --guided: what coverage has found is judged again, each planted fault
is found by it, and coverage does steer.

Only the last needs clang and libFuzzer. Everything has a fixed seed and a bound of executions.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytest.importorskip("ziglang")

from tests.fuzzing.test_targets import FAULTS as WITHOUT_COVERAGE
from tools.build import checks, core
from tools.fuzz import guided
from tools.fuzz.program import FOUND, NOTHING

# fault -> what is said of it
FAULTS = {
    "abi": {
        "forgetful": "a refused text changes something",
        "sealed_again": "three packets are sealed",
    },
    "control": {
        "endless": "the walk does not end",
        "wild_size": "the size of segments is another",
    },
    "gro": {
        "swapped": "a packet is changed by being joined",
        "changed": "a packet is changed by being joined",
    },
    "gso": {
        "early_fin": "a part has other flags",
        "last_sum": "a part's checksum is wrong",
    },
    "messages": {**WITHOUT_COVERAGE["messages"], "nonce_again": "a nonce is used twice"},
    "netlink": {
        "no_mtu": "the MTU is another",
        "short_name": "the name is another",
    },
    "uapi": WITHOUT_COVERAGE["uapi"],
    "vnet": {
        "no_bounds": "crash: SIGSEGV",
        "short_packet": "a part is not as long as was said",
    },
}
# With this seed the buried fault takes some fifty thousand.
SEED, EXECUTIONS = 5, 1_000_000


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return checks.build_replay(tmp_path_factory.mktemp("replay"))
    except SystemExit as missing:  # how the script says that there is no zig
        pytest.skip(str(missing))


def judge(program: Path, name: str, files: list[Path], *words: str) -> tuple[int, str]:
    command = [str(program), name, *words, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    print(done.stdout)
    return done.returncode, done.stdout


@pytest.mark.parametrize("name", guided.TARGETS)
def test_what_coverage_found_is_judged_again(replay: Path, name: str, tmp_path: Path) -> None:
    files = guided.unpack(name, tmp_path)
    if (folder := guided.TARGETS[name].made_by_hand) is not None:
        files += sorted((guided.CORPORA / folder).iterdir())
    code, said = judge(replay, name, files)
    assert code == NOTHING, said


@pytest.mark.parametrize(
    ("name", "fault"), [(name, fault) for name in FAULTS for fault in FAULTS[name]]
)
def test_a_fault_is_found_by_what_coverage_found(
    replay: Path, name: str, fault: str, tmp_path: Path
) -> None:
    code, said = judge(replay, name, guided.unpack(name, tmp_path), "--fault", fault)
    assert code == FOUND, said
    *_, what, again = said.splitlines()
    assert FAULTS[name][fault] in what
    assert again.startswith("replay: --file ")


def test_bytes_come_before_the_seed() -> None:
    command = [*core.find_zig(), "test", "core/check/chance.zig"]
    done = subprocess.run(command, cwd=core.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_coverage_leads_to_what_chance_would_never_find(tmp_path: Path) -> None:
    """Four bytes that must be right, from nothing: one input in four thousand million by chance."""
    try:
        compiler = guided.find_compiler()
    except SystemExit as missing:
        pytest.skip(str(missing))
    program = checks.build_guided(tmp_path, "control", compiler)
    words = [f"-seed={SEED}", f"-runs={EXECUTIONS}", "-max_len=8", "--fault=buried"]
    outcome = guided.fuzz(program, "control", words, [])
    assert outcome.code != 0, outcome.said
    assert outcome.reason == "mismatch: what was buried is found"
    assert outcome.finding is not None
    outcome.finding.unlink()
