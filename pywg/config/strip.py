"""What wg(8) reads of a wg-quick file: `wg-quick strip`, to the byte."""

from __future__ import annotations

# Only wg-quick knows these.
_QUICK_KEYS = frozenset(
    ("address", "mtu", "dns", "table", "preup", "predown", "postup", "postdown", "saveconfig")
)
_SPACE = " \t\n\v\f\r"


def strip(text: str) -> str:
    kept = []
    in_interface = False
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    for raw in lines:
        line = raw.strip(" \t")
        key = line.partition("#")[0].partition("=")[0].strip(_SPACE).lower()
        if key.startswith("["):
            in_interface = key == "[interface]"
        if not (in_interface and key in _QUICK_KEYS):
            kept.append(f"{line}\n")
    return "".join(kept) + "\n"
