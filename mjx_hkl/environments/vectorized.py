"""Many worlds at once: time limit, fresh random starts, and the truth about how an episode ended."""

import dataclasses
from collections.abc import Mapping
from typing import cast

import flax.struct
import jax
import jax.numpy as jnp
from brax.envs.base import State
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from mjx_hkl.environments.world import REWARD_TERMS, World


@flax.struct.dataclass
class VectorState:
    """The carry of a vectorized environment.

    Attributes:
      env: the Brax state of every world.
      steps: control steps since each episode's start.
      episode_return: undiscounted sum of rewards since then.
      episode_terms: the same of the reward's terms, by the names of their metrics.
    """

    env: State
    steps: Int[Array, " envs"]
    episode_return: Float[Array, " envs"]
    episode_terms: dict[str, Float[Array, " envs"]]

    @property
    def observation(self) -> dict[str, Shaped[Array, "envs ..."]]:
        """Observation groups to act on."""
        return cast(dict, self.env.obs)


@flax.struct.dataclass
class Timestep:
    """What a control step led to, before any reset.

    Attributes:
      reward: of the step.
      discount: 0 where the episode terminated, else 1; truncation keeps it at 1.
      is_last: 1 where the episode ended with this step, for whatever reason.
      valid: 0 where the simulator failed, and nothing may be learned from the step.
      next_observation: the true one, never that of the episode that starts next.
      success: 1 where the task was solved.
      episode_return: where `is_last`, the return of the episode that ended.
      episode_length: likewise its length in control steps.
      episode_terms: likewise the sums of the reward's terms, by the names of their metrics.
    """

    reward: Float[Array, " envs"]
    discount: Float[Array, " envs"]
    is_last: Float[Array, " envs"]
    valid: Float[Array, " envs"]
    next_observation: dict[str, Shaped[Array, "envs ..."]]
    success: Float[Array, " envs"]
    episode_return: Float[Array, " envs"]
    episode_length: Int[Array, " envs"]
    episode_terms: dict[str, Float[Array, " envs"]]


@dataclasses.dataclass(frozen=True)
class VectorEnvironment:
    """`num_envs` copies of a world, stepped together."""

    env: World
    num_envs: int
    episode_length: int

    @property
    def tasks(self) -> dict[str, "VectorEnvironment"]:
        """Itself, unnamed: see `Worlds.tasks`, of several environments."""
        return {"": self}

    def by_task(self, x: Shaped[Array, "envs ..."]) -> dict[str, Shaped[Array, "each ..."]]:
        """Nothing: there is one task. See `Worlds.by_task`."""
        return {}

    def reset(self, key: PRNGKeyArray) -> VectorState:
        """Every world at a fresh start."""
        env_state = jax.vmap(self.env.reset)(jax.random.split(key, self.num_envs))
        zero = jnp.zeros(self.num_envs)
        terms = dict.fromkeys(reward_terms(env_state.metrics), zero)
        return VectorState(env_state, jnp.zeros(self.num_envs, int), zero, terms)

    def with_ages(self, state: VectorState, key: PRNGKeyArray) -> VectorState:
        """The state with each episode at a random age."""
        return state.replace(steps=jax.random.randint(key, (self.num_envs,), 0, self.episode_length))

    def step(
        self, state: VectorState, action: Shaped[Array, "envs ..."], key: PRNGKeyArray
    ) -> tuple[VectorState, Timestep]:
        """One control step of every world; those whose episode ended start a new one from `key`."""
        with jax.named_scope("task"):
            env_state = jax.vmap(self.env.step)(state.env, action)
        steps = state.steps + 1
        terminated = env_state.done
        terms = {name: total + env_state.metrics[name] for name, total in state.episode_terms.items()}
        continued = VectorState(env_state, steps, state.episode_return + env_state.reward, terms)
        is_last = jnp.maximum(terminated, (steps >= self.episode_length).astype(jnp.float32))
        timestep = Timestep(
            reward=env_state.reward,
            discount=1.0 - terminated,
            is_last=is_last,
            valid=1.0 - env_state.metrics.get("fault", jnp.zeros_like(terminated)),
            next_observation=continued.observation,
            success=env_state.metrics.get("success", jnp.zeros_like(terminated)),
            episode_return=continued.episode_return,
            episode_length=steps,
            episode_terms=terms,
        )
        with jax.named_scope("reset"):
            return where(is_last, self.reset(key), continued), timestep


def reward_terms(metrics: Mapping[str, Array]) -> list[str]:
    """The names of those metrics that tell what a reward is made of."""
    return [name for name in metrics if name.startswith(REWARD_TERMS)]


def where(condition: Float[Array, " envs"], yes: VectorState, no: VectorState) -> VectorState:
    """World by world, `yes` where the condition is not 0."""

    def select(a: Array, b: Array) -> Array:
        return jnp.where(condition.reshape(-1, *(1,) * (a.ndim - 1)) > 0, a, b)

    return jax.tree.map(select, yes, no)
