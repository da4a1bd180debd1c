"""Episodes that begin anew for Brax's trainers, as they do for everybody else here.

Brax's own wrapper, and Playground's, go back to the one start that each world had first.
"""

from typing import Any

import jax
import jax.numpy as jnp
from brax.envs.base import Wrapper
from brax.envs.wrappers.training import EpisodeWrapper, VmapWrapper

_KEYS = "fresh_keys"
_OF_EPISODES = ("steps", "truncation", "episode_done", "episode_metrics")  # EpisodeWrapper keeps these itself


def wrap(
    env: Any, episode_length: int, action_repeat: int = 1, randomization_fn: Any = None
) -> "FreshStarts":
    """What Brax's `train` takes as its `wrap_env_fn`."""
    assert randomization_fn is None, "worlds that vary draw anew in each reset"
    return FreshStarts(EpisodeWrapper(VmapWrapper(env), episode_length, action_repeat))


class FreshStarts(Wrapper):
    """Worlds side by side; one whose episode is over is at a start that it has never had."""

    def reset(self, rng: jax.Array) -> Any:
        """All worlds at a start, from a key for each."""
        now, later = jnp.moveaxis(jax.vmap(jax.random.split)(rng), 1, 0)
        state = self.env.reset(now)
        state.info[_KEYS] = later
        return state

    def step(self, state: Any, action: jax.Array) -> Any:
        """One control step of all; what it earned and whether it ended are the old episode's."""
        info = dict(state.info)
        now, later = jnp.moveaxis(jax.vmap(jax.random.split)(info.pop(_KEYS)), 1, 0)
        info["steps"] = jnp.where(state.done > 0, 0, info["steps"])
        metrics = {name: _chosen(state.done, jnp.zeros_like(x), x) for name, x in state.metrics.items()}
        state = self.env.step(
            state.replace(done=jnp.zeros_like(state.done), info=info, metrics=metrics), action
        )
        fresh, done = self.env.reset(now), state.done

        def begun(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda x, y: _chosen(done, x, y), new, old)

        physics = "data" if hasattr(state, "data") else "pipeline_state"  # Playground's, Brax's
        parts = {name: begun(getattr(fresh, name), getattr(state, name)) for name in (physics, "obs")}
        own = {
            name: begun(fresh.info[name], value)
            for name, value in state.info.items()
            if name in fresh.info and name not in _OF_EPISODES
        }
        return state.replace(**parts, info={**state.info, **own, _KEYS: later})


def _chosen(done: jax.Array, fresh: jax.Array, old: jax.Array) -> jax.Array:
    """Of each world the first where its episode is over; what all worlds share stays."""
    if not old.ndim or old.shape[0] != done.shape[0]:
        return old
    return jnp.where(done.reshape(-1, *[1] * (old.ndim - 1)) > 0, fresh, old)
