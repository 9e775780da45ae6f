"""Reading the project's Markdown: its files, the fenced blocks in them, their links and their tables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MARKDOWN_FILES", "ROOT", "Block", "anchors_of", "blocks_of", "links_of", "prose_of", "rows_of"]

ROOT = Path(__file__).resolve().parents[2]
MARKDOWN_FILES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("migrations/*.md")])

_FENCE = re.compile(r"^```(?P<language>[a-z]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(?P<title>.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block. `output` is the text of the `text` block that follows it at once: what it must print."""

    path: Path
    line: int
    language: str
    text: str
    output: str | None = None

    @property
    def name(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


def blocks_of(path: Path) -> list[Block]:
    """The fenced blocks of a file, in order."""
    text = path.read_text(encoding="utf-8")
    fences = list(_FENCE.finditer(text))
    found = []
    for number, fence in enumerate(fences):
        following = fences[number + 1] if number + 1 < len(fences) else None
        told = (
            following is not None
            and following["language"] == "text"
            and not text[fence.end() : following.start()].strip()
        )
        found.append(
            Block(
                path=path,
                line=text.count("\n", 0, fence.start()) + 1,
                language=fence["language"],
                text=fence["text"],
                output=following["text"] if told and following is not None else None,
            )
        )
    return found


def prose_of(path: Path) -> str:
    """The text of a file without its fenced blocks."""
    return _FENCE.sub("", path.read_text(encoding="utf-8"))


def links_of(path: Path) -> list[str]:
    """The targets of a file's links, outside of fenced blocks."""
    return [link["target"] for link in _LINK.finditer(prose_of(path))]


def anchors_of(path: Path) -> set[str]:
    """What a link into the file may name: its headings, as GitHub spells them."""
    titles = (heading["title"].strip().lower() for heading in _HEADING.finditer(prose_of(path)))
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


def rows_of(path: Path, *, heading: str) -> list[list[str]]:
    """The cells of the first table under the heading `heading`, without its head."""
    _, found, section = prose_of(path).partition(f"# {heading}\n")
    assert found, f"{path.relative_to(ROOT)} has no heading {heading!r}"
    rows: list[list[str]] = []
    for line in section.splitlines():
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            break
    return rows[2:]
