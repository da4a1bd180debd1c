"""Our grids behind the functions of gymnax that rejax calls."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mjx_hkl.environments import make_world


class GymnaxParameters(NamedTuple):
    """What rejax reads of an environment's parameters."""

    max_steps_in_episode: int


class GymnaxWorld:
    """One of our grids behind the functions of gymnax that rejax calls."""

    def __init__(self, name: str):
        self.world: Any = make_world(name)
        self.default_params = GymnaxParameters(self.episode_length)

    @property
    def episode_length(self) -> int:
        """Actions until truncation."""
        return self.world.episode_length

    def reset(self, key: Any, params: Any) -> tuple[Any, Any]:
        """A first observation and a state, with the actions since its reset."""
        state = self.world.reset(key)
        return self.flat(state), (state, jnp.zeros((), jnp.int32))

    def step(self, key: Any, state: Any, action: Any, params: Any) -> tuple[Any, ...]:
        """One action; where the episode is over, the first observation of the next."""
        inner, age = state
        after = self.world.step(inner, action)
        done = (after.done > 0) | (age + 1 >= self.episode_length)
        first_seen, first = self.reset(key, params)
        seen, state = jax.tree.map(
            lambda x, y: jnp.where(done, x, y), (first_seen, first), (self.flat(after), (after, age + 1))
        )
        return seen, state, after.reward, done, {}

    def flat(self, state: Any) -> Any:
        """All observation groups in one vector."""
        return jnp.concatenate([state.obs[name] for name in self.world.observation_size])

    def action_space(self, params: Any) -> Any:
        """The moves."""
        from gymnax.environments.spaces import Discrete  # pyright: ignore[reportMissingImports]

        return Discrete(self.world.action_size)

    def observation_space(self, params: Any) -> Any:
        """Of one vector."""
        from gymnax.environments.spaces import Box  # pyright: ignore[reportMissingImports]

        return Box(-1.0, 1.0, (sum(self.world.observation_size.values()),))
