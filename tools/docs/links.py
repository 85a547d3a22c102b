"""A hook of mkdocs: a link to a file of the repository that is no page becomes its words.

Knows no page by name: what mkdocs excludes is none.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

LINK = re.compile(r"\[([^\]]+)\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, files: Any, **_: Any) -> str:
    """Called by mkdocs for each page."""
    pages = {file.src_uri for file in files.documentation_pages()}
    return without_others(markdown, page.file.src_uri, pages)


def without_others(markdown: str, page: str, pages: set[str]) -> str:
    def shown(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), found[2]))
        return found[0] if target in pages else found[1]

    return LINK.sub(shown, markdown)
