"""`pywg fmt`: another spelling, the same meaning; and no key in what it prints."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pywg import cli
from pywg.config import grammar, parse
from pywg.config.format import formatted, without_secrets
from pywg.errors import ConfigError
from pywg.keys import PresharedKey, PrivateKey

CONFIGS = sorted((Path(__file__).parents[1] / "data" / "configs").glob("*.conf"))
KEY = PrivateKey(bytes(range(200, 232)))
PRIVATE, PUBLIC = KEY.to_base64(), str(KEY.public)
PSK = PresharedKey(bytes(range(100, 132))).to_base64()

ODD = f"""\


  # of the office
[ INTERFACE ]#first

  privatekey={PRIVATE}
listenport   =51820  # as ever


#!pywg   killswitch=lan
postup=echo "#"  a # b
# about Ada
[peer]
  PUBLICKEY =  {PUBLIC}
#!pywg name = Ada's phone # of work
allowedips=10.0.0.1/32,10.0.0.2/32
"""
EVEN = f"""\
# of the office
[Interface] #first
PrivateKey = {PRIVATE}
ListenPort = 51820 # as ever

#!pywg KillSwitch = lan
PostUp = echo "#"  a # b

# about Ada
[Peer]
PublicKey = {PUBLIC}
#!pywg Name = Ada's phone # of work
AllowedIPs = 10.0.0.1/32,10.0.0.2/32
"""


def test_keys_sections_spaces_and_blank_lines_become_canonical() -> None:
    assert formatted(ODD) == EVEN
    assert formatted(EVEN) == EVEN


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_file_of_the_corpus_means_what_it_meant(path: Path) -> None:
    text = path.read_text()
    once = formatted(text)
    assert parse(once) == parse(text)
    assert formatted(once) == once


def test_windows_line_ends_stay_and_a_byte_order_mark_goes() -> None:
    assert formatted("\ufeff" + ODD.replace("\n", "\r\n")) == EVEN.replace("\n", "\r\n")


def test_what_lies_behind_the_end_of_a_c_string_is_left() -> None:
    text = "[Interface]\nmtu=1400 # \0 more\n\0 lost\n"
    assert formatted(text) == text


def test_a_section_that_only_pywg_sees_stays_one() -> None:
    text = f"[peer]\nPublicKey={PUBLIC}\n#!pywg [interface]\nMTU=1400\n"
    assert parse(formatted(text)) == parse(text)
    assert "\n#!pywg [Interface]\n" in formatted(text)


def test_a_file_with_mistakes_is_told_and_not_written() -> None:
    with pytest.raises(ConfigError, match="unknown key"):
        formatted("[Interface]\nAdress = 10.0.0.1\n")


SPACE = st.text(" \t\v\f", max_size=2)
WORDS = st.text("ab1 #=!\"';\t\r\v\xa0\x1c\x85\u2028\udc80", max_size=8)
VALUES = {
    "PrivateKey": st.just(PRIVATE),
    "PublicKey": st.just(PUBLIC),
    "PresharedKey": st.just(PSK),
    "ListenPort": st.sampled_from(["1", "0051820", "5 1"]),
    "FwMark": st.sampled_from(["off", "0x10"]),
    "Address": st.sampled_from(["10.0.0.1/24", "10.0.0.1 , fd00::1/64", ""]),
    "MTU": st.sampled_from(["1400", ""]),
    "DNS": st.sampled_from(["10.0.0.1, ~corp.example", "1.1.1.1 2.2.2.2"]),
    "PreUp": WORDS,
    "PostUp": WORDS,
    "AllowedIPs": st.sampled_from(["10.0.0.0/8", "+10.9.0.0/16,-10.0.0.0/8", ""]),
    "Endpoint": st.sampled_from(["vpn.example:51820", "[fd00::1]:5"]),
    "Name": st.text("ab #='", min_size=1, max_size=8).filter(lambda text: bool(text.strip())),
    "Table": st.sampled_from(["off", "auto", "7"]),
    "KillSwitch": st.sampled_from(["on", "LAN"]),
}


def spelled(name: str) -> st.SearchStrategy[str]:
    return st.sampled_from([name, name.lower(), name.upper(), f"{name[:2]} {name[2:]}"])


def assignments(section: str) -> st.SearchStrategy[str]:
    rows = [row for row in grammar.KEYS if row.section == section and row.name in VALUES]

    def line(row: grammar.Row) -> st.SearchStrategy[str]:
        prefix = st.sampled_from(["#!pywg ", " #!pywg\t"]) if row.is_extension else st.just("")
        comment = st.just("") if row.is_extension else st.sampled_from(["", "#c", "  # c d "])
        parts = (prefix, SPACE, spelled(row.name), SPACE, st.just("="), SPACE)
        return st.tuples(*parts, VALUES[row.name], SPACE, comment).map("".join)

    return st.sampled_from(rows).flatmap(line)


NOISE = st.one_of(SPACE, st.builds("{}#{}".format, SPACE, WORDS.filter(lambda t: "\xa0" not in t)))


def section(name: str) -> st.SearchStrategy[list[str]]:
    header = st.tuples(SPACE, st.just("["), spelled(name), st.just("]"), SPACE).map("".join)
    own = [f"PublicKey = {PUBLIC}"] if name == "Peer" else []
    lines = st.lists(st.one_of(assignments(name), NOISE), max_size=6)
    return st.tuples(header, lines).map(lambda pair: [pair[0], *pair[1], *own])


FILES = st.tuples(
    st.lists(NOISE, max_size=3),
    st.lists(st.one_of(section("Interface"), section("Peer")), max_size=4),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
).map(
    lambda parts: (
        parts[2].join([*parts[0], *(line for lines in parts[1] for line in lines)])
        + parts[2] * parts[3]
    )
)


@settings(deadline=None)
@given(text=FILES)
def test_a_file_means_the_same_and_a_second_time_changes_nothing(text: str) -> None:
    try:
        before = parse(text)
    except ConfigError:  # such as a value that its reader refuses: it is left as it is
        with pytest.raises(ConfigError):
            formatted(text)
        return
    once = formatted(text)
    assert parse(once) == before
    assert formatted(once) == once
    assert [word for word in comments(once) if word] == [word for word in comments(text) if word]


def comments(text: str) -> list[str]:
    """Of the lines that are nothing else."""
    stripped = (line.strip(" \t\v\f\r") for line in text.split("\n"))
    return [line for line in stripped if line.startswith("#") and not line.startswith("#!pywg")]


@settings(deadline=None)
@given(text=FILES)
def test_what_is_shown_has_no_secret(text: str) -> None:
    shown = without_secrets(text)
    assert PRIVATE not in shown
    assert PSK not in shown
    assert shown.count("\n") == text.count("\n")


# ---- the command


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "wg0.conf"
    path.write_text(ODD)
    path.chmod(0o640)
    return path


Run = Callable[..., int]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def command(*words: str) -> int:
        return cli.main(["fmt", *words])

    return command


def test_a_file_is_written_with_its_mode_and_owner(run: Run, file: Path) -> None:
    if os.geteuid() == 0:
        os.chown(file, 12345, 54321)
    before = file.stat()
    assert run("--check", str(file)) == 1
    assert file.read_text() == ODD
    assert run(str(file)) == 0
    assert file.read_text() == EVEN
    after = file.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )
    assert stat.S_IMODE(after.st_mode) == 0o640
    assert run("--check", str(file)) == 0
    assert file.stat().st_ino == after.st_ino, "what has not changed is not written"


def test_a_difference_hides_keys(run: Run, file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("--diff", str(file)) == 0
    assert run("--diff", "--check", str(file)) == 1
    out, err = capfd.readouterr()
    assert "-listenport   =51820  # as ever\n" in out
    assert "+ListenPort = 51820 # as ever\n" in out
    assert PRIVATE not in out + err
    assert file.read_text() == ODD


def test_one_with_mistakes_is_left_and_the_others_are_written(
    run: Run, file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wg1.conf"
    wrong.write_text(f"[Interface]\n{PRIVATE}\n")
    assert run(str(wrong), str(tmp_path / "none.conf"), str(file)) == 1
    out, err = capfd.readouterr()
    assert "wg1.conf:2:1: unknown key" in err
    assert "none.conf: No such file" in err
    assert PRIVATE not in out + err
    assert wrong.read_text() == f"[Interface]\n{PRIVATE}\n"
    assert file.read_text() == EVEN


def test_stdin_goes_to_stdout() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pywg", "fmt", "-"],
        input=ODD.encode() + b"# \xff\n",
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout == EVEN.encode() + b"# \xff\n"


def test_the_end_mark_of_a_section_stays_with_it() -> None:
    marked = f"[Interface]\n\n# BEGIN_PEER a\n[Peer]\nPublicKey = {'A' * 43}=\n# END_PEER a\n"
    next_one = f"# BEGIN_PEER b\n[Peer]\nPublicKey = {'B' * 42}A=\n# END_PEER b\n"
    assert formatted(marked + next_one) == f"{marked}\n{next_one}"
