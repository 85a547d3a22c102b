"""What people call the peers of a running interface: names are in its file, a device knows keys.

Invariant: nothing here fails. Who may not read the file, or has none, has no names.
"""

from __future__ import annotations

import re
from pathlib import Path

from pywg.config.names import CONFIG_DIRECTORY, check_name
from pywg.errors import PywgError
from pywg.keys import PublicKey
from pywg.tunnel import record

# What each name is written in: `#!pywg Name = `, `# friendly_name = `, `### Client `.
_NAMED = re.compile(r"#.*(?:name|client)", re.IGNORECASE)


def names_of(interface: str) -> dict[PublicKey, str]:
    """Of those peers that have one. From the file that `up` was given, else from that which
    `up NAME` would take."""
    from pywg.config import comments, parse, read

    try:
        text = read(file_of(interface))
        if not _NAMED.search(text):  # as in most files, of which some take their time
            return {}
        return comments.names(text, parse(text))
    except PywgError:
        return {}


def file_of(interface: str) -> Path:
    """Raises PywgError for what can name no interface, or a record that cannot be read."""
    found = record.file_of(check_name(interface))
    return CONFIG_DIRECTORY / f"{interface}.conf" if found is None else found
