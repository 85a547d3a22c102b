"""Heals a tunnel that is up: puts back what others took away, and follows the network.

In the process that hosts the tunnel, in a thread that sleeps until the kernel tells of a change.
What pywg did not make is not touched, and who takes the same thing away again and again gets it
after a few rounds: two programs that undo each other would do so for ever.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum, auto
from pathlib import Path

from pywg import wireguard
from pywg.errors import PywgError
from pywg.host import lock, netns, network
from pywg.host.watch import Change, Watch
from pywg.plan.build import inner_mtu
from pywg.plan.change import change
from pywg.plan.facts import Location
from pywg.plan.steps import LinkUp, Replace, SetKillSwitch, Step
from pywg.service.capabilities import keep_only
from pywg.service.supervisor import Companion, Log
from pywg.tunnel import record
from pywg.tunnel.apply import Applier
from pywg.tunnel.effects import in_effect
from pywg.tunnel.record import Record

RESOLV_CONF = Path("/etc/resolv.conf")
#: So often may a thing be taken away in so many seconds before it is left to whoever takes it.
ROUNDS, WINDOW_S = 5, 60.0
#: More of a kind than this, put back at once, are told in one line.
EACH_TOLD = 4
#: After a look that found nothing it rests so many times as long as it took, in seconds at most: a
#: host that changes all the time is not to keep it busy.
REST, REST_MAX_S = 9, 0.5
#: A change rarely comes alone: what follows within so many seconds is looked at together.
SETTLE_S = 0.02


class Verdict(Enum):
    AGAIN = auto()
    ENOUGH = auto()  # from now on it is
    GIVEN_UP = auto()  # as was said before


class Patience:
    """Which steps are still worth repeating. The clock is an argument."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: dict[Step, deque[float]] = {}
        self._given_up: set[Step] = set()

    def asks(self, step: Step) -> Verdict:
        """For one more time, which counts."""
        if step in self._given_up:
            return Verdict.GIVEN_UP
        now = self._clock()
        times = self._times.setdefault(step, deque(maxlen=ROUNDS))
        if len(times) == ROUNDS and now - times[0] < WINDOW_S:
            self._given_up.add(step)
            return Verdict.ENOUGH
        times.append(now)
        return Verdict.AGAIN


class Healer:
    """For the tunnel ``name`` whose interface is, or will be, in the network namespace of this
    thread. Tells one line of each thing that it does."""

    def __init__(
        self, name: str, log: Log, place: Path | None = None, files: Sequence[Path] = ()
    ) -> None:
        """``place`` is the name of the network namespace; with it we go, or we would keep it.
        ``files`` are watched besides resolv.conf."""
        self._name = name
        self._files = files
        self._place = place
        self._log = log
        self._patience = Patience()
        self._version = (0, 0)
        self._was_there = False

    def run(self, moved: Callable[[], None]) -> None:
        """Ends with the interface, or with its network namespace. ``moved`` is called when the
        network around may be another."""
        places = [] if self._place is None else [self._place]
        with Watch(self._name, [RESOLV_CONF, *self._files], places) as watch:
            keep_only(for_programs=True)
            self._was_there = network.exists(self._name)  # if we go on where another one was
            while True:
                found = watch.wait()
                while found and (more := watch.wait(SETTLE_S)):
                    found |= more
                if not found:
                    continue
                if self._place is not None and not self._place.exists():
                    return
                if self._is_gone():
                    self._take_back()
                    return
                began = time.monotonic()
                try:
                    has_healed = self.heal(found)
                except (PywgError, OSError) as error:
                    has_healed = False
                    self._log(f"cannot look after it: {error}")
                if Change.AROUND in found:
                    moved()
                if not has_healed:
                    time.sleep(min(REST * (time.monotonic() - began), REST_MAX_S))

    def _is_gone(self) -> bool:
        is_there = network.exists(self._name)
        self._was_there |= is_there
        return self._was_there and not is_there

    def _take_back(self) -> None:
        """Who takes the interface away, as `wg-quick down` or `ip link delete` does, wants the
        tunnel to end: what the kernel does not take away with it, such as the guard, is not to
        stay. But the kill switch is there for just this, and stays."""
        version = record.version(self._name)
        with lock.held(lambda line: None):  # who holds it is `pywg down`, and will be done
            known = record.read(self._name)
            if known is None or not known.is_up or record.version(self._name) != version:
                return
            kept = tuple(step for step in known.steps if isinstance(step, SetKillSwitch))
            if network.exists(self._name) or kept == known.steps:
                return
            with Applier(Location(known.location.backend), known.config, Quiet()) as applier:
                others = [step for step in known.steps if step not in kept]
                errors = applier.undo_all(record.undoing(others))
            for error in errors:
                self._log(f"the interface is gone, and this is left: {error}")
            # It stays: `down` may still be called, for a PostDown or for the kill switch.
            # What a broken tool leaves is no error, only a warning, and stays to be undone as well.
            tried = [step for step in others if step.undo() in applier.left]
            left = known.steps if errors else (*tried, *kept)
            record.write(replace(known, steps=left, is_up=False))

    def heal(self, found: Change) -> bool:
        """One look, and what it asks for; whether it was for anything."""
        with lock.held(self._log):
            known = record.read(self._name)
            if known is None or not known.is_up or not network.exists(self._name):
                return False
            if record.version(self._name) != self._version:
                self._version, self._patience = record.version(self._name), Patience()
            with Applier(Location(known.location.backend), known.config, Quiet()) as applier:
                if Change.AROUND in found:
                    known = self._follow(known, applier)
                return self._put_back(known, applier)

    def _put_back(self, known: Record, applier: Applier) -> bool:
        left_out = set(known.left_out)
        held = [step for step in known.steps if step not in left_out]
        # Another MTU takes nothing away: it is somebody's wish, which SaveConfig may save.
        is_up = applier.kernel.is_up(self._name)
        seen = set(in_effect(self._name, held, applier.kernel))
        present = [step for step in held if step in seen or (is_up and isinstance(step, LinkUp))]
        stands = set(present)
        wanted = [step for step in held if step in stands or self._is_worth_it(step)]
        steps, _ = change(present, wanted)
        if not steps:
            return False
        healed: list[Step] = []

        def put_back(step: Step) -> None:
            applier.apply(step)
            healed.append(step)

        for error in applier.best_effort(steps, put_back):
            self._log(f"cannot be put back: {error}")
        for line in told(healed):
            self._log(f"another program took this away, it is put back: {line}")
        record.note_healed(self._name, healed)
        return bool(healed)

    def _is_worth_it(self, step: Step) -> bool:
        match self._patience.asks(step):
            case Verdict.ENOUGH:
                self._log(
                    f"another program has undone this {ROUNDS} times within {WINDOW_S:.0f} s, so "
                    f"it stays undone: {step} (find the program, then: pywg reload {self._name})"
                )
                return False
            case Verdict.GIVEN_UP:
                return False
            case Verdict.AGAIN:
                return True

    def _follow(self, known: Record, applier: Applier) -> Record:
        """The MTU, where pywg chose it, is that of the way there is now."""
        old = next((step for step in known.steps if isinstance(step, LinkUp)), None)
        new = None if old is None or not old.is_chosen else self._chosen_now(old, applier)
        if old is None or new is None or new == old:
            return known
        applier.apply(Replace(self._name, old, new))
        self._log(f"the way to the endpoints is another one: {new}")
        changed = replace(known, steps=tuple(new if step == old else step for step in known.steps))
        record.write(changed)
        self._version = record.version(self._name)
        return changed

    def _chosen_now(self, old: LinkUp, applier: Applier) -> LinkUp | None:
        """None where there is no way at all, which says nothing."""
        status = wireguard.get(self._name)
        hosts = {peer.endpoint.host for peer in status.peers if peer.endpoint is not None}
        mark = status.fwmark or None
        mtus = applier.kernel.path_mtus(sorted(hosts), mark)
        default = None if mtus else applier.kernel.default_route_mtu(mark)
        if not mtus and default is None:
            return None
        return replace(old, mtu=inner_mtu(mtus, default))


def told(steps: Sequence[Step]) -> list[str]:
    """What is put back, a line each: of many of a kind, as the routes of a link that was down, the
    first and how many more."""
    kinds: dict[type[Step], list[Step]] = {}
    for step in steps:
        kinds.setdefault(type(step), []).append(step)
    lines = []
    for alike in kinds.values():
        if len(alike) <= EACH_TOLD:
            lines += [str(step) for step in alike]
        else:
            lines.append(f"{alike[0]}, and {len(alike) - 1} more of its kind")
    return lines


def companion(name: str, location: Location, home: int, files: Sequence[Path] = ()) -> Companion:
    """A healer for the process that hosts the tunnel, which may be in another network namespace
    than the interface: ``home`` is a file descriptor of the one we are in."""

    def run(log: Log, moved: Callable[[], None]) -> None:
        place = None
        if location.netns is not None:
            netns.enter(location.netns)
            place = netns.DIRECTORY / location.netns
        elif location.is_split:
            netns.enter_at(home)
        Healer(name, log, place, files).run(moved)

    return run


class Quiet:
    """A reporter for steps that are told of in words of our own."""

    def doing(self, command: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass
