"""Questions to name servers by sockets that carry a mark. The only module that knows dnspython,
which reads resolv.conf, tries the servers in turn, and repeats by TCP what was cut.

To be imported late: it takes a tenth of a second, and most runs ask nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from io import StringIO
from ipaddress import ip_address

from dns.exception import DNSException
from dns.inet import af_for_address, low_level_address_tuple
from dns.message import Message, QueryMessage
from dns.name import from_text
from dns.nameserver import Do53Nameserver
from dns.query import tcp, udp
from dns.resolver import NXDOMAIN, LifetimeTimeout, Resolver

from pywg.config import IPAddress

#: For all servers together, and what they are asked.
LIFETIME_S = 5.0


class MarkedNameserver(Do53Nameserver):
    """A name server that is asked from outside a tunnel."""

    def __init__(self, address: str, mark: int | None) -> None:
        super().__init__(address)
        self._mark = mark

    def query(  # noqa: PLR0917 - as the base class has it
        self,
        request: QueryMessage,
        timeout: float,
        source: str | None,
        source_port: int,
        max_size: bool,
        one_rr_per_rrset: bool = False,
        ignore_trailing: bool = False,
    ) -> Message:
        """As the base class does it; ``source`` is not used here. ``max_size``: by TCP."""
        kind = socket.SOCK_STREAM if max_size else socket.SOCK_DGRAM
        with socket.socket(af_for_address(self.address), kind) as sock:
            if self._mark:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._mark)
            if max_size:
                sock.settimeout(timeout)
                sock.connect(low_level_address_tuple((self.address, self.port)))
            sock.setblocking(False)
            if max_size:
                return tcp(request, self.address, timeout, sock=sock)
            return udp(
                request,
                self.address,
                timeout,
                raise_on_truncation=True,
                ignore_errors=True,
                ignore_unexpected=True,
                sock=sock,
            )


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
    resolver.nameservers = [MarkedNameserver(str(server), mark) for server in resolver.nameservers]
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
