"""Adds a page to the site for every file outside docs/ that a page links to."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<=\]\()\.\./[^)#\s]+(?=[)#])")
LANGUAGES = {".py": "python", ".sh": "bash", ".yaml": "yaml", ".cff": "yaml"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every file of the repository that a page links to."""
    for page in list(files.documentation_pages()):
        for path in _linked(page):
            if files.get_file_from_path(_place(path)) is None:
                files.append(File.generated(config, _place(path), content=_listing(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Point links to files of the repository at the pages made for them."""
    here = posixpath.dirname(page.file.src_uri)

    def redirected(match: re.Match[str]) -> str:
        path = _outside(page.file, match[0])
        return match[0] if path is None else posixpath.relpath(_place(path), here or ".")

    return LINK.sub(redirected, markdown)


def _linked(page: File) -> Iterator[str]:
    for link in LINK.findall(page.content_string):
        path = _outside(page, link)
        if path is not None:
            yield path


def _outside(page: File, link: str) -> str | None:
    """The path in the repository that a link out of docs/ leads to; None if no such file exists."""
    here = posixpath.dirname(f"docs/{page.src_uri}")
    path = posixpath.normpath(posixpath.join(here, link))
    return path if not path.startswith(("docs/", "../")) and (ROOT / path).is_file() else None


def _place(path: str) -> str:
    return f"files/{path}.md"


def _listing(path: str) -> str:
    language = LANGUAGES.get(Path(path).suffix, "text")
    head = "---\nsearch: {exclude: true}\n---\n"
    return f"{head}# {path}\n\n````{language}\n{(ROOT / path).read_text()}````\n"
