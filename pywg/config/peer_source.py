"""SOURCE, as ``Peers`` and ``up --peers`` have it: where the peers of an interface are listed.

Pure. A source is a place and, after it, options as words: ``etcds://10.0.0.1:2379/wg/peers/
ca=/etc/wireguard/ca.pem``. Invariant: no secret is part of it; those lie in files that it names.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from pywg.config.model import PeerSource, SourceKind
from pywg.config.values import BadValue, number

INTERVAL_MAX_S = 86400
ETCD_PORT = 2379
#: Options that name a file, and the kinds of sources that know them.
_FILES: dict[str, tuple[SourceKind, ...]] = {
    "ca": ("url", "etcd"),
    "cert": ("url", "etcd"),
    "key": ("url", "etcd"),
    "login": ("url", "etcd"),
    "token": ("url", "etcd"),
    "fernet": ("folder", "url", "etcd"),
}
_FORMS = "expected a folder from / on, http(s)://..., or etcd(s)://HOST:PORT[,HOST:PORT]/PREFIX"


def parse(text: str) -> PeerSource:
    """Raises BadValue, which says what was expected."""
    try:
        words = shlex.split(text)
    except ValueError:
        raise BadValue("a quotation mark is not closed") from None
    if not words:
        raise BadValue(_FORMS)
    place, *options = words
    source = _place(place, " ".join(text.split()))
    given: dict[str, Path | int] = {}
    for option in options:
        name, value = _option(option, source.kind)
        if name in given:
            raise BadValue(f"{name}= is there twice")
        given[name] = value
    if ("cert" in given) != ("key" in given):
        raise BadValue("cert= and key= go together")
    if "login" in given and "token" in given:
        raise BadValue("login= or token=, not both")
    if not source.is_tls and given.keys() & {"ca", "cert", "key"}:
        raise BadValue("ca=, cert= and key= are for https:// and etcds://")
    return PeerSource(
        source.kind,
        source.place,
        source.text,
        source.endpoints,
        source.is_tls,
        **given,  # type: ignore[arg-type] # _option has checked each by its name
    )


def _place(place: str, text: str) -> PeerSource:
    if place.startswith("/"):
        return PeerSource("folder", place, text)
    try:
        parts = urlsplit(place)
    except ValueError:
        raise BadValue(_FORMS) from None
    if "@" in parts.netloc:
        raise BadValue("no user or password in a URL, where others see it: login=FILE")
    match parts.scheme:
        case "http" | "https" if parts.netloc and not parts.fragment:
            return PeerSource("url", place, text, is_tls=parts.scheme == "https")
        case "etcd" | "etcds" if parts.netloc and not parts.query and not parts.fragment:
            return _etcd(parts, text)
        case _:
            raise BadValue(_FORMS)


def _etcd(parts: SplitResult, text: str) -> PeerSource:
    prefix = parts.path.rstrip("/")
    if not prefix:
        raise BadValue("a prefix is missing, such as /wireguard/peers/: all keys below it are ours")
    endpoints = tuple(_member(member) for member in parts.netloc.split(","))
    return PeerSource("etcd", f"{prefix}/", text, endpoints, parts.scheme == "etcds")


def _member(text: str) -> tuple[str, int]:
    """HOST:PORT, HOST or [IPv6]:PORT."""
    try:
        found = urlsplit(f"//{text}")
        host, port = found.hostname, found.port
    except ValueError:
        host = None
    if not host:
        raise BadValue("expected HOST:PORT of each member of etcd, with a comma between them")
    return host, port or ETCD_PORT


def _option(text: str, kind: SourceKind) -> tuple[str, Path | int]:
    name, separator, value = text.partition("=")
    if name == "interval" and kind != "etcd":
        return "interval_s", number(value, 1, INTERVAL_MAX_S)
    if not separator or kind not in _FILES.get(name, ()):
        known = [one for one, kinds in _FILES.items() if kind in kinds]
        if kind != "etcd":
            known.append("interval")
        raise BadValue(f"expected options such as NAME=VALUE, of {', '.join(known)}")
    if not value.startswith("/"):
        raise BadValue(f"{name}= is the name of a file, from / on")
    return name, Path(value)
