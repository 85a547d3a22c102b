"""Runs the cases of this boot, says one line for each, then boots again or turns the guest off.

The first boot runs those that a boot comes after; the second runs the others. A case that waits for
ever is ended by an alarm. The kernel's command line may name some: pywg.cases=reload,killed.
"""

from __future__ import annotations

import re
import signal
import subprocess
import time
import traceback
from pathlib import Path
from typing import Any

from tools.vm.guest import pywg_here
from tools.vm.guest.cases import CASES, Case
from tools.vm.guest.place import Skipped
from tools.vm.results import END, MARK, Result

BOOTED = Path("/var/lib/pywg-vm/booted")


def main() -> None:
    wanted = re.search(r"pywg\.cases=(\S+)", Path("/proc/cmdline").read_text())
    names = wanted[1].split(",") if wanted else list(CASES)
    boot = 2 if BOOTED.exists() else 1
    signal.signal(signal.SIGALRM, ring)
    if boot == 2:
        pywg_here.warm()
    for name in names:
        if CASES[name].boot == boot:
            say(f"{MARK} begin {name}")
            say(str(judge(name, CASES[name])))
    if boot == 1:
        BOOTED.touch()
        subprocess.run(["systemctl", "--no-block", "reboot"], check=True)
    else:
        say(END)
        power_off()


def power_off() -> None:
    """At once: nobody looks at this disk again."""
    subprocess.run(["systemctl", "--force", "--force", "poweroff"], check=True)


def judge(name: str, case: Case) -> Result:
    began = time.monotonic()
    signal.alarm(case.seconds)
    try:
        word, text = "ok", case.check()
    except Skipped as skipped:
        word, text = "skip", str(skipped)
    except Exception as error:
        say(traceback.format_exc())
        say(last_words())
        word, text = "FAIL", f"{type(error).__name__}: {error}"[:400]
    finally:
        signal.alarm(0)
    return Result(name, word, time.monotonic() - began, text)


def ring(*_: Any) -> None:
    raise TimeoutError("the case took too long")


def last_words() -> str:
    said = subprocess.run(
        ["journalctl", "--no-pager", "--output=cat", "--lines=30", "--unit=pywg@*"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return said.stdout


def say(text: str) -> None:
    """In one write, since the kernel writes to this console, too."""
    print("".join(f"{line}\n" for line in text.splitlines()), end="", flush=True)


if __name__ == "__main__":
    try:
        main()
    except Exception:  # whoever waits for cases is not to wait for ever
        say(traceback.format_exc())
        power_off()
