"""Tasks whose numbers are at times not finite."""

import json
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from fault_bench import UNHARMED, Answer, Bench, Case, command

from mjx_hkl.training.checkpoint import newest

_NAN_TASK = """
import dataclasses
import jax, jax.numpy as jnp
from typing import Any
from mjx_hkl.environments.tasks import Outcome, Start

@dataclasses.dataclass(frozen=True)
class Broken:
    where: str = "observe"
    bad: float = float("nan")

    def reset(self, key, stage):
        start, body = jax.random.uniform(key, (2, 2), minval=-1.0, maxval=1.0)
        return Start(state=start, position=body)

    def _at_times(self, scene, here):
        moved = jnp.any(scene.action != 0)   # starts are looked at before a run begins
        chance = moved & (jnp.sin(1e5 * jnp.sum(scene.frame.position)) > 0.98)   # six of a hundred
        return jnp.where(chance, self.bad, 0.0) if here else 0.0

    def observe(self, state, scene):
        return {"goal": scene.frame.egocentric(state) + self._at_times(scene, self.where == "observe")}

    def reward(self, state, scene):
        near = jnp.exp(-jnp.linalg.norm(scene.frame.position[:2] - state))
        term = near + self._at_times(scene, self.where == "terms")
        return Outcome(
            reward=near + self._at_times(scene, self.where == "reward"),
            success=jnp.zeros(()) + self._at_times(scene, self.where == "success"),
            terms={"near": term},
        )
"""
_NAN_WORLD = """
body = "puck.xml"
episode_length = 100
low_level_information = ["proprioception"]
[arena]
kind = "area"
size = 4.0
[task]
kind = "broken.py:Broken"
"""
_NAN_RECIPE = """
environment = "broken.toml"
num_envs = 16
total_env_steps = 3200
log_interval = 800
replay_capacity = 1600
min_replay = 320
evaluation_episodes = 8
policy.high_level = { sizes = [8], latent_size = 2 }
policy.low_level.sizes = [8]
critic.sizes = [16]
encoders.all = "normalized"
algorithm = { batch_size = 16, replay_ratio = 4.0 }
"""


def numbers(bench: Bench, count: int) -> Iterator[Case]:
    """Nine kinds of worlds whose numbers are at times not finite: what their runs hold then."""
    seeds = -(-count // 9)
    folder = bench.folder / "broken"
    folder.mkdir()
    puck = Path(__file__).resolve().parents[1] / "docs" / "example" / "puck.xml"
    (folder / "puck.xml").write_bytes(puck.read_bytes())
    # Full force for two physics steps turns it faster than any state may; its start is like any other.
    (folder / "exploding.xml").write_text(puck.read_text().replace('gear="0.5"', 'gear="500"'))
    (folder / "broken.py").write_text(_NAN_TASK)
    (folder / "recipe.toml").write_text(_NAN_RECIPE)
    kinds = [(where, bad) for where in ("observe", "reward", "terms", "success") for bad in ("nan", "inf")]
    for where, bad in (*kinds, ("physics", "explodes")):
        world = _NAN_WORLD + f'where = "{where}"\nbad = {bad.replace("explodes", "0.0")}\n'
        body = "exploding.xml" if where == "physics" else "puck.xml"
        (folder / "broken.toml").write_text(world.replace("puck.xml", body))
        out = folder / f"{where}-{bad}"
        answer = command("train", folder / "recipe.toml", "--out", out, "--num-seeds", seeds)
        outcome, detail = _finite(answer, out)
        for _ in range(seeds):
            yield Case(bad, where, outcome, detail)


def _finite(answer: Answer, out: Path) -> tuple[str, str]:
    if answer.code:
        return "lost", answer.err[-400:]
    checkpoint = out / "checkpoints" / str(newest(out / "checkpoints"))
    with ocp.StandardCheckpointer() as checkpointer:
        state = checkpointer.restore((checkpoint / "state").absolute())
    for path, x in jax.tree_util.tree_leaves_with_path(state):
        name = jax.tree_util.keystr(path)
        held = any(part in name for part in ("learner", "replay"))
        if held and np.issubdtype(x.dtype, np.floating) and not np.isfinite(x).all():
            return "let in", name
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    faults = {row["seed"]: 0 for row in rows}
    for row in rows:
        faults[row["seed"]] += row["faults"]
    if not all(faults.values()):
        return "not counted", f"faults of each seed: {faults}"
    return UNHARMED, ""
