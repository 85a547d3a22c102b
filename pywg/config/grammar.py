"""Every key of a configuration: one row says all that a text has to do with it.

The rows feed the parser, `strip`, `setconf` and its like, the words of `set`, `save`, and what is
said of an unknown key. To add a key takes a field in model.py, a row here, and what it does.

Knows single values, not lines. Invariant: what ``write`` gives, ``read`` reads as the same value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pywg.config import peer_source, values
from pywg.config.values import BadValue, Reading, squeeze
from pywg.keys import PresharedKey, PrivateKey, PublicKey

SectionName = Literal["Interface", "Peer"]
# Who else reads a key: wg and wg-quick, wg-quick alone, or nobody: to them it is a comment.
Reader = Literal["wg", "wg-quick", "pywg"]

SECTIONS: tuple[SectionName, ...] = ("Interface", "Peer")


@dataclass(frozen=True, slots=True)
class Row:
    """One key.

    ``read`` makes a value of the text behind ``=``, for the field of the section that the row
    names; a key with two fields has a pair of values. ``write`` gives the text of each line that
    is to say what a section has, and none where it has nothing. Where a key ``accumulates``, its
    values are tuples and each line adds to them; else the last line counts. Of a value that
    ``is_raw`` a `#` is part. ``word`` is what the arguments of `set` call it.
    """

    name: str
    section: SectionName
    reader: Reader
    fields: tuple[str, ...]
    read: Callable[[str, Reading], Any]
    write: Callable[[Any], Iterable[str]]
    accumulates: bool = False
    is_secret: bool = False
    is_raw: bool = False
    word: str = ""

    @property
    def is_extension(self) -> bool:
        """Written as ``#!pywg Key = value``."""
        return self.reader == "pywg"


def rows(section: str, *readers: Reader) -> Iterator[Row]:
    return (row for row in KEYS if row.section == section and row.reader in readers)


def called(name: str, among: Iterable[Row]) -> Row | None:
    """The row of a key, in whatever case it is written."""
    return next((row for row in among if row.name.lower() == name.lower()), None)


# ---- how a value is read


def _plain(read: Callable[[str], Any]) -> Callable[[str, Reading], Any]:
    """For values about which there is nothing to warn."""
    return lambda text, reading: read(text)


def _hook(text: str) -> tuple[str, ...]:
    return (text,) if text else ()


def _path(text: str) -> Path:
    if not text:
        raise BadValue("expected the name of a file")
    return Path(text)


def _private_key(text: str) -> PrivateKey:
    return PrivateKey.from_base64(squeeze(text))


def _preshared_key(text: str) -> PresharedKey:
    return PresharedKey.from_base64(squeeze(text))


def _public_key(text: str) -> PublicKey:
    return PublicKey.from_base64(squeeze(text))


# ---- how it is written


def _written(
    field: str, spelled: Callable[[Any], str] = str, default: object = None
) -> Callable[[Any], Iterator[str]]:
    """One line, unless the value is its default or nothing: 0, no items, off."""

    def lines(section: object) -> Iterator[str]:
        value = getattr(section, field)
        if value and value != default:
            yield spelled(value)

    return lines


def _unless_from_file(field: str) -> Callable[[Any], Iterator[str]]:
    """A key that lies in a file of its own is not copied into the configuration."""

    def lines(section: object) -> Iterator[str]:
        key = getattr(section, field)
        if key is not None and getattr(section, f"{field}_file") is None:
            yield key.to_base64()

    return lines


def _dns(section: Any) -> Iterator[str]:
    if section.dns_servers or section.dns_search:
        yield values.joined((*section.dns_servers, *section.dns_search))


def _hooks(name: str, field: str, reader: Reader = "wg-quick") -> Row:
    return Row(
        name,
        "Interface",
        reader,
        (field,),
        _plain(_hook),
        lambda section: iter(getattr(section, field)),
        accumulates=True,
        is_raw=True,  # the shell has comments of its own
    )


# ---- the keys


# fmt: off
KEYS: tuple[Row, ...] = (
    Row("PrivateKey", "Interface", "wg", ("private_key",),
        _plain(_private_key), _unless_from_file("private_key"), is_secret=True, word="private-key"),
    Row("ListenPort", "Interface", "wg", ("listen_port",),
        _plain(values.port), _written("listen_port"), word="listen-port"),
    Row("FwMark", "Interface", "wg", ("fwmark",),
        _plain(values.fwmark), _written("fwmark", hex), word="fwmark"),
    Row("Address", "Interface", "wg-quick", ("addresses",),
        _plain(values.addresses), _written("addresses", values.joined), accumulates=True),
    Row("MTU", "Interface", "wg-quick", ("mtu",),
        _plain(values.mtu), _written("mtu")),
    Row("DNS", "Interface", "wg-quick", ("dns_servers", "dns_search"),
        _plain(values.dns_lists), _dns, accumulates=True),
    Row("Table", "Interface", "wg-quick", ("table",),
        _plain(values.table), _written("table", default="auto")),
    _hooks("PreUp", "pre_up"),
    _hooks("PostUp", "post_up"),
    _hooks("PreDown", "pre_down"),
    _hooks("PostDown", "post_down"),
    Row("SaveConfig", "Interface", "wg-quick", ("save_config",),
        _plain(values.boolean), _written("save_config", lambda value: "true")),
    Row("PrivateKeyFile", "Interface", "pywg", ("private_key_file",),
        _plain(_path), _written("private_key_file")),
    Row("BindDevice", "Interface", "pywg", ("bind_device",),
        _plain(values.device), _written("bind_device")),
    Row("BindAddress", "Interface", "pywg", ("bind_addresses",),
        _plain(values.bind_addresses), _written("bind_addresses", values.joined)),
    Row("Backend", "Interface", "pywg", ("backend",),
        _plain(values.backend), _written("backend")),
    Row("Netns", "Interface", "pywg", ("netns",),
        _plain(values.netns), _written("netns")),
    Row("SocketNetns", "Interface", "pywg", ("socket_netns",),
        _plain(values.netns), _written("socket_netns")),
    Row("MemoryLimit", "Interface", "pywg", ("memory_limit",),
        _plain(lambda text: values.number(text, 1, 1 << 20)), _written("memory_limit")),
    Row("KillSwitch", "Interface", "pywg", ("kill_switch",),
        _plain(values.kill_switch), _written("kill_switch")),
    Row("Only", "Interface", "pywg", ("only",),
        values.owners, _written("only", values.joined), accumulates=True),
    Row("Except", "Interface", "pywg", ("excepted",),
        values.owners, _written("excepted", values.joined), accumulates=True),
    _hooks("OnPeerUp", "on_peer_up", "pywg"),
    _hooks("OnPeerDown", "on_peer_down", "pywg"),
    _hooks("OnEndpointChange", "on_endpoint_change", "pywg"),
    Row("Peers", "Interface", "pywg", ("peers_from",),
        _plain(peer_source.parse), _written("peers_from")),
    Row("Pool", "Interface", "pywg", ("pools",),
        values.networks, _written("pools", values.joined), accumulates=True),
    Row("PublicEndpoint", "Interface", "pywg", ("public_endpoint",),
        values.endpoint, _written("public_endpoint")),
    Row("ClientDNS", "Interface", "pywg", ("client_dns",),
        _plain(values.dns_list), _written("client_dns", values.joined), accumulates=True),

    Row("PublicKey", "Peer", "wg", ("public_key",),
        _plain(_public_key), _written("public_key"), word="peer"),
    Row("PresharedKey", "Peer", "wg", ("preshared_key",),
        _plain(_preshared_key), _unless_from_file("preshared_key"),
        is_secret=True, word="preshared-key"),
    Row("AllowedIPs", "Peer", "wg", ("allowed_ips",),
        lambda text, reading: (values.allowed_ips(text, reading),),
        _written("allowed_ips", values.joined), accumulates=True, word="allowed-ips"),
    Row("Endpoint", "Peer", "wg", ("endpoint",),
        values.endpoint, _written("endpoint"), word="endpoint"),
    Row("PersistentKeepalive", "Peer", "wg", ("persistent_keepalive",),
        _plain(values.keepalive), _written("persistent_keepalive"), word="persistent-keepalive"),
    Row("PresharedKeyFile", "Peer", "pywg", ("preshared_key_file",),
        _plain(_path), _written("preshared_key_file")),
    Row("EndpointFamily", "Peer", "pywg", ("endpoint_family",),
        _plain(values.family), _written("endpoint_family", default="auto")),
    Row("ExcludedIPs", "Peer", "pywg", ("excluded_ips",),
        values.networks, _written("excluded_ips", values.joined), accumulates=True),
    Row("Name", "Peer", "pywg", ("name",),
        _plain(values.peer_name), _written("name")),
    Row("Replaces", "Peer", "pywg", ("replaces",),
        _plain(_public_key), _written("replaces")),
    Row("EndpointDns", "Peer", "pywg", ("endpoint_dns",),
        _plain(values.endpoint_dns), _written("endpoint_dns", default="outside")),
)
# fmt: on
