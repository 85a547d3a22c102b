"""Settings and counters of the kernel, read from /proc; those of the network, of the namespace that
this thread is in. None or empty is what it does not say."""

from __future__ import annotations

from pathlib import Path

PROC = Path("/proc")


def number(name: str) -> int | None:
    """Such as ``net.core.rmem_max``. What stands for an interface in it may have dots: it is
    written with slashes instead of them."""
    text = read(f"sys/{name if '/' in name else name.replace('.', '/')}").strip()
    return int(text) if text.lstrip("-").isdigit() else None


def read(path: str) -> str:
    """A file below /proc."""
    try:
        return (PROC / path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def capabilities() -> int:
    """Those in effect for this thread, as bits."""
    for line in read("thread-self/status").splitlines():
        key, _, value = line.partition(":")
        if key == "CapEff":
            return int(value, 16)
    return 0


def has_misc_device(name: str) -> bool:
    """Whether a driver of this name is there, loaded or built in."""
    return any(line.split()[1:] == [name] for line in read("misc").splitlines())
