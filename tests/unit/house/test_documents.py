"""What the documents name exists: paths, links, commands and their options, tests, names.

The rule is in docs/TESTING.md, "Documents". A word in backticks is judged by its form, so no list
says which words are looked at; ALLOWED has the few that are somebody else's. Knows no meaning: a
sentence about a name that exists may still be false.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path

import click
import pytest

from pywg.cli import COMMANDS, cli

ROOT = Path(__file__).parents[3]
DOCUMENTS = [
    *("README.md", "CONTRIBUTING.md", "SECURITY.md", "core/README.md"),
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
]
FOLDERS = [".github", "core", "deploy", "docs", "examples", "pywg", "scripts", "tests", "tools"]

# word -> why no file of this repository has or declares it
ALLOWED = {
    "zig-out": "made by zig build",
    "pywg/_native": "made by scripts/build_core",
    "libpywg.so": "made by both",
    "libpywg.a": "made by both",
    "libpywg.so.1": "made by scripts/install_library",
    ".venv/bin/pywg": "made by scripts/quickstart",
    "dist/deb": "made by scripts/build-deb",
    "secure_path": "of sudo",
    "txqueuelen": "the kernel's: an attribute of a link",
    "sched_setattr": "the kernel's: a call that we could make and do not",
    "vpmulld": "the processor's",
    "wg-quick@wg0.service": "of wireguard-tools",
    "wg0.conf": "the reader's",
    "dnsConfig": "of Kubernetes",
    "resources.limits": "of Kubernetes",
}
# The first word of a dotted name that is not ours.
FOREIGN = {"std": "Zig's library", "net": "the kernel's settings"} | dict.fromkeys(
    ("asyncio", "hmac", "loop", "os", "socket"), "Python's library"
)
# What a document writes in the place of a name of the reader's.
PLACEHOLDER = re.compile(r"\b(?:NAME|TARGET|FILE)\b")

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`((?:[^`\n]|\n(?!\n))+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(
    r"(?=.*[A-Za-z])[\w.*@-]+(?:/[\w.*@-]*)+|[\w*@-]+\.(?:a|c|h|md|py|service|so|zig|zig\.zon|yml|yaml|Containerfile)"
)
KEY = re.compile(r"(?:#!pywg )?([A-Z]\w+) = (.*)")
NAME = re.compile(r"[.$]?([A-Za-z_][\w-]*(?:\.\w+)*)(\*?)(?:\(.*\)|(?:=|: )(.*))?")
OPTION = re.compile(r"(?<!\S)\[?(--?[a-z][a-z0-9-]*)")
SETTING = re.compile(r"([A-Z][A-Z0-9_]*)=\S* ")
COMMAND = re.compile(
    r"(?:\./)?(pywgd?|scripts/[\w-]+|zig build|\S*python -m ziglang build)(?: (.*))?"
)


# ---- what exists ---------------------------------------------------------------------------------


@functools.cache
def files() -> dict[str, str]:
    """Path -> text, without the comments: a name that only a comment has is a name of the past."""
    found = {}
    inside = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))
    for path in (*sorted(inside), *sorted(ROOT.glob("*.*"))):
        name = str(path.relative_to(ROOT))
        if path.is_file() and not re.search(r"__pycache__|_native/|\.zig-cache", name):
            comment = {".zig": r"//.*", ".py": r"(?m)(^|  )#.*"}.get(path.suffix, r"\Z")
            found[name] = re.sub(comment, "", path.read_text(errors="replace"))
    return found


@functools.cache
def sources() -> dict[str, str]:
    """Files that a name can be declared in: no documents, no data, not the faults planted here."""
    here = Path(__file__).relative_to(ROOT)
    others = re.compile(rf".*\.md|tests/data/.*|{re.escape(str(here))}")
    return {name: text for name, text in files().items() if not others.fullmatch(name)}


@functools.cache
def words() -> frozenset[str]:
    text = "\n".join(sources().values())
    return frozenset(re.findall(r"\w+", text)) | frozenset(re.findall(r"\w+(?:-\w+)+", text))


@functools.cache
def tails() -> frozenset[str]:
    """Each path of the repository without any number of its first folders, and each folder's."""
    found: set[str] = set()
    for name in files():
        parts = name.split("/")
        for end in range(1, len(parts) + 1):
            found |= {"/".join(parts[start:end]) for start in range(end)}
    return frozenset(found)


@functools.cache
def members(owner: str) -> frozenset[str]:
    """What files, folders, types and classes of this name declare."""
    found = {name for path in owners().get(owner, ()) for name in declared(path)}
    for name in sources():
        folder, _, inside = f"/{name}".partition(f"/{owner}/")
        if inside and folder.count("/") < 3:
            found.add(inside.split("/")[0].split(".")[0])
    return frozenset(found)


@functools.cache
def owners() -> dict[str, set[str]]:
    """Name -> the files that are called so, or define a type of this name."""
    defined = re.compile(
        r"\bclass (\w+)|\bconst (\w+) = (?:(?:extern|packed) )?(?:struct|enum|union|@This)\b"
    )
    found: dict[str, set[str]] = {}
    for name, text in sources().items():
        path = Path(name)
        if path.suffix in (".py", ".zig"):
            types = {"".join(pair) for pair in defined.findall(text)}
            own = path.parent.name if path.name == "__init__.py" else path.stem
            for owner in types | {own}:
                found.setdefault(owner, set()).add(name)
    return found


@functools.cache
def declared(path: str) -> frozenset[str]:
    """Functions, constants, fields, types and imports of a file."""
    declaration = re.compile(
        r"\b(?:fn|const|var|def|class) (\w+)|^ +(\w+)(?:: |,$| = )|^ *(?:from .* )?import (.*)",
        re.M,
    )
    found = (" ".join(groups) for groups in declaration.findall(sources()[path]))
    return frozenset(re.findall(r"\w+", " ".join(found)))


@functools.cache
def known_tests() -> frozenset[str]:
    texts = [text for name, text in files().items() if name.startswith("tests/")]
    functions = {name for text in texts for name in re.findall(r"\bdef (test_\w+)", text)}
    return frozenset(functions)


@functools.cache
def options_of(command: str) -> frozenset[str]:
    """The options of `pywg VERB`, `pywgd` or `scripts/X`, as its source has them."""
    if command.startswith("scripts/"):
        text = files()[command]
        started = re.search(r' (tools[\w.]+) "\$@"', text)
        return options_of(started[1]) if started else options_in(text)
    if command.startswith("tools."):
        return options_in(files()[command.replace(".", "/") + ".py"])
    if command == "pywgd":
        daemon = [text for name, text in files().items() if name.startswith("core/daemon")]
        return options_in("".join(daemon))
    context = click.Context(cli)
    verb = cli if command == "pywg" else cli.get_command(context, command.split()[1])
    assert verb is not None
    shared = frozenset({"-h", "--help"})
    verbs = [verb, *(verb.commands.values() if isinstance(verb, click.Group) else ())]
    found = (name for one in verbs for parameter in one.params for name in parameter.opts)
    both_ways = (
        name for one in verbs for parameter in one.params for name in parameter.secondary_opts
    )
    return shared.union(found, both_ways)


def options_in(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"(?<![\w-])(--?[a-z][a-z0-9-]*)", text))


@functools.cache
def every_option() -> frozenset[str]:
    commands = [*(f"pywg {verb}" for verb in COMMANDS), "pywg", "pywgd"]
    commands += [name for name in files() if re.fullmatch(r"scripts/[\w-]+", name)]
    commands.remove("scripts/test")  # pytest's
    return frozenset().union(*map(options_of, commands))


# ---- what a document names -----------------------------------------------------------------------


def faults(document: str, text: str) -> list[str]:
    """What the text names and does not exist."""
    found = [link for link in LINK.findall(text) if not leads_somewhere(document, link)]
    for language, block in FENCED.findall(text):
        if not language:
            found += [fault for line in block.splitlines() for fault in faults_of_line(line)]
    prose = FENCED.sub("", text)
    for span in SPAN.findall(prose):
        found += faults_of_word(" ".join(span.replace("\\|", "|").split()))
    return found


def faults_of_line(line: str) -> Iterator[str]:
    """A line of a block without language: commands, and paths that begin at the root."""
    line = re.sub(r"(?<!\S)#.*", "", line)
    for part in re.split(r" \| |<\(|&& ", line):
        yield from faults_of_command(part.strip().removeprefix("sudo "))
    for path in re.findall(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})/[\w./-]+", line):
        if not is_path(path):
            yield path


def faults_of_word(word: str) -> Iterator[str]:
    """What is wrong with one word in backticks, judged by the first form that it has."""
    if word in ALLOWED:
        return
    if COMMAND.fullmatch(SETTING.sub("", word)):
        yield from faults_of_command(word)
    elif word.startswith("--"):
        yield from (option for option in OPTION.findall(word) if option not in every_option())
    elif PATH.fullmatch(word):
        if not is_path(word):
            yield word
    elif key := KEY.fullmatch(word):
        if not is_key(key[1]) or not are_words(key[2]):
            yield word
    elif re.fullmatch(r"test_\w+", word):
        if word not in known_tests():
            yield word
    elif (name := NAME.fullmatch(word)) and not (
        is_name(name[1], prefix=bool(name[2])) and are_words(name[3] or "")
    ):
        yield word


def faults_of_command(line: str) -> Iterator[str]:
    """Settings before a command, and, if the command is ours, its verb and its options."""
    while setting := SETTING.match(line):
        if setting[1] not in words():
            yield setting[1]
        line = line[setting.end() :]
    found = COMMAND.fullmatch(line)
    if found is None:
        return
    # After -- are another program's.
    command, arguments = found[1], (found[2] or "").partition("-- ")[0]
    if command.endswith("build"):
        step = arguments.split(" ")[0]
        if re.match(r"[a-z]", step) and f'step("{step}"' not in files()["build.zig"]:
            yield line
        return
    if command == "scripts/tool":
        command = arguments.split(" ")[0]
        if not is_path(command.replace(".", "/") + ".py"):
            yield line
            return
    elif command.startswith("scripts/"):
        if command not in files():
            yield line
            return
    elif command == "pywg" and re.match(r"[a-z]", arguments):
        command = f"pywg {arguments.split()[0]}"
        if command.split()[1] not in COMMANDS:
            yield line
            return
    if command != "scripts/test":  # its arguments are pytest's
        known = options_of(command)
        yield from (
            f"{command} {option}" for option in OPTION.findall(arguments) if option not in known
        )


def is_path(path: str) -> bool:
    pattern = PLACEHOLDER.sub("*", path.strip("/").replace("**/", "*"))
    if pattern in tails() or any(f"{pattern}/".startswith(f"{word}/") for word in ALLOWED):
        return True
    return "*" in pattern and any(fnmatchcase(tail, pattern) for tail in tails())


def is_key(key: str) -> bool:
    config = (text for name, text in files().items() if name.startswith("pywg/config/"))
    return any(f'"{key}"' in text for text in config)


def are_words(values: str) -> bool:
    """`auto|off`: each is a word of the sources. A single value is the reader's."""
    return "|" not in values or words().issuperset(re.findall(r"[a-z]\w+", values))


def is_name(dotted: str, *, prefix: bool) -> bool:
    if placeholder := PLACEHOLDER.search(dotted):
        dotted, prefix = dotted[: placeholder.start()], True
    if prefix:
        return any(word.startswith(dotted.rstrip("-")) for word in words())
    first, *rest = dotted.split(".")
    if rest and first in FOREIGN:
        return True
    pairs = pairwise([first, *rest])
    return first in words() | tails() and all(member in members(owner) for owner, member in pairs)


def leads_somewhere(document: str, link: str) -> bool:
    if re.match(r"\w+:", link):
        return True
    path, _, anchor = link.partition("#")
    target = (ROOT / document).parent / path if path else ROOT / document
    if not target.exists():
        return False
    headings = re.findall(r"^#+ (.*)", target.read_text(), re.M) if anchor else []
    slugs = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    return not anchor or anchor in slugs


# ---- tests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_names_exists(document: str) -> None:
    assert faults(document, (ROOT / document).read_text()) == []


PLANTED = [
    "see [this](docs/XYZZY.md)",
    "see [this](README.md#no-such-heading)",
    "`core/wire/xyzzy.zig`",
    "`xyzzy.zig`",
    "`core/xyzzy/*.zig`",
    "`tests/xyzzy/`",
    "`turnXyzzy`",
    "`pywg_xyzzy_*`",
    "`xyzzy(packet)`",
    "`Outbound.xyzzy`",
    "`Outbound.lookupBytes`",
    "`Xyzzy.accept`",
    "`io.xyzzy.Udp`",
    "`control.xyzzy`",
    "`PYWG_XYZZY=1`",
    "`$PYWG_XYZZY`",
    "`PYWG_PRIORITY=auto|xyzzy`",
    "`Xyzzy = true`",
    "`Table = auto|xyzzy`",
    "`#!pywg Xyzzy = yes`",
    "`--xyzzy`",
    "`test_xyzzy`",
    "`test_xyzzy.py`",
    "`pywg xyzzy`",
    "`pywg show --xyzzy`",
    "`pywgd --xyzzy`",
    "`PYWG_XYZZY=1 pywgd wg0`",
    "`scripts/xyzzy`",
    "`scripts/sim --xyzzy`",
    "`scripts/peers --xyzzy`",
    "`scripts/tool tools.xyzzy --check`",
    "`scripts/tool tools.sim --xyzzy`",
    "`zig build xyzzy`",
    "```\nsudo pywg up --xyzzy wg0\n```",
    "```\npywg strip wg0 | pywg xyzzy\n```",
    "```\npytest tests/xyzzy -k port\n```",
]
TRUE = """
[a](docs/USAGE.md#environment) `core/wire/ip.zig` `ip.zig` `core/**/*.zig` `io/` `Outbound.accept`
`cipher.sealBatch` `pywg.Device` `pywg_device_*` `route(packet)` `.deliver` `$PYWGD`
`PYWG_CORE=FILE` `PYWG_PRIORITY=auto|realtime` `Table = off` `#!pywg Backend = kernel`
`--no-offload all` `pywg show NAME --offload`
`pywg run [-f] NAME` `pywgd --no-sandbox` `scripts/sim --runs 3`
`scripts/tool tools.reference.make_transcripts --check` `zig build test --seed 3` `ip link set up`
`/etc/wireguard` `hmac.compare_digest`

```
sudo PYWG_NO_OFFLOAD=all pywgd wg0  # --xyzzy
scripts/test tests/unit -k --xyzzy
scripts/sim --runs 3 -- --xyzzy
```
"""


@pytest.mark.parametrize("planted", PLANTED)
def test_a_name_that_is_gone_is_found_out(planted: str) -> None:
    assert len(faults("README.md", f"{TRUE}{planted}\n")) == 1


def test_what_exists_is_no_fault() -> None:
    assert faults("README.md", TRUE) == []


@pytest.mark.parametrize("word", ALLOWED)
def test_every_word_that_is_allowed_is_needed(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {document: (ROOT / document).read_text() for document in DOCUMENTS}
    before = sum(len(faults(*item)) for item in texts.items())
    monkeypatch.delitem(ALLOWED, word)
    assert sum(len(faults(*item)) for item in texts.items()) > before
