"""What was open before is not held by a process that lives long."""

from __future__ import annotations

import os
import subprocess
import sys

CODE = """
import os, sys
from pywg.host.descriptors import close_others
close_others({int(word) for word in sys.argv[1:]})
print(*(fd for fd in range(100) if os.path.exists(f"/proc/self/fd/{fd}")))
"""


def test_all_but_the_standard_three_and_those_that_are_named_are_closed() -> None:
    pairs = [os.pipe() for _ in range(3)]
    kept = [pairs[0][1], pairs[2][0]]
    try:
        done = subprocess.run(
            [sys.executable, "-c", CODE, *map(str, kept)],
            pass_fds=[fd for pair in pairs for fd in pair],
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        for pair in pairs:
            for fd in pair:
                os.close(fd)
    assert [int(word) for word in done.stdout.split()] == [0, 1, 2, *sorted(kept)]
