"""The command line: exit codes, one-line errors, and what each command prints. No root, no core."""

from __future__ import annotations

import errno
import importlib
import ipaddress
import json
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pywg import cli
from pywg.cli import names, show
from pywg.errors import NetworkError, PywgError, UapiError
from pywg.host import network
from pywg.keys import PrivateKey
from pywg.native import library
from pywg.plan import steps
from pywg.service.supervisor import Hosting
from pywg.tunnel import record
from pywg.wireguard import socket as uapi_socket
from pywg.wireguard import uapi
from pywg.wireguard.condition import WORDS
from pywg.wireguard.status import InterfaceStatus, Report
from tests.unit.conftest import Run

UP, DOWN = map(importlib.import_module, ("pywg.tunnel.up", "pywg.tunnel.down"))

PRIVATE = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
PUBLIC = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw="
PEER = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
CONFIG = f"[Interface]\nPrivateKey={PRIVATE}\nAddress=10.0.0.1/24\n[Peer]\nPublicKey={PEER}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "wg0.conf"
    path.write_text(CONFIG)
    path.chmod(0o600)
    return path


# ---- the frame


def test_help_and_version(run: Run) -> None:
    code, out, _ = run("--version")
    assert code == 0
    assert re.match(r"pywg \d\S*\n", out)
    for arguments in ((), ("--help",), ("-h",)):
        code, out, _ = run(*arguments)
        assert code == 0
        for name in cli.COMMANDS:
            assert f"  {name}" in out


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_has_help(run: Run, name: str) -> None:
    code, out, err = run(name, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: pywg {name}")


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("up",),
        ("up", "wg0", "wg1"),
        ("show", "--nonsense"),
        ("demo", "--tier", "cloud"),
        ("demo", "--seconds", "0"),
        ("run", "--no-offload", "banana", "wg0"),
        ("run", "--threads", "0", "wg0"),
        ("run", "--priority", "high", "wg0"),
        ("run", "--memory-limit", "0", "wg0"),
    ],
)
def test_wrong_usage_is_2_and_one_line(run: Run, arguments: tuple[str, ...]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"pywg: .+\n", err)


def test_errors_and_interrupts_are_1_and_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (PywgError("no\nway"), KeyboardInterrupt(), OSError(5, "x", "file")):

        def fail(error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(uapi_socket, "interfaces", fail)
        code, out, err = run("show")
        assert (code, out) == (1, "")
        # click ends the line on which the terminal showed ^C
        assert re.fullmatch(r"\n?pywg: .+\n", err)


def test_python_m_pywg_works_and_does_not_import_what_it_does_not_need() -> None:
    code = (
        "import sys; from pywg.cli import main; main(['--version']);"
        "print([m for m in ('pyroute2', 'cryptography', 'asyncio') if m in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert output.stdout.splitlines()[-1] == "[]"


# ---- keys


def test_genkey_and_pubkey(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = run("genkey")
    assert code == 0
    key = PrivateKey.from_base64(out.removesuffix("\n"))
    assert pubkey(out) == (0, f"{key.public}\n", "")
    assert pubkey(PRIVATE) == (0, f"{PUBLIC}\n", "")
    assert run("genpsk")[1] != run("genpsk")[1]


def pubkey(text: str) -> tuple[int, str, str]:
    result = subprocess.run(
        [sys.executable, "-m", "pywg", "pubkey"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    return result.returncode, result.stdout, result.stderr


@pytest.mark.parametrize("text", ["", PRIVATE[:-1], PRIVATE[:-2] + "l=", "x" * 44])
def test_pubkey_is_strict_and_does_not_repeat_its_input(text: str) -> None:
    code, out, err = pubkey(text)
    assert (code, out) == (1, "")
    assert err.startswith("pywg: stdin: not a private key")
    assert PRIVATE[:8] not in err


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o600, False)])
def test_genkey_warns_about_a_world_accessible_file(
    tmp_path: Path, mode: int, warned: bool
) -> None:
    path = tmp_path / "key"
    with open(path, "w") as out:
        os.fchmod(out.fileno(), mode)
        result = subprocess.run(
            [sys.executable, "-m", "pywg", "genkey"],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
        )
    assert ("world accessible" in result.stderr) is warned
    assert len(path.read_text()) == 45


# ---- names


@pytest.mark.parametrize(
    ("argument", "name", "path"),
    [
        ("wg0", "wg0", "/etc/wireguard/wg0.conf"),
        ("a_=+.-9", "a_=+.-9", "/etc/wireguard/a_=+.-9.conf"),
        ("wg0.conf", "wg0", "wg0.conf"),
        ("./x/wg1.conf", "wg1", "x/wg1.conf"),
        ("/x/fifteen-chars-x.conf", "fifteen-chars-x", "/x/fifteen-chars-x.conf"),
    ],
)
def test_names_and_files(argument: str, name: str, path: str) -> None:
    assert names.config_file(argument) == (name, Path(path))


@pytest.mark.parametrize(
    "argument", ["", "sixteen-chars-xx", "wg 0", "wg\n", "..", "./wg0", "/x/w*.conf", "é"]
)
def test_bad_names_are_refused(argument: str) -> None:
    with pytest.raises(PywgError):
        names.config_file(argument)


# ---- up


class Tunnel:
    """What `up` touches, replaced: the supervisor and the kernel."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        self.done: list[str] = []
        self.hosting: Hosting | None = None
        self.text = ""
        self.fail_at: str | None = None
        self.kind = "tun"
        tunnel = self

        class FakeSupervisor:
            def __init__(
                self,
                keep_fds: tuple[Any, ...] = (),
                renewed: Callable[..., Any] | None = None,
                companion: Callable[..., Any] | None = None,
                listener: Callable[..., Any] | None = None,
                follower: Callable[..., Any] | None = None,
            ) -> None:
                pass

            def start(self, hosting: Hosting) -> None:
                tunnel.hosting = hosting
                tunnel.perform("start")

            def close(self) -> None:
                tunnel.done.append("closed")

            def __enter__(self) -> object:
                return self

            def __exit__(self, *ignored: object) -> None:
                pass

        class FakeNetwork:
            def __enter__(self) -> object:
                return self

            def __exit__(self, *ignored: object) -> None:
                pass

            def kind(self, name: str) -> str:
                return tunnel.kind

            def path_mtus(self, hosts: list[Any], mark: None) -> tuple[Any, ...]:
                return ()

            def default_route_mtu(self, mark: None) -> int:
                return 1500

            def add_address(self, name: str, address: ipaddress.IPv4Interface) -> None:
                tunnel.perform(str(steps.AddAddress(name, address)))

            def delete_address(self, name: str, address: ipaddress.IPv4Interface) -> None:
                tunnel.perform(str(steps.DeleteAddress(name, address)))

            def link_up(self, name: str, mtu: int) -> None:
                tunnel.perform(str(steps.LinkUp(name, mtu)))

            def delete_link(self, name: str) -> None:
                tunnel.perform(str(steps.DeleteInterface(name)))

        monkeypatch.setattr(UP, "Supervisor", FakeSupervisor)
        monkeypatch.setattr(network, "Network", FakeNetwork)
        monkeypatch.setattr(network, "exists", lambda name: False)
        monkeypatch.setattr(uapi_socket, "is_alive", lambda name: False)
        monkeypatch.setattr(uapi_socket, "request", self.request)
        monkeypatch.setattr(record, "DIRECTORY", directory)

    def request(self, name: str, text: str, timeout_s: float = 0.0) -> str:
        self.text = text
        return ""

    def perform(self, what: str) -> None:
        if what == self.fail_at:
            raise NetworkError("the kernel said no")
        self.done.append(what)


@pytest.fixture
def tunnel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Tunnel:
    return Tunnel(monkeypatch, tmp_path / "run")


def test_up_starts_configures_and_traces(run: Run, tunnel: Tunnel, file: Path) -> None:
    code, out, err = run(
        *("up", str(file), "--no-offload", "udp_gso"),
        *("--threads", "3", "--priority", "realtime", "--memory-limit", "12"),
    )
    assert (code, out) == (0, "")
    assert tunnel.done == [
        "start",
        "ip -4 address add 10.0.0.1/24 dev wg0",
        "ip link set mtu 1420 up dev wg0",
    ]
    assert err.splitlines() == [
        "[#] pywg run wg0",
        "[#] wg addconf wg0 /dev/stdin",
        *(f"[#] {line}" for line in tunnel.done[1:]),
    ]
    assert tunnel.hosting is not None
    assert tunnel.hosting.name == "wg0"
    assert tunnel.hosting.tuning.offload_disable == 4
    assert tunnel.hosting.tuning.threads == 3
    assert tunnel.hosting.tuning.realtime
    assert tunnel.hosting.tuning.memory_limit == 12 << 20
    assert tunnel.text.startswith("set=1\nprivate_key=")
    (written,) = record.DIRECTORY.iterdir()
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert "key" not in written.read_text()


@pytest.mark.parametrize(("options", "limit"), [((), 16), (("--memory-limit", "12"), 12)])
def test_the_memory_limit_of_a_file_yields_to_the_option(
    run: Run, tunnel: Tunnel, file: Path, options: tuple[str, ...], limit: int
) -> None:
    file.write_text(file.read_text().replace("[Interface]", "[Interface]\n#!pywg MemoryLimit = 16"))
    assert run("up", str(file), *options)[0] == 0
    assert tunnel.hosting is not None
    assert tunnel.hosting.tuning.memory_limit == limit << 20


def test_up_undoes_everything_when_a_step_fails(run: Run, tunnel: Tunnel, file: Path) -> None:
    tunnel.fail_at = "ip link set mtu 1420 up dev wg0"
    code, _, err = run("up", str(file))
    assert code == 1
    assert err.splitlines()[-1] == f"pywg: {tunnel.fail_at}: the kernel said no"
    assert tunnel.done[-3:] == [
        "ip -4 address delete 10.0.0.1/24 dev wg0",
        "closed",
        "ip link delete dev wg0",
    ]
    assert list(record.DIRECTORY.iterdir()) == []


def test_up_does_nothing_when_the_device_does_not_start(
    run: Run, tunnel: Tunnel, file: Path
) -> None:
    tunnel.fail_at = "start"
    assert run("up", str(file))[0] == 1
    assert tunnel.done == []


def test_up_refuses_an_interface_that_exists(
    run: Run,
    tunnel: Tunnel,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(network, "exists", lambda name: name == "wg0")
    code, _, err = run("up", str(file))
    assert code == 1
    assert err.startswith("pywg: wg0 already exists")
    assert tunnel.done == []


def test_up_refuses_a_port_that_is_taken(run: Run, tunnel: Tunnel, file: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        file.write_text(CONFIG.replace("Address", f"ListenPort={port}\nAddress"))
        code, _, err = run("up", str(file))
        assert code == 1
        assert err.startswith(f"pywg: wg0: ListenPort {port} is taken")
        assert tunnel.done == []
    assert run("up", str(file))[0] == 0


def test_up_tells_a_mistake_with_its_place(run: Run, tunnel: Tunnel, file: Path) -> None:
    file.write_text(CONFIG + "AlowedIPs = 10.0.0.0/8\n")
    code, _, err = run("up", str(file))
    assert code == 1
    assert err == (
        f'pywg: {file}:6:1: unknown key "AlowedIPs" in [Peer]; did you mean "AllowedIPs"?\n'
        "  AlowedIPs = **********\n"
        "  ^\n"
    )


def test_up_names_a_missing_file(run: Run, tunnel: Tunnel) -> None:
    code, _, err = run("up", "no-such-tunnel")
    assert code == 1
    assert err.startswith("pywg: /etc/wireguard/no-such-tunnel.conf: ")


def test_up_warns_about_a_world_accessible_file(run: Run, tunnel: Tunnel, file: Path) -> None:
    file.parent.chmod(0o755)
    file.chmod(0o644)
    assert f"Warning: `{file}' is world accessible" in run("up", str(file))[2]
    file.parent.chmod(0o700)
    assert "world accessible" not in run("up", str(file))[2]
    file.parent.chmod(0o755)
    file.chmod(0o600)
    assert "world accessible" not in run("up", str(file))[2]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


# ---- down


def test_down_refuses_what_is_no_tunnel(
    run: Run, tunnel: Tunnel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uapi_socket, "is_alive", lambda name: False)
    code, _, err = run("down", "eth0")
    assert code == 1
    assert err.startswith("pywg: eth0 is not a WireGuard interface")


def test_down_deletes_the_link_and_waits(
    run: Run,
    tunnel: Tunnel,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(uapi_socket, "SOCKET_DIRECTORY", tmp_path)
    monkeypatch.setattr(uapi_socket, "is_alive", lambda name: True)
    monkeypatch.setattr(network, "exists", lambda name: not tunnel.done)
    code, _, err = run("down", "/etc/wireguard/wg0.conf")
    assert (code, err) == (0, "[#] ip link delete dev wg0\n")
    assert tunnel.done == ["ip link delete dev wg0"]


def test_down_says_when_the_process_stays(
    run: Run,
    tunnel: Tunnel,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "wg0.sock").touch()
    monkeypatch.setattr(uapi_socket, "SOCKET_DIRECTORY", tmp_path)
    monkeypatch.setattr(uapi_socket, "is_alive", lambda name: True)
    monkeypatch.setattr(network, "exists", lambda name: not tunnel.done)
    monkeypatch.setattr(DOWN.down, "__kwdefaults__", {"reporter": None, "timeout_s": 0.0})
    code, _, err = run("down", "wg0")
    assert code == 1
    assert "still holds" in err


# ---- show


STATUS = uapi.parse_get(
    f"private_key={PrivateKey.from_base64(PRIVATE).to_hex()}\nlisten_port=51820\nfwmark=51820\n"
    f"public_key={'00' * 31}01\nprotocol_version=1\nallowed_ip=10.0.0.2/32\nallowed_ip=fd00::/8\n"
    f"public_key={'00' * 31}02\npreshared_key={'01' * 32}\nendpoint=[2001:db8::1]:5\n"
    "last_handshake_time_sec=1000\nlast_handshake_time_nsec=0\n"
    "rx_bytes=1436549\ntx_bytes=12\npersistent_keepalive_interval=25\n"
)
REPORT = uapi.parse_report(
    "offload_tun_tso=active\ndropped_no_peer=3\ndropped_malformed=0\ncipher=v3\n"
)


def b64(last: int) -> str:
    return "A" * 42 + {1: "E=", 2: "I="}[last]


def test_show_prints_what_wg_prints() -> None:
    text = show.Pretty(color=False, now_s=1000 + 86400 + 63).interface("wg0", STATUS)
    assert text == (
        "interface: wg0\n"
        f"  public key: {PUBLIC}\n"
        "  private key: (hidden)\n"
        "  listening port: 51820\n"
        "  fwmark: 0xca6c\n"
        "\n"
        f"peer: {b64(2)}\n"
        "  preshared key: (hidden)\n"
        "  endpoint: [2001:db8::1]:5\n"
        "  allowed ips: (none)\n"
        "  latest handshake: 1 day, 1 minute, 3 seconds ago\n"
        "  transfer: 1.37 MiB received, 12 B sent\n"
        "  persistent keepalive: every 25 seconds\n"
        "\n"
        f"peer: {b64(1)}\n"
        "  allowed ips: 10.0.0.2/32, fd00::/8"
    )


def test_show_says_what_people_call_a_peer() -> None:
    names = {STATUS.peers[1].public_key: "phone"}
    text = show.Pretty(color=False, now_s=1000).interface("wg0", STATUS, names=names)
    assert f"peer: {b64(2)}\n  name: phone\n  preshared key" in text
    assert text.count("name:") == 1
    peers = show.to_json(STATUS, names=names)["peers"]
    assert [peer.get("name") for peer in peers.values()] == [None, "phone"]


def test_show_has_wgs_colors() -> None:
    text = show.Pretty(color=True, now_s=1000).interface("wg0", STATUS)
    assert text.removeprefix("\033[0m").startswith(
        "\033[32m\033[1minterface\033[0m: \033[32mwg0\033[0m\n  \033[1mpublic key"
    )
    assert "latest handshake\033[0m: Now" in text
    assert "10.0.0.2\033[36m/\033[0m32" in text


def test_show_tells_of_a_clock_set_back() -> None:
    text = show.Pretty(color=False, now_s=999).interface("wg0", STATUS)
    assert "(System clock wound backward; connection problems may ensue.)" in text


def test_show_shows_keys_only_when_asked() -> None:
    assert PRIVATE in show.Pretty(color=False, hide_keys=False).interface("wg0", STATUS)


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> None:
    def report(name: str) -> Report:
        if name == "go0":
            raise UapiError("go0: the device answered: Invalid argument", 22)
        return REPORT

    monkeypatch.setattr(uapi_socket, "interfaces", lambda: ["go0", "wg0"])
    monkeypatch.setattr(uapi_socket, "get", lambda name: STATUS)
    monkeypatch.setattr(uapi_socket, "report", report)


def test_show_interfaces_is_one_line(run: Run, running: None) -> None:
    assert run("show", "interfaces") == (0, "go0 wg0\n", "")
    assert run("show", "interfaces", "--json") == (0, '["go0", "wg0"]\n', "")


def test_show_all_and_one(run: Run, running: None) -> None:
    assert run("show")[1].count("interface: ") == 2
    assert run("show", "all")[1] == run("show")[1]
    assert run("show", "wg0")[1].startswith("interface: wg0\n")


def test_show_without_interfaces_prints_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uapi_socket, "interfaces", list)
    assert run("show") == (0, "", "")


def test_show_json_has_wg_jsons_names_and_no_secrets(run: Run, running: None) -> None:
    code, out, _ = run("show", "wg0", "--json", "--offload")
    assert code == 0
    assert PRIVATE not in out
    shown = json.loads(out)["wg0"]
    assert shown["publicKey"] == PUBLIC
    assert shown["offload"] == {"tun_tso": "active"}
    assert shown["dropped"] == {"no_peer": 3, "malformed": 0}
    assert shown["peers"][b64(2)] == {
        "endpoint": "[2001:db8::1]:5",
        "latestHandshake": 1000,
        "transferRx": 1436549,
        "transferTx": 12,
        "persistentKeepalive": 25,
        "allowedIps": [],
        "status": {"word": "idle", "text": WORDS["idle"]},
    }


def test_show_offload_prints_states_and_drops(run: Run, running: None) -> None:
    out = run("show", "wg0", "--offload")[1]
    assert "  offload tun tso: active\n" in out
    assert "  cipher: v3\n" in out
    assert "  dropped no peer: 3\n" in out
    assert "malformed" not in out


def test_show_offload_of_another_implementation(run: Run, running: None) -> None:
    assert run("show", "--offload")[0] == 0
    code, _, err = run("show", "go0", "--offload")
    assert code == 1
    assert "Invalid argument" in err


# ---- run


def test_run_checks_the_name_and_the_descriptors(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("run", "a/b")[0] == 1
    monkeypatch.setenv("WG_TUN_FD", "banana")
    code, _, err = run("run", "-f", "wg0")
    assert code == 1
    assert err == "pywg: WG_TUN_FD does not name an open file descriptor\n"


def test_run_passes_the_core_error_through_the_background_process(tmp_path: Path) -> None:
    environment = {**os.environ, "PYWG_CORE": str(tmp_path / "none.so")}
    for arguments in (["wg0"], ["-f", "wg0"]):
        result = subprocess.run(
            [sys.executable, "-m", "pywg", "run", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            cwd=Path(__file__).parents[2],
        )
        assert result.returncode == 1
        assert re.fullmatch(r"pywg: the compiled core is missing: .+\n", result.stderr)


# ---- what callers do to us


def python_m_pywg(shell: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The words after `pywg`, with redirections."""
    return subprocess.run(
        ["sh", "-c", f'exec "$0" -m pywg {shell}', sys.executable],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        cwd=Path(__file__).parents[2],
    )


def test_closed_streams_are_no_traceback(tmp_path: Path) -> None:
    result = python_m_pywg("pubkey <&-")
    assert result.returncode == 1
    assert re.fullmatch("pywg: stdin: not a private key: .+\n", result.stderr)
    result = python_m_pywg("genkey >&-")
    assert result.returncode == 1, "a key that went nowhere"
    assert re.fullmatch("pywg: .+\n", result.stderr)


def test_a_warning_without_stderr_does_not_end_in_the_key_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch()
    path.chmod(0o666)
    assert python_m_pywg(f"genkey 2>&- >'{path}'").returncode == 0
    assert len(path.read_text()) == 45


def test_up_goes_on_when_nobody_reads_its_trace(
    run: Run,
    tunnel: Tunnel,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Gone:
        def write(self, text: str) -> None:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

    file.parent.chmod(0o700)
    monkeypatch.setattr(sys, "stderr", Gone())
    assert cli.main(["up", str(file)]) == 0
    assert tunnel.done[-1] == "ip link set mtu 1420 up dev wg0"
    tunnel.fail_at = "start"
    assert cli.main(["up", str(file)]) == 1


def test_up_sends_the_process_away_before_it_looks_for_its_interface(
    run: Run, tunnel: Tunnel, file: Path
) -> None:
    tunnel.fail_at = "ip -4 address add 10.0.0.1/24 dev wg0"
    assert run("up", str(file))[0] == 1
    assert tunnel.done == ["start", "closed", "ip link delete dev wg0"]


def test_down_spares_a_namesake_that_is_no_tun(
    run: Run, tunnel: Tunnel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uapi_socket, "is_alive", lambda name: True)
    monkeypatch.setattr(network, "exists", lambda name: True)
    tunnel.kind = "veth"
    code, _, err = run("down", "wg0")
    assert code == 1
    assert err.startswith("pywg: wg0 is no TUN device")
    assert tunnel.done == []


@pytest.mark.parametrize("name", ["../wg0", "sixteen-chars-xx", ""])
def test_show_checks_the_name(run: Run, name: str) -> None:
    code, _, err = run("show", name)
    assert code == 1
    assert "cannot name an interface" in err


def test_show_all_passes_by_one_that_does_not_answer(
    run: Run, running: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get(name: str) -> InterfaceStatus:
        if name == "go0":
            raise UapiError("go0: no answer", 110)
        return STATUS

    monkeypatch.setattr(uapi_socket, "get", get)
    code, out, err = run("show")
    assert (code, err) == (1, "pywg: go0: no answer\n")
    assert out.startswith("interface: wg0\n")
    code, out, _ = run("show", "--json")
    assert code == 1
    assert list(json.loads(out)) == ["wg0"]


def test_a_relative_core_is_that_of_this_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYWG_CORE", "libpywg.so")
    assert library.candidates() == [Path.cwd() / "libpywg.so"]


def test_ipv6_that_is_disabled_is_not_answered_with_sudo() -> None:
    with pytest.raises(NetworkError, match="IPv6 may be disabled"), network._wrapped("x"):
        raise OSError(errno.EACCES, "x")


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_after_the_end_does_not_change_the_exit_code(number: str) -> None:
    code = (
        "import atexit, signal, sys; from pywg import cli;"
        "atexit.register(signal.raise_signal, signal.Signals[sys.argv.pop()]); cli.run_main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "--version", number],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_up_is_undone_by_the_socket_when_netlink_no_longer_answers(
    run: Run,
    tunnel: Tunnel,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def interrupted(kernel: object, name: str, address: ipaddress.IPv4Interface) -> None:
        (tmp_path / "wg0.sock").touch()
        monkeypatch.setattr(network, "exists", lambda name: True)
        raise KeyboardInterrupt

    def broken(kernel: object, name: str) -> None:
        raise RuntimeError("the event loop is already running")

    monkeypatch.setattr(uapi_socket, "SOCKET_DIRECTORY", tmp_path)
    monkeypatch.setattr(network.Network, "add_address", interrupted)
    monkeypatch.setattr(network.Network, "delete_link", broken)
    assert run("up", str(file))[0] == 1
    assert not (tmp_path / "wg0.sock").exists()
