"""What `up` says of a file on any host: mistakes, warnings, and what it refuses.

Reads the file, who may write it, and the key files that it names; asks the host nothing.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pywg.config import Config, ConfigWarning, check_name, parse
from pywg.config import keyfiles as key_files
from pywg.config.source import read_with_origin
from pywg.doctor.finding import Finding, Severity, error, note, warning
from pywg.errors import ConfigError, PywgError
from pywg.host import hooks
from pywg.plan.build import plan
from pywg.plan.facts import Facts, Location
from pywg.plan.steps import Note

#: A host that has everything.
_ANY_HOST = Facts()


def check(path: str | Path, *, elsewhere: bool = False) -> list[Finding]:
    """All that `up` would say of it, errors first and each kind in the order of the lines.
    ``elsewhere``: it is for another host, so that who may write it here does not count, and its key
    files need not be here. Raises nothing that a file could cause."""
    return sorted(
        (replace(item, path=item.path or str(path)) for item in _check(Path(path), elsewhere)),
        key=lambda item: (-item.severity, item.line, item.column),
    )


def _check(path: Path, elsewhere: bool) -> Iterator[Finding]:
    yield from _name(path)
    try:
        text, origin = read_with_origin(path)
        config = replace(parse(text, str(path)), origin=origin)
    except ConfigError as wrong:
        yield from _problems(wrong)
        return
    except PywgError as unreadable:
        yield error("unreadable", str(unreadable))
        return
    if not elsewhere:
        yield from _openness(path, config)
        try:
            hooks.check_trust(config)
        except PywgError as refusal:
            yield error("untrusted-hooks", str(refusal))
        try:
            config = key_files.load(config)
        except PywgError as missing:
            yield error("key-file", str(missing))
    yield from map(of_warning, config.warnings)
    yield from _plan(path, config)


def _name(path: Path) -> Iterator[Finding]:
    try:
        if path.suffix != ".conf":
            raise PywgError(f"{path}: the file has to be called NAME.conf")
        check_name(path.stem)
    except PywgError as refusal:
        yield error("name", str(refusal))


def _problems(wrong: ConfigError) -> Iterator[Finding]:
    for problem in wrong.problems:
        yield Finding(
            Severity.ERROR,
            "config",
            problem.message,
            path=wrong.path,
            line=problem.line,
            column=problem.column,
            source=problem.source,
        )


def of_warning(said: ConfigWarning) -> Finding:
    at = said.position
    return Finding(
        Severity.WARNING, "config", said.message, path=said.path, line=at.line, column=at.column
    )


def _openness(path: Path, config: Config) -> Iterator[Finding]:
    """`up` warns of it always; where there is no secret to be read it is no fault."""
    try:
        mode = path.stat().st_mode & path.resolve().parent.stat().st_mode
    except OSError:
        return
    if not mode & stat.S_IRWXO:
        return
    secrets = [config.interface.private_key, *(peer.preshared_key for peer in config.peers)]
    tell = note if all(key is None for key in secrets) else warning
    yield tell("world-accessible", "others may read or write the file", mend=f"chmod 600 {path}")


def _plan(path: Path, config: Config) -> Iterator[Finding]:
    """What the plan refuses, or leaves out, on a host that has everything."""
    try:
        steps = plan(path.stem, config, _ANY_HOST, Location())
    except ConfigError as refusal:
        yield from _problems(refusal)
    except PywgError as refusal:
        yield error("refused", str(refusal))
    else:
        yield from (warning("plan", str(step)) for step in steps if isinstance(step, Note))
