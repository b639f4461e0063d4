"""The Markdown pages of this repository, as far as the tests need to read them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^(`{3,})[^\n]*\n(.*?)^\1[ ]*$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?)[ #]*$", re.MULTILINE)
_COMMENT = re.compile(r"\s+#\s.*")


@dataclass(frozen=True)
class Page:
    """One page, taken apart."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def prose(self) -> str:
        """The page without its fenced blocks."""
        return _FENCE.sub("", self.text)

    @property
    def links(self) -> list[str]:
        return _LINK.findall(_CODE.sub("", self.prose))

    @property
    def anchors(self) -> set[str]:
        """What `#...` may name, as GitHub makes it of headings."""
        seen: Counter[str] = Counter()
        found = set()
        for heading in _HEADING.findall(self.prose):
            slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
        return found

    @property
    def code(self) -> list[str]:
        """Every inline code span and every line of a fenced block, without its comment."""
        lines = [line for _, block in _FENCE.findall(self.text) for line in block.splitlines()]
        return [_COMMENT.sub("", part).strip() for part in (*lines, *_CODE.findall(self.prose))]

    def commands(self, program: str) -> list[list[str]]:
        """Return the arguments of each use of `program`, also behind a path, a prompt or `&&`."""
        form = re.compile(rf"(?:^|[\s/(])(?:\S*/)?{re.escape(program)} +([^;&|()]+)")
        starts = (f"{program} ", "$ ", "/opt/", "Exec", ".venv/bin/")
        uses = (form.search(part) for part in self.code if part.startswith(starts))
        return [use[1].split() for use in uses if use]


@cache
def pages() -> tuple[Page, ...]:
    """Return every page of the repository."""
    paths = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
    return tuple(Page(path, path.read_text(encoding="utf-8")) for path in paths)


def page(name: str) -> Page:
    """Return one page by its path below the root."""
    return next(page for page in pages() if page.name == name)


def between(text: str, mark: str) -> str:
    """Return what stands between `<!-- MARK:begin -->` and `<!-- MARK:end -->`."""
    begin, end = f"<!-- {mark}:begin -->\n", f"<!-- {mark}:end -->"
    return text[text.index(begin) + len(begin) : text.index(end)]
