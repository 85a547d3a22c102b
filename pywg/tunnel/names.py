"""What people call the peers of a running interface: names are in its file, a device knows keys.

Invariant: nothing here fails. Who may not read the file, or has none, has no names.
"""

from __future__ import annotations

from pathlib import Path

from pywg.config import check_name, comments, parse, read
from pywg.config.names import CONFIG_DIRECTORY
from pywg.errors import PywgError
from pywg.keys import PublicKey
from pywg.tunnel import record


def names_of(interface: str) -> dict[PublicKey, str]:
    """Of those peers that have one. From the file that `up` was given, else from that which
    `up NAME` would take."""
    try:
        text = read(file_of(interface))
        return comments.names(text, parse(text))
    except PywgError:
        return {}


def file_of(interface: str) -> Path:
    """Raises PywgError for what can name no interface, or a record that cannot be read."""
    found = record.read(check_name(interface))
    return CONFIG_DIRECTORY / f"{interface}.conf" if found is None else found.file
