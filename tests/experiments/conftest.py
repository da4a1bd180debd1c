"""A small recipe as a file, and a finished run of it: one for each file of tests."""

import pytest

from mjx_hkl.cli.main import run
from mjx_hkl.experiments.recipe import recipe_to_toml


@pytest.fixture(scope="module")
def recipe_file(tiny_recipe, tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(recipe_to_toml(tiny_recipe))
    return path


@pytest.fixture(scope="module")
def finished(recipe_file, tmp_path_factory):
    """A finished run."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert run(["train", str(recipe_file), "--out", str(out)]) == 0
    return out
