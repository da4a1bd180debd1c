"""A world with a camera that is a few lines: its image shows where the selected target is, from above."""

import jax.numpy as jnp
import numpy as np

from mjx_hkl.environments.world import VISION, VISION_STATE, sizes_of, specs_of

SIDE = 8


class Seeing:
    """Another world with `vision` and `vision_state` beside its groups."""

    def __init__(self, world):
        self._world = world
        self.observation_specs = specs_of(self)
        self.observation_size = sizes_of(self.observation_specs)

    def __getattr__(self, name):
        return getattr(self._world, name)

    def _with_vision(self, state):
        targets, instruction = state.obs["targets"], state.obs["instruction"]
        seen = jnp.concatenate([targets.reshape(3, 2), instruction[:, None]], 1).reshape(-1)
        groups = {**state.obs, VISION_STATE: seen}
        return state.replace(obs={**groups, VISION: self.drawing(groups)})

    def reset(self, rng):
        return self._with_vision(self._world.reset(rng))

    def step(self, state, action):
        bare = {name: x for name, x in state.obs.items() if name not in (VISION, VISION_STATE)}
        return self._with_vision(self._world.step(state.replace(obs=bare), action))

    def drawing(self, observation):
        x = observation[VISION_STATE]
        x = x.reshape(*x.shape[:-1], 3, 3)
        away = (x[..., :2] * x[..., 2:]).sum(-2)
        middles = (jnp.arange(SIDE) + 0.5) / SIDE * 2.0 - 1.0
        rows, columns = (jnp.abs(away[..., i, None] - middles) < 0.4 for i in range(2))
        spot = (255 * (rows[..., :, None] & columns[..., None, :])).astype(jnp.uint8)
        return jnp.stack([spot, 255 - spot, jnp.zeros_like(spot)], -1)


def image_of(vision_state):
    """`Seeing.drawing` of one world in NumPy."""
    x = np.asarray(vision_state, float).reshape(3, 3)
    away = x[x[:, 2] > 0][0, :2]
    middles = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
    return 255 * np.outer(*(np.abs(away[i] - middles) < 0.4 for i in range(2)))
