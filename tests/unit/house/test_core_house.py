"""The house of core/: shelves inside a room, no circles, no file that nothing reads, one graph of
modules, lines that fit, and no `else` for a value of an enum of ours that is yet to come.

The walls between rooms are the compiler's; what is here it cannot see. Text only, no compiler.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tools.build import checks, core

ROOT = Path(__file__).resolve().parents[3]
COLUMNS = 120

# Each file may import files of the shelves before its own. Those that bear one noun together, and
# so may import each other, are in one string.
Shelves = tuple[tuple[str, ...], ...]
SHELVES: Mapping[str, Shelves] = {
    "protocol": (
        (
            "allowed_ips",
            "change",
            "codec",
            "constants",
            "crypto",
            "deadlines",
            "drop",
            "peer_table",
        ),
        ("segmented_array", "testdata/transcripts", "time", "untouched", "wishes"),
        ("cookie", "index_table", "load", "noise", "notices", "rate_limiter"),
        ("attempts", "events", "replay", "staging", "timers", "uapi"),
        ("session",),
        ("peer",),
        (
            "interface interface/handshakes interface/control interface/handover "
            "interface/renewal interface/trouble",
        ),
        ("soundness",),
        ("interface_test",),
        ("protocol",),
    ),
    "device": (
        (
            "cipher_pool",
            "curve_price",
            "diagnostic",
            "limited_allocator",
            "log",
            "moderation",
            "mutex",
            "precedence",
            "sizes",
            "suspension",
            "train_watch",
        ),
        ("events", "notice_log", "sweep", "ticket_lock", "token", "train", "zones"),
        ("options", "inbound", "outbound"),
        ("shared", "uapi_server"),
        ("worker",),
        ("workers",),
        ("sockets", "report"),
        ("link",),
        ("handover", "opening"),
        ("control", "taking"),
        ("loop",),
        ("device",),
        ("device_test",),
    ),
    "io": (
        ("clock", "entropy", "fork", "linux", "priority", "vnet_header"),
        ("control_message", "line_writer", "netlink", "offload", "poller", "sockaddr"),
        ("channel", "given_sockets", "icmp_error", "tunnels"),
        ("gso", "icmp_sender", "link", "uapi_client", "uapi_listener", "udp_send", "vm_generation"),
        ("gro", "link_settings", "route", "uapi_connection", "udp"),
        ("interface_address", "tun", "udp_test"),
        ("io",),
    ),
    "config": (
        ("base64", "close_words", "text"),
        ("grammar", "notes"),
        ("values",),
        ("change_text",),
        ("parser",),
        ("config",),
    ),
    "check/sim": (
        ("ledger", "network", "no_mutation", "packet"),
        ("lanes",),
        ("host",),
        ("audit", "world"),
        ("bounds",),
        ("judge",),
        ("traffic",),
        ("flood",),
        ("faults",),
        ("phases",),
        ("events",),
        ("sim",),
    ),
}

# Files that bear one noun together; circles among them are meant.
ONE_NOUN = [
    {
        f"core/protocol/interface{part}.zig"
        for part in ("", "/handshakes", "/control", "/handover", "/renewal", "/trouble")
    }
]

# (file, function, test or constant) -> why its switch may have `else` beside .value
OPEN_SWITCHES: Mapping[tuple[str, str], str] = {
    ("core/check/filter.zig", "make"): "architectures of the compiler's",
    ("core/wire/text.zig", "valueOf"): "letters of a format, types of the compiler's",
    ("core/cipher/dispatch.zig", "path"): "architectures of the compiler's",
    ("core/daemon/seccomp.zig", "architecture"): "architectures of the compiler's",
    ("core/io/gro.zig", "inspect"): "a protocol number of IP, which may be any",
    ("core/protocol/codec.zig", "describe"): "kinds of types, others of which do not compile",
    ("core/protocol/codec.zig", "listed"): "kinds of types, others of which do not compile",
    ("core/wire/icmp.zig", "isError"): "a protocol number of IP, which may be any",
    ("core/wire/ip.zig", "ipv6Upper"): "a protocol number of IP, which may be any",
}


# ---- reading Zig ---------------------------------------------------------------------------------


def without_comments(text: str) -> str:
    """The same lines; comments are gone."""
    kept = r'("(?:\\.|[^"\\\n])*"|\\\\[^\n]*|\'(?:\\.|[^\'\\\n])+\')'
    return re.sub(kept + r"|//[^\n]*", lambda found: found[1] or "", text)


def imports(path: str, text: str) -> set[str]:
    """Files, as paths from the root of the repository. Modules have no suffix."""
    names = re.findall(r'@import\("([^"]+\.zig)"\)', without_comments(text))
    folder = Path(path).parent
    return {str((ROOT / folder / name).resolve().relative_to(ROOT)) for name in names}


def sources() -> dict[str, str]:
    paths = sorted((ROOT / "core").rglob("*.zig"))
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}


def arrows(texts: Mapping[str, str]) -> dict[str, set[str]]:
    return {path: imports(path, text) for path, text in texts.items()}


# ---- shelves and circles -------------------------------------------------------------------------


def against_shelves(room: str, shelves: Shelves, graph: Mapping[str, set[str]]) -> list[str]:
    """What goes up or sideways, has no place, or is not there."""
    place: dict[str, tuple[int, str]] = {}
    for height, shelf in enumerate(shelves):
        for noun in shelf:
            for name in noun.split():
                place[f"core/{room}/{name}.zig"] = (height, noun)
    files = {path for path in graph if path.startswith(f"core/{room}/")}
    wrong = [f"{path} has no shelf" for path in sorted(files - place.keys())]
    wrong += [f"{path} is on a shelf and not there" for path in sorted(place.keys() - files)]
    for path in sorted(files & place.keys()):
        for target in sorted(graph[path] & place.keys()):
            if target.endswith("_test.zig"):  # a room names its tests; it does not need them
                continue
            height, noun = place[path]
            if place[target][0] >= height and place[target][1] != noun:
                wrong.append(f"{path} imports {target}")
    return wrong


def circles(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """Files that reach each other, in sets."""
    reached = {path: reach({path}, graph) for path in graph}
    found: list[set[str]] = []
    for path in graph:
        circle = {other for other in reached[path] if path in reached.get(other, ())}
        if len(circle) > 1 and circle not in found:
            found.append(circle)
    return found


def reach(roots: Iterable[str], graph: Mapping[str, set[str]]) -> set[str]:
    """The roots and all they import, and so on."""
    found: set[str] = set()
    left = list(roots)
    while left:
        path = left.pop()
        if path not in found:
            found.add(path)
            left += graph.get(path, ())
    return found


def without_tests(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    return {
        path: {target for target in targets if not target.endswith("_test.zig")}
        for path, targets in graph.items()
    }


def test_each_file_imports_only_from_lower_shelves() -> None:
    graph = arrows(sources())
    wrong = [line for room, rows in SHELVES.items() for line in against_shelves(room, rows, graph)]
    assert wrong == []


def test_no_files_import_each_other_in_a_circle() -> None:
    found = circles(without_tests(arrows(sources())))
    assert [circle for circle in found if circle not in ONE_NOUN] == []


def test_an_arrow_up_and_a_circle_are_seen() -> None:
    shelves = (("low", "beside"), ("high", "one two"))
    text = 'const a = @import("{}.zig");'
    graph = arrows(
        {
            "core/room/low.zig": text.format("high"),
            "core/room/beside.zig": text.format("low") + '\n// @import("high.zig") is said only',
            "core/room/high.zig": text.format("low"),
            "core/room/one.zig": text.format("two"),
            "core/room/two.zig": text.format("one"),
            "core/room/new.zig": "",
        }
    )
    assert against_shelves("room", shelves, graph) == [
        "core/room/new.zig has no shelf",
        "core/room/beside.zig imports core/room/low.zig",
        "core/room/low.zig imports core/room/high.zig",
    ]
    pairs = [{"low", "high"}, {"one", "two"}]
    assert circles(graph) == [{f"core/room/{name}.zig" for name in pair} for pair in pairs]


# ---- dead files, and the two graphs of modules ---------------------------------------------------


def dead(graph: Mapping[str, set[str]], roots: Iterable[str]) -> set[str]:
    return graph.keys() - reach(roots, graph)


def test_every_file_is_read_by_a_program_or_a_check() -> None:
    roots = {file for file, _ in checks.MODULES.values()} | {core.KERNELS, core.CURVE}
    assert dead(arrows(sources()), roots) == set()


def test_a_file_that_nothing_imports_is_seen() -> None:
    graph = {"core/a.zig": {"core/b.zig"}, "core/b.zig": set(), "core/old.zig": {"core/b.zig"}}
    assert dead(graph, ["core/a.zig"]) == {"core/old.zig"}


def graph_of(build_zig: str) -> dict[str, tuple[str, list[str]]]:
    """The rows of `graph` in build.zig, in the form of core.MODULES."""
    found = re.search(r"const graph = \[_\]Room\{(.*?)\n\};", without_comments(build_zig), re.S)
    assert found is not None, "build.zig has no graph"
    row = r'\.name = "(\w+)",\s*\.root = "([^"]+)"(?:,\s*\.imports = &\.\{([^}]*)\})?'
    rows = re.findall(row, found[1])
    assert len(rows) == found[1].count(".name"), "a row that is not understood"
    return {name: (root, re.findall(r'"(\w+)"', imports)) for name, root, imports in rows}


def test_zig_build_and_the_direct_build_have_one_graph() -> None:
    direct = {**core.MODULES, "bench": checks.MODULES["bench"]}
    assert graph_of((ROOT / "build.zig").read_text(encoding="utf-8")) == direct


def test_a_row_of_build_zig_is_read_as_it_is() -> None:
    text = """
const graph = [_]Room{
    .{ .name = "wire", .root = "w.zig" }, // .name = "gone"
    .{
        .name = "io",
        .root = "io.zig",
        .imports = &.{ "wire", "options" },
    },
};
"""
    assert graph_of(text) == {"wire": ("w.zig", []), "io": ("io.zig", ["wire", "options"])}


# ---- lines ---------------------------------------------------------------------------------------


def long_lines(texts: Mapping[str, str]) -> list[str]:
    return [
        f"{path}:{number}"
        for path, text in texts.items()
        for number, line in enumerate(text.split("\n"), 1)
        if len(line) > COLUMNS
    ]


def test_lines_have_at_most_120_columns() -> None:
    build = {"build.zig": (ROOT / "build.zig").read_text(encoding="utf-8")}
    assert long_lines({**build, **sources()}) == []


def test_a_line_too_long_is_seen() -> None:
    assert long_lines({"a.zig": "\n".join(["x" * 120, "é" * 121, "y"])}) == ["a.zig:2"]


# ---- no else on our own enums --------------------------------------------------------------------
# Text shows no types, but it shows spelling. Values of our enums have small letters, those of the
# kernel (errno) have capitals; numbers and errors have no point before them. So a switch with a
# value in small letters and an `else` is on an enum of ours and swallows the next value, or stands
# in OPEN_SWITCHES. `inline else` makes a case of each value and swallows none.


def bracket_end(text: str, begin: int) -> int:
    """One past the bracket that closes the one at `begin`. Strings are blanked before."""
    depth = 0
    for at in range(begin, len(text)):
        depth += (text[at] in "([{") - (text[at] in ")]}")
        if depth == 0:
            return at + 1
    raise AssertionError("a bracket without its end")


def blanked(text: str) -> str:
    """Without comments; what strings and characters say is spaces."""
    quoted = r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'|\\\\[^\n]*'
    return re.sub(quoted, lambda found: " " * len(found[0]), without_comments(text))


def switches(text: str) -> Iterator[tuple[int, list[str]]]:
    """Where each begins, and the labels of its prongs."""
    for found in re.finditer(r"\bswitch \(", text):
        begin = bracket_end(text, found.end() - 1) + 1
        assert text[begin] == "{", text[found.start() : begin + 1]
        body = text[begin + 1 : bracket_end(text, begin) - 1]
        flat, at = "", 0
        while at < len(body):
            end = bracket_end(body, at) if body[at] in "([{" else at + 1
            flat += body[at] if end == at + 1 else " "
            at = end
        yield found.start(), [item.split("=>")[0].strip() for item in flat.split(",")]


def owner(text: str, at: int) -> str:
    """The function, test or constant of the file that the place is in."""
    heads = r"^(?: *(?:pub )?(?:inline )?fn|(?:pub )?const|test) (?:\"([^\"\n]+)\"|(\w+))"
    names = re.findall(heads, text[:at], re.M)
    return "".join(names[-1]) if names else ""


def swallowing(path: str, text: str) -> list[tuple[str, str]]:
    code = blanked(text)
    return [
        (path, owner(without_comments(text), at))
        for at, labels in switches(code)
        if "else" in labels and any(re.fullmatch(r"\.[a-z]\w*", label) for label in labels)
    ]


def test_a_new_value_of_an_enum_of_ours_is_swallowed_nowhere() -> None:
    found = [place for path, text in sources().items() for place in swallowing(path, text)]
    assert sorted(set(found)) == sorted(OPEN_SWITCHES)


def test_an_else_beside_a_value_of_ours_is_seen() -> None:
    text = """
fn name(kind: Kind) u8 {
    const x = f(switch (kind) { // else
        .first, .second => |it| it.a,
        else => { return 1; },
    });
    return switch (errno) { .AGAIN => 1, else => switch (x) { .first => 0, inline else => 2 } };
}
test "a name, and a brace {" {
    switch (kind) { .first => {}, .second => {} }
    switch ("{") { 'e' => 1, else => 2 }
    switch (kind) { .first => {}, else => {} }
}
"""
    assert swallowing("a.zig", text) == [("a.zig", "name"), ("a.zig", "a name, and a brace {")]
