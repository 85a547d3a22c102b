"""Runs pywg against each other WireGuard there is and prints one table.

    scripts/interop [PEER ...] [--no-rekey] [--kernel] [--write]

Each case: who begins, IPv4 or IPv6 outside, with and without a preshared key; a handshake, echoes
both ways, a mebibyte each way, and then two packets a second each way over a whole rekey, none of
which may be lost (two and a half minutes, all cases at once; --no-rekey leaves it out). --kernel
adds the WireGuard of a Debian kernel in qemu. --write puts the table into docs/INTEROP.md. Needs
root; the peers come from scripts/peers.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.interop import kernel, matrix
from tools.lab import programs
from tools.lab.namespaces import sweep

DOCUMENT = programs.REPOSITORY / "docs" / "INTEROP.md"


def version_of(peer: str) -> str:
    """As the program says it, or as Go wrote it into the program."""
    try:
        path = matrix.PEERS[peer]().path
    except programs.Missing:
        return peer
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\d+\.\d+[.\w-]*", said)
    built = (
        subprocess.run(
            ["go", "version", "-m", path], capture_output=True, text=True, check=False
        ).stdout
        if peer == "wireguard-go" and shutil.which("go")
        else ""
    )
    module = re.search(r"mod\s+\S+\s+v(\S+)", built)
    return f"{peer} {module[1] if module else found[0] if found else ''}".strip()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="interop", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("peers", nargs="*", metavar="PEER", help=", ".join(matrix.PEERS))
    parser.add_argument("--no-rekey", action="store_true")
    parser.add_argument("--kernel", action="store_true", help="and the kernel's, in qemu")
    parser.add_argument("--write", action="store_true", help=f"writes {DOCUMENT.name}")
    options = parser.parse_args()
    if unknown := set(options.peers) - set(matrix.PEERS):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}")
    if os.geteuid() != 0:
        parser.error("needs root: it makes network namespaces and TUN interfaces")
    sweep()
    peers = options.peers or list(matrix.PEERS)
    versions = {peer: version_of(peer) for peer in peers}
    with tempfile.TemporaryDirectory(prefix="pywg-interop-") as directory:
        results = matrix.run(peers, Path(directory), rekey=not options.no_rekey)
        if options.kernel:
            told, versions[kernel.PEER] = kernel.run_cases(
                Path(directory), rekey=not options.no_rekey
            )
            results |= told
    text = matrix.table(results, versions)
    print(text, end="")
    if options.write:
        day = datetime.datetime.now(tz=datetime.UTC).date()
        DOCUMENT.write_text(HEAD.format(day=day) + text, encoding="utf-8")
    return 1 if any(result.startswith("fail") for result in results.values()) else 0


HEAD = """# Interoperability

`scripts/interop --kernel --write` found this on {day}. In each case the end named under
"who begins" sends the first handshake message. Then come echoes both ways and a mebibyte each way.
"Rekey" means that two packets a second went each way for another 140 seconds, over a new handshake
at REKEY_AFTER_TIME, and that no packet was lost. The tests in `tests/interop/` do the same without
the rekey, and also move and restart the peers.

"""

if __name__ == "__main__":
    sys.exit(main())
