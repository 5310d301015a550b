"""The Markdown pages, taken apart for the checks and for running their examples."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
TOP = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
FENCE = re.compile(r"^( *)```([\w-]*)[^\n]*\n(.*?)^\1```[^\n]*$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"<!-- (\w+)(?:: (\w+))? -->\s*\Z")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. `mark` is the word in the comment before it (`run`, `gives`), `kind` the one after a colon."""

    language: str
    text: str
    mark: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    path: Path  # from the top of the repository
    text: str

    @property
    def blocks(self) -> list[Block]:
        found = []
        for fence in FENCE.finditer(self.text):
            mark = MARK.search(self.text, 0, fence.start())
            text = re.sub(f"^{fence[1]}", "", fence[3], flags=re.MULTILINE)
            found.append(Block(fence[2], text, *((mark[1], mark[2] or "") if mark else ())))
        return found

    @property
    def prose(self) -> str:
        """The text without fenced blocks and comments."""
        return re.sub(r"<!--.*?-->", "", FENCE.sub("", self.text), flags=re.DOTALL)

    @property
    def spans(self) -> list[str]:
        """Inline code."""
        return re.findall(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)", self.prose)

    @property
    def anchors(self) -> set[str]:
        return {slug(heading) for heading in re.findall(r"^#{1,6} +(.+?) *$", FENCE.sub("", self.text), re.MULTILINE)}


def pages() -> Iterator[Page]:
    for file in [*(ROOT / name for name in TOP), *sorted((ROOT / "docs").rglob("*.md"))]:
        yield Page(file.relative_to(ROOT), file.read_text())


def slug(heading: str) -> str:
    """The anchor of a heading, where GitHub's and MkDocs' rules agree. Raises ValueError where they don't."""
    plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", lambda found: found[1] or "", heading)
    kept = re.sub(r"[^\w\s-]", "", unicodedata.normalize("NFKD", plain)).strip().lower()
    on_github, by_mkdocs = kept.replace(" ", "-"), re.sub(r"[-\s]+", "-", kept)
    if on_github != by_mkdocs:
        raise ValueError(f"the heading {heading!r} has another anchor on GitHub than in MkDocs")
    return by_mkdocs
