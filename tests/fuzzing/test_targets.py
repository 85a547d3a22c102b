"""The targets of scripts/fuzz that are not cryptography: what was found or thought of once, a few
made-up cases of each, and that planted faults are found.

Budgets are iterations, not time, so a seed decides the whole run. A failure prints its seed;
PYWG_TEST_SEED=... repeats it, and what it prints as `replay` repeats the one iteration.
"""

from __future__ import annotations

import functools
import os
import random
import secrets
from pathlib import Path

import pytest

pytest.importorskip("hypothesis")
pytest.importorskip("ziglang")

from pywg.config import parse
from pywg.config.document import rewrite
from pywg.errors import ConfigError
from tools.build import checks
from tools.fuzz import abi, config, segments, target
from tools.fuzz.program import FOUND, NOTHING, Fuzzer
from tools.fuzz.target import Mismatch

CORPORA = Path(__file__).parents[1] / "data" / "corpora"
# What two seconds hold, at most, of each.
ITERATIONS = {"messages": 150, "uapi": 800, "vnet": 500_000}
SEGMENTS_ITERATIONS, ABI_ITERATIONS, CONFIG_EXAMPLES = 300, 80, 300
# fault -> what is said of it
FAULTS = {
    "messages": {
        "moved_endpoint": "a refused message moved something",
        "counted_bytes": "a refused message moved something",
        "replayed": "a message is taken twice",
        "admitted": "an inner packet is delivered that must not be",
        "uncounted": "a refused message is not counted once",
        "deaf": "cannot shake hands anew",
    },
    "uapi": {
        "half_applied": "a refused text changed something",
        "forgotten_line": "get, set, get differ",
        "told_value": "a refusal holds what may be a key",
    },
    "vnet": {
        "no_bounds": "crash: SIGSEGV",
        "short_packet": "a part is not as long as was said",
        "endless": "the walk does not end",
        "wild_size": "the size of segments is another",
    },
}


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Fuzzer:
    try:
        builder = checks.Builder(tmp_path_factory.mktemp("rooms"))
    except SystemExit as missing:  # how the script says that there is no zig
        pytest.skip(str(missing))
    return Fuzzer([str(builder.program("fuzz_rooms"))])


@pytest.fixture
def seed() -> str:
    chosen = os.environ.get("PYWG_TEST_SEED") or str(secrets.randbits(32))
    print(f"PYWG_TEST_SEED={chosen}")
    return chosen


def files(name: str) -> list[Path]:
    found = sorted((CORPORA / name).iterdir())
    assert found
    return found


# ---- programs of core/check/fuzz/rooms.zig -------------------------------------------------------


@pytest.mark.parametrize("name", ITERATIONS)
def test_what_must_hold_holds(fuzzer: Fuzzer, name: str, seed: str) -> None:
    code, said = fuzzer.run(name, seed, "--iterations", ITERATIONS[name])
    assert code == NOTHING, said


@pytest.mark.parametrize("name", ITERATIONS)
def test_what_was_kept_is_judged_again(fuzzer: Fuzzer, name: str) -> None:
    for path in files(name):
        code, said = fuzzer.run(name, "0", "--file", path)
        assert code == NOTHING, f"{path.name}: {said}"


@pytest.mark.parametrize(
    ("name", "fault"), [(name, fault) for name in FAULTS for fault in FAULTS[name]]
)
def test_a_fault_is_found_and_its_iteration_repeats_it(
    fuzzer: Fuzzer, name: str, fault: str, seed: str
) -> None:
    chosen = ("--fault", fault)
    code, said = fuzzer.run(name, seed, "--iterations", ITERATIONS[name], *chosen)
    assert code == FOUND, said
    finding = fuzzer.expect_finding(said, FAULTS[name][fault], seed)
    code, said = fuzzer.run(name, seed, "--iteration", finding.iteration, *chosen)
    assert code == FOUND, said
    assert fuzzer.expect_finding(said, FAULTS[name][fault], seed) == finding


# ---- superpackets --------------------------------------------------------------------------------


def test_superpackets_are_what_a_second_implementation_makes(fuzzer: Fuzzer, seed: str) -> None:
    with segments.Core.start(Path(fuzzer.command[0])) as core:
        for line in (CORPORA / "segments" / "seeds.txt").read_text().splitlines():
            known, number = line.split()
            segments.iterate(core, random.Random(f"{known}/{number}"))
        one = functools.partial(segments.iterate, core)
        assert target.run("segments", one, seed=int(seed), iterations=SEGMENTS_ITERATIONS) == 0


@pytest.mark.parametrize("fault", ["checksum", "length", "order", "identification", "eager"])
def test_a_fault_of_superpackets_is_found(fuzzer: Fuzzer, fault: str, seed: str) -> None:
    with segments.Core.start(Path(fuzzer.command[0]), fault) as core:
        one = functools.partial(segments.iterate, core)
        assert target.run("segments", one, seed=int(seed), iterations=SEGMENTS_ITERATIONS) == 1


# ---- files ---------------------------------------------------------------------------------------


def test_files_are_read_refused_and_written_again_as_promised(seed: str) -> None:
    for path in files("config"):
        config.judge(path.read_bytes().decode("utf-8", errors="surrogateescape"))
    for _ in config.feed(int(seed), CONFIG_EXAMPLES):
        pass


def _raises_another(text: str) -> object:
    if "/024" in text or text.count("=") > 6:
        raise ValueError(text)
    return parse(text)


def _tells_the_line(text: str) -> object:
    try:
        return parse(text)
    except ConfigError as error:
        error.args = (text,)  # past the constructor, which hides keys
        raise


def _loses_a_space(text: str, after: object) -> str:
    return rewrite(text, after).replace("= ", "=")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("read", "write"),
    [(_raises_another, rewrite), (_tells_the_line, rewrite), (parse, _loses_a_space)],
)
def test_a_fault_of_files_is_found(read: object, write: object, seed: str) -> None:
    with pytest.raises(Mismatch):
        for _ in config.feed(int(seed), 2000, read, write):  # type: ignore[arg-type]
            pass


# ---- the C ABI -----------------------------------------------------------------------------------


def test_odd_calls_of_the_library_are_answered(seed: str) -> None:
    for line in (CORPORA / "abi" / "seeds.txt").read_text().splitlines():
        known, number = map(int, line.split())
        assert abi.run_child(known, iterations=1, first=number) == 0
    assert abi.run_child(int(seed), iterations=ABI_ITERATIONS) == 0


@pytest.mark.parametrize("fault", ["panic", "forgetful"])
def test_a_fault_of_the_library_is_found(fault: str, seed: str) -> None:
    assert abi.run_child(int(seed), fault=fault, iterations=10 * ABI_ITERATIONS) == 1
