"""Carries a list of steps out, all or nothing. Knows no step and no kernel."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence

from pywg.plan.steps import Step


def execute(
    steps: Sequence[Step], perform: Callable[[Step], None], echo: Callable[[Step], None]
) -> None:
    """All or nothing: when a step fails, or Ctrl-C comes, the earlier ones are undone.

    A step that is interrupted half-way may have worked: it is undone too. Then a second
    Ctrl-C changes nothing.
    """
    begun: list[Step] = []
    try:
        for step in steps:
            echo(step)
            begun.append(step)
            try:
                perform(step)
            except Exception:
                begun.pop()  # it says that it did nothing
                raise
    except BaseException:
        with undisturbed():
            for step in reversed(begun):
                undo = step.undo()
                if undo is None:
                    continue
                # One that fails must not keep the others from running, nor hide the first error.
                with contextlib.suppress(Exception):
                    echo(undo)
                with contextlib.suppress(Exception):
                    perform(undo)
        raise


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Ignores signals that end the process. A mask would not do: another thread may take one."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers, and only it is interrupted
        return
    ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [(number, signal.signal(number, signal.SIG_IGN)) for number in ending]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
