"""`pywg demo` in a terminal of tmux, and as somebody who may not have a tunnel. What it measures,
and that nothing is left: test_cli.py."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

from tools.lab.programs import REPOSITORY, Program
from tools.lab.terminal import Terminal

PYWG = f"{sys.executable} -m pywg"

pytestmark = pytest.mark.pywgd_only


def test_on_a_terminal_a_line_says_what_is_done_and_then_goes(
    subject: Program, terminal: Terminal
) -> None:
    terminal.type(f"{PYWG} demo --tier root --seconds 1")
    terminal.await_text(r"^\S TCP through pywg, a to b: \d of 1 s")
    terminal.await_text(r"^\S TCP over the bare cable, b to a: \d of 1 s")
    terminal.await_text(r"outer\$$")
    shown = terminal.screen()
    assert " of 1 s" not in shown
    assert re.search(r"^  pywg +█.* [GM]bit/s$", shown, re.M)
    assert re.search(r"^  bare veth +█.*\(the cable without any tunnel\)$", shown, re.M)


def test_interrupted_on_a_terminal_it_takes_its_line_away(
    subject: Program, terminal: Terminal
) -> None:
    terminal.type(f"{PYWG} demo --tier root --seconds 30")
    terminal.await_text(r"^\S TCP through pywg, a to b: \d of 30 s")
    terminal.press("C-c")
    terminal.await_text(r"outer\$$")
    shown = terminal.screen()
    assert " of 30 s" not in shown and "pywg: interrupted" in shown, shown


def test_who_may_not_open_the_tun_is_shown_the_loopback_and_lines_that_work(
    subject: Program,
) -> None:
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]
    if subprocess.run([*nobody, sys.executable, "-c", ""], check=False, stderr=-3).returncode:
        pytest.skip(f"nobody may not run {sys.executable}")
    node = "mount -t tmpfs none /dev/net && mknod -m 600 /dev/net/tun c 10 200"
    inside = ["unshare", "--mount", "sh", "-c", f'{node} && exec "$@"', "sh"]
    done = subprocess.run(
        [*inside, *nobody, *shlex.split(PYWG), "demo", "--seconds", "0.2"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stderr
    refused = re.findall(
        "(.*): not possible here: /dev/net/tun is not open to this user", done.stdout
    )
    assert refused == ["root", "userns"]
    _, steps = done.stdout.split("Next:\n")
    first, *_ = [line.partition("#")[0].strip() for line in steps.splitlines()]
    words = shlex.split(first)
    if words[0] == "su":
        words = ["sudo", *shlex.split(words[2])]
    assert words[0] == "sudo" and words[-1] == "demo"
    # What root is told to run is there, by its whole path.
    helped = subprocess.run([*words[1:], "--help"], capture_output=True, check=False)
    assert helped.returncode == 0 and words[1].startswith("/")
