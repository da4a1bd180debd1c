"""Trains a little on one and on eight virtual devices, in this process; prints what the test compares."""

import dataclasses
import json
import re

import jax
import numpy as np

from mjx_hkl.experiments.build import make_loop, resolve
from mjx_hkl.experiments.recipe import load_recipe


def small(name, **changes):
    recipe = resolve(load_recipe(name))
    algorithm = dataclasses.replace(
        recipe.algorithm, batch_size=8, updates_per_unroll=2, unroll_length=5, target_update_period=2
    )
    steps = 16 * algorithm.unroll_length
    return dataclasses.replace(
        recipe,
        num_envs=16,
        total_env_steps=3 * steps,
        log_interval=steps,
        replay_capacity=2 * steps,
        min_replay=steps,
        algorithm=algorithm,
        **changes,
    )


def train(recipe):
    loop = make_loop(recipe)
    *_, (state, rows) = loop.intervals(loop.init())
    collectives = re.findall(r" (all-[a-z-]+|collective-[a-z-]+)\(", loop._program.as_text())
    parameters = np.concatenate([np.ravel(x) for x in jax.tree.leaves(jax.device_get(state.learner.agent))])
    return parameters, rows, sorted(set(collectives)), state


def compare(recipe):
    one, one_rows, _, _ = train(recipe)
    many, many_rows, collectives, state = train(dataclasses.replace(recipe, num_devices=8))
    return {
        "difference": float(np.abs(one - many).max()),
        "moved": float(np.abs(many).max()),
        "rows": [one_rows, many_rows],
        "collectives": collectives,
        "replay": list(state.replay.reward.sharding.spec),
        "parameters": list(jax.tree.leaves(state.learner)[0].sharding.spec),
    }


print(
    json.dumps(
        {
            "worlds": compare(small("grid-1-step")),
            "seeds": compare(small("grid-1-step", num_seeds=8)),
            "physics": compare(small("ball-go-to-target", engine="mjx")),
        }
    )
)
