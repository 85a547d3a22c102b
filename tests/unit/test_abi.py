"""Header, Zig library and ctypes declarations say the same; nothing else is exported."""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pywg.native import abi, library

HEADER = Path(__file__).parents[2] / "core" / "include" / "pywg.h"
STRUCTS = [
    abi.pywg_diagnostic,
    abi.pywg_device_options,
    abi.pywg_peer_counters,
    abi.pywg_event,
    abi.pywg_now,
    abi.pywg_endpoint,
    abi.pywg_packet,
    abi.pywg_interface_options,
]


def constants() -> list[str]:
    names = re.findall(r"^#define (PYWG_[A-Z0-9_]+) ", HEADER.read_text(), re.MULTILINE)
    return [name for name in names if name != "PYWG_H"]


def declared_functions() -> list[str]:
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    return re.findall(
        r"^(?:pywg_status|void|uint32_t|const char \*)\s*\*?(pywg_\w+)\(", text, re.MULTILINE
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    """Sizes, offsets and constants as a C compiler sees them."""
    pytest.importorskip("ziglang")
    directory = tmp_path_factory.mktemp("abi")
    lines = []
    for struct in STRUCTS:
        name = struct.__name__
        lines.append(f'printf("\\"{name}\\": {{\\"\\": %zu", sizeof({name}));')
        for field, *_ in struct._fields_:
            lines.append(f'printf(", \\"{field}\\": %zu", offsetof({name}, {field}));')
        lines.append('printf("}, ");')
    lines.append('printf("\\"constants\\": {");')
    for i, name in enumerate(constants()):
        lines.append(f'printf("{", " if i else ""}\\"{name}\\": %lld", (long long)({name}));')
    lines.append('printf("}");')
    body = "\n    ".join(lines)
    source = directory / "measure.c"
    includes = '#include <stdio.h>\n#include "pywg.h"\n'
    program_text = f'int main(void) {{\n    printf("{{");\n    {body}\n    printf("}}");\n}}\n'
    source.write_text(includes + program_text)
    program = directory / "measure"
    compiler = [sys.executable, "-m", "ziglang", "cc", "-std=c99", "-Wall", "-Werror", "-pedantic"]
    subprocess.run([*compiler, "-I", HEADER.parent, source, "-o", program], check=True)
    told = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    sizes: dict[str, dict[str, int]] = json.loads(told)
    return sizes


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_struct_has_the_same_layout_in_c_and_ctypes(
    struct: type[ctypes.Structure], measured: dict[str, dict[str, int]]
) -> None:
    offsets = {field: getattr(struct, field).offset for field, *_ in struct._fields_}
    assert measured[struct.__name__] == {"": ctypes.sizeof(struct), **offsets}


def test_constants_have_the_same_values_in_c_and_ctypes(
    measured: dict[str, dict[str, int]],
) -> None:
    assert measured["constants"] == {name: getattr(abi, name) for name in constants()}


def test_every_function_of_the_header_is_declared_in_ctypes_in_the_same_order() -> None:
    assert declared_functions() == list(abi.FUNCTIONS)


def run(program: str, *arguments: str | Path) -> str:
    if shutil.which(program) is None:
        pytest.skip(f"needs {program} (Debian: binutils)")
    done = subprocess.run([program, *arguments], check=True, capture_output=True, text=True)
    return done.stdout


def test_library_exports_the_functions_of_the_header_and_nothing_else() -> None:
    output = run("nm", "-D", "--defined-only", library.find())
    assert sorted(line.split()[-1] for line in output.splitlines()) == sorted(abi.FUNCTIONS)


def test_library_needs_no_other_library_and_one_symbol_that_every_libc_has() -> None:
    path = library.find()
    assert "NEEDED" not in run("readelf", "-dW", path)
    # glibc since 2.16, musl since 1.1: how Zig's std finds the vDSO, for clocks without a call.
    assert run("nm", "-D", "--undefined-only", path).split() == ["U", "getauxval"]
    assert "TLS" not in run("readelf", "-lW", path)


def test_status_names_are_those_of_the_header() -> None:
    core = library.load()
    for name in constants():
        value = getattr(abi, name)
        if value < 0 or name in ("PYWG_OK", "PYWG_HANDED_OVER"):
            assert core.pywg_status_name(value).decode() == name
    assert core.pywg_status_name(2) == b"PYWG_UNKNOWN"


def test_null_and_wrong_sizes_are_refused_not_followed() -> None:
    core = library.load()
    invalid = abi.PYWG_INVALID_ARGUMENT
    handle = ctypes.c_void_p()
    assert core.pywg_interface_open(None, ctypes.byref(handle), None) == invalid
    options = abi.pywg_interface_options(size=3)
    assert core.pywg_interface_open(ctypes.byref(options), ctypes.byref(handle), None) == invalid
    small = abi.pywg_diagnostic(size=8)
    options.size = ctypes.sizeof(options)
    assert (
        core.pywg_interface_open(ctypes.byref(options), ctypes.byref(handle), ctypes.byref(small))
        == invalid
    )
    assert core.pywg_interface_open(ctypes.byref(options), None, None) == invalid
    device_options = abi.pywg_device_options(size=3)
    assert (
        core.pywg_device_open(ctypes.byref(device_options), ctypes.byref(handle), None) == invalid
    )
    for name, (result, arguments) in abi.FUNCTIONS.items():
        if name.endswith("_open") or result is not abi.pywg_status:
            continue
        blank = [
            0 if argument in (ctypes.c_size_t, ctypes.c_uint32, ctypes.c_int32) else None
            for argument in arguments
        ]
        assert getattr(core, name)(*blank) == invalid, name
    core.pywg_interface_close(None)
    core.pywg_device_close(None)


def test_drop_reasons_are_numbered_without_a_gap() -> None:
    core = library.load()
    names: list[str] = []
    while (name := core.pywg_drop_name(len(names))) is not None:
        names.append(name.decode())
    assert names[0] == "malformed"
    assert len(names) == len(set(names)) > 20
