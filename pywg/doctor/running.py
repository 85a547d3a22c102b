"""What a running tunnel tells of itself: offloads that stepped down, a port that cannot be had, and
what others have taken away. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pywg.doctor.finding import Finding, error, note, ok, warning
from pywg.plan.steps import Step
from pywg.wireguard.status import Report


def judge(name: str, report: Report) -> Iterator[Finding]:
    failure = report.other.get("listen_error")
    if failure:
        yield error(
            "listen-error",
            f"{name} cannot have its port, so nothing arrives",
            f"pywg_get: listen_error={failure}",
            f"ss -ulpn, or another port: pywg set {name} listen-port PORT",
        )
    stepped = {
        offload: state
        for offload, state in report.offloads.items()
        if state.startswith("stepped_down")
    }
    for offload, state in stepped.items():
        yield note(
            "offload-stepped-down",
            f"the kernel refused {offload}, which is off since: slower",
            f"pywg_get: offload_{offload}={state}",
        )
    for word, endpoints in (("refused", report.gso_refused), ("lost", report.gso_lost)):
        if endpoints:
            yield note(
                f"gso-{word}",
                "towards some endpoints datagrams go singly: slower",
                f"pywg_get: gso_{word}: {', '.join(endpoints)}",
                "the MTU, and the driver's offloads: docs/performance.md",
            )
    if not stepped and not report.gso_refused and not report.gso_lost:
        yield ok("offloads", "no offload was given up")


def undone(name: str, gone: Iterable[Step]) -> Iterator[Finding]:
    """Steps of `up` whose effect is not there any more."""
    steps = list(gone)
    for step in steps:
        yield warning(
            "undone",
            "something that `up` did is not there any more",
            str(step),
            f"pywg reload {name}",
        )
    if not steps:
        yield ok("in-effect", "all that `up` did is there")


def deaf(name: str) -> Finding:
    return warning(
        "no-answer",
        f"the process that hosts {name} does not answer",
        f"pywg show {name}",
        f"pywg down {name}, pywg up {name}",
    )


def down(name: str) -> Finding:
    return error(
        "link-down",
        f"the interface {name} is down, so it carries nothing",
        f"ip link show {name}",
        f"ip link set {name} up",
    )
