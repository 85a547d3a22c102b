"""A control group whose processes may take so much memory together: of either version of cgroups,
made for one test, and removed after it."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from tools.lab.namespaces import unique
from tools.lab.waiting import wait_until

_V2 = Path("/sys/fs/cgroup")
_V1 = Path("/sys/fs/cgroup/memory")


class Unavailable(Exception):
    """Why this host lets us make none."""


class MemoryGroup:
    """`bytes_max` is the limit. Empty when it is left."""

    def __init__(self, bytes_max: int) -> None:
        self._is_v1 = (_V1 / "memory.limit_in_bytes").exists()
        top = _V1 if self._is_v1 else _V2
        if not self._is_v1:
            given = _V2 / "cgroup.subtree_control"
            if not given.exists() or "memory" not in given.read_text().split():
                raise Unavailable("no memory controller below /sys/fs/cgroup")
        self.path = top / unique("pywg")
        try:
            self.path.mkdir()
        except OSError as error:
            raise Unavailable(f"{top} takes no group: {error.strerror}") from None
        try:
            limit = "memory.limit_in_bytes" if self._is_v1 else "memory.max"
            (self.path / limit).write_text(str(bytes_max))
        except OSError as error:
            self.path.rmdir()
            raise Unavailable(f"{self.path} takes no limit: {error.strerror}") from None

    def __enter__(self) -> MemoryGroup:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        wait_until(lambda: not self._read("cgroup.procs"), f"{self.path} is empty")
        self.path.rmdir()

    @property
    def wrapper(self) -> list[str]:
        """Words before a command that is to be in the group: it keeps its pid."""
        return ["sh", "-c", f'echo $$ > {self.path}/cgroup.procs && exec "$@"', "sh"]

    def _read(self, file: str) -> str:
        return (self.path / file).read_text().strip()

    @property
    def bytes_used(self) -> int:
        return int(self._read("memory.usage_in_bytes" if self._is_v1 else "memory.current"))

    @property
    def bytes_most(self) -> int | None:
        """The most there was; None where the kernel does not say."""
        file = "memory.max_usage_in_bytes" if self._is_v1 else "memory.peak"
        return int(self._read(file)) if (self.path / file).exists() else None

    @property
    def refusals(self) -> int:
        """How often the limit was met."""
        if self._is_v1:
            return int(self._read("memory.failcnt"))
        return self._events()["max"]

    @property
    def kills(self) -> int:
        """Processes that were killed for want of memory."""
        if self._is_v1:
            return self._pairs("memory.oom_control").get("oom_kill", 0)
        return self._events()["oom_kill"]

    def _events(self) -> dict[str, int]:
        return self._pairs("memory.events")

    def _pairs(self, file: str) -> dict[str, int]:
        pairs = (line.split() for line in self._read(file).splitlines())
        return {name: int(value) for name, value in pairs}


def resident(pid: int, *, most: bool = False) -> int:
    """Bytes of memory that the process has, or the most that it ever had."""
    name = "VmHWM" if most else "VmRSS"
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    raise AssertionError(f"no {name} of process {pid}, user {os.getuid()}")
