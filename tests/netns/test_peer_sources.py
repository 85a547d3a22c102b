"""`pywg up --peers`: one list of peers for many gateways, in a folder, at a URL or in etcd.

    store (folder, web server, etcd)  -->  the follower of a tunnel  -->  its peers, by UAPI

The store is on this machine, and so is all traffic: on loopback, in the tunnel's namespace.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from pywg.keys import PresharedKey, PrivateKey
from tools.lab import programs
from tools.lab.etcd import Etcd
from tools.lab.host import Host
from tools.lab.lab import Lab
from tools.lab.namespaces import unique
from tools.lab.traffic import ping
from tools.lab.waiting import wait_until
from tools.lab.web import certify

pytestmark = pytest.mark.pywgd_only


def public(number: int) -> str:
    """A public key that is the same in every run."""
    return str(PrivateKey(number.to_bytes(32, "big")).public)


class Gateway:
    """A tunnel that follows a store, with one peer of its own."""

    own = public(1)

    def __init__(self, host: Host, source: str, more: str = "") -> None:
        self.host = host
        self.name = unique("g")
        self.key = PrivateKey.generate()
        self.file = host.config(
            self.name,
            f"[Interface]\nPrivateKey = {self.key.to_base64()}\nAddress = 10.9.0.1/16\n"
            f"#!pywg Peers = {source}\n{more}\n"
            f"[Peer]\nPublicKey = {self.own}\nAllowedIPs = 10.9.0.2/32\n",
        )

    def up(self) -> None:
        self.host.pywg("up", str(self.file))

    def down(self) -> None:
        self.host.pywg("down", self.name)

    def peers(self) -> dict[str, str]:
        """Public key -> allowed IPs, without its own."""
        lines = self.host.run("wg", "show", self.name, "allowed-ips").splitlines()
        found = dict(line.split("\t", 1) for line in lines)
        found.pop(self.own)
        return found

    def has(self, expected: dict[str, str]) -> None:
        wait_until(lambda: self.peers() == expected, f"{self.name} has {expected}", every=0.05)

    def told(self) -> dict[str, Any]:
        """What `show` tells of the store."""
        answer = json.loads(self.host.pywg("show", self.name, "--json"))
        found: dict[str, Any] = answer[self.name].get("peersFrom", {})
        return found

    def tells(self, key: str, word: str) -> None:
        wait_until(lambda: word in str(self.told().get(key, "")), f"{word} in {key}", every=0.1)


@contextlib.contextmanager
def paused(host: Host, name: str) -> Iterator[None]:
    """The follower of a tunnel does nothing meanwhile."""
    follower = json.loads(host.run("cat", f"/run/pywg/{name}.peers"))["pid"]
    os.kill(follower, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(follower, signal.SIGCONT)


def peer(number: int, networks: str) -> str:
    return f"[Peer]\nPublicKey = {public(number)}\nAllowedIPs = {networks}\n"


def test_a_folder_is_followed(host: Host, tmp_path: Path) -> None:
    folder = tmp_path / "peers"
    folder.mkdir()
    (folder / "a.conf").write_text(peer(2, "10.9.1.2/32"))
    gateway = Gateway(host, str(folder))
    gateway.up()
    gateway.has({public(2): "10.9.1.2/32"})
    (folder / "b.json").write_text(
        json.dumps({"publicKey": public(3), "allowedIPs": ["10.9.1.3/32"]})
    )
    gateway.has({public(2): "10.9.1.2/32", public(3): "10.9.1.3/32"})
    (folder / "a.conf").unlink()
    gateway.has({public(3): "10.9.1.3/32"})
    (folder / "c.conf").write_text(peer(4, "10.9.1.3/32, 10.9.1.4/32"))
    gateway.has({public(3): "10.9.1.3/32", public(4): "10.9.1.4/32"})
    gateway.tells("disputes", "1")
    gateway.down()


def test_an_upgrade_goes_on_following(host: Host, tmp_path: Path) -> None:
    folder = tmp_path / "peers"
    folder.mkdir()
    (folder / "a.conf").write_text(peer(2, "10.9.1.2/32"))
    (folder / "b.conf").write_text(peer(3, "10.9.1.3/32"))
    gateway = Gateway(host, str(folder))
    gateway.up()
    gateway.has({public(2): "10.9.1.2/32", public(3): "10.9.1.3/32"})
    with paused(host, gateway.name):
        (folder / "a.conf").unlink()  # which the old follower does not see
        host.pywg("upgrade", "--force", gateway.name)
        gateway.has({public(3): "10.9.1.3/32"})
    (folder / "c.conf").write_text(peer(4, "10.9.1.4/32"))
    gateway.has({public(3): "10.9.1.3/32", public(4): "10.9.1.4/32"})


def test_a_reload_keeps_the_peers_of_the_store(host: Host, tmp_path: Path) -> None:
    folder = tmp_path / "peers"
    folder.mkdir()
    (folder / "a.conf").write_text(peer(2, "10.9.1.2/32") + peer(3, "10.9.1.3/32"))
    gateway = Gateway(host, str(folder))
    gateway.up()
    both = {public(2): "10.9.1.2/32", public(3): "10.9.1.3/32"}
    gateway.has(both)
    text = gateway.file.read_text()
    host.pywg("save", gateway.name)
    saved = gateway.file.read_text()
    assert Gateway.own in saved
    assert public(2) not in saved
    gateway.file.write_text(text + peer(2, "10.9.2.0/24, 10.9.1.3/32") + peer(5, "10.9.5.0/24"))
    host.pywg("reload", gateway.name)
    own = {public(2): "10.9.2.0/24 10.9.1.3/32", public(5): "10.9.5.0/24"}
    gateway.has({**own, public(3): "(none)"})
    gateway.file.write_text(text)
    host.pywg("reload", gateway.name)
    gateway.has(both)
    gateway.file.write_text(text.replace(str(folder), "/elsewhere"))
    answer = host.attempt(sys.executable, "-m", "pywg", "reload", gateway.name)
    assert answer.returncode == 1
    assert "Peers changes only with `pywg down` and `pywg up`" in answer.stderr
    gateway.down()


# etcd, a real one.


@pytest.fixture
def etcd(host: Host, tmp_path: Path) -> Iterator[Etcd]:
    directory = tmp_path / "etcd"
    directory.mkdir()
    made = Etcd(directory, host.namespace)
    try:
        yield made
    finally:
        made.close()


def value(number: int, *networks: str, **more: object) -> str:
    return json.dumps({"publicKey": public(number), "allowedIPs": networks, **more})


def test_etcd_is_followed_through_an_outage_and_a_compaction(host: Host, etcd: Etcd) -> None:
    etcd.put({"/wg/peers/a": value(2, "10.9.1.2/32"), "/wg/other": "no peer"})
    gateway = Gateway(host, f"etcd://127.0.0.1:{etcd.port}/wg/peers")
    gateway.up()
    first = {public(2): "10.9.1.2/32"}
    gateway.has(first)
    revision = etcd.put({"/wg/peers/b": peer(3, "10.9.1.3/32")})
    both = {**first, public(3): "10.9.1.3/32"}
    gateway.has(both)
    gateway.tells("position", str(revision))

    etcd.stop()
    gateway.tells("error", "Connection refused")
    assert gateway.peers() == both
    etcd.start()
    etcd.delete("/wg/peers/a")
    gateway.has({public(3): "10.9.1.3/32"})
    wait_until(lambda: not gateway.told().get("error"), "the outage is over")

    # What happens while the gateway is away, and is forgotten by etcd before it is back.
    etcd.stop()
    gateway.tells("error", "Connection refused")
    with paused(host, gateway.name):
        etcd.start()
        etcd.put({"/wg/peers/c": value(4, "10.9.1.4/32"), "/wg/peers/d": value(5, "10.9.1.5/32")})
        etcd.delete("/wg/peers/b")
        etcd.compact(etcd.revision())
    gateway.has({public(4): "10.9.1.4/32", public(5): "10.9.1.5/32"})
    gateway.down()


def test_the_last_good_list_survives_a_restart_without_the_store(host: Host, etcd: Etcd) -> None:
    etcd.put({"/wg/peers/a": value(2, "10.9.1.2/32"), "/wg/peers/b": value(3, "10.9.1.3/32")})
    gateway = Gateway(host, f"etcd://127.0.0.1:{etcd.port}/wg/peers")
    gateway.up()
    gateway.has({public(2): "10.9.1.2/32", public(3): "10.9.1.3/32"})
    etcd.delete("/wg/peers/b")
    first = {public(2): "10.9.1.2/32"}
    gateway.has(first)
    gateway.down()
    cache = f"/var/lib/pywg/{gateway.name}.peers"
    assert host.run("stat", "-c", "%a %U", cache) == "600 root\n"
    etcd.stop()
    gateway.up()
    gateway.has(first)
    gateway.tells("isCached", "True")  # written down a moment after the peers are given

    # Another store in its place, an empty one: an accident, not an order.
    etcd.forget()
    etcd.start()
    gateway.tells("error", "empty all of a sudden")
    assert gateway.peers() == first
    etcd.put({"/wg/peers/z": value(7, "10.9.1.7/32")})
    gateway.has({**first, public(7): "10.9.1.7/32"})
    gateway.down()
    assert not Path(f"/run/pywg/{gateway.name}.peers").exists()


def test_a_password_is_read_from_a_file_and_told_anew_after_a_restart(
    host: Host, etcd: Etcd, tmp_path: Path
) -> None:
    etcd.put({"/wg/peers/a": value(2, "10.9.1.2/32")})
    etcd.protect("gateway", "s3cret", "/wg/peers/")
    login = tmp_path / "login"
    login.touch(0o600)
    login.write_text("gateway:wrong\n")
    gateway = Gateway(host, f"etcd://127.0.0.1:{etcd.port}/wg/peers login={login}")
    gateway.up()
    gateway.tells("error", "authentication failed")
    login.write_text("gateway:s3cret\n")
    gateway.has({public(2): "10.9.1.2/32"})
    etcd.stop()  # with all its tokens
    etcd.start()
    etcd.token = etcd.ask("auth/authenticate", {"name": "root", "password": "root"})["token"]
    etcd.put({"/wg/peers/b": value(3, "10.9.1.3/32")})
    gateway.has({public(2): "10.9.1.2/32", public(3): "10.9.1.3/32"})
    gateway.down()


def test_what_is_wrong_is_skipped_and_told_with_its_fix(
    host: Host, etcd: Etcd, tmp_path: Path
) -> None:
    secret, token_keys = tmp_path / "b.psk", tmp_path / "fernet"
    for file in (secret, token_keys):
        file.touch(0o600)
    shared = PresharedKey.generate().to_base64()
    secret.write_text(shared + "\n")
    key = Fernet.generate_key()
    token_keys.write_bytes(key + b"\n")
    token = Fernet(key).encrypt(shared.encode()).decode()
    etcd.put(
        {
            "/wg/peers/a": value(2, "10.9.1.2/32", presharedKey=shared),
            "/wg/peers/b": value(3, "10.9.1.3/32", presharedKeyFile="b.psk", name="bob"),
            "/wg/peers/c": value(4, "10.9.1.4/32", presharedKeyEncrypted=token),
            "/wg/peers/d": value(5, "10.9.1.5/32", presharedKeyFile="missing.psk"),
            "/wg/peers/e": value(6, "10.9.1.6/33"),
            "/wg/peers/f": value(7, "10.20.0.7/32"),
        }
    )
    gateway = Gateway(host, f"etcd://127.0.0.1:{etcd.port}/wg/peers fernet={token_keys}")
    gateway.up()
    good = {public(3): "10.9.1.3/32", public(4): "10.9.1.4/32", public(7): "10.20.0.7/32"}
    gateway.has(good)
    keys = host.run("wg", "show", gateway.name, "preshared-keys")
    assert f"{public(3)}\t{shared}" in keys
    assert f"{public(4)}\t{shared}" in keys
    gateway.tells("problems", "missing.psk: No such file")
    told = gateway.told()
    assert told["skipped"] == 3
    assert told["uncovered"] == 1
    problems = "\n".join(told["problems"])
    assert "a: a preshared key does not belong in a store" in problems
    assert 'e: allowedIPs: "10.9.1.6/33" is not an IP address' in problems
    for place in (f"/run/pywg/{gateway.name}.peers", f"/var/lib/pywg/{gateway.name}.peers"):
        assert shared not in host.run("cat", place)
    etcd.put({"/wg/peers/e": value(6, "10.9.1.6/32"), "/wg/peers/b": "{"})
    gateway.has({**good, public(6): "10.9.1.6/32"})  # b: what it said before stays
    gateway.down()


def test_etcd_by_tls_wants_and_shows_certificates(host: Host, tmp_path: Path) -> None:
    directory, cert, key = tmp_path / "etcd", tmp_path / "cert.pem", tmp_path / "key.pem"
    directory.mkdir()
    certify("localhost", "127.0.0.1", cert, key)
    files = ("--cert-file", cert, "--key-file", key, "--trusted-ca-file", cert)
    etcd = Etcd(directory, host.namespace, tls=(*map(str, files), "--client-cert-auth"))
    try:
        place = f"etcds://127.0.0.1:{etcd.port}/wg/peers"
        stranger = Gateway(host, place)
        gateway = Gateway(host, f"{place} ca={cert} cert={cert} key={key}")
        for one in (stranger, gateway):
            one.up()
        stranger.tells("error", "certificate is not to be trusted")
        wait_until(lambda: gateway.told().get("position"), "it is heard", every=0.1)
        assert gateway.peers() == {}
    finally:
        etcd.close()
    for one in (stranger, gateway):
        one.down()


# A URL.


class Site:
    """Answers with ``text`` and its ETag, or with what ``answer`` says; remembers who asked how."""

    def __init__(self, host: Host) -> None:
        self.text, self.code, self.to = "[]", 200, ""
        self.asked: list[tuple[str, str, int]] = []  # path, Authorization, what was answered
        site = self

        class Page(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        with host.namespace.entered():
            self._server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
            self._other = ThreadingHTTPServer(("127.0.0.1", 0), Page)
        self.port, self.other_port = self._server.server_port, self._other.server_port
        for server in (self._server, self._other):
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, page: BaseHTTPRequestHandler) -> None:
        text, code = self.text.encode(), self.code
        etag = f'"{hashlib.sha256(text).hexdigest()[:8]}"'
        if page.path == "/moved":
            code = 302
        elif page.headers.get("If-None-Match") == etag:
            code = 304
        self.asked.append((page.path, page.headers.get("Authorization", ""), code))
        page.send_response(code)
        if code == 302:
            page.send_header("Location", self.to)
        page.send_header("ETag", etag)
        page.send_header("Content-Length", str(len(text) if code == 200 else 0))
        page.end_headers()
        if code == 200:
            page.wfile.write(text)

    def close(self) -> None:
        for server in (self._server, self._other):
            server.shutdown()
            server.server_close()


@pytest.fixture
def site(host: Host) -> Iterator[Site]:
    made = Site(host)
    try:
        yield made
    finally:
        made.close()


def test_a_url_is_asked_again_and_an_unchanged_list_is_not_sent(
    host: Host, site: Site, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text("t0ken\n")
    site.text = f"[{value(2, '10.9.1.2/32')}, {value(3, '10.9.1.3/32')}]"
    gateway = Gateway(host, f"http://127.0.0.1:{site.port}/list interval=1 token={token}")
    gateway.up()
    gateway.has({public(2): "10.9.1.2/32", public(3): "10.9.1.3/32"})
    wait_until(lambda: site.asked[-1][2] == 304, "it is asked whether it is another one")
    assert {asked[1] for asked in site.asked} == {"Bearer t0ken"}
    site.text = peer(3, "10.9.1.3/32") + peer(4, "10.9.1.4/32")
    after = {public(3): "10.9.1.3/32", public(4): "10.9.1.4/32"}
    gateway.has(after)
    site.code, site.text = 500, "x"
    gateway.tells("error", "it answered 500")
    site.code, site.text = 200, ""
    gateway.tells("error", "its answer is empty")
    assert gateway.peers() == after
    site.text = "[]"  # in words: none
    gateway.has({})
    gateway.down()


def test_no_token_goes_to_where_a_redirect_leads(host: Host, site: Site, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text("t0ken\n")
    site.text = value(2, "10.9.1.2/32")
    site.to = f"http://127.0.0.1:{site.other_port}/there"
    gateway = Gateway(host, f"http://127.0.0.1:{site.port}/moved interval=1 token={token}")
    gateway.up()
    gateway.has({public(2): "10.9.1.2/32"})
    assert {asked[:2] for asked in site.asked} == {("/moved", "Bearer t0ken"), ("/there", "")}
    site.to = "/moved"
    gateway.tells("error", "redirect")
    site.to = "ftp://127.0.0.1/list"
    gateway.tells("error", "ftp, which is not followed")
    gateway.down()


# What stays as it is.


def test_sessions_of_other_peers_live_on(lab: Lab, tmp_path: Path) -> None:
    here, there = lab.cabled()
    key, name = lab.key(), lab.name("r")
    far = lab.side(None, 2, there)
    far.daemon.setconf(
        far.interface_section() + f"[Peer]\nPublicKey = {key.public}\nAllowedIPs = 10.99.0.0/24\n"
    )
    far.daemon.up("10.99.0.2/24")
    folder = tmp_path / "peers"
    folder.mkdir()
    (folder / "far.conf").write_text(far.peer_section(outer=4))
    file = tmp_path / f"{name}.conf"
    file.touch(0o600)
    file.write_text(f"[Interface]\nPrivateKey = {key.private}\nAddress = 10.99.0.1/24\n")
    answer = programs.pywg(here, "up", "--peers", str(folder), str(file))
    assert answer.returncode == 0, answer.stderr

    def shown(field: str) -> str:
        return here.run("wg", "show", name, field)

    wait_until(lambda: shown("peers"), "it has the peer")
    ping(here, "10.99.0.2", 1)
    handshakes = shown("latest-handshakes")
    for number in range(2, 12):
        (folder / f"{number}.conf").write_text(peer(number, f"10.98.0.{number}/32"))
    wait_until(lambda: len(shown("peers").split()) == 11, "all are there")
    (folder / "2.conf").write_text(peer(2, "10.99.0.2/32"))  # far.conf sorts behind 2.conf
    wait_until(lambda: "10.99.0.2/32" in shown("allowed-ips"), "one has changed")
    (folder / "2.conf").unlink()
    wait_until(lambda: len(shown("peers").split()) == 10, "one has gone")
    ping(here, "10.99.0.2", 1)
    assert handshakes.strip() in shown("latest-handshakes")
    assert programs.pywg(here, "down", name).returncode == 0


def test_the_follower_has_no_capability_and_ends_with_the_tunnel(
    host: Host, tmp_path: Path
) -> None:
    folder = tmp_path / "peers"
    folder.mkdir()
    gateway = Gateway(host, str(folder))
    gateway.up()
    wait_until(lambda: gateway.told().get("lastHeard"), "it has begun", every=0.1)
    pid = json.loads(host.run("cat", f"/run/pywg/{gateway.name}.peers"))["pid"]
    status = Path(f"/proc/{pid}/status").read_text()
    for kind in ("CapEff", "CapPrm", "CapInh", "CapBnd"):
        assert f"{kind}:\t0000000000000000\n" in status
    os.kill(pid, signal.SIGKILL)
    gateway.tells("error", "the process that follows it has ended")
    gateway.down()
    gateway.up()
    wait_until(lambda: not gateway.told().get("error"), "it has begun", every=0.1)
    pid = json.loads(host.run("cat", f"/run/pywg/{gateway.name}.peers"))["pid"]
    gateway.down()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "it has ended")


def test_what_cannot_be_followed_is_refused_at_once(host: Host, tmp_path: Path) -> None:
    gateway = Gateway(host, "etcds://127.0.0.1/p ca=/nowhere.pem")
    answer = host.attempt(sys.executable, "-m", "pywg", "up", str(gateway.file))
    assert answer.returncode == 1
    assert "/nowhere.pem: No such file" in answer.stderr
    words = ("up", "--peers", "ftp://x", str(gateway.file))
    answer = host.attempt(sys.executable, "-m", "pywg", *words)
    assert answer.returncode == 2
    assert "expected a folder from / on" in answer.stderr
    kernel = ("up", "--peers", str(tmp_path), "--backend", "kernel", str(gateway.file))
    answer = host.attempt(sys.executable, "-m", "pywg", *kernel)
    assert answer.returncode == 1
    assert "no process stays that could follow" in answer.stderr


def test_the_commands_of_the_page_work(host: Host, etcd: Etcd) -> None:
    page = (programs.REPOSITORY / "docs" / "peer-sources.md").read_text()
    first, second = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    to = {"ETCDCTL_API": "3", "ETCDCTL_ENDPOINTS": f"127.0.0.1:{etcd.port}"}
    gateway = Gateway(host, f"etcd://127.0.0.1:{etcd.port}/wireguard/peers")
    gateway.up()
    put, get, delete = first.splitlines()
    host.run("sh", "-c", put, **to)
    gateway.has({"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=": "10.9.1.2/32"})
    assert host.run("sh", "-c", get, **to).strip() == "/wireguard/peers/laptop"
    host.run("sh", "-c", delete, **to)
    gateway.has({})
    host.run("sh", "-ec", second, **to)
    gateway.down()


def test_a_short_run_of_many_gateways_ends_with_one_list_everywhere() -> None:
    words = ("--peers", "300", "--gateways", "2", "--seconds", "1")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tools.many_gateways", *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(programs.REPOSITORY)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("all 2 devices have exactly the list") == 3
    assert "| 1 | 100 |" in done.stdout


def test_an_up_that_fails_leaves_nobody_who_follows(host: Host, tmp_path: Path) -> None:
    folder = tmp_path / "peers"
    folder.mkdir()
    (folder / "a.conf").write_text(peer(2, "10.9.1.2/32"))
    gateway = Gateway(host, str(folder), "PostUp = false")
    answer = host.attempt(sys.executable, "-m", "pywg", "up", str(gateway.file))
    assert answer.returncode == 1
    ours = os.fsencode(gateway.file)

    def left() -> list[Path]:
        return [path for path in Path("/proc").glob("[0-9]*/cmdline") if ours in said(path)]

    wait_until(lambda: not left(), "all processes have ended")


def said(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
