"""The pages of the documentation and their fenced blocks."""

import functools
import re
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs" / "example"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


class Block(NamedTuple):
    line: int
    language: str
    text: str
    notes: dict[str, str]


@functools.cache
def blocks(page):
    """The fenced blocks of a page, each with what comments above it say."""
    found, notes, fence = [], {}, None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if fence:
            if line.strip() == "```":
                found.append(Block(fence[0], fence[1], textwrap.dedent("\n".join(fence[2])) + "\n", notes))
                notes, fence = {}, None
            else:
                fence[2].append(line)
        elif match := re.match(r"\s*```(.*)$", line):
            fence = (number + 1, match[1].strip(), [])
        elif match := re.match(r"<!-- (not run|after): (.+) -->$", line):
            notes[match[1]] = match[2]
        elif line.strip():
            notes = {}
    return found


def pages_with(*languages):
    having = [page for page in PAGES if any(block.language in languages for block in blocks(page))]
    return pytest.mark.parametrize("page", having, ids=lambda page: str(page.relative_to(ROOT)))


every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def told(page, problems):
    """What an assertion shows: one line for each problem, with page and line."""
    name = page.relative_to(ROOT)
    return "\n".join(["", *(f"{name}:{line}: {problem}" for line, problem in problems)])
