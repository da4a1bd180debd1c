"""Trains a little on one and on eight virtual devices, in this process; prints what the test compares."""

import dataclasses
import json
import re

import jax
import numpy as np

from mjx_hkl.experiments.agent_format import KnownAgent
from mjx_hkl.experiments.build import make_loop, resolve
from mjx_hkl.experiments.recipe import TransferConfig, change, load_recipe
from mjx_hkl.experiments.snapshots import agent_of_seed
from mjx_hkl.experiments.transfer import transferred
from mjx_hkl.experiments.world_specs import WorldSpecs
from mjx_hkl.models.agent import module_at
from mjx_hkl.models.encoders import NormalizedFields

FLAT_WITH_LSTM = {
    "policy": {"high_level": "none"},
    "default_policy": {"high_level": "none", "low_level": "lstm"},
}
EXPLORES = {"exploration_scale": [0.5, 2.0], "exploration_correlation": 0.9}


def small(name, **changes):
    recipe = resolve(load_recipe(name))
    algorithm = dataclasses.replace(
        recipe.algorithm, batch_size=8, replay_ratio=1.0, unroll_length=5, target_update_period=2
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
    state = loop.init()
    before = parameters(state)
    *_, (state, rows) = loop.intervals(state)
    text = loop.program.as_text()
    assert text
    collectives = re.findall(r" (all-[a-z-]+|collective-[a-z-]+)\(", text)
    return before, parameters(state), rows, sorted(set(collectives)), state


def parameters(state):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(jax.device_get(state.learner.agent))])


def compare(recipe):
    before, one, one_rows, _, _ = train(recipe)
    _, many, many_rows, collectives, state = train(dataclasses.replace(recipe, num_devices=8))
    return {
        "difference": float(np.abs(one - many).max()),
        "largest": float(np.abs(many).max()),
        "moved": float(np.abs(one - before).max()),
        "rows": [one_rows, many_rows],
        "collectives": collectives,
        "replay": list(state.replay.rows["float32"].sharding.spec),
        "parameters": list(jax.tree.leaves(state.learner)[0].sharding.spec),
    }


def transfer(recipe):
    """Whether a low level taken from another agent is the same on eight devices after training above it."""
    loop = make_loop(recipe)
    world = WorldSpecs.of(loop.schedule.train_step.environment.env)
    source = KnownAgent(agent_of_seed(loop.init(), 0), recipe, world)
    config = TransferConfig("there", frozen=("policy.low_level",))
    loop = make_loop(dataclasses.replace(recipe, seed=1, num_devices=8, transfer=config))
    *_, (state, _) = loop.intervals(loop.place(transferred(loop.init(), {"there": [source]}, config)))
    modules = (module_at(agent, "policy.low_level") for agent in (source.agent, agent_of_seed(state, 0)))
    return all(bool((a == b).all()) for a, b in zip(*map(jax.tree.leaves, modules), strict=True))


print(
    json.dumps(
        {
            "worlds": compare(small("grid-1-step")),
            "seeds": compare(small("grid-1-step", num_seeds=8)),
            "environments": compare(change(small("grid-1-step"), environment=["grid-1-step", "grid-2-step"])),
            "transfer": transfer(small("grid-1-step")),
            "physics": compare(change(small("ball-go-to-target-plain", engine="mjx"), algorithm=EXPLORES)),
            "remembers": compare(change(small("grid-1-step"), **FLAT_WITH_LSTM)),
            "normalized": compare(small("grid-1-step", encoders={"coordinates": NormalizedFields()})),
        }
    )
)
