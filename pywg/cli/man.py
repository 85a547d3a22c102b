"""pywg man: the manual page, made of what the commands say of themselves and of the texts below.

Knows roff's few words that are needed here. Invariant: every command and option is in it, for it is
read from the same objects that parse the command line.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from pywg._version import __version__
from pywg.cli.words import examples
from pywg.service.endpoints import PATIENCE_S, STALE_S

DESCRIPTION = """\
pywg brings WireGuard tunnels up and down and looks after them. It reads the files of wg-quick(8),
needs no kernel module, and answers wg(8) as any interface does.

NAME stands for an interface; its file is /etc/wireguard/NAME.conf. CONFIG is the path of a file
called NAME.conf."""

NAMES = f"""\
A host name in Endpoint is resolved when the tunnel comes up. While the tunnel runs, a peer to which
something is sent is looked up again when its last handshake is older than {STALE_S:.0f} seconds, or
when it has not answered the first for {PATIENCE_S:.0f} seconds. If the name has other addresses,
the next one is tried, IPv6 and IPv4 in turn, each for {PATIENCE_S:.0f} seconds. No packet waits for
the resolver."""

SYSTEMD = """\
pywg install-units installs pywg@.service. Then systemctl enable --now pywg@NAME brings the tunnel
of /etc/wireguard/NAME.conf up now and at each start. The unit confines what hooks may do; its
comments say how to allow more."""

FILES = {
    "/etc/wireguard/NAME.conf": "The configuration of interface NAME; see wg(8) and wg-quick(8).",
    "/run/wireguard/NAME.sock": "Where the interface answers. When it is removed the tunnel ends.",
}

ENVIRONMENT = {
    "WG_ENDPOINT_RESOLUTION_RETRIES": "How often to try a name again: a number (15), or infinity.",
    "WG_COLOR_MODE": "Colours: always, never or auto. NO_COLOR means never.",
    "WG_HIDE_KEYS": "never shows private and preshared keys.",
    "WG_PROCESS_FOREGROUND": "1 keeps `pywg run` in the foreground.",
    "WG_TUN_FD, WG_UAPI_FD": "Numbers of open descriptors that `pywg run` takes over.",
    "LOG_LEVEL": "What is logged: verbose, error or silent.",
    "LOG_FORMAT": "How lines of the log are written: text or json.",
    "NOTIFY_SOCKET": "Where systemd is told that the tunnel is up.",
    "PYWG_TUNNEL": "Set by `pywg shell` for your shell: the tunnel's name.",
    "PYWG_PROXY_AUTH": "USER:PASSWORD that clients of `pywg proxy` have to know.",
    "PYWG_CPU": "The cipher path: baseline, v3, v4 or v4ifma. By default the best this CPU has.",
    "PYWG_CORE": "This libpywg.so and no other.",
}

EXIT_STATUS = """\
0: done. 1: failed, with one line on stderr that says why. 2: wrong usage. pywg exec and pywg shell:
the command's; 128 and the signal's number if one killed it; 127 or 126 if it was not found or could
not be executed; 125 if there was no tunnel. pywg proxy: 0 after a signal, 1 when its tunnel has
ended, 125 if there was none. pywg doctor: 0 if nothing is worse than a note, 1 for warnings, 2 for
errors."""
SEE_ALSO = "wg(8), wg-quick(8), systemd.service(5), ip-netns(8)"


@click.command(
    epilog=examples(
        "pywg man | man -l -",
    )
)
def man() -> None:
    """Print the manual page pywg(1)."""
    click.echo(page(), nl=False)


def page() -> str:
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    from pywg.cli import COMMANDS, cli

    root = click.Context(cli, info_name="pywg")
    yield f'.TH PYWG 1 "" "pywg {escape(__version__)}" "User Commands"'
    yield from (".nh", ".ad l", ".SH NAME", r"pywg \- userspace WireGuard")
    yield from (".SH SYNOPSIS", ".B pywg", ".I COMMAND", r"[\fIOPTIONS\fR] [\fIARGUMENTS\fR]")
    yield from _section("DESCRIPTION", DESCRIPTION)
    yield from _options(cli, root)
    yield ".SH COMMANDS"
    for name, (_, summary) in COMMANDS.items():
        command = cli.get_command(root, name)
        if command is not None:
            context = click.Context(command, info_name=name, parent=root)
            yield from _command(command, context, summary)
    yield from _section("NAMES OF ENDPOINTS", NAMES)
    yield from _section("SYSTEMD", SYSTEMD)
    yield from _entries("FILES", FILES)
    yield from _entries("ENVIRONMENT", ENVIRONMENT)
    yield from _section("EXIT STATUS", EXIT_STATUS)
    yield from _section("SEE ALSO", SEE_ALSO)


def _command(command: click.Command, context: click.Context, summary: str) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(context))
    yield f".SS pywg {escape(f'{context.info_name} {usage}')}"
    yield from _paragraphs(command.help or summary)
    yield from _options(command, context)
    if command.epilog:
        yield ".PP"
        yield from _paragraphs(command.epilog)
    if isinstance(command, click.Group):
        for name, verb in command.commands.items():
            inside = click.Context(verb, info_name=f"{context.info_name} {name}", parent=context)
            yield from _command(verb, inside, "")


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    # Without --help, which all have: it stands once, at the top.
    parameters = command.params if context.parent else command.get_params(context)
    for parameter in parameters:
        record = parameter.get_help_record(context)
        if record is not None and record[1]:
            yield from _entry(*record)


def _section(title: str, text: str) -> Iterator[str]:
    yield f'.SH "{title}"'
    yield from _paragraphs(text)


def _entries(title: str, entries: dict[str, str]) -> Iterator[str]:
    yield f'.SH "{title}"'
    for term, text in entries.items():
        yield from _entry(term, text)


def _entry(term: str, text: str) -> Iterator[str]:
    yield ".TP"
    yield rf"\fB{escape(term)}\fR"
    yield escape(" ".join(text.split()))


def _paragraphs(text: str) -> Iterator[str]:
    """Filled, but for those that begin with click's mark for lines to be kept."""
    for number, paragraph in enumerate(text.strip().split("\n\n")):
        if number:
            yield ".PP"
        lines = paragraph.strip().splitlines()
        if lines[0].strip() == "\b":
            yield from (".nf", *(escape(line) for line in lines[1:]), ".fi")
        else:
            yield from (escape(line.strip()) for line in lines)


def escape(text: str) -> str:
    """Text that roff prints as it is: hyphens that can be copied, no control lines."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-").replace("`", r"\(ga")
    escaped = escaped.replace("~", r"\(ti").replace("^", r"\(ha").replace("'", r"\(aq")
    return r"\&" + escaped if escaped.startswith(".") else escaped
