"""Frames per second of the agent's camera: rays in JAX and Warp, beside MuJoCo's renderer in the same run.

    MUJOCO_GL=egl python benchmarks/vision.py [ENVIRONMENT ...] [--worlds 256]

They are timed in turn; MuJoCo's renderer draws one world after another, as it does. Warp is left out where it
is not installed.
"""

import argparse
import collections
import dataclasses
import importlib.util
import json
import time
from typing import Any, cast

import jax
import mujoco
import numpy as np

from mjx_hkl.environments import EnvironmentConfig, PhysicsWorld, load_environment
from mjx_hkl.environments.world import Drawing
from mjx_hkl.errors import UserError

_BODIES = ("ball", "ant", "quadruped")
_RENDERERS = ("rays", "warp") if importlib.util.find_spec("warp") else ("rays",)
_TASKS = ("go-to-target-vision", "move-box-easy-vision", "move-box-hard-vision", "gather-boxes-vision")


def measure(
    name: str, config: EnvironmentConfig, size: int, num_worlds: int, rounds: int
) -> dict[str, object]:
    """Frames per second of each, the median of the rounds."""
    assert config.camera is not None, "main refuses it"
    camera = dataclasses.replace(config.camera, width=size, height=size)
    config = dataclasses.replace(config, camera=camera)
    worlds = {name: PhysicsWorld(config, "mujoco", name) for name in _RENDERERS}
    world = worlds["rays"]
    states = jax.jit(jax.vmap(world.reset))(jax.random.split(jax.random.key(0), num_worlds))
    observation, model = cast(dict, states.obs), world.engine.model
    qpos = np.asarray(cast(Any, states.pipeline_state).physics.qpos)
    draws = {name: jax.jit(_required(world.drawing)) for name, world in worlds.items()}
    for draw in draws.values():
        draw(observation).block_until_ready()
    # MuJoCo at its fastest: no antialiasing, no more pixels than asked for, no shadows.
    model.vis.global_.offwidth = model.vis.global_.offheight = size
    model.vis.quality.offsamples = model.vis.quality.shadowsize = 0
    seconds = collections.defaultdict(list)
    with mujoco.Renderer(model, size, size) as renderer:
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            renderer.scene.flags[flag] = False
        for _ in range(rounds):
            for which, draw in draws.items():
                start = time.perf_counter()
                for _ in range(5):
                    draw(observation).block_until_ready()
                seconds[which].append((time.perf_counter() - start) / 5)
            start = time.perf_counter()
            _draw_with_mujoco(renderer, model, qpos, camera.name)
            seconds["mujoco"].append(time.perf_counter() - start)
    frames = {which: num_worlds / float(np.median(took)) for which, took in seconds.items()}
    return {
        "environment": name,
        "size": size,
        "worlds": num_worlds,
        **{which: round(number) for which, number in frames.items()},
        "times": round(frames["rays"] / frames["mujoco"], 1),
    }


def _draw_with_mujoco(
    renderer: mujoco.Renderer, model: mujoco.MjModel, qpos: np.ndarray, camera: str
) -> None:
    data = mujoco.MjData(model)
    for data.qpos[:] in qpos:
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        renderer.update_scene(data, camera=camera)
        renderer.render()


def _required(drawing: Drawing | None) -> Drawing:
    assert drawing is not None, "a world with a camera has one"
    return drawing


def main() -> None:
    """Measures each environment with pictures of 64 and 32 pixels, a JSON object each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("environment", nargs="*", default=[f"{b}-{t}" for b in _BODIES for t in _TASKS])
    parser.add_argument("--worlds", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    try:
        configs = {name: load_environment(name) for name in options.environment}
    except UserError as error:
        parser.error(str(error))
    for name, config in configs.items():
        if not isinstance(config, EnvironmentConfig) or config.camera is None:
            parser.error(f"{name} has no camera; give one whose file has a [camera] table")
        for size in (64, 32):
            print(json.dumps(measure(name, config, size, options.worlds, options.rounds)), flush=True)


if __name__ == "__main__":
    main()
