"""scripts/docs makes the pages without a warning, and everything public is on them."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import pywg
from tools.docs.command import HOW, missing
from tools.docs.links import without_others

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


@needs_mkdocs
def test_a_name_that_is_gone_ends_it(tmp_path: Path) -> None:
    """The same pages, and one line more."""
    for name in ("docs", "tools", "pywg"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "docs").unlink()
    (tmp_path / "docs").mkdir()
    for name in ("library.md", "ABI.md"):
        (tmp_path / "docs" / name).write_text((ROOT / "docs" / name).read_text())
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
