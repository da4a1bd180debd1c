"""The agents under checkpoints/ load, are small, and do what their cards say."""

import dataclasses
import json
from pathlib import Path

import pytest

from mjx_hkl import resources
from mjx_hkl.cli.main import run
from mjx_hkl.experiments.agent_format import read_card
from mjx_hkl.experiments.build import resolve
from mjx_hkl.experiments.card import page
from mjx_hkl.experiments.recipe import load_recipe

NAMES = sorted(path.parent.name for path in resources.folder("checkpoints").glob("*/agent.json"))


def test_those_promised_are_there():
    promised = {"ball-go-to-target", "ball-move-box-easy", "grid-1-step", "ball-to-ant"}
    promised |= {
        "ball-go-to-near-target",
        "ant-go-to-near-target",
        "ant-go-to-target",
        "quadruped-go-to-target",
    }
    assert promised <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_command_on_a_card_trains_such_an_agent(name):
    card = read_card(resources.folder("checkpoints") / name)
    recipe = card.recipe
    assert recipe.seed <= card.seed < recipe.seed + recipe.num_seeds
    watched = {name: getattr(recipe, name) for name in ("evaluation_episodes", "evaluation_interval")}
    today = dataclasses.replace(load_recipe(recipe.name), num_seeds=recipe.num_seeds, **watched)
    assert resolve(today) == resolve(recipe)  # which leaves the devices open, or says one


@pytest.mark.parametrize("name", NAMES)
def test_a_pretrained_agent_does_what_its_card_says(name, capfd, tmp_path, monkeypatch):
    folder = resources.folder("checkpoints") / name
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 2e6
    card = read_card(folder)
    assert page(card) == (folder / "README.md").read_text()
    stated = card.evaluation.success_rate
    assert f"success {stated:.1%}" in page(card)
    monkeypatch.chdir(tmp_path)
    assert run(["evaluate", name, "--episodes", "256", "--seed", "77", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    # three standard errors of 256 episodes, or three failures where the card knows of none
    error = 3 * max((stated * (1 - stated) / 256) ** 0.5, 1 / 256)
    assert found["success_rate"] >= stated - error
    assert not list(Path.cwd().iterdir())


def test_an_agent_is_found_by_its_path_too(capfd):
    folder = resources.folder("checkpoints") / "ball-to-ant"
    assert run(["evaluate", str(folder), "--episodes", "8", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["success_rate"] > 0.8
