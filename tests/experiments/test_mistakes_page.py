"""docs/mistakes.md: each row's mistake is made in the page's own files, and answered with the row's line."""

import re
from pathlib import Path

import pytest

from mjx_hkl.errors import UserError
from mjx_hkl.experiments.agent_format import abstract_agent
from mjx_hkl.experiments.build import make_environment, resolve, world_of
from mjx_hkl.experiments.recipe import load_recipe
from mjx_hkl.experiments.world_specs import WorldSpecs

PAGE = Path(__file__).parents[2] / "docs" / "mistakes.md"
FILE = re.compile(r"```\w+\n((?:#|<!--) (\S+).*?)```", re.DOTALL)
CELLS = re.compile(r"(?<!\\)\|")


def files(section):
    """The file that a section shows, by its name."""
    return {name: text for text, name in FILE.findall(section)}


def plain(cell):
    """The text of a cell of code."""
    cell = cell.strip()
    if cell == "nothing":
        return ""
    return cell.strip("`").strip().replace(r"\|", "|") if cell.startswith("``") else cell.strip("`")


def rows(section):
    (name,) = files(section)
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [(name, *map(plain, CELLS.split(line)[1:-1])) for line in lines]


SECTIONS = PAGE.read_text(encoding="utf-8").split("\n## ")[1:]
GOOD = {name: text for section in SECTIONS for name, text in files(section).items()}
ROWS = [row for section in SECTIONS for row in rows(section)]


def begin():
    """What training does with a recipe before it compiles anything."""
    recipe = load_recipe("recipe.toml")
    world = world_of(recipe)
    recipe = resolve(recipe, world)
    make_environment(recipe, world=world)
    abstract_agent(recipe, WorldSpecs.of(world))


@pytest.fixture(autouse=True)
def good_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in GOOD.items():
        Path(name).write_text(text)


def test_the_files_of_the_page_are_right():
    begin()


def test_the_page_has_at_least_twenty_mistakes_and_each_once():
    assert len({row[:3] for row in ROWS}) == len(ROWS) >= 20


@pytest.mark.parametrize(("name", "right", "wrong", "line"), ROWS)
def test_a_mistake_is_answered_with_the_line_of_the_page(tmp_path, name, right, wrong, line):
    assert GOOD[name].count(right) >= 1
    Path(name).write_text(GOOD[name].replace(right, wrong, 1))
    with pytest.raises(UserError) as refused:
        begin()
    said = str(refused.value).replace(f"{tmp_path}/", "")
    pattern = ".*".join(map(re.escape, line.split("…")))
    assert re.fullmatch(pattern, said), said
