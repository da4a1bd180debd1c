"""The agents under checkpoints/ load, are small, and do what their cards say."""

import json
from pathlib import Path

import pytest

from mjx_hkl import resources
from mjx_hkl.cli.main import run
from mjx_hkl.experiments.export import read_about

NAMES = sorted(path.parent.name for path in resources.folder("checkpoints").glob("*/agent.json"))


def test_those_promised_are_there():
    assert {"ball-go-to-target", "ball-move-box-easy", "grid-1-step"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_pretrained_agent_does_what_its_card_says(name, capfd, tmp_path, monkeypatch):
    folder = resources.folder("checkpoints") / name
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 2e6
    stated = read_about(folder)["evaluation"]
    assert f"success {stated['success_rate']:.1%}" in (folder / "README.md").read_text()
    monkeypatch.chdir(tmp_path)
    assert run(["evaluate", name, "--episodes", "256", "--seed", "77", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    # three standard errors of 256 episodes, or three failures where the card knows of none
    error = 3 * max((stated["success_rate"] * (1 - stated["success_rate"]) / 256) ** 0.5, 1 / 256)
    assert found["success_rate"] >= stated["success_rate"] - error
    assert not list(Path.cwd().iterdir())
