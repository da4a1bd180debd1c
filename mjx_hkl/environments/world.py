"""One world as a `brax.envs.Env`: a body in an arena with a task, on a physics engine."""

import functools
from typing import Any, cast

import flax.struct
import jax
import jax.numpy as jnp
from brax.envs.base import Env, State
from jaxtyping import Array, Float, PRNGKeyArray

from mjx_hkl.environments.bodies import Body
from mjx_hkl.environments.composition import EnvironmentConfig, compose
from mjx_hkl.environments.engines import make_engine
from mjx_hkl.environments.physics import PhysicsState

# TF32 would corrupt the constraint solve and the observations on recent GPUs.
_FULL_PRECISION = functools.partial(jax.default_matmul_precision, "highest")


@flax.struct.dataclass
class WorldState:
    """Physics and task; the `pipeline_state` of a Brax state."""

    physics: PhysicsState
    task: Any


class World(Env):
    """Observations are a dict of named groups; actions are clipped to [-1, 1].

    `metrics` has `success` and `fault` (a simulator state that is not finite or absurdly fast: the
    episode ends and the step must not be learned from). The time limit is the vectorizer's business.
    """

    def __init__(self, config: EnvironmentConfig, engine: str = "auto"):
        self.config = config
        model, self._arena, self._task = compose(config)
        self.engine = make_engine(engine, model, config.physics.substeps)
        self._body = Body(model, config.proprioception)
        self._rest = jnp.asarray(model.qpos0, jnp.float32)
        self._observation_size = {
            name: group.shape[-1] for name, group in jax.eval_shape(self.reset, jax.random.key(0)).obs.items()
        }

    def reset(self, rng: PRNGKeyArray) -> State:
        """A fresh random start: everything is drawn from `rng`, nothing is cached."""
        with _FULL_PRECISION():
            return self._reset(rng)

    def step(self, state: State, action: Float[Array, " nu"]) -> State:
        """One control step."""
        with _FULL_PRECISION():
            return self._step(state, action)

    def _reset(self, rng: PRNGKeyArray) -> State:
        task_key, heading_key = jax.random.split(rng)
        task, position = self._task.reset(task_key, self._arena)
        heading = jax.random.uniform(heading_key, minval=-jnp.pi, maxval=jnp.pi)
        velocity = jnp.zeros(self.engine.model.nv)
        physics = PhysicsState(self._body.place(self._rest, position, heading), velocity, velocity)
        zero = jnp.zeros(())
        return State(
            pipeline_state=WorldState(physics, task),  # pyright: ignore - Brax means its own
            obs=self._observe(physics, task),
            reward=zero,
            done=zero,
            metrics={"success": zero, "fault": zero},
        )

    def _step(self, state: State, action: Float[Array, " nu"]) -> State:
        world = cast(WorldState, state.pipeline_state)
        physics = self.engine.step(world.physics, jnp.clip(action, -1.0, 1.0))
        frame = self._body.frame(physics)
        outcome = self._task.reward(world.task, frame)
        fault = self._is_fault(physics)
        fallen = frame.rotation[2, 2] < self.config.upright if self.config.upright else False
        done = (outcome.success > 0) | fallen | fault
        observation = self._observe(physics, world.task)
        return state.replace(
            pipeline_state=WorldState(physics, world.task),
            # A fault's numbers must not reach a network: it would make their gradients NaN, masked or not.
            obs=jax.tree.map(lambda new, old: jnp.where(fault, old, new), observation, state.obs),
            reward=jnp.where(fault, 0.0, outcome.reward),
            done=done.astype(jnp.float32),
            metrics=state.metrics
            | {"success": jnp.where(fault, 0.0, outcome.success), "fault": fault.astype(jnp.float32)},
        )

    @property
    def observation_size(self) -> dict[str, int]:
        """Size of each observation group by name."""
        return self._observation_size

    @property
    def action_size(self) -> int:
        """Number of actuators."""
        return self.engine.model.nu

    @property
    def backend(self) -> str:
        """The physics behind the engine interface."""
        return "mjx"

    def _observe(self, physics: PhysicsState, task: Any) -> dict[str, Float[Array, " n"]]:
        frame = self._body.frame(physics)
        return {
            "proprioception": self._body.proprioception(physics, frame),
            **self._task.observe(task, frame),
        }

    def _is_fault(self, physics: PhysicsState) -> Array:
        # NaN compares false, so it is not below the limit either.
        sane = jnp.all(jnp.abs(physics.qvel) < self.config.physics.max_velocity)
        return ~(sane & jnp.all(jnp.isfinite(physics.qpos)) & jnp.all(jnp.isfinite(physics.qacc)))
