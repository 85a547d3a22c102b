"""A host for `wg-quick` and `pywg`: a network namespace and a mount namespace, both of its own.

    +--------------------------------------+
    |  /etc/resolv.conf, /etc/hosts        |
    |  /run/pywg, /var/lib/pywg: empty     |
    |  /usr/local/sbin: only what a test   |        far end
    |  puts there                          |   +----------------+
    |  veth 192.0.2.1/24, 2001:db8::1/64 ======= 192.0.2.2 ...   |
    |  default routes to the far end       |   +----------------+
    +--------------------------------------+

`look` sees what a tunnel may change, so that two looks can be compared.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.lab import programs
from tools.lab.namespaces import Namespace, cable, run
from tools.lab.programs import REPOSITORY

RESOLV_CONF = "nameserver 192.0.2.53\n"
_MOUNTS = """
set -e
for place in /run/pywg /var/lib/pywg; do mkdir -p $place; mount -t tmpfs none $place; done
mount --bind "$1/resolv.conf" /etc/resolv.conf
mount --bind "$1/hosts" /etc/hosts
mount --bind "$1/bin" /usr/local/sbin
echo ready
exec sleep infinity
"""


# Unpacked packages over /usr and /etc, and a /run of its own. What is below stays as it is.
_PACKAGES = """
set -e
bin="$1/bin"; work="$1/over"; shift
usr=/usr; etc=/etc
for tree; do usr="$tree/usr:$usr"; [ ! -d "$tree/etc" ] || etc="$tree/etc:$etc"; done
mkdir "$work"; mount -t tmpfs none "$work"
mkdir "$work/etc" "$work/work" "$work/run"
mount --rbind /run "$work/run"
mount -t tmpfs none /run
for place in wireguard pywg netns; do
    mkdir /run/$place
    mount --rbind "$work/run/$place" /run/$place
done
mount -t overlay none -o "lowerdir=$usr" /usr
mount --bind "$bin" /usr/local/sbin
cp /etc/resolv.conf /etc/hosts "$work"
mount -t overlay none -o "lowerdir=$etc,upperdir=$work/etc,workdir=$work/work" /etc
rm -f /etc/resolv.conf /etc/hosts
cp "$work/resolv.conf" "$work/hosts" /etc
"""


class Host:
    """Alive until close()."""

    def __init__(self, namespace: Namespace, far: Namespace, directory: Path) -> None:
        self.namespace = namespace
        self.far = far
        self.directory = directory
        cable(
            (namespace, "veth", ["192.0.2.1/24", "2001:db8::1/64"]),
            (far, "veth", ["192.0.2.2/24", "2001:db8::2/64"]),
        )
        namespace.ip("route", "add", "default", "via", "192.0.2.2")
        namespace.ip("-6", "route", "add", "default", "via", "2001:db8::2")
        (directory / "bin").mkdir()
        (directory / "resolv.conf").write_text(RESOLV_CONF)
        (directory / "hosts").write_text("127.0.0.1 localhost\n")
        self._holder = namespace.popen(
            [
                "unshare",
                "--mount",
                "--propagation",
                "slave",
                "sh",
                "-c",
                _MOUNTS,
                "sh",
                str(directory),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()

    def program(self, name: str, script: str) -> None:
        """Puts a program where everybody finds it first."""
        path = self.directory / "bin" / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)

    def unpack(self, *packages: str) -> None:
        """Debian packages that only this host has; from now on, /etc is its own as a whole."""
        trees = [programs.CACHE.parent / "debian" / package for package in packages]
        for tree in trees:
            assert tree.is_dir(), f"{tree.name} is not unpacked: run scripts/peers"
        self.run("sh", "-c", _PACKAGES, "sh", str(self.directory), *map(str, trees))

    def config(self, name: str, text: str) -> Path:
        path = self.directory / f"{name}.conf"
        path.touch(0o600)
        path.write_bytes(text.encode())
        return path

    # Commands.

    def inside(self, *argv: str) -> list[str]:
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--wdns=/", "--", *argv]

    def attempt(self, *argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
        with self.namespace.entered():
            return subprocess.run(
                self.inside(*argv),
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
            )

    def run(self, *argv: str, **environment: str) -> str:
        answer = self.attempt(*argv, **environment)
        assert answer.returncode == 0, f"{argv}: {answer.stderr}"
        return answer.stdout

    def pywg(self, *arguments: str, **environment: str) -> str:
        return self.run(sys.executable, "-m", "pywg", *arguments, **environment)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """`pywg`, while we do something else; what it says is one text."""
        with self.namespace.entered():
            return subprocess.Popen(
                self.inside(sys.executable, "-m", "pywg", *arguments),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            )

    def wg_quick(self, *arguments: str) -> str:
        daemon = programs.subject().path
        return self.run(
            "wg-quick", *arguments, WG_QUICK_USERSPACE_IMPLEMENTATION=daemon, WG_SUDO="1"
        )

    # What can be seen.

    def read(self, path: str) -> str:
        return self.run("cat", path)

    def look(self, name: str) -> dict[str, Any]:
        """All that a tunnel of this name may change."""
        shown = {
            "addresses": self._json("address"),
            "mtu": {link["ifname"]: link["mtu"] for link in self._json("link")},
            "nft": self._nft(name),
            "resolv.conf": (self.directory / "resolv.conf").read_bytes(),
            "left": self.run("ls", "-A", "/run/pywg", "/var/lib/pywg").replace("lock\n", ""),
        }
        for family in ("-4", "-6"):
            shown[f"rules {family}"] = self._json(family, "rule")
            shown[f"routes {family}"] = self._json(family, "route", "show", "table", "all")
        return shown

    def _json(self, *arguments: str) -> Any:
        """What `ip` shows, without what the kernel makes up: numbers and link-local addresses."""
        text = run("ip", "-n", self.namespace.name, "-j", *arguments)
        return _without_accidents(json.loads(text or "[]"))

    def _nft(self, name: str) -> list[str]:
        """Tables by their names; a guard's own is the same for all."""
        text = self.namespace.run("nft", "list", "ruleset")
        text = "".join(line for line in text.splitlines(True) if "daddr fe80:" not in line)
        text = re.sub(rf"table (\w+) [a-z-]+-{name} ", r"table \1 NAME ", text)
        return sorted(re.split(r"\n(?=table )", text.strip()))

    def showconf(self, name: str) -> list[str]:
        return sorted(run("wg", "showconf", name).splitlines())

    def hosts_of(self, name: str) -> list[int]:
        """The processes that hold an interface of this name, by their command lines."""
        found, home = [], self._namespace_id()
        for place in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                words = (place / "cmdline").read_bytes().split(b"\0")
                same = str((place / "ns" / "net").readlink()) == home
                named = any(name.encode() in word for word in words)
                if place.name.isdigit() and same and named:
                    found.append(int(place.name))
        return found

    def _namespace_id(self) -> str:
        with self.namespace.entered():
            return str(Path("/proc/thread-self/ns/net").readlink())

    def kill_host(self, name: str) -> None:
        for pid in self.hosts_of(name):
            os.kill(pid, signal.SIGKILL)


_ACCIDENTS = {"ifindex", "link_index", "valid_life_time", "preferred_life_time", "pref", "txqlen"}


def _without_accidents(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_accidents(item) for item in value if not _is_accident(item)]
    if isinstance(value, dict):
        return {
            key: _without_accidents(item) for key, item in value.items() if key not in _ACCIDENTS
        }
    return value


def _is_accident(item: Any) -> bool:
    if not isinstance(item, dict):
        return False
    text = str(item.get("dst", "")) + str(item.get("local", ""))
    return text.startswith(("fe80:", "ff00:"))


@contextlib.contextmanager
def hosted(directory: Path) -> Iterator[Host]:
    with contextlib.ExitStack() as stack:
        near, far = Namespace("h"), Namespace("f")
        stack.callback(far.close)
        stack.callback(near.close)
        host = Host(near, far, directory)
        stack.callback(host.close)
        yield host
