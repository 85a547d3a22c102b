"""`pywg exec` and `pywg shell` in a terminal: stopped and continued, interrupted, resized. The
terminal is tmux's, the shell in it an ordinary user's; the place is that of test_rootless.py.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.lab import ordinary
from tools.lab.lab import Lab
from tools.lab.ordinary import Place, make_place, pywg
from tools.lab.terminal import Terminal
from tools.lab.waiting import wait_until


@pytest.fixture(scope="module")
def place(shared_lab: Lab) -> Iterator[Place]:
    if shutil.which("tmux") is None:
        pytest.skip("needs tmux")
    with ordinary.folder() as folder:
        yield make_place(shared_lab, folder)


@pytest.fixture
def terminal(place: Place, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    socket = place.folder / f"tmux-{abs(hash(request.node.name)) % 10**6}"
    made = Terminal(socket, lambda words: ordinary.start(place.host, words))
    try:
        yield made
    finally:
        made.close()


def script(place: Place, name: str, text: str) -> Path:
    path = place.folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def words(place: Place, *argv: str) -> str:
    return " ".join((*pywg(*argv[:1]), str(place.file), *argv[1:]))


def test_a_command_is_stopped_continued_and_interrupted(place: Place, terminal: Terminal) -> None:
    echo = script(place, "echo.sh", "echo started; while read line; do echo got $line; done\n")
    terminal.type(words(place, "exec", "--", "sh", str(echo)))
    terminal.await_text("^started$")
    terminal.press("C-z")
    terminal.await_text(r"Stopped")
    terminal.type("fg")
    terminal.await_text(r"^fg$|outer\$ fg")
    terminal.type("hello")
    terminal.await_text("^got hello$")
    terminal.press("C-c")
    terminal.await_text(r"outer\$$")
    terminal.type("echo code $?")
    terminal.await_text("^code 130$")


def test_a_command_that_keeps_the_signal_goes_on(place: Place, terminal: Terminal) -> None:
    text = "trap 'echo caught; exit 3' INT\necho started\nwhile :; do sleep 0.1; done\n"
    terminal.type(words(place, "exec", "--", "sh", str(script(place, "trap.sh", text))))
    terminal.await_text("^started$")
    terminal.press("C-c")
    terminal.await_text("caught$")
    terminal.await_text(r"outer\$$")
    terminal.type("echo code $?")
    terminal.await_text("^code 3$")
    assert terminal.screen().count("caught") == 1


def test_a_command_learns_the_terminals_size(place: Place, terminal: Terminal) -> None:
    text = "trap 'stty size' WINCH\necho started\nwhile :; do sleep 0.1; done\n"
    terminal.type(words(place, "exec", "--", "sh", str(script(place, "size.sh", text))))
    terminal.await_text("^started$")
    terminal.tmux("resize-window", "-x", "101", "-y", "31")
    terminal.await_text("^31 101$")


def test_a_shell_has_its_own_jobs_and_says_where_it_is(place: Place, terminal: Terminal) -> None:
    terminal.type(words(place, "shell"))
    terminal.await_text(r"^\(work\) .*[$#] ?$")
    terminal.type("sh -c 'echo asleep; exec sleep 1000'")
    terminal.await_text("^asleep$")  # before that Ctrl-Z would be the shell's
    terminal.press("C-z")
    terminal.await_text(r"Stopped +sh -c")
    terminal.type("kill %1; echo in $PYWG_TUNNEL")
    terminal.await_text("^in work$")
    terminal.type("suspend")
    terminal.await_text(r"outer\$$")
    terminal.type("fg; echo back $?")
    terminal.type("exit 5")
    terminal.await_text("^back 5$")


def test_no_job_is_left_when_the_terminal_goes(place: Place, terminal: Terminal) -> None:
    terminal.type(words(place, "exec", "--", "sleep", "4321"))
    wait_until(lambda: found("sleep", "4321"), "it has begun", 30)
    terminal.close()
    wait_until(lambda: not found("sleep", "4321"), "it has ended")


def found(*argv: str) -> bool:
    wanted = "\0".join((*argv, "")).encode()
    for path in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if path.name.isdigit() and (path / "cmdline").read_bytes() == wanted:
                return path.stat().st_uid == ordinary.UID
    return False
