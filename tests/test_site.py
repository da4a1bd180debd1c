"""The documentation site is built strictly, has all that the code has, and needs no network."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from browser import browser

import mjx_hkl
from mjx_hkl.algorithms.table import ALGORITHMS
from mjx_hkl.cli.main import COMMANDS
from mjx_hkl.experiments.recipe import Recipe
from mjx_hkl.models.config import DEFAULT_LOW_LEVELS, ENCODERS, HIGH_LEVELS, LOW_LEVELS, PRIORS
from mjx_hkl.models.critics import CRITICS

pytestmark = pytest.mark.pages

pytest.importorskip("mkdocs", reason="the site needs the docs extra")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def rows(page):
    """What the first column of a page's tables has."""
    return set(re.findall(r"<tr>\s*<td><code>([^<]+)</code></td>", page.read_text()))


def test_all_recipe_fields_are_told(site):
    tables = {"information", "policy", "default_policy", "critic", "encoders", "algorithm", "transfer"}
    fields = {field.name for field in dataclasses.fields(Recipe)} - tables
    for kinds in (HIGH_LEVELS, LOW_LEVELS, PRIORS, DEFAULT_LOW_LEVELS, CRITICS, ENCODERS, ALGORITHMS):
        fields |= {field.name for kind in kinds.known.values() for field in dataclasses.fields(kind)}
    assert fields <= rows(site / "reference" / "recipes.html")


def test_a_field_has_type_default_meaning_and_place_in_the_paper(site):
    text = (site / "reference" / "recipes.html").read_text()
    row = text.partition("<td><code>latent_period</code></td>")[2].partition("</tr>")[0]
    cells = re.findall(r"<td>(.*?)</td>", row, re.DOTALL)
    assert cells[:2] == ["integer &gt; 0", "<code>1</code>"]
    assert cells[2].startswith("p of eq. 27: a latent is drawn")
    assert cells[3] == "eq. 27"


@pytest.mark.parametrize("page", ["recipes", "environments", "command-line"])
def test_every_field_has_a_meaning(site, page):
    text = (site / "reference" / f"{page}.html").read_text()
    for row in re.findall(r"<tr>\s*(<td><code>.*?)</tr>", text, re.DOTALL):
        key, _, _, meaning, *_ = re.findall(r"<td>(.*?)</td>", row, re.DOTALL)
        assert len(meaning) > 1, key


def test_all_commands_and_names_are_told(site):
    text = (site / "reference" / "command-line.html").read_text()
    assert all(f'<h2 id="{command}">' in text for command in COMMANDS)
    assert {"AGENT", "--episodes", "--for", "--debug-divergence"} <= rows(
        site / "reference" / "command-line.html"
    )
    text = (site / "reference" / "python.html").read_text()
    assert all(f'id="mjx_hkl.{name}"' in text for name in mjx_hkl.__all__)


def test_pages_ask_nobody_else_for_anything(site):
    for page in site.rglob("*.html"):
        text = page.read_text()
        asked = re.findall(r"<(?:script|img|iframe)[^>]* src=\"?(https?:[^\" >]+)", text)
        asked += re.findall(
            r"<link[^>]* rel=\"?(?:stylesheet|preconnect|icon)[^>]* href=\"?(https?:[^\" >]+)", text
        )
        assert not asked, (page, asked)


def test_a_browser_shows_it_from_files(site):
    with browser() as chromium:
        page = chromium.new_page(viewport={"width": 390, "height": 800})
        wrong = []
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("requestfailed", lambda request: wrong.append(request.url))
        for name in ("index", "concepts", "reference/recipes"):
            page.goto((site / f"{name}.html").as_uri())
            page.wait_for_load_state("networkidle")
            assert page.evaluate("document.documentElement.scrollWidth") == 390, (
                f"{name} is wider than a phone"
            )
            drawn = page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
            assert drawn, f"{name} lacks a picture"
        page.keyboard.press("f")
        page.keyboard.type("distral_two_column")
        page.locator(".md-search-result__item").first.wait_for(timeout=30_000)
        assert not wrong


def test_the_index_of_search_knows_the_reference(site):
    found = json.loads((site / "search" / "search_index.json").read_text())["docs"]
    places = {entry["location"].partition("#")[0] for entry in found if "mean_bound" in entry["text"]}
    assert "reference/recipes.html" in places
    assert not any(place.startswith("source/") for place in places)
