"""Frames per second of the agent's camera: rays in JAX, beside MuJoCo's own renderer in the same run.

    MUJOCO_GL=egl python benchmarks/vision.py [ENVIRONMENT ...] [--worlds 256]

The two are timed in turn; MuJoCo's renderer draws one world after another, as it does.
"""

import argparse
import dataclasses
import json
import time
from typing import Any, cast

import jax
import mujoco
import numpy as np

from mjx_hkl.environments import EnvironmentConfig, PhysicsWorld, load_environment
from mjx_hkl.errors import UserError

_BODIES = ("ball", "ant", "quadruped")
_TASKS = ("go-to-target-vision", "move-box-easy-vision", "move-box-hard-vision", "gather-boxes-vision")


def measure(
    name: str, config: EnvironmentConfig, size: int, num_worlds: int, rounds: int
) -> dict[str, object]:
    """Frames per second of both, the median of the rounds."""
    assert config.camera is not None, "main refuses it"
    camera = dataclasses.replace(config.camera, width=size, height=size)
    world = PhysicsWorld(dataclasses.replace(config, camera=camera), "mujoco")
    states = jax.jit(jax.vmap(world.reset))(jax.random.split(jax.random.key(0), num_worlds))
    observation = cast(dict, states.obs)
    assert world.drawing is not None
    draw = jax.jit(world.drawing)
    draw(observation).block_until_ready()
    model = world.engine.model
    # MuJoCo at its fastest: no antialiasing, no more pixels than asked for, no shadows.
    model.vis.global_.offwidth = model.vis.global_.offheight = size
    model.vis.quality.offsamples = model.vis.quality.shadowsize = 0
    data, qpos = mujoco.MjData(model), np.asarray(cast(Any, states.pipeline_state).physics.qpos)
    ours, theirs = [], []
    with mujoco.Renderer(model, size, size) as renderer:
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            renderer.scene.flags[flag] = False
        for _ in range(rounds):
            start = time.perf_counter()
            for _ in range(5):
                draw(observation).block_until_ready()
            ours.append(5 * num_worlds / (time.perf_counter() - start))
            start = time.perf_counter()
            for data.qpos[:] in qpos:
                mujoco.mj_kinematics(model, data)
                mujoco.mj_camlight(model, data)
                renderer.update_scene(data, camera=camera.name)
                renderer.render()
            theirs.append(num_worlds / (time.perf_counter() - start))
    rays, opengl = float(np.median(ours)), float(np.median(theirs))
    return {
        "environment": name,
        "size": size,
        "worlds": num_worlds,
        "rays": round(rays),
        "mujoco": round(opengl),
        "times": round(rays / opengl, 1),
    }


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
