"""Between ours and theirs: Brax and Playground environments for our agent, ours for Brax's trainers."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, cast

import jax
import jax.numpy as jnp
from brax.envs.base import Env, State, Wrapper
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from mjx_hkl.environments.choices import Choice
from mjx_hkl.environments.physics import full_precision
from mjx_hkl.environments.scenery import Scenery
from mjx_hkl.environments.world import REWARD_TERMS, ActionKind, Draw, World, sizes_of
from mjx_hkl.errors import UserError
from mjx_hkl.specs import ArraySpec

_GROUP = "observation"  # the name of the only group where the environment gives one array


class AdaptedWorld(Env):
    """A Brax or MuJoCo Playground environment as our agents know worlds.

    Observations become named groups, and actions are clipped to [-1, 1]. `success` is 0 where the environment
    does not tell, and else lasts until the episode ends. Numbers that are not finite are a fault: the episode
    ends, nothing is learned of it.
    """

    action_kind: ActionKind = "gaussian"
    engine = None
    notes = ()
    not_shared = ""
    symmetry = None
    relabelling = None
    curriculum = None
    drawing = None
    choices: Mapping[str, Choice] = MappingProxyType({})
    push = None

    def __init__(
        self,
        env: Any,
        name: str,
        episode_length: int,
        backend: str = "",
        arguments: Mapping[str, Any] = MappingProxyType({}),
    ):
        """Adapts an environment.

        Args:
          env: theirs.
          name: in messages and exports.
          episode_length: longer episodes are truncated.
          backend: the physics behind it, where the environment itself does not tell.
          arguments: what it was made with that is not its default, for exports: plain values.

        Raises:
          UserError: an observation is no array of numbers.
        """
        self._env, self.name, self.episode_length = env, name, episode_length
        self._backend: str = backend or getattr(env, "backend", "mjx")
        self._arguments = dict(arguments)
        start = jax.eval_shape(env.reset, jax.random.key(0))
        self.can_succeed = "success" in start.metrics
        observation = start.obs
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
        arguments = {"arguments": self._arguments} if self._arguments else {}
        return {"name": self.name, "episode_length": self.episode_length, **arguments}

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

    def visible(self, state: State) -> dict[str, Array]:
        """Where their MuJoCo model is, by the names of `mujoco.MjData`."""
        theirs: Any = state
        physics = theirs.data if hasattr(theirs, "data") else theirs.pipeline_state  # Playground's, or Brax's
        qpos = physics.q if hasattr(physics, "q") else physics.qpos
        mocap = ("mocap_pos", "mocap_quat")
        return {"qpos": qpos, **{name: getattr(physics, name) for name in mocap if hasattr(physics, name)}}

    def scenery(self) -> Scenery:
        """See `World.scenery`: their MuJoCo model."""
        from mjx_hkl.environments.pictures import model_scenery

        theirs = self._env if hasattr(self._env, "mj_model") else getattr(self._env, "sys", None)  # Brax's
        model = getattr(theirs, "mj_model", None)
        if model is None:
            raise UserError(f"{self.name} cannot be drawn: it has no MuJoCo model")
        return model_scenery(model)

    def renderer(self, width: int, height: int) -> AbstractContextManager[Draw]:
        """See `World.renderer`: what their own renderers draw, MuJoCo's picture of their model."""
        from mjx_hkl.environments.pictures import model_renderer

        return model_renderer(self.scenery(), width, height)

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
        theirs = jax.tree.map(lambda x: x, before.replace(obs=observed))  # a step may change dictionaries
        with full_precision():
            after = self._env.step(theirs, jnp.clip(action, -1.0, 1.0))
        observation = _groups(after.obs)
        told = {name: x for name, x in after.metrics.items() if name.startswith(("success", *REWARD_TERMS))}
        finite = jax.tree.map(lambda x: jnp.all(jnp.isfinite(x)), (observation, after.reward, told))
        fault = ~jnp.all(jnp.stack(jax.tree.leaves(finite)))
        told = {name: jnp.where(fault, 0.0, x) for name, x in told.items()}
        if "success" in told:  # which need not end an episode there: whoever has succeeded, has
            told["success"] = jnp.maximum(before.metrics["success"], told["success"])
        metrics = before.metrics | after.metrics | told | {"fault": fault.astype(jnp.float32)}
        after = after.replace(
            obs=jax.tree.map(lambda new, old: jnp.where(fault, old, new), observation, before.obs),
            reward=jnp.where(fault, 0.0, after.reward),
            done=jnp.maximum(jnp.asarray(after.done, jnp.float32), fault),  # Brax has Python numbers too
            metrics=metrics,
        )
        # A step's types may be weak, wider than a reset's or Python's; in one program they must be the same.
        return jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), after, before)


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


def _groups(observation: Any) -> dict[str, Array]:
    return dict(observation) if isinstance(observation, Mapping) else {_GROUP: observation}
