"""Every page of the documentation: its tables load, its programs run, its links lead somewhere.

A block is not run where `<!-- not run: REASON -->` stands above it. `<!-- after: FILE -->` gives a block of
Python the names of a file of docs/.
"""

import dataclasses
import functools
import inspect
import re
import runpy
import shutil
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pages import EXAMPLE, ROOT, blocks, every_page, pages_with, told

import mjx_hkl
from mjx_hkl.environments import load_environment
from mjx_hkl.environments.scene import Marks
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.recipe import Recipe, load_variants

pytestmark = pytest.mark.pages

LANGUAGES = {"sh", "toml", "python", "xml", "text"}


@every_page
def test_blocks_say_their_language(page):
    wrong = [(block.line, block.language) for block in blocks(page) if block.language not in LANGUAGES]
    assert not wrong, told(page, wrong)


# Files


NAMED = re.compile(r"(?:#|<!--) (\S+\.(?:toml|py|xml))\b")


@pytest.fixture
def folder(page, tmp_path, monkeypatch):
    """A working folder with the example's files and those that the page shows by name."""
    for file in EXAMPLE.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    for block in blocks(page):
        if name := NAMED.match(block.text):
            (tmp_path / name[1]).write_text(block.text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load_table(text):
    """Loads a block of TOML as what it is; a part of a file on top of one that is there."""
    table = tomllib.loads(text)
    of_recipe = {*(field.name for field in dataclasses.fields(Recipe)), "extends", "variants"}
    is_recipe = table.keys() <= of_recipe
    whole = {"extends", "environment"} if is_recipe else {"extends", "body", "kind"}
    if not whole & table.keys():
        text = f'extends = "{"ball-go-to-target" if is_recipe else "ant-go-to-target"}"\n{text}'
    Path("block.toml").write_text(text)
    load_variants("block.toml") if is_recipe else load_environment("block.toml")


@pages_with("toml")
def test_tables_load(page, folder):
    wrong = []
    for block in blocks(page):
        if block.language == "toml" and "not run" not in block.notes:
            try:
                load_table(block.text)
            except (UserError, tomllib.TOMLDecodeError) as error:
                wrong.append((block.line, error))
    assert not wrong, told(page, wrong)


# Programs


def shortened(train):
    """Training of a few updates, for programs that show how it is called."""

    def train_shortly(recipe, *args, **kwargs):
        short = {"total_env_steps": 2560, "log_interval": 1280, "evaluation_episodes": 16}
        result = train(mjx_hkl.change(recipe, **short, min_replay=0), *args, **kwargs)
        assert result.finished
        return result

    return train_shortly


def only_called(function):
    """Checks that the arguments are ones that the function has."""

    def call(*args, **kwargs):
        inspect.signature(function).bind(*args, **kwargs)

    return call


@pages_with("python")
def test_programs_run(page, folder, monkeypatch):
    from brax.training.agents.ppo import train as ppo

    monkeypatch.setattr(mjx_hkl, "train", shortened(mjx_hkl.train), raising=False)
    monkeypatch.setattr(ppo, "train", only_called(ppo.train))
    monkeypatch.setattr(jax, "device_put_replicated", None, raising=False)  # undone, where a block sets it
    names = {"__name__": "page"}
    for block in blocks(page):
        if block.language == "python" and "not run" not in block.notes:
            if "after" in block.notes:
                names |= runpy.run_path(str(ROOT / "docs" / block.notes["after"]), run_name="page")
            text = block.text.replace("/absolute/path/to/export", str(ROOT / "checkpoints/ball-to-ant"))
            exec(compile("\n" * (block.line - 1) + text, str(page), "exec"), names)


def test_methods_of_a_task_do_what_the_page_says():
    """Those of docs/your-own-world.md, for two beacons in a batch of one."""
    names = {"jax": jax, "jnp": jnp, "Marks": Marks}
    for block in blocks(ROOT / "docs/your-own-world.md"):
        if re.match(r"def (marks|symmetry|relabel)", block.text):
            exec(block.text, names)
    near, far = [0.1, 0.2], [3.0, 0.0]
    marks = names["marks"](None, jnp.array(near), None)
    assert (marks.position.shape, marks.radius.shape, marks.selected.shape) == ((1, 3), (1,), (1,))
    np.testing.assert_allclose(marks.position[0], [*near, 0.01])
    seen = {"beacons": jnp.array([near + far]), "instruction": jnp.array([[1.0, 0.0]])}
    for seed in range(6):
        key = jax.random.key(seed)
        other = names["symmetry"](None, key, seen)
        asked = other["beacons"].reshape(2, 2)[int(other["instruction"].argmax())]
        np.testing.assert_allclose(asked, near)
        told, reward, success = names["relabel"](None, key, seen)
        assert success[0] == told["instruction"][0, 0]  # only the near beacon is reached
        assert reward[0] == 60 * success[0]


# Links


def slug(heading):
    """GitHub's anchor of a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.strip()).lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


@functools.cache
def anchors(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


@every_page
def test_links_lead_somewhere(page):
    wrong = []
    inside = {line for x in blocks(page) for line in range(x.line, x.line + x.text.count("\n"))}
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        for link in re.findall(r"\]\(([^()\s]+)\)", line) if number not in inside else ():
            place, _, anchor = link.partition("#")
            target = (page.parent / place).resolve() if place else page
            if re.match(r"\w+:", link):
                continue
            if not target.exists() or (anchor and anchor not in anchors(target)):
                wrong.append((number, link))
    assert not wrong, told(page, wrong)
