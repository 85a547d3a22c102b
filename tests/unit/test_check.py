"""`pywg check`: what `up` would say of a file, and nothing of the host."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pywg import cli
from pywg.doctor.file import check
from pywg.doctor.finding import Finding, Severity, error, exit_code, note, warning
from pywg.keys import PrivateKey

ROOT = Path(__file__).parents[2]
KEY = PrivateKey(bytes([200, *range(201, 231), 0x47]))
PRIVATE = KEY.to_base64()
PEER = PrivateKey(bytes(range(32))).public
GOOD = f"""\
[Interface]
PrivateKey = {PRIVATE}
Address = 10.0.0.1/24
[Peer]
PublicKey = {PEER}
AllowedIPs = 10.0.0.2/32
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def written(folder: Path, text: str, name: str = "wg0.conf") -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o600)
    return path


def told(folder: Path, text: str, **more: bool) -> list[tuple[str, str]]:
    return [(str(item.severity), item.word) for item in check(written(folder, text), **more)]


def test_a_good_file_has_nothing_to_be_told(folder: Path) -> None:
    assert check(written(folder, GOOD)) == []


def test_all_mistakes_and_warnings_with_their_lines(folder: Path) -> None:
    found = check(written(folder, GOOD.replace("Address", "Adress").replace("10.0.0.2", "x")))
    assert [(item.severity, item.line, item.column) for item in found] == [
        (Severity.ERROR, 3, 1),
        (Severity.ERROR, 6, 14),
    ]
    assert 'did you mean "Address"' in found[0].text
    (only,) = check(written(folder, GOOD.replace("2/32", "2/24")))
    assert (only.severity, only.line, only.word) == (Severity.WARNING, 6, "config")
    assert "host bits" in only.text


SWITCH = "#!pywg KillSwitch = on\n[Peer]"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[Peer]", SWITCH, ("error", "refused")),
        ("[Peer]", "#!pywg Only = user:root\n[Peer]", ("error", "config")),
        (f"PrivateKey = {PRIVATE}\n", "", ("warning", "config")),
        ("PrivateKey =", "#!pywg PrivateKeyFile = none.key\n#", ("error", "key-file")),
    ],
)
def test_what_up_refuses_or_warns_of(
    folder: Path, old: str, new: str, expected: tuple[str, str]
) -> None:
    assert expected in told(folder, GOOD.replace(old, new))


def test_a_file_that_others_may_open_is_a_warning_if_it_has_a_secret(folder: Path) -> None:
    folder.chmod(0o755)
    path = written(folder, GOOD)
    path.chmod(0o644)
    (found,) = check(path)
    assert (str(found.severity), found.word) == ("warning", "world-accessible")
    assert found.mend == f"chmod 600 {path}"
    path.write_text(GOOD.replace("PrivateKey =", "#"))
    assert ("note", "world-accessible") in [(str(x.severity), x.word) for x in check(path)]
    assert check(path, elsewhere=True) == [x for x in check(path) if x.word == "config"]


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
def test_hooks_of_a_file_that_is_another_users_and_what_of_that_counts_elsewhere(
    folder: Path,
) -> None:
    path = written(folder, GOOD.replace("[Peer]", "PostUp = true\n[Peer]"))
    assert check(path) == []
    os.chown(path, 12345, 12345)
    assert [item.word for item in check(path)] == ["untrusted-hooks"]
    assert check(path, elsewhere=True) == []


def test_names_that_no_interface_can_have_and_files_that_are_not_there(folder: Path) -> None:
    assert [x.word for x in check(written(folder, GOOD, "wg0.txt"))] == ["name"]
    assert [x.word for x in check(written(folder, GOOD, "much-too-long-a-name.conf"))] == ["name"]
    assert [x.word for x in check(folder / "none.conf")] == ["unreadable"]


# ---- findings


def test_the_exit_code_is_that_of_the_worst() -> None:
    found = [note("a", ""), warning("b", ""), error("c", "")]
    assert [exit_code(found[:count]) for count in range(4)] == [0, 0, 1, 2]


def test_no_finding_holds_a_key_and_json_has_what_is_there() -> None:
    item = Finding(Severity.NOTE, "word", f"a {PRIVATE}", f"b {PRIVATE}", f"c {PRIVATE}")
    assert PRIVATE not in repr(item)
    assert note("word", "text", mend="do").to_json() == {
        "severity": "note",
        "word": "word",
        "text": "text",
        "mend": "do",
    }


# ---- the command


def test_the_command_fails_for_errors_and_for_warnings_where_it_is_strict(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = str(written(folder, GOOD))
    warned = str(written(folder, GOOD.replace("2/32", "2/24"), "wg1.conf"))
    wrong = str(written(folder, GOOD.replace("Address", "Adress"), "wg2.conf"))
    assert cli.main(["check", good, warned]) == 0
    out = capsys.readouterr().out
    assert f"{warned}:6:14: warning: AllowedIPs: 10.0.0.2/24 has host bits set" in out
    assert out.endswith("2 files: 0 errors, 1 warning\n")
    assert cli.main(["check", "--strict", good]) == 0
    assert cli.main(["check", "--strict", good, warned]) == 1
    assert cli.main(["check", wrong, good]) == 1
    out = capsys.readouterr().out
    assert f'{wrong}:3:1: error: unknown key "Adress" in [Interface]' in out
    assert "\n  Adress = ***********\n  ^\n" in out
    assert cli.main(["check", "--json", wrong, warned]) == 1
    first, second = json.loads(capsys.readouterr().out)
    assert (first["path"], first["line"], first["severity"]) == (wrong, 3, "error")
    assert (second["path"], second["word"]) == (warned, "config")


def test_in_the_corpus_nothing_but_names_is_wrong() -> None:
    files = sorted((ROOT / "tests" / "data" / "configs").glob("*.conf"))
    done = subprocess.run(
        [sys.executable, "-m", "pywg", "check", "--elsewhere", "--json", *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
    )
    wrong = [item for item in json.loads(done.stdout) if item["severity"] == "error"]
    assert {item["word"] for item in wrong} == {"name"}
    assert all(len(Path(item["path"]).stem) > 15 for item in wrong)


# ---- pre-commit


def hooks() -> list[dict[str, str]]:
    """The few words of YAML that the file has."""
    found: list[dict[str, str]] = []
    for line in (ROOT / ".pre-commit-hooks.yaml").read_text().splitlines():
        if line.startswith("#"):
            continue
        if line.startswith("- "):
            found.append({})
        key, _, value = line[2:].partition(": ")
        found[-1][key] = value
    return found


def test_the_hooks_have_the_shape_that_pre_commit_asks_for() -> None:
    found = {hook["id"]: hook for hook in hooks()}
    assert found["pywg-check"]["entry"].split() == ["pywg", "check", "--elsewhere"]
    assert found["pywg-fmt"]["entry"].split() == ["pywg", "fmt"]
    for hook in found.values():
        assert hook["language"] == "python"
        assert hook["name"]
        assert hook["entry"].split()[1] in cli.COMMANDS
        for path in ("wg0.conf", "etc/wireguard/office.conf", "hosts/a/wg-home.conf"):
            assert re.search(hook["files"], path), path
        for path in ("nginx.conf", "etc/nginx/wg/x.txt", "swg0.conf", "wireguard/a/b.conf"):
            assert not re.search(hook["files"], path), path
