"""Between ours and theirs: Brax and Playground environments for our agent, ours for Brax's trainers."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, cast

import jax
import jax.numpy as jnp
from brax.envs.base import Env, State, Wrapper
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from mjx_hkl.environments.physics import full_precision
from mjx_hkl.environments.world import ActionKind, Draw, World, sizes_of
from mjx_hkl.errors import UserError, unknown_name
from mjx_hkl.specs import ArraySpec

SOURCES = ("brax", "playground")
_ENGINES = {"brax": ("auto",), "playground": ("auto", "mjx", "warp")}  # Brax's have their own
_GROUP = "observation"  # the name of the only group where the environment gives one array


class AdaptedWorld(Env):
    """A Brax or MuJoCo Playground environment as our agents know worlds.

    Observations become named groups, actions are clipped to [-1, 1], `success` is 0 where the environment
    does not tell, and numbers that are not finite are a fault: the episode ends, nothing is learned of it.
    """

    action_kind: ActionKind = "gaussian"
    engine = None
    not_shared = ""
    symmetry = None
    relabelling = None
    drawing = None

    def __init__(self, env: Any, name: str, episode_length: int, backend: str = ""):
        """Adapts `env`, called `name` in messages and exports; longer episodes are truncated.

        `backend` is the physics behind it, where the environment itself does not tell.

        Raises:
          UserError: an observation is no array of numbers.
        """
        self._env, self.name, self.episode_length = env, name, episode_length
        self._backend: str = backend or getattr(env, "backend", "mjx")
        observation = jax.eval_shape(env.reset, jax.random.key(0)).obs
        self._in_groups = isinstance(observation, Mapping)
        groups = _groups(observation)
        for group, values in groups.items():
            if not hasattr(values, "dtype") or jnp.issubdtype(values.dtype, jax.dtypes.extended):
                raise UserError(f"environment {name!r}: observation {group!r} is no array of numbers")
        self._specs = {group: ArraySpec.of(values) for group, values in groups.items()}
        self.low_level_information = tuple(groups)

    @property
    def description(self) -> dict[str, Any]:
        """What an export keeps of it."""
        return {"name": self.name, "episode_length": self.episode_length}

    @property
    def observation_specs(self) -> dict[str, ArraySpec]:
        """Shape and type of each observation group by name."""
        return self._specs

    @property
    def observation_size(self) -> dict[str, int]:
        """Numbers in each observation group by name."""
        return sizes_of(self._specs)

    @property
    def action_size(self) -> int:
        """Number of actuators."""
        return self._env.action_size

    @property
    def backend(self) -> str:
        """The physics behind it."""
        return self._backend

    @property
    def control_seconds(self) -> float:
        """Simulated seconds of a control step."""
        return float(self._env.dt)

    def renderer(self, width: int, height: int) -> AbstractContextManager[Draw]:
        """It cannot be drawn.

        Raises:
          UserError: always.
        """
        raise UserError(f"{self.name} brings its own simulator; only our worlds can be rendered")

    def reset(self, rng: PRNGKeyArray) -> State:
        """A fresh start of the environment."""
        with full_precision():
            state = self._env.reset(rng)
        zero = jnp.zeros(())
        metrics = {"success": zero, **state.metrics, "fault": zero}
        return state.replace(
            obs=_groups(state.obs),
            reward=jnp.asarray(state.reward, jnp.float32),
            done=jnp.asarray(state.done, jnp.float32),
            metrics=metrics,
        )

    def step(self, state: State, action: Float[Array, " nu"]) -> State:
        """One control step."""
        before = cast(Any, state)
        observed = before.obs if self._in_groups else before.obs[_GROUP]
        with full_precision():
            after = self._env.step(before.replace(obs=observed), jnp.clip(action, -1.0, 1.0))
        observation = _groups(after.obs)
        finite = jax.tree.map(lambda x: jnp.all(jnp.isfinite(x)), (observation, after.reward))
        fault = ~jnp.all(jnp.stack(jax.tree.leaves(finite)))
        metrics = before.metrics | after.metrics | {"fault": fault.astype(jnp.float32)}
        after = after.replace(
            obs=jax.tree.map(lambda new, old: jnp.where(fault, old, new), observation, before.obs),
            reward=jnp.where(fault, 0.0, after.reward),
            done=jnp.maximum(after.done.astype(jnp.float32), fault),
            metrics=metrics,
        )
        # A step's types may be weak or wider than a reset's; in one program they must be the same.
        return jax.tree.map(lambda new, old: new.astype(old.dtype), after, before)


class FlatWorld(Wrapper):
    """One of our worlds with its observation groups in one vector, as Brax's trainers want it."""

    def __init__(self, env: World):
        super().__init__(cast(Env, env))
        groups = {name: jnp.zeros(spec.shape, spec.dtype) for name, spec in env.observation_specs.items()}
        _, self._groups_of = ravel_pytree(groups)

    def reset(self, rng: PRNGKeyArray) -> State:
        """See `World.reset`."""
        state = self.env.reset(rng)
        return state.replace(obs=ravel_pytree(state.obs)[0])

    def step(self, state: State, action: Float[Array, " nu"]) -> State:
        """See `World.step`."""
        state = self.env.step(state.replace(obs=self._groups_of(cast(Array, state.obs))), action)
        return state.replace(obs=ravel_pytree(state.obs)[0])

    @property
    def observation_size(self) -> int:
        """Of all groups together."""
        return sum(cast(dict, self.env.observation_size).values())


def load_foreign(name: str, engine: str) -> AdaptedWorld:
    """The environment `brax:NAME` or `playground:NAME`.

    Raises:
      UserError: there is none, its package is not installed, or it does not run on the engine.
    """
    source, rest = name.split(":", 1)
    if engine not in _ENGINES[source]:
        raise UserError(f"{name!r} does not run on engine {engine!r}, only on {', '.join(_ENGINES[source])}")
    if source == "brax":
        from brax import envs

        known = list(envs._envs)
        if rest not in known:
            raise unknown_name("Brax environment", rest, known)
        return AdaptedWorld(envs.get_environment(rest), name, episode_length=1000)
    try:
        from mujoco_playground import registry  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(f"{name!r} needs MuJoCo Playground: pip install playground ({error})") from error
    if rest not in registry.ALL_ENVS:
        raise unknown_name("Playground environment", rest, registry.ALL_ENVS)
    config = registry.get_default_config(rest)
    config.impl = "warp" if engine == "warp" else "jax"
    episode_length: Any = config.episode_length
    backend = "warp" if engine == "warp" else "mjx"
    return AdaptedWorld(registry.load(rest, config=config), name, int(episode_length), backend)


def _groups(observation: Any) -> dict[str, Array]:
    return dict(observation) if isinstance(observation, Mapping) else {_GROUP: observation}
