"""Questions to name servers by sockets that carry a mark. The only module that knows dnspython,
which reads resolv.conf, tries the servers in turn, and repeats by TCP what was cut.

To be imported late: it takes a tenth of a second, and most runs ask nothing.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from io import StringIO
from ipaddress import ip_address
from typing import Any

from dns import query
from dns.exception import DNSException
from dns.name import Name, from_text
from dns.resolver import NXDOMAIN, LifetimeTimeout, Resolver

from pywg.config import IPAddress

#: For all servers together, and what they are asked.
LIFETIME_S = 5.0


_local = threading.local()
_plain_socket = query.socket_factory


def _marked_socket(*kind: Any) -> socket.socket:
    made = _plain_socket(*kind)
    if mark := getattr(_local, "mark", None):
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        except OSError:
            made.close()
            raise
    return made


# Only a thread that is inside `addresses` has a mark: for others nothing changes.
query.socket_factory = _marked_socket


def addresses(
    host: str, versions: Sequence[int], resolv_conf: str, mark: int | None
) -> list[IPAddress]:
    """Of a name, as the servers of this text give them. Raises socket.gaierror, with the codes of
    the C library."""
    try:
        name = from_text(host, None)
    except DNSException:
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from None
    resolver = _configured(resolv_conf)
    _local.mark = mark
    try:
        return _asked(resolver, name, versions)
    finally:
        _local.mark = None


def _asked(resolver: Resolver, name: Name, versions: Sequence[int]) -> list[IPAddress]:
    found: list[IPAddress] = []
    errors: list[DNSException] = []
    for version in versions:
        try:
            answer = resolver.resolve(
                name,
                "AAAA" if version == 6 else "A",
                search=True,
                raise_on_no_answer=False,
                lifetime=LIFETIME_S,
            )
            found += [ip_address(str(record)) for record in answer.rrset or ()]
        except DNSException as error:
            errors.append(error)
            if isinstance(error, LifetimeTimeout | NXDOMAIN):
                break  # the other family would be told the same
    if not found:
        raise _as_of_the_c_library(errors)
    return found


def _configured(resolv_conf: str) -> Resolver:
    try:
        return Resolver(StringIO(resolv_conf))
    except (DNSException, ValueError) as error:
        why = f"resolv.conf cannot be read: {error}"
        raise socket.gaierror(socket.EAI_AGAIN, why) from None


def _as_of_the_c_library(errors: Sequence[DNSException]) -> socket.gaierror:
    if not errors:
        return socket.gaierror(getattr(socket, "EAI_NODATA", -5), "it has no address")
    error = errors[0]
    if isinstance(error, NXDOMAIN):
        return socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    if isinstance(error, LifetimeTimeout):
        return socket.gaierror(socket.EAI_AGAIN, "no name server answers")
    return socket.gaierror(socket.EAI_AGAIN, str(error).partition("\n")[0])
