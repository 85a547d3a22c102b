"""pywg doctor: what is wrong here, and the line that mends it."""

from __future__ import annotations

import json

import click

from pywg.cli import complete
from pywg.cli.names import config_file, is_name
from pywg.cli.stdout import wants_color
from pywg.cli.words import examples
from pywg.doctor.finding import Finding, Severity, exit_code

_COLORS = {Severity.OK: "32", Severity.NOTE: "36", Severity.WARNING: "33", Severity.ERROR: "31"}


@click.command(
    epilog=examples(
        "sudo pywg doctor",
        "sudo pywg doctor wg0",
    )
)
@click.argument("target", metavar="[NAME|FILE]", required=False, shell_complete=complete.configs)
@click.option("--json", "as_json", is_flag=True, help="One JSON array; without secrets.")
@click.option("--quiet", is_flag=True, help="Only warnings and errors.")
def doctor(target: str | None, as_json: bool, quiet: bool) -> int:
    """Look for what is wrong with this host, a file or a running tunnel. Changes nothing.

    NAME is a tunnel that runs, or /etc/wireguard/NAME.conf; FILE is a file called NAME.conf. The
    exit code is 0 if there is nothing worse than a note, 1 for warnings, 2 for errors.
    """
    from pywg.doctor.examine import examine

    name, path = (None, None) if target is None else config_file(target)
    found = examine(name, None if target is None or is_name(target) else path)
    if as_json:
        click.echo(json.dumps([item.to_json() for item in found], indent=2))
    else:
        least = Severity.WARNING if quiet else Severity.OK
        for item in found:
            if item.severity >= least:
                click.echo(picture(item, color=wants_color()), color=True)
        click.echo(summary(found))
    return exit_code(found)


def picture(item: Finding, *, color: bool = False) -> str:
    word = f"{item.severity!s:<7}"
    if color:
        word = f"\033[{_COLORS[item.severity]}m{word}\033[0m"
    where = f"{item.path}:{item.line}: " if item.line else ""
    if item.severity is Severity.OK:
        seen = f" ({item.evidence})" if item.evidence else ""
        return f"{word}  {where}{item.text}{seen}"
    lines = [f"{word}  {where}{item.text} [{item.word}]"]
    below = {"seen": item.evidence, "mend": item.mend}
    return "\n".join(
        [*lines, *(f"         {key}: {value}" for key, value in below.items() if value)]
    )


def summary(found: list[Finding]) -> str:
    counts = {
        severity: sum(item.severity is severity for item in found)
        for severity in sorted(Severity, reverse=True)
        if severity > Severity.OK
    }
    told = [f"{count} {name}{'s'[: count != 1]}" for name, count in counts.items()]
    return f"{len(found)} findings: {', '.join(told)}"
