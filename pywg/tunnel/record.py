"""What `up` did, written down in /run/pywg/NAME.json, so that `down` can undo exactly that.

Written before the first step is done: whatever becomes of us, `down` finds it. Knows no kernel.
Invariant: no keys; nobody but root reads it; it is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pywg.config.names import check_name
from pywg.errors import PywgError, system_call

if TYPE_CHECKING:  # steps are for those who read a whole record, and not for `pywg show`
    from pywg.plan.facts import Location
    from pywg.plan.steps import Step
    from pywg.service.supervisor import Names

DIRECTORY = Path("/run/pywg")


@dataclass(frozen=True, slots=True)
class Record:
    """A tunnel that is up, or of which something may be left."""

    name: str
    config: str  # path
    location: Location
    steps: tuple[Step, ...]  # those whose effect lasts, in their order
    names: Names = ()
    home: int = 0  # the network namespace that None stands for in ``location``; 0 is unknown
    is_up: bool = False  # whether `up` has ended, hooks and all
    left_out: tuple[Step, ...] = ()  # those of ``steps`` that a PostUp hook took back
    manner: Mapping[str, Any] | None = None  # service.manner: None of the kernel, or an old version
    peers_from: str = ""  # the store whose peers are followed, as it was written

    @property
    def file(self) -> Path:
        """What `up` or the last reload was given."""
        return Path(self.config)

    def to_json(self) -> str:
        from pywg.plan import codec

        return json.dumps(
            {
                "name": self.name,
                "config": self.config,
                "backend": self.location.backend,
                "netns": self.location.netns,
                "socket_netns": self.location.socket_netns,
                "steps": [codec.to_json(step) for step in self.steps],
                "names": self.names,
                "home": self.home,
                "is_up": self.is_up,
                "left_out": [codec.to_json(step) for step in self.left_out],
                "manner": self.manner,
                "peers_from": self.peers_from,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Raises ValueError for what is none."""
        from pywg.plan import codec
        from pywg.plan.facts import Location

        try:
            data = json.loads(text)
            location = Location(data["backend"], data["netns"], data["socket_netns"])
            steps = tuple(codec.from_json(step) for step in data["steps"])
            return cls(
                data["name"],
                data["config"],
                location,
                steps,
                tuple(data["names"]),
                data.get("home", 0),
                data.get("is_up", True),
                tuple(codec.from_json(step) for step in data.get("left_out", ())),
                data.get("manner"),
                data.get("peers_from", ""),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"no record of a tunnel: {error}") from None


def path_of(name: str) -> Path:
    return DIRECTORY / f"{check_name(name)}.json"


def write(record: Record) -> None:
    """A temporary file, then a rename: no reader sees half of it."""
    path = path_of(record.name)
    temporary = path.with_suffix(".new")
    try:
        DIRECTORY.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(record.to_json())
        temporary.replace(path)
    except OSError as error:
        raise system_call(error, f"cannot record what is done in {path}") from None


# What was read last of each. A command asks more than once, and a record of many peers takes its
# time.
_known: dict[str, tuple[tuple[int, int], Record]] = {}


def read(name: str) -> Record | None:
    """None if nothing is recorded."""
    path = path_of(name)
    was, known = _known.get(name, ((0, 0), None))
    present = version(name)
    if known is not None and present == was:
        return known
    try:
        found = Record.from_json(path.read_text())
        _known[name] = (present, found)
        return found
    except FileNotFoundError:
        return None
    except OSError as error:
        raise system_call(error, str(path)) from None
    except ValueError:
        raise _damaged(path) from None


def file_of(name: str) -> Path | None:
    """What `up` or the last reload was given, without reading what else is written down; None if
    nothing is recorded. Raises PywgError for what cannot be read."""
    path = path_of(name)
    try:
        return Path(json.loads(path.read_text())["config"])
    except FileNotFoundError:
        return None
    except OSError as error:
        raise system_call(error, str(path)) from None
    except (ValueError, KeyError, TypeError):
        raise _damaged(path) from None


def resuming(name: str) -> list[str]:
    """What whoever stays beside the tunnel is to execute. Of the record of another version nothing
    else can be understood; empty where there is nothing, or no record."""
    try:
        words = json.loads(path_of(name).read_text())["manner"]["resume"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    is_command = isinstance(words, list) and all(isinstance(word, str) for word in words)
    return words if is_command else []


def _damaged(path: Path) -> PywgError:
    return PywgError(f"{path} is damaged; look at it, remove it, and try again")


def version(name: str) -> tuple[int, int]:
    """Another one after each write."""
    try:
        status = path_of(name).stat()
    except OSError:
        return (0, 0)
    return (status.st_ino, status.st_mtime_ns)


def marks_of_others(name: str) -> set[int]:
    """What their kill switches let through, which they chose before they had routes."""
    from pywg.plan.steps import SetKillSwitch

    return {
        step.mark
        for found in readable()
        for step in found.steps
        if found.name != name and isinstance(step, SetKillSwitch)
    }


def others(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The other tunnels that are up from where we are, and those whose kill switch stands."""
    from pywg.host import netns
    from pywg.plan.steps import SetKillSwitch

    here = netns.identity()
    found = [one for one in readable() if one.name != name and one.home in (0, here)]
    return (
        tuple(one.name for one in found if one.is_up),
        tuple(
            one.name for one in found if any(isinstance(step, SetKillSwitch) for step in one.steps)
        ),
    )


def leading_in() -> dict[int, str]:
    """The mark of each tunnel that leads everything into itself, and its name."""
    from pywg.plan.steps import AddRule

    return {
        step.mark: found.name
        for found in readable()
        for step in found.steps
        if isinstance(step, AddRule) and step.mark is not None
    }


def readable() -> Iterator[Record]:
    """Of all tunnels; a damaged one is for the command that names it."""
    for path in sorted(DIRECTORY.glob("*.json")):
        with contextlib.suppress(PywgError):
            found = read(path.stem)
            if found is not None:
                yield found


def remove(name: str) -> None:
    path_of(name).unlink(missing_ok=True)
    healing_of(name).unlink(missing_ok=True)
    events_of(name).unlink(missing_ok=True)
    told_of(name).unlink(missing_ok=True)
    peers_of(name).unlink(missing_ok=True)


def told_of(name: str) -> Path:
    """Which peers a hook was told are up: for the process of the hooks, and the one after it."""
    return path_of(name).with_suffix(".told")


def events_of(name: str) -> Path:
    """The socket by which the process that hosts the tunnel tells what happens."""
    return path_of(name).with_suffix(".events")


def peers_of(name: str) -> Path:
    """How it stands with the store of its peers (sources/state.py)."""
    return path_of(name).with_suffix(".peers")


# ---- what was put back since, for `show`


def healing_of(name: str) -> Path:
    return path_of(name).with_suffix(".healed")


def healed(name: str) -> list[str]:
    """The steps that were done again because another program had undone them, the last one last."""
    try:
        return healing_of(name).read_text().splitlines()
    except OSError:
        return []


def note_healed(name: str, steps: Sequence[Step]) -> None:
    with contextlib.suppress(OSError), healing_of(name).open("a") as file:
        file.writelines(f"{step}\n" for step in steps)


def renewed_names(name: str, known: Names) -> Callable[[], Names | None]:
    """A question for the process that hosts the tunnel: the names of endpoints that a reload has
    written down since it was last asked; None while they are the same."""
    last = list(known)

    def ask() -> Names | None:
        nonlocal last
        found = read(name)
        if found is None or list(found.names) == last:
            return None
        last = list(found.names)
        return found.names

    return ask


def undoing(steps: Sequence[Step]) -> list[Step]:
    """What is left to undo when the interface is gone, backwards."""
    undos = (step.undo() for step in reversed(steps) if step.outlives())
    return [undo for undo in undos if undo is not None]
