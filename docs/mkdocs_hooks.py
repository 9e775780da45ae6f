"""Makes the site whole. Pages link as GitHub reads them: to files of the project by their relative paths. Here the
documents outside of docs/ become pages of the site, so does every source file that a page links to, and links lead
there. A link to a file that is not there stays as it is, and `mkdocs build --strict` refuses it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent

#: Pages of the site that are kept elsewhere, where GitHub and readers of the code look for them.
DOCUMENTS = {
    "changelog.md": ROOT / "CHANGELOG.md",
    "contributing.md": ROOT / "CONTRIBUTING.md",
    "migrations.md": ROOT / "migrations/README.md",
    "security.md": ROOT / "SECURITY.md",
}

#: A fenced block, which is left alone, or the target of a link.
_FENCE_OR_LINK = re.compile(
    r"^```.*?^```$|(?<=\]\()(?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?(?=\))", re.MULTILINE | re.DOTALL
)
_LEXERS = {".py": "python", ".sql": "sql", ".yaml": "yaml", ".lua": "lua"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what the pages need from outside of docs/."""
    for name, path in DOCUMENTS.items():
        files.append(File.generated(config, name, abs_src_path=str(path)))
    pages = [Path(file.abs_src_path) for file in files.documentation_pages() if file.abs_src_path]
    for path in sorted({linked for page in pages for linked in _linked_files(page)}):
        if path.is_file() and DOCS not in path.parents and path not in DOCUMENTS.values():
            files.append(File.generated(config, _uri(path), content=_as_page(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to files of the project at the pages that show them."""
    if not page.file.abs_src_path:
        return markdown
    folder = Path(page.file.abs_src_path).parent

    def pointed(match: re.Match[str]) -> str:
        target = match["target"]
        if target is None or "://" in target:
            return match[0]
        path = (folder / target).resolve()
        if not path.is_file():
            return match[0]
        here = posixpath.dirname(page.file.src_uri)
        return posixpath.relpath(_uri(path), here or ".") + (match["anchor"] or "")

    return _FENCE_OR_LINK.sub(pointed, markdown)


def _linked_files(page: Path) -> set[Path]:
    found = _FENCE_OR_LINK.finditer(page.read_text(encoding="utf-8"))
    return {
        (page.parent / link["target"]).resolve() for link in found if link["target"] and "://" not in link["target"]
    }


def _uri(path: Path) -> str:
    """Where the file is on the site."""
    if DOCS in path.parents:
        return path.relative_to(DOCS).as_posix()
    document = next((name for name, kept in DOCUMENTS.items() if kept == path), None)
    return document or f"source/{path.relative_to(ROOT).as_posix()}.md"


def _as_page(path: Path) -> str:
    """A source file as a page. Its fence is longer than any within."""
    text = path.read_text(encoding="utf-8").rstrip()
    return f"# {path.relative_to(ROOT).as_posix()}\n\n``````{_LEXERS.get(path.suffix, 'text')}\n{text}\n``````\n"
