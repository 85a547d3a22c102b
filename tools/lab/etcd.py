"""A real etcd on loopback, with its data in a folder of the test's, and what is written to it.

Debian's etcd-server; spoken to by its gateway of JSON over HTTP, as tests have no other client.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import shutil
import socket
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tools.lab.namespaces import Namespace
from tools.lab.waiting import wait_until

#: As many operations as one transaction of etcd takes.
AT_ONCE = 128


class Etcd:
    """Alive until close(); stopped and started again in between, on the same port."""

    def __init__(
        self,
        directory: Path,
        namespace: Namespace | None = None,
        tls: Iterable[str] = (),
        more: Iterable[str] = (),
    ) -> None:
        self.directory = directory
        self._namespace = namespace
        self._scheme = "https" if tls else "http"
        self._options = [*tls, *more]
        self.port, self._peer_port = self._free_port(), self._free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: http.client.HTTPConnection | None = None
        self.token = ""
        self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        program = shutil.which("etcd")
        assert program is not None, "etcd-server is missing: run scripts/peers"
        here, peers = (
            f"{self._scheme}://127.0.0.1:{self.port}",
            f"http://127.0.0.1:{self._peer_port}",
        )
        argv = [
            program,
            *("--name", "lab", "--data-dir", str(self.directory / "data")),
            *("--listen-client-urls", here, "--advertise-client-urls", here),
            *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers),
            *("--initial-cluster", f"lab={peers}", "--unsafe-no-fsync"),
            *("--max-txn-ops", str(AT_ONCE), "--quota-backend-bytes", str(2 << 30)),
            *self._options,
        ]
        log = (self.directory / "etcd.log").open("ab")
        with log, self._inside():
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *argv], stdout=log, stderr=log
            )
        wait_until(self._is_there, "etcd answers", seconds=60, every=0.05)

    def stop(self) -> None:
        """As by a power cut."""
        self._hang_up()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    close = stop

    def forget(self) -> None:
        """While it is stopped: the next one is another store, which is empty."""
        shutil.rmtree(self.directory / "data")

    # ---- what is written

    def put(self, texts: Mapping[str, str]) -> int:
        """The answer is the revision."""
        items = list(texts.items())
        revision = 0
        for at in range(0, len(items), AT_ONCE):
            puts = [
                {"requestPut": {"key": _to64(key), "value": _to64(value)}}
                for key, value in items[at : at + AT_ONCE]
            ]
            revision = _revision(self.ask("kv/txn", {"success": puts}))
        return revision

    def delete(self, *keys: str) -> int:
        ways = [{"requestDeleteRange": {"key": _to64(key)}} for key in keys]
        return _revision(self.ask("kv/txn", {"success": ways}))

    def compact(self, revision: int) -> None:
        self.ask("kv/compaction", {"revision": revision, "physical": True})

    def revision(self) -> int:
        return _revision(self.ask("kv/range", {"key": _to64("none")}))

    def protect(self, user: str, password: str, prefix: str) -> None:
        """From now on only ``user`` reads below ``prefix``; we are root."""
        everything = {"key": _to64("\0"), "rangeEnd": _to64("\0"), "permType": "READWRITE"}
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        below = {"key": _to64(prefix), "rangeEnd": _to64(end), "permType": "READ"}
        for name, secret, permission in (("root", "root", everything), (user, password, below)):
            self.ask("auth/user/add", {"name": name, "password": secret})
            self.ask("auth/role/add", {"name": name})
            self.ask("auth/role/grant", {"name": name, "perm": permission})
            self.ask("auth/user/grant", {"user": name, "role": name})
        self.ask("auth/enable", {})
        said = self.ask("auth/authenticate", {"name": "root", "password": "root"})
        self.token = said["token"]

    def ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        headers = {"Authorization": self.token} if self.token else {}
        with self._inside():
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
                self._connection.connect()
        self._connection.request("POST", f"/v3/{path}", json.dumps(body), headers)
        answer = self._connection.getresponse()
        said: dict[str, Any] = json.loads(answer.read())
        assert answer.status == 200, said
        return said

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _is_there(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.directory / "etcd.log").read_text()[-2000:]
        if self._scheme == "https":
            return "ready to serve" in (self.directory / "etcd.log").read_text()
        try:
            self.revision()
        except (OSError, http.client.HTTPException):
            self._hang_up()
            return False
        except AssertionError:  # it wants a login: it is there
            return True
        return True

    def _inside(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self._namespace is None else self._namespace.entered()

    def _free_port(self) -> int:
        with self._inside(), socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port: int = found.getsockname()[1]
            return port


def _to64(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")


def _revision(said: Mapping[str, Any]) -> int:
    return int(said["header"]["revision"])
