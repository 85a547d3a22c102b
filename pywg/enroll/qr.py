"""A client's file as a QR code, as the apps of WireGuard read it. Needs segno, an extra."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pywg.errors import PywgError

Kind = Literal["terminal", "png", "svg"]


class Target(NamedTuple):
    """``path``: None for the terminal."""

    kind: Kind
    path: Path | None = None


def target(word: str) -> Target:
    """``terminal``, ``png:FILE`` or ``svg:FILE``. Raises PywgError."""
    if word == "terminal":
        return Target("terminal")
    kind, _, name = word.partition(":")
    if kind == "png" and name:
        return Target("png", Path(name))
    if kind == "svg" and name:
        return Target("svg", Path(name))
    raise PywgError("qr: expected terminal, png:FILE or svg:FILE")


def require() -> None:
    """Raises PywgError where segno is missing; asked before anything is done."""
    if importlib.util.find_spec("segno") is None:
        raise PywgError('QR codes need segno: pip install "pywg-tunnel[qr]"')


def content(text: str) -> str:
    """Without comments and empty lines, of which the apps know nothing: fewer dots are easier to
    read."""
    lines = (line.strip() for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines if line and not line.startswith("#"))


def terminal(text: str, *, color: bool) -> str:
    """Two rows of dots in a line of half blocks. With ``color`` the dark ones are dark on a light
    terminal, too."""
    out = io.StringIO()
    _made(text).terminal(out, compact=True)
    lines = out.getvalue().splitlines()
    return "".join(f"\033[40;97m{line}\033[0m\n" if color else f"{line}\n" for line in lines)


def image(text: str, kind: Kind) -> bytes:
    """A PNG or SVG."""
    out = io.BytesIO()
    _made(text).save(out, kind=kind, scale=8)
    return out.getvalue()


def _made(text: str) -> Any:
    import segno

    return segno.make(content(text), error="l", micro=False)
