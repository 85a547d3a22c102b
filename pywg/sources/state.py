"""How it stands with a source: what the follower writes down for `pywg show`, and its words.

Knows the file, not the store.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

#: Problems that are written down one by one.
LISTED = 10


@dataclass(slots=True)
class State:
    """``source`` as it was given. ``position``: the revision of etcd, the ETag of a URL. ``peers``:
    given to the interface. ``skipped``: of the store, with ``problems`` for the first of them.
    ``disputes``: keys and allowed IPs that several claim. ``uncovered``: peers with an allowed IP
    that no route of the interface leads to. ``error``: why the store is not heard now. The times
    are Unix time, 0 for never: ``heard_s`` of the store, ``changed_s`` of the interface. ``pid``:
    who follows. ``is_cached``: the list is the last good one of an earlier run."""

    source: str
    position: str = ""
    peers: int = 0
    skipped: int = 0
    problems: tuple[str, ...] = ()
    disputes: int = 0
    uncovered: int = 0
    error: str = ""
    heard_s: float = 0.0
    changed_s: float = 0.0
    pid: int = 0
    is_cached: bool = False

    def write(self, path: Path) -> None:
        """Raises OSError."""
        temporary = path.with_suffix(".peers-new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(self), file)
        temporary.replace(path)


def read(path: Path) -> State | None:
    """None where there is none that can be read."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        known = {field.name for field in fields(State)}
        state = State(**{name: value for name, value in said.items() if name in known})
        state.problems = tuple(state.problems)
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    if state.pid and not _lives(state.pid):
        state.error = "the process that follows it has ended: pywg down and up start another"
    return state


def _lives(pid: int) -> bool:
    """Also when nobody has asked how it ended."""
    try:
        said = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return said.rpartition(")")[2].split()[0] not in "ZX"


def words(state: State, now_s: float) -> list[str]:
    """Lines for people: the source, how it stands, and what is to be done."""
    position = f", at {state.position}" if state.position else ""
    lines = [f"{state.source}: {state.peers} peers{position}"]
    if state.error:
        since = f"; last heard {now_s - state.heard_s:.0f} s ago" if state.heard_s else ""
        lines.append(f"not reached: {state.error}{since}; what was last known stays")
    elif state.is_cached:
        lines.append("the last good list of an earlier run, until the store answers")
    if state.skipped:
        first = f", such as {state.problems[0]}" if state.problems else ""
        lines.append(f"{state.skipped} skipped{first}")
    if state.disputes:
        lines.append(f"{state.disputes} keys or allowed IPs are claimed by several entries")
    if state.uncovered:
        lines.append(f"{state.uncovered} peers with an allowed IP that no route here leads to")
    return lines


def to_json(state: State) -> dict[str, object]:
    """For `show --json`; what there is nothing of is left out."""
    told = {
        "source": state.source,
        "position": state.position,
        "peers": state.peers,
        "skipped": state.skipped,
        "problems": list(state.problems),
        "disputes": state.disputes,
        "uncovered": state.uncovered,
        "error": state.error,
        "lastHeard": int(state.heard_s),
        "lastChanged": int(state.changed_s),
        "isCached": state.is_cached,
    }
    return {name: value for name, value in told.items() if value or name == "peers"}
