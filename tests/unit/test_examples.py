"""The C and Python blocks of the documents are files of examples/, or an excerpt of one, and the
examples run. Those that need root run in tests/netns/test_examples.py, those of a tunnel as a value
in tests/netns/test_tunnel_value.py."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pywg.native import library

ROOT = Path(__file__).parents[2]
EXAMPLES = {path.name: path.read_text() for path in sorted((ROOT / "examples").iterdir())}
DOCUMENTS = ["README.md", "docs/ABI.md", "docs/library.md"]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
EXCERPT = re.compile(
    r"(?:/\* |# )excerpt begins(?: \*/)?\n(.*?)\s*(?:/\* |# )excerpt ends", re.DOTALL
)


def blocks(text: str) -> list[str]:
    return [code for language, code in BLOCK.findall(text) if language in ("c", "python")]


def shown_in(code: str) -> str | None:
    """The example that a block is the text of, or an excerpt of."""
    for name, text in EXAMPLES.items():
        if code == text or code.strip() in map(str.strip, EXCERPT.findall(text)):
            return name
    return None


def compiled(name: str, text: str, directory: Path) -> Path:
    """The program that a C example makes. Warnings are errors."""
    pytest.importorskip("ziglang")
    source, program = directory / name, directory / Path(name).stem
    source.write_text(text)
    built = library.find().parent
    warnings = ["-Wall", "-Wextra", "-Werror"]
    linked = [f"-L{built}", "-lpywg", f"-Wl,-rpath,{built}"]
    include = f"-I{ROOT / 'core' / 'include'}"
    compiler = [sys.executable, "-m", "ziglang", "cc"]
    command = [*compiler, *warnings, include, str(source), *linked, "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


def output(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_of_code_is_an_example(document: str) -> None:
    found = blocks((ROOT / document).read_text())
    assert found
    assert [code for code in found if shown_in(code) is None] == []


def test_every_example_is_shown_and_run() -> None:
    shown = {shown_in(code) for name in DOCUMENTS for code in blocks((ROOT / name).read_text())}
    assert shown == set(EXAMPLES)
    netns = ROOT / "tests" / "netns"
    tests = [Path(__file__), Path(__file__).with_name("test_c_library.py")]
    tests += [netns / "test_examples.py", netns / "test_tunnel_value.py"]
    text = "".join(path.read_text() for path in tests)
    assert [name for name in EXAMPLES if f'"{name}"' not in text] == []


def test_a_block_that_differs_from_the_example_is_found_out() -> None:
    changed = EXAMPLES["start.py"].replace("seal", "close")
    assert shown_in(blocks(f"```python\n{changed}```\n")[0]) is None


def test_two_interfaces_in_c_seal_and_open_packets(tmp_path: Path) -> None:
    said = output(compiled("interface.c", EXAMPLES["interface.c"], tmp_path)).split()
    # A packet that waited for the handshake, and one that did not.
    assert said == ["STAGED", "HANDSHAKE", "HANDSHAKE", "DELIVER", "SEALED", "DELIVER"]


def test_the_example_in_c_fails_when_what_comes_out_is_not_what_went_in(tmp_path: Path) -> None:
    text = EXAMPLES["interface.c"].replace("allowed_ip=10.0.0.1/32", "allowed_ip=10.0.0.3/32")
    program = compiled("interface.c", text, tmp_path)
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "DELIVER" not in done.stdout


def test_slots_carry_packets_over_udp() -> None:
    assert EXAMPLES["slots.py"]
    said = output(sys.executable, "-P", ROOT / "examples" / "slots.py")
    assert said == "16 packets, as they were sent\n"


def test_two_interfaces_in_python_print_what_the_page_says(tmp_path: Path) -> None:
    said = output(sys.executable, "-P", ROOT / "examples" / "interface.py")
    document = (ROOT / "docs" / "ABI.md").read_text()
    after = document.index(EXAMPLES["interface.py"]) + len(EXAMPLES["interface.py"])
    printed = document[after:].split("```\n")[2]
    assert said == printed
    assert said.endswith("DELIVER True\n")
