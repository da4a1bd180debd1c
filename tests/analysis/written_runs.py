"""Runs on disk with the metrics that a test wants."""

import json

import numpy as np

from mjx_hkl.experiments.recipe import load_recipe, recipe_to_toml

ROWS = 20
RAMP = np.linspace(0.06, 1.01, ROWS)


def write_run(folder, recipe, successes, seconds=1.0, first_seed=0):
    """A run whose seeds have these success rates, a row each; 64 episodes end in every row."""
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text(recipe_to_toml(load_recipe(recipe)), encoding="utf-8")
    rows = [
        {
            "seed": seed,
            "environment_steps": 100 * (i + 1),
            "learner_steps": 800 * (i + 1),
            "seconds": seconds * (i + 1),
            "episodes": 64,
            "success_rate": success,
            "kl_high": 1.5,
            "kl_low": 0.5,
        }
        for seed, values in enumerate(successes, first_seed)
        for i, success in enumerate(values)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
