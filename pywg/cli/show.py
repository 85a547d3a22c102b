"""pywg show: what `wg show` prints, of any userspace or kernel WireGuard."""

from __future__ import annotations

import difflib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import click
from click.shell_completion import CompletionItem

from pywg import wireguard
from pywg.cli import complete, stdout
from pywg.cli import show_fields as fields
from pywg.cli.show_facts import facts, source_facts, source_lines
from pywg.cli.wg_verb import status_of
from pywg.cli.words import examples
from pywg.config import check_name
from pywg.errors import NetworkError, PywgError, UapiError
from pywg.keys import PublicKey
from pywg.tunnel.names import names_of
from pywg.tunnel.record import healed
from pywg.wireguard import condition
from pywg.wireguard import socket as uapi_socket
from pywg.wireguard.addresses import address_text, endpoint_text, network_text
from pywg.wireguard.status import InterfaceStatus, PeerStatus, Report

Names = Mapping[PublicKey, str]

_STYLES = {"bold": "1", "green": "32", "yellow": "33", "cyan": "36", "red": "31"}
_UNITS = (("year", 365 * 86400), ("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    if not ctx.params.get("words"):
        return complete.shown(ctx, param, incomplete)
    return [CompletionItem(field) for field in fields.FIELDS if field.startswith(incomplete)]


@click.command(
    epilog=examples(
        "sudo pywg show",
        "sudo pywg show wg0 --offload",
        "sudo pywg show all latest-handshakes   # for scripts",
        "sudo pywg show wg0 --json | jq .",
    )
)
@click.argument(
    "words", nargs=-1, metavar="[NAME|all|interfaces] [FIELD]", shell_complete=_complete
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object; without secrets.")
@click.option("--offload", is_flag=True, help="Also what the kernel offloads, and drops by reason.")
def show(words: tuple[str, ...], as_json: bool, offload: bool) -> int:
    """Show interfaces and peers. Environment: WG_COLOR_MODE, NO_COLOR, WG_HIDE_KEYS.

    FIELD prints one thing of each for scripts: public-key, private-key, listen-port, fwmark, peers,
    preshared-keys, endpoints, allowed-ips, latest-handshakes, transfer, persistent-keepalive, or
    dump for all of them.
    """
    what, field = check_words(words, as_json or offload)
    if what == "interfaces":
        names = wireguard.interfaces()
        if names or as_json:
            click.echo(json.dumps(names) if as_json else " ".join(names))
        return 0
    found, failed = gather(what)
    if field is not None:
        with_name = what == "all"
        texts = (fields.lines(name, status, field, with_name=with_name) for name, status in found)
        click.echo("".join(texts), nl=False)
        return 1 if failed else 0
    reports = {name: report_of(name, what) if offload else None for name, _ in found}
    # Of pywg's own, why a peer has no session; wg does not know.
    traces = {name: reports[name] or trace_of(name) for name, _ in found}
    if as_json:
        shown = {
            name: facts(name, traces[name])
            | to_json(status, reports[name], healed(name), names_of(name), traces[name])
            | source_facts(name)
            for name, status in found
        }
        click.echo(json.dumps(shown, indent=2))
        return 1 if failed else 0
    pretty = Pretty(color=wants_color(), hide_keys=os.environ.get("WG_HIDE_KEYS") != "never")
    blocks = [
        pretty.interface(
            name, status, reports[name], names_of(name), traces[name], source=source_lines(name)
        )
        for name, status in found
    ]
    if blocks:
        click.echo("\n\n".join(blocks), color=True)
    return 1 if failed else 0


def check_words(words: tuple[str, ...], has_option: bool) -> tuple[str, str | None]:
    """Wrong words are 1, as with wg; a wrong mixture with our own options is wrong usage, 2."""
    if len(words) > 2 or (len(words) == 2 and words[0] == "interfaces"):
        raise PywgError("usage: pywg show [NAME|all|interfaces] [FIELD]")
    what = words[0] if words else "all"
    if len(words) < 2:
        return what, None
    field = words[1]
    if field not in fields.FIELDS:
        close = difflib.get_close_matches(field, fields.FIELDS, n=1)
        hint = f'did you mean "{close[0]}"?' if close else f"there are {', '.join(fields.FIELDS)}"
        raise PywgError(f'there is no field "{field}"; {hint}')
    if has_option:
        raise click.UsageError("--json and --offload show everything: leave the field out")
    return what, field


def gather(what: str) -> tuple[list[tuple[str, InterfaceStatus]], bool]:
    """What the interfaces do, and whether one of all has not answered."""
    if what != "all":
        name = check_name(what)
        return [(name, status_of(name))], False
    found = []
    failed = False
    for name in wireguard.interfaces():
        try:
            found.append((name, status_of(name)))
        except (UapiError, NetworkError) as error:
            # As wg: one that does not answer, or has just gone, hides none of the others.
            print(f"pywg: {error}", file=sys.stderr)
            failed = True
    return found, failed


def report_of(name: str, what: str) -> Report | None:
    """None where another implementation, which knows no such question, is one of all."""
    try:
        report = uapi_socket.report(name)
        report.healed = healed(name)
        return report
    except UapiError:
        if what == "all":
            return None
        raise


def trace_of(name: str) -> Report | None:
    """None where another program than pywg serves the interface."""
    try:
        return uapi_socket.report(name)
    except UapiError:
        return None


def wants_color() -> bool:
    if os.environ.get("NO_COLOR"):  # no-color.org: for every program, so also where wg would
        return False
    mode = os.environ.get("WG_COLOR_MODE", "auto")
    return stdout.wants_color() if mode not in ("always", "never") else mode == "always"


class Pretty:
    """The layout of wg(8), to the byte; beyond it, what there is to say that wg does not know."""

    def __init__(self, *, color: bool, hide_keys: bool = True, now_s: int | None = None) -> None:
        self.color = color
        self.hide_keys = hide_keys
        self.now_s = int(time.time()) if now_s is None else now_s

    def interface(
        self,
        name: str,
        status: InterfaceStatus,
        report: Report | None = None,
        names: Names = MappingProxyType({}),
        trace: Report | None = None,
        *,
        source: Sequence[str] = (),
    ) -> str:
        reset = "\033[0m" if self.color else ""  # wg starts from a clean terminal
        lines = [reset + self._head("interface", "green", name)]
        if status.private_key is not None:
            hidden = "(hidden)" if self.hide_keys else status.private_key.to_base64()
            lines.append(self._field("public key", str(status.public_key)))
            lines.append(self._field("private key", hidden))
        if status.listen_port:
            lines.append(self._field("listening port", str(status.listen_port)))
        if status.fwmark:
            lines.append(self._field("fwmark", f"0x{status.fwmark:x}"))
        if report is not None:
            lines += self._report(report)
        if trace is not None:
            lines += [self._field("notice", line) for line in condition.of_interface(trace)]
        lines += [self._field("peers from", line) for line in source]
        blocks = ["\n".join(lines)]
        # Newest handshake first; peers without one keep their order at the end.
        by_handshake = sorted(status.peers, key=lambda peer: -peer.last_handshake_ns)
        blocks += [
            self._peer(peer, names.get(peer.public_key, ""), trace, with_drops=report is not None)
            for peer in by_handshake
        ]
        return "\n\n".join(blocks)

    def _peer(
        self, peer: PeerStatus, name: str, trace: Report | None, *, with_drops: bool = False
    ) -> str:
        lines = [self._head("peer", "yellow", str(peer.public_key))]
        if name:
            lines.append(self._field("name", name))
        found = condition.of_peer(peer, trace, self.now_s)
        if not found.is_healthy:
            lines.append(self._field("status", self._style(found.text, "red")))
        if peer.preshared_key is not None:
            hidden = "(hidden)" if self.hide_keys else peer.preshared_key.to_base64()
            lines.append(self._field("preshared key", hidden))
        if peer.endpoint is not None:
            lines.append(self._field("endpoint", endpoint_text(peer.endpoint)))
        allowed = ", ".join(
            f"{address_text(ip)}{self._style('/', 'cyan')}{ip.prefixlen}" for ip in peer.allowed_ips
        )
        lines.append(self._field("allowed ips", allowed or "(none)"))
        if peer.last_handshake_ns:
            ago = self._ago(peer.last_handshake_ns // 1_000_000_000)
            lines.append(self._field("latest handshake", ago))
        if peer.rx_bytes or peer.tx_bytes:
            moved = f"{self._bytes(peer.rx_bytes)} received, {self._bytes(peer.tx_bytes)} sent"
            lines.append(self._field("transfer", moved))
        if peer.persistent_keepalive:
            every = self._duration(peer.persistent_keepalive)
            lines.append(self._field("persistent keepalive", f"every {every}"))
        told = trace.peers.get(peer.public_key) if trace is not None and with_drops else None
        lines += [
            self._field(f"dropped {reason.replace('_', ' ')}", str(count))
            for reason, count in (told.dropped if told else {}).items()
        ]
        return "\n".join(lines)

    def _report(self, report: Report) -> list[str]:
        lines = [
            self._field(f"offload {name.replace('_', ' ')}", value.replace("_", " "))
            for name, value in report.offloads.items()
        ]
        if report.gso_refused:
            lines.append(self._field("gso refused by", ", ".join(report.gso_refused)))
        if report.gso_lost:
            lines.append(self._field("gso lost on the way to", ", ".join(report.gso_lost)))
        if report.cipher:
            lines.append(self._field("cipher", report.cipher))
        if report.healed:
            *_, last = report.healed
            lines.append(self._field("put back", f"{len(report.healed)}, the last: {last}"))
        lines += [
            self._field(f"dropped {reason.replace('_', ' ')}", str(count))
            for reason, count in report.dropped.items()
            if count
        ]
        return lines

    def _head(self, word: str, color: str, value: str) -> str:
        return f"{self._style(word, color, 'bold')}: {self._style(value, color)}"

    def _field(self, name: str, value: str) -> str:
        return f"  {self._style(name, 'bold')}: {value}"

    def _style(self, text: str, *styles: str) -> str:
        if not self.color:
            return text
        return "".join(f"\033[{_STYLES[style]}m" for style in styles) + text + "\033[0m"

    def _ago(self, then_s: int) -> str:
        if then_s == self.now_s:
            return "Now"
        if then_s > self.now_s:
            warning = self._style(
                "System clock wound backward; connection problems may ensue.", "red"
            )
            return f"({warning})"
        return f"{self._duration(self.now_s - then_s)} ago"

    def _duration(self, seconds: int) -> str:
        parts = []
        for unit, size in _UNITS:
            count, seconds = divmod(seconds, size)
            if count:
                plural = "s" if count > 1 else ""
                parts.append(f"{count} {self._style(unit + plural, 'cyan')}")
        return ", ".join(parts)

    def _bytes(self, count: int) -> str:
        if count < 1024:
            return f"{count} {self._style('B', 'cyan')}"
        value = float(count)
        for unit in ("KiB", "MiB", "GiB"):
            value /= 1024
            if value < 1024:
                return f"{value:.2f} {self._style(unit, 'cyan')}"
        return f"{value / 1024:.2f} {self._style('TiB', 'cyan')}"


def to_json(
    status: InterfaceStatus,
    report: Report | None = None,
    healed: Sequence[str] = (),
    names: Names = MappingProxyType({}),
    trace: Report | None = None,
) -> dict[str, Any]:
    """The key names of wg-json, and those that it does not know; absent things are left out, and so
    are secrets."""
    shown: dict[str, Any] = {}
    if status.public_key is not None:
        shown["publicKey"] = str(status.public_key)
    if status.listen_port:
        shown["listenPort"] = status.listen_port
    if status.fwmark:
        shown["fwmark"] = status.fwmark
    if report is not None:
        shown["offload"] = report.offloads
        shown["gsoRefused"] = report.gso_refused
        shown["gsoLost"] = report.gso_lost
        shown["dropped"] = report.dropped
        shown["cipher"] = report.cipher
    if healed:
        shown["healed"] = {"count": len(healed), "last": healed[-1]}
    notices = condition.of_interface(trace) if trace is not None else []
    if notices:
        shown["notices"] = notices
    shown["peers"] = {
        str(peer.public_key): _peer_to_json(peer, names.get(peer.public_key, ""), trace)
        for peer in status.peers
    }
    return shown


def _peer_to_json(peer: PeerStatus, name: str, report: Report | None) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if name:
        shown["name"] = name
    if peer.endpoint is not None:
        shown["endpoint"] = endpoint_text(peer.endpoint)
    if peer.last_handshake_ns:
        shown["latestHandshake"] = peer.last_handshake_ns // 1_000_000_000
    shown["transferRx"] = peer.rx_bytes
    shown["transferTx"] = peer.tx_bytes
    if peer.persistent_keepalive:
        shown["persistentKeepalive"] = peer.persistent_keepalive
    shown["allowedIps"] = [network_text(network) for network in peer.allowed_ips]
    found = condition.of_peer(peer, report, int(time.time()))
    shown["status"] = {"word": found.word, "text": found.text}
    trace = report.peers.get(peer.public_key) if report is not None else None
    if trace is not None:
        if trace.heard_ms_ago is not None:
            shown["lastReceivedSecondsAgo"] = trace.heard_ms_ago // 1000
        if trace.dropped:
            shown["dropped"] = trace.dropped
    return shown
