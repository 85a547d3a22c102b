"""The kernel's WireGuard as a peer: that of a Debian kernel, in a virtual machine.

      namespace a                       virtual machine
    +--------------------------+      +-----------------------------+
    |  eight pywgd, one a case |      |  wg0 ... wg7 of its kernel  |
    |  10.99.N.1  fd99:N::1    |      |  10.99.N.2  fd99:N::2       |
    |  tap 192.0.2.1 ========================== eth0 192.0.2.2      |
    |      2001:db8::1         |      |         2001:db8::2         |
    +--------------------------+      +-----------------------------+

Kernel and busybox are Debian's packages, fetched and unpacked into the cache of scripts/peers. The
machine has no disk: an archive in memory with busybox, wg, the modules and one script.
"""

from __future__ import annotations

import contextlib
import io
import platform
import re
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

from tools.interop.matrix import REKEY_SECONDS, Case, cases, judged
from tools.lab.daemon import Daemon
from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace, add_address, run
from tools.lab.programs import CACHE, Missing
from tools.lab.traffic import payload, ping
from tools.lab.waiting import wait_until

PEER = "kernel"
FOLDER = CACHE.parent / "kernel"
PACKAGES = ("linux-image-cloud-amd64", "busybox-static")
MODULES = ("virtio_pci", "virtio_net", "wireguard")
FIRST_PORT = 51820
BOOT_SECONDS = 120
MEBIBYTE = 1 << 20


def run_cases(
    directory: Path, *, rekey: bool, tell: Callable[[str], None] = print
) -> tuple[dict[Case, str], str]:
    """What became of each case, and the version of the kernel."""
    results: dict[Case, str] = {}
    all_cases = cases([PEER])
    try:
        kernel, version = fetch()
    except (Missing, AssertionError, OSError) as error:
        results = dict.fromkeys(all_cases, f"skip: {str(error).splitlines()[0][:200]}")
        tell(f"{PEER}: {results[all_cases[0]]}")
        return results, PEER
    directory = directory / PEER
    directory.mkdir()
    lab = Lab(directory)
    try:
        machine = Machine(lab, all_cases, kernel, directory)
        for number, case in enumerate(all_cases):
            with judged(case, results, tell):
                machine.check(number)
        if rekey:
            machine.start_rekey()
            for number, case in enumerate(all_cases):
                if results[case] == "ok":
                    with judged(case, results, tell, "ok, rekey"):
                        machine.finish_rekey(number)
    except AssertionError as error:
        results = dict.fromkeys(all_cases, f"skip: {str(error).splitlines()[0][:200]}") | results
    finally:
        lab.close()
    return results, f"Linux {version} (Debian, in qemu)"


# ---- what it is made of


def fetch() -> tuple[Path, str]:
    """The folder with the unpacked packages, and the kernel's version."""
    if platform.machine() != "x86_64":
        raise Missing("the kernel's package here is for x86-64")
    for program in ("qemu-system-x86_64", "apt-get", "apt-cache", "dpkg-deb", "wg", "ldd"):
        if shutil.which(program) is None:
            raise Missing(f"no {program} (Debian: qemu-system-x86, wireguard-tools)")
    tree = FOLDER / "tree"
    if not tree.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        depends = run("apt-cache", "depends", PACKAGES[0])
        found = re.search(r"Depends: (linux-image-\S+)", depends)
        if found is None:
            raise Missing(f"{PACKAGES[0]} names no kernel")
        run("apt-get", "download", found[1], PACKAGES[1], cwd=FOLDER, timeout=300)
        unpacked = FOLDER / "unpacked"
        for package in FOLDER.glob("*.deb"):
            run("dpkg-deb", "-x", str(package), str(unpacked), timeout=120)
        unpacked.rename(tree)
    (kernel,) = tree.glob("boot/vmlinuz-*")
    return tree, kernel.name.removeprefix("vmlinuz-")


def modules(tree: Path, names: tuple[str, ...]) -> list[Path]:
    """Each after those it depends on; what is part of the kernel has no file."""
    files = {path.name.split(".")[0].replace("-", "_"): path for path in tree.rglob("*.ko")}
    found: dict[str, Path] = {}

    def add(name: str) -> None:
        if name in found or name not in files:
            return
        depends = re.search(rb"\0depends=([^\0]*)\0", files[name].read_bytes())
        for other in depends[1].decode().split(",") if depends else ():
            add(other.replace("-", "_"))
        found[name] = files[name]

    for name in names:
        add(name)
    return list(found.values())


def archive(files: dict[str, tuple[int, bytes]]) -> bytes:
    """A cpio archive as the kernel reads it (Documentation/driver-api/early-userspace)."""
    out = io.BytesIO()
    folders = {str(parent) for name in files for parent in Path(name).parents if str(parent) != "."}
    members = dict.fromkeys(sorted(folders), (stat.S_IFDIR | 493, b""))
    for name, (mode, data) in {**members, **files, "TRAILER!!!": (0, b"")}.items():
        fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        out.write(b"070701" + b"".join(b"%08x" % field for field in fields))
        out.write(name.encode() + b"\0")
        out.write(b"\0" * (-out.tell() % 4) + data)
        out.write(b"\0" * (-out.tell() % 4))
    return out.getvalue()


def program(path: str) -> dict[str, tuple[int, bytes]]:
    """With the libraries it is linked to."""
    libraries = re.findall(r"(/\S+) \(0x", run("ldd", path))
    return {
        name.lstrip("/"): (stat.S_IFREG | 0o755, Path(name).read_bytes())
        for name in (path, *libraries)
    }


SCRIPT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin
mkdir -p /proc /dev /sys; mount -t proc proc /proc; mount -t devtmpfs dev /dev
{insmods}
echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
ip link set lo up; ip address add 192.0.2.2/24 dev eth0; ip address add 2001:db8::2/64 dev eth0
ip link set eth0 up
{interfaces}
nc -ll -p 7 -e cat &
echo MACHINE READY
{begins}
while read -r line; do
  case $line in
    ping*) n=${{line#ping }}; ping -q -c 2 -W 6 10.99.$n.1 >/dev/null && echo "PINGED $n" ;;
    rekey) for n in 0 1 2 3 4 5 6 7; do
        (echo "REKEY $n: $(ping -q -c {seconds} 10.99.$n.1 | grep received)") & done ;;
    end) poweroff -f ;;
  esac
done
"""


class Machine:
    """The virtual machine and the eight pywgd beside it, all of the lab."""

    def __init__(self, lab: Lab, all_cases: list[Case], tree: Path, directory: Path) -> None:
        self.lab = lab
        self.namespace: Namespace = lab.namespace("a")
        self.namespace.ip("tuntap", "add", "tap", "mode", "tap")
        for address in ("192.0.2.1/24", "2001:db8::1/64"):
            add_address(self.namespace, "tap", address)
        self.namespace.ip("link", "set", "tap", "up")
        self.cases = all_cases
        self.keys = [(lab.key(), lab.key()) for _ in all_cases]
        self.psks = [lab.preshared_key() if case.psk else None for case in all_cases]
        self.daemons = [self._daemon(number) for number in range(len(all_cases))]
        self.first = [0] * len(all_cases)
        initramfs = directory / "initramfs"
        initramfs.touch(0o600)  # it holds keys
        initramfs.write_bytes(archive(self._files(tree)))
        self._boot(tree, initramfs, directory / "console")

    def _daemon(self, number: int) -> Daemon:
        case, (ours, theirs) = self.cases[number], self.keys[number]
        daemon = self.lab.daemon(None, self.namespace, log_level="error")
        endpoint = self._endpoint(case, 2, number) if case.beginner == "pywg" else None
        daemon.setconf(
            section((ours.private, theirs.public), number, 2, self.psks[number], endpoint)
        )
        daemon.up(f"10.99.{number}.1/24", f"fd99:{number}::1/64")
        return daemon

    @staticmethod
    def _endpoint(case: Case, host: int, number: int) -> str:
        address = f"192.0.2.{host}" if case.outer == 4 else f"[2001:db8::{host}]"
        return f"{address}:{FIRST_PORT + number}"

    def _files(self, tree: Path) -> dict[str, tuple[int, bytes]]:
        files = program(shutil.which("wg") or "")
        files["bin/busybox"] = (stat.S_IFREG | 0o755, (tree / "bin/busybox").read_bytes())
        insmods, interfaces, begins = [], [], []
        for path in modules(tree, MODULES):
            files[f"modules/{path.name}"] = (stat.S_IFREG | 0o644, path.read_bytes())
            insmods.append(f"insmod /modules/{path.name}")
        wg = (shutil.which("wg") or "").lstrip("/")
        for number, case in enumerate(self.cases):
            ours, theirs = self.keys[number]
            endpoint = self._endpoint(case, 1, number) if case.beginner == "peer" else None
            text = section((theirs.private, ours.public), number, 1, self.psks[number], endpoint)
            files[f"wg{number}.conf"] = (stat.S_IFREG | 0o600, text.encode())
            interfaces += [
                f"ip link add wg{number} type wireguard",
                f"/{wg} setconf wg{number} /wg{number}.conf",
                f"ip address add 10.99.{number}.2/24 dev wg{number}",
                f"ip address add fd99:{number}::2/64 dev wg{number}",
                f"ip link set wg{number} up",
            ]
            if case.beginner == "peer":
                begins.append(f"ping -q -c 1 -W 6 10.99.{number}.1 >/dev/null &")
        script = SCRIPT.format(
            insmods="\n".join(insmods),
            interfaces="\n".join(interfaces),
            begins="\n".join(begins),
            seconds=REKEY_SECONDS,
        )
        files["init"] = (stat.S_IFREG | 0o755, script.encode())
        return files

    def _boot(self, tree: Path, initramfs: Path, console: Path) -> None:
        (kernel,) = tree.glob("boot/vmlinuz-*")
        words = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "512"]
        words += ["-nographic", "-no-reboot", "-kernel", str(kernel), "-initrd", str(initramfs)]
        words += ["-append", "console=ttyS0 quiet panic=-1"]
        words += ["-netdev", "tap,id=net,ifname=tap,script=no,downscript=no"]
        words += ["-device", "virtio-net-pci,netdev=net,romfile="]
        self.console = console
        with console.open("wb") as out:
            self.process = self.namespace.popen(
                words, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT
            )
        self.lab.stack.callback(self.end)
        wait_until(self._is_ready, "the virtual machine is ready", BOOT_SECONDS, every=0.1)

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            last = self.said().strip().splitlines()[-1:] or ["it said nothing"]
            raise AssertionError(f"the virtual machine ended: {last[0]}")
        return "MACHINE READY" in self.said()

    def said(self) -> str:
        return self.console.read_text(errors="replace")

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.tell("end")
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    # ---- one case

    def check(self, number: int) -> None:
        daemon, inner = self.daemons[number], f"10.99.{number}.2"
        public = self.keys[number][1].public
        if self.cases[number].beginner == "peer":
            wait_until(
                lambda: handshake_seconds_of(daemon, public) > 0, "the kernel shook hands", 15
            )
        ping(self.namespace, inner, 2)
        ping(self.namespace, f"fd99:{number}::2", 2)
        self.tell(f"ping {number}")
        wait_until(lambda: f"PINGED {number}" in self.said(), "the kernel's echoes came back", 15)
        self._echo(inner)
        self.first[number] = handshake_seconds_of(daemon, public)

    def _echo(self, address: str) -> None:
        """A mebibyte there and back."""
        data = payload(MEBIBYTE, 7)
        with self.namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
            connection.settimeout(30)
            connection.connect((address, 7))
            received = bytearray()
            for at in range(0, len(data), 1 << 16):
                connection.sendall(data[at : at + (1 << 16)])
                while len(received) < at:
                    received += connection.recv(1 << 16)
            while len(received) < len(data):
                piece = connection.recv(1 << 16)
                assert piece, "the echo ended early"
                received += piece
            assert received == data, "what came back is not what was sent"

    def start_rekey(self) -> None:
        self.tell("rekey")

    def finish_rekey(self, number: int) -> None:
        found = wait_until(
            lambda: re.search(rf"REKEY {number}: (\d+) packets transmitted, (\d+)", self.said()),
            "the kernel's echoes over a rekey",
            REKEY_SECONDS + 60,
            every=0.2,
        )
        assert found is not None
        assert found[1] == found[2], f"{int(found[1]) - int(found[2])} of {found[1]} echoes lost"
        now = handshake_seconds_of(self.daemons[number], self.keys[number][1].public)
        assert now > self.first[number], "no rekey"


def handshake_seconds_of(daemon: Daemon, public: str) -> int:
    return int(daemon.peer(public)["handshake"])


def section(
    keys: tuple[str, str], number: int, other: int, psk: str | None, endpoint: str | None
) -> str:
    """A whole file. Keys: the private one of this side, the public one of the other."""
    lines = ["[Interface]", f"PrivateKey = {keys[0]}", f"ListenPort = {FIRST_PORT + number}"]
    lines += ["[Peer]", f"PublicKey = {keys[1]}"]
    lines += [f"AllowedIPs = 10.99.{number}.{other}/32, fd99:{number}::{other}/128"]
    if psk:
        lines.append(f"PresharedKey = {psk}")
    if endpoint:
        lines.append(f"Endpoint = {endpoint}")
    return "\n".join(lines) + "\n"
