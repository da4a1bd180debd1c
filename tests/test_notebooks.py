"""The notebooks run from top to bottom, and say what they claim."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from mjx_hkl.analysis.opengl import choose_opengl
from mjx_hkl.errors import UserError

pytestmark = pytest.mark.pages

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))

FACTS = {
    "first-steps": ["unknown field 'kl_costs'; did you mean kl_cost", "success above 75 %: True"],
    "transfer": [
        "does not fit the other agent's policy.low_level: range of scales",
        "the transferred low level is ahead: True",
        "the low level is unchanged: True",
        "the transferred high level is far ahead: True",
    ],
    "your-own-body-and-task": ["beacon           (2,)", "twice what chance earns: True"],
    "your-own-prior": [
        "every seed is above 90 %: True",
        "the learned prior costs less: True",
        "their mean has risen: True",
    ],
}
FILES = {  # beside `runs`, where everything else goes
    "your-own-body-and-task": {"puck.xml", "keep_close.py", "puck-keep-close.toml", "puck.toml"},
    "your-own-prior": {"learned_coefficient.py"},
}
PICTURES = {"first-steps": 2, "transfer": 2, "your-own-body-and-task": 2, "your-own-prior": 3}
VIDEOS = ("first-steps", "your-own-body-and-task")


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def text_of(notebook):
    """Everything that its cells print."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.output_type == "stream")


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_and_its_claims_hold(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    if name in VIDEOS:
        try:
            choose_opengl()  # the notebooks take EGL where nothing is set
        except UserError as error:
            pytest.skip(str(error))
    notebook = read(name)
    NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(tmp_path)}}).execute()
    text = text_of(notebook)
    assert [fact for fact in FACTS[name] if fact not in text] == [], text
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output.data for output in outputs if "data" in output]
    pictures = [data["image/png"] for data in shown if "image/png" in data]
    assert len(pictures) == PICTURES[name]
    assert all(len(picture) > 5000 for picture in pictures)
    assert any("<video" in data.get("text/html", "") for data in shown) == (name in VIDEOS)
    bars = [data["text/plain"] for data in shown if "━" in data.get("text/plain", "")]
    assert all("100%" in bar for bar in bars)
    assert len(bars) == text.count("compiled in")  # one for each training, in its last state
    assert {path.name for path in tmp_path.iterdir()} == {"runs", *FILES.get(name, ())}


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_kept_clean(name):
    notebook = read(name)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python"}
    for cell in notebook.cells:
        assert cell.metadata == {}
        assert cell.cell_type == "markdown" or (cell.outputs, cell.execution_count) == ([], None)
    assert not re.search(r'["\s(](/\w|~/)', "".join(cell.source for cell in notebook.cells)), "absolute path"
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert 'find_spec("mjx_hkl") is None' in first.source  # Colab's cell, which does nothing here


@pytest.mark.parametrize("name", NAMES)
def test_what_a_notebook_links_to_is_there(name):
    text = "".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("https:")]
    assert links
    assert [link for link in links if not (FOLDER / link).exists()] == []


def test_the_page_lists_all_of_them():
    page = (ROOT / "docs" / "notebooks.md").read_text(encoding="utf-8")
    assert sorted(set(re.findall(r"\(\.\./notebooks/([\w-]+)\.ipynb\)", page))) == NAMES == sorted(FACTS)
