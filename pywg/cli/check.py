"""pywg check: what `up` would say of files, without touching the system."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from pywg.cli import complete
from pywg.cli.names import config_file, is_name
from pywg.cli.words import examples
from pywg.doctor import file as judge
from pywg.doctor.finding import Finding, Severity


@click.command(
    epilog=examples(
        "pywg check --strict wg0",
        "pywg check --elsewhere ./client.conf",
    )
)
@click.argument(
    "files", metavar="FILE|NAME...", nargs=-1, required=True, shell_complete=complete.configs
)
@click.option("--strict", is_flag=True, help="Fail for warnings, too.")
@click.option(
    "--elsewhere",
    is_flag=True,
    help="The files are for another host: leave out who may write them here, and their key files.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON array; without secrets.")
def check(files: tuple[str, ...], strict: bool, elsewhere: bool, as_json: bool) -> int:
    """Say what `pywg up` would say of files, and touch nothing.

    The exit code is 1 if `up` would refuse one of them, or, with --strict, warn of one.
    """
    paths = [config_file(file)[1] if is_name(file) else Path(file) for file in files]
    found = [item for path in paths for item in judge.check(path, elsewhere=elsewhere)]
    if as_json:
        click.echo(json.dumps([item.to_json() for item in found], indent=2))
    else:
        for item in found:
            click.echo(picture(item))
        click.echo(summary(len(paths), found))
    worst = max((item.severity for item in found), default=Severity.OK)
    return int(worst >= (Severity.WARNING if strict else Severity.ERROR))


def picture(item: Finding) -> str:
    """As compilers write it; then the line, and a caret under the place."""
    where = f"{item.path}:{item.line}:{item.column}" if item.line else item.path
    lines = [f"{where}: {item.severity}: {item.text}"]
    if item.source:
        before = item.source[: item.column - 1]
        indent = "".join("\t" if character == "\t" else " " for character in before)
        lines += [f"  {item.source}", f"  {indent}^"]
    if item.mend:
        lines.append(f"  mend: {item.mend}")
    return "\n".join(lines)


def summary(files: int, found: Sequence[Finding]) -> str:
    counts = [
        (severity, _count(found, severity)) for severity in (Severity.ERROR, Severity.WARNING)
    ]
    told = ", ".join(f"{count} {severity}{'s'[: count != 1]}" for severity, count in counts)
    return f"{files} file{'s'[: files != 1]}: {told}"


def _count(found: Sequence[Finding], severity: Severity) -> int:
    return sum(item.severity is severity for item in found)
