"""scripts/docs makes the pages without a warning, and everything public is on them."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import pywg
from tools.docs.command import HOW, missing
from tools.docs.links import from_docs, without_others

ROOT = Path(__file__).parents[2]
COMMAND = [str(ROOT / "scripts" / "docs")]
needs_mkdocs = pytest.mark.skipif(bool(missing()), reason=f"no {missing()}: {HOW}")


def referenced() -> list[object]:
    names = re.findall(
        r"^::: ([\w.]+)\.(\w+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE
    )
    return [getattr(import_module(module), name) for module, name in names]


def test_the_reference_has_everything_public() -> None:
    there = referenced()
    public = {name: getattr(pywg, name) for name in pywg.__all__}
    lacking = {name for name, value in public.items() if value not in there}
    assert lacking == {"__version__", "cipher_path", "core_version"}


@needs_mkdocs
def test_the_pages_are_made_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "api" / "index.html").read_text()
    for value in referenced():
        if inspect.isclass(value):
            assert f'id="{value.__module__}.{value.__qualname__}"' in page
    assert 'id="pywg.native.interface.Interface.seal_into"' in page
    assert (tmp_path / "library" / "index.html").is_file()
    assert "./scripts/quickstart" in (tmp_path / "index.html").read_text()


@needs_mkdocs
def test_nothing_is_fetched_from_elsewhere_when_a_page_is_read(tmp_path: Path) -> None:
    subprocess.run([*COMMAND, str(tmp_path)], capture_output=True, check=True)
    page = (tmp_path / "index.html").read_text()
    fetched = re.findall(r"<(?:script|img|link)[^>]+(?:src|href)=\"?(https?:[^\">]+)", page)
    assert fetched == []


@needs_mkdocs
def test_a_name_that_is_gone_ends_it(tmp_path: Path) -> None:
    """The same pages, and one line more."""
    for name in ("README.md", "tools", "pywg"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    text = (ROOT / "docs" / "api.md").read_text()
    (tmp_path / "docs" / "api.md").write_text(text + "\n::: pywg.native.interface.Forgotten\n")
    (tmp_path / "mkdocs.yml").write_text((ROOT / "mkdocs.yml").read_text())
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", "site"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Forgotten" in done.stdout + done.stderr


def test_links_to_what_is_no_page_become_words() -> None:
    pages = {"library.md", "ABI.md"}
    text = "[a](ABI.md#x) [b](../core/include/pywg.h) [c](performance.md#y) [d](#z) [e](http://x/)"
    assert without_others(text, "library.md", pages) == ("[a](ABI.md#x) b c [d](#z) [e](http://x/)")


def test_the_readme_is_a_page_of_the_site() -> None:
    text = "[a](docs/USAGE.md#x) ![b](docs/top.svg) [c](examples) [d](#z) [e](http://x/)"
    moved = from_docs(text)
    assert moved == "[a](USAGE.md#x) ![b](top.svg) [c](../examples) [d](#z) [e](http://x/)"
    shown = without_others(moved, "index.md", {"USAGE.md"})
    assert shown == "[a](USAGE.md#x) ![b](top.svg) c [d](#z) [e](http://x/)"
