from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import Timeout

import pywg


class TunnelAdapter(HTTPAdapter):
    def __init__(self, tunnel: pywg.Tunnel) -> None:
        self._tunnel = tunnel
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = pools(self._tunnel)


def pools(tunnel: pywg.Tunnel) -> dict[str, Any]:
    class Through:
        def _new_conn(self: Any) -> Any:
            timeout = Timeout.resolve_default_timeout(self.timeout)
            return tunnel.create_connection((self.host, self.port), timeout)

    class Plain(Through, HTTPConnection):
        pass

    class Secured(Through, HTTPSConnection):
        pass

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecuredPool(HTTPSConnectionPool):
        ConnectionCls = Secured

    return {"http": PlainPool, "https": SecuredPool}


with pywg.Tunnel("work.conf") as tunnel, requests.Session() as session:
    session.trust_env = False  # a proxy that the environment names would be asked beside the tunnel
    for scheme in ("http://", "https://"):
        session.mount(scheme, TunnelAdapter(tunnel))
    print(session.get("http://intranet.example/", timeout=10).text)
    print(session.get("https://intranet.example/", timeout=10).status_code)
