"""Steps to JSON and back, for the record of what `up` did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from ipaddress import ip_interface
from typing import get_args

from pywg.config.values import network
from pywg.plan.facts import DnsManager, FirewallTool
from pywg.plan.steps import Step

Value = str | int | list[str] | None

KINDS: dict[str, type[Step]] = {kind.__name__: kind for kind in get_args(Step)}
# Of each kind, the names of its fields and their types. Looked up once: a record has thousands.
_FIELDS = {kind: [(field.name, field.type) for field in fields(kind)] for kind in KINDS.values()}
_CHOICES = {"DnsManager": get_args(DnsManager), "FirewallTool": get_args(FirewallTool)}


def to_json(step: Step) -> dict[str, Value]:
    values = {name: _plain(getattr(step, name)) for name, _ in _FIELDS[type(step)]}
    return {"step": type(step).__name__, **values}


def from_json(data: Mapping[str, Value]) -> Step:
    """Raises ValueError for what is none."""
    try:
        kind = KINDS[str(data["step"])]
        # A field that an older pywg did not write has its default.
        values = {
            name: _read(declared, data[name]) for name, declared in _FIELDS[kind] if name in data
        }
        made: Step = kind(**values)  # type: ignore[arg-type]
    except (KeyError, TypeError) as missing:
        raise ValueError(f"no such step: {missing}") from None
    return made


def _plain(value: object) -> Value:
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, tuple):
        return [str(item) for item in value]
    return str(value)


def _read(declared: object, value: Value) -> object:
    match declared:
        case "IPInterface":
            return ip_interface(str(value))
        case "IPNetwork":
            return network(str(value))
        case "DnsManager" | "FirewallTool" if value not in _CHOICES[declared]:
            raise ValueError(f"no such {declared}: {value}")
        case _:
            return tuple(value) if isinstance(value, list) else value
