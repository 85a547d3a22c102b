"""A hook of mkdocs: README.md is the first page, and a link to a file of the repository that is no
page becomes its words.

Knows no page by name but the first.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s#:]+)(#[^)\s]*)?\)")
README = Path(__file__).parents[2] / "README.md"


def on_files(files: Any, *, config: Any) -> Any:
    """Called by mkdocs when it knows the files of docs/."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "index.md", content=from_docs(README.read_text())))
    return files


def from_docs(text: str) -> str:
    """A text of the top folder as one of docs/: links and pictures lead on."""
    return re.sub(r"(?<=\]\()(?!\w+:|#)([^)\s]+)", lambda found: _moved(found[1]), text)


def _moved(target: str) -> str:
    return target.removeprefix("docs/") if target.startswith("docs/") else f"../{target}"


def on_page_markdown(markdown: str, *, page: Any, files: Any, **_: Any) -> str:
    """Called by mkdocs for each page."""
    pages = {file.src_uri for file in files.documentation_pages()}
    return without_others(markdown, page.file.src_uri, pages)


def without_others(markdown: str, page: str, pages: set[str]) -> str:
    def shown(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), found[2]))
        return found[0] if target in pages else found[1]

    return LINK.sub(shown, markdown)
