"""The command line of pywg, in a fork of this process: to import pywg for every command takes ten
seconds each where a processor is emulated. The services start the real program."""

from __future__ import annotations

import importlib
import os
import pkgutil
import signal
import sys
import tempfile
import time
from typing import NoReturn

import pywg as package
from pywg.cli import run_main
from tools.vm.guest.place import PATIENCE

# Of pywg's extras, which the guest does not have.
EXTRAS = ("prometheus_client", "rich", "segno", "textual")


def warm() -> None:
    """Imports what a command may import, once."""
    for module in pkgutil.walk_packages(package.__path__, "pywg."):
        if module.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in EXTRAS:
                raise


def pywg(*arguments: str) -> str:
    """What it printed; AssertionError with what it complained of, if it failed."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complaints:
        child = os.fork()
        if child == 0:
            _become(arguments, said.fileno(), complaints.fileno())
        _, status = os.waitpid(child, 0)
        said.seek(0)
        complaints.seek(0)
        text, why = said.read().decode(), complaints.read().decode()
    command = f"pywg {' '.join(arguments)}"
    print(f"{command}: {time.monotonic() - began:.1f} s", flush=True)
    code = os.waitstatus_to_exitcode(status)
    assert code == 0, f"{command} gave {code}: {why.strip() or text.strip()}"
    return text


def _become(arguments: tuple[str, ...], stdout: int, stderr: int) -> NoReturn:
    code = 70
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        sys.argv = ["pywg", *arguments]
        run_main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
