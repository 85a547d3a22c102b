"""help() says what everything public is: each class, method and field; and which errors it has."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator

import pytest

import pywg
from pywg import drive

OBJECTS = {
    **{name: getattr(pywg, name) for name in pywg.__all__ if not name.startswith("__")},
    "drive.Loop": drive.Loop,
}
CLASSES = {name: value for name, value in OBJECTS.items() if inspect.isclass(value)}
# Their name and type say it all, wherever they are.
OBVIOUS = {"public_key", "endpoint", "port", "os_errno", "offload"}
# Whoever calls these has errors to expect, or is told that there are none.
WITH_ERRORS = ["Interface", "Batch", "Driver"]


def methods(cls: type) -> Iterator[tuple[str, object]]:
    """Those of its own that are public, properties and class methods too."""
    for name, value in vars(cls).items():
        plain = getattr(value, "fget", None) or getattr(value, "__func__", value)
        if (not name.startswith("_") or name == "__init__") and inspect.isfunction(plain):
            yield name, plain


def fields(cls: type) -> list[str]:
    if dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls) if not field.name.startswith("_")]
    return list(getattr(cls, "_fields", ()))


@pytest.mark.parametrize("name", OBJECTS)
def test_everything_public_says_what_it_is(name: str) -> None:
    doc = inspect.getdoc(OBJECTS[name])
    assert doc and not doc.startswith(f"{name}(")


@pytest.mark.parametrize("name", CLASSES)
def test_so_do_its_methods_and_its_fields(name: str) -> None:
    cls = CLASSES[name]
    silent = [method for method, plain in methods(cls) if not inspect.getdoc(plain)]
    # What a decorator makes is not written, and so says nothing.
    if dataclasses.is_dataclass(cls) or issubclass(cls, Exception):
        silent = [method for method in silent if method != "__init__"]
    assert silent == []
    silent = [field for field in fields(cls) if f"``{field}" not in (cls.__doc__ or "")]
    assert set(silent) - OBVIOUS == set()


@pytest.mark.parametrize("name", WITH_ERRORS)
def test_methods_name_their_errors(name: str) -> None:
    cls = CLASSES[name]
    stands_for_all = "Every method raises" in (cls.__doc__ or "")
    for method, plain in methods(cls):
        takes = set(inspect.signature(plain).parameters) - {"self"}  # type: ignore[arg-type]
        if stands_for_all and not takes:
            continue
        said = inspect.getdoc(plain) or ""
        assert "Error" in said or not takes, f"{name}.{method}"


def test_functions_name_their_errors() -> None:
    for function in (pywg.now, pywg.cipher_path, pywg.core_version, pywg.resolve):
        said = inspect.getdoc(function) or ""
        assert "Error" in said or "Raises nothing" in said, function
