"""The train step: environment steps, replay, updates, in one pure function of one state."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mjx_hkl.algorithms import learner, replay
from mjx_hkl.algorithms.algorithm import Algorithm
from mjx_hkl.algorithms.learner import Learner
from mjx_hkl.algorithms.optimizers import Release
from mjx_hkl.algorithms.replay import Ring
from mjx_hkl.algorithms.window import Window, time_major
from mjx_hkl.environments import Worlds
from mjx_hkl.environments.world import VISION, VISION_STATE
from mjx_hkl.models.agent import Agent
from mjx_hkl.models.config import ModelConfig
from mjx_hkl.training import acting, views
from mjx_hkl.training.acting import Actor
from mjx_hkl.training.exploration import Exploration

Metrics = dict[str, Float[Array, "..."]]
OnSkipped = Callable[[Any, Any, Any, Any], None]
"""Called on the host after every update: whether it was skipped, its number, its batch, the agent before."""


@flax.struct.dataclass
class TrainState:
    """All that training carries from one step to the next, and all that a checkpoint holds.

    Attributes:
      learner: parameters, targets, optimizers.
      actor: worlds, and what the agent carries in them.
      replay: the ring of windows.
      key: of the next train step.
      iteration: train steps made; every other counter follows from it.
    """

    learner: Learner
    actor: Actor
    replay: Ring
    key: PRNGKeyArray
    iteration: Int[Array, ""]


_MOST = 2**31 - 1  # counters are of 32 bits

SEED_AXES = TrainState(learner=0, actor=0, replay=0, key=0, iteration=None)  # pyright: ignore
"""`vmap` axes of a state of several seeds: all count the same train steps."""


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """`init(key) -> state` and `step(state) -> state, metrics`, pure: jit, vmap and scan them."""

    environment: Worlds
    model: ModelConfig
    algorithm: Algorithm
    replay_capacity: int  # transitions
    min_replay: int  # transitions collected before the first update
    total_env_steps: int  # of the whole run
    frozen: tuple[str, ...] = ()  # modules that stay as they are
    draws_images: bool = False  # again when windows are sampled, instead of keeping them in replay
    released: tuple[str, ...] = ()  # modules that stay as they are for the first `release_after`
    release_after: int = 0  # environment steps
    on_skipped: OnSkipped | None = None

    def init(self, key: PRNGKeyArray) -> TrainState:
        """A state before its first train step, replay empty.

        Each world starts with another age. With one age for all, the time limit would end all episodes at
        once, and only successes and falls would end before.
        """
        agent_key, actor_key, age_key, key = jax.random.split(key, 4)
        env, config = self.environment, self.algorithm
        nothing = jnp.zeros((), jnp.int32)
        agent = Agent(env.env.observation_specs, env.env.action_size, self.model, agent_key)
        actor = acting.init(self.worlds(nothing), agent, actor_key, self.exploration)
        actor = actor.replace(env=env.with_ages(actor.env, age_key))
        _, windows, _ = jax.eval_shape(lambda: self.act(agent, actor, key, nothing))
        slots = replay.num_slots(self.replay_capacity, env.num_envs, config.unroll_length)
        learn_key = jax.random.fold_in(agent_key, 2)
        state = learner.init(agent, config, self.total_updates, learn_key, self.release)
        return TrainState(state, actor, replay.empty(windows, slots), key, nothing)

    def step(self, state: TrainState) -> tuple[TrainState, Metrics]:
        """One unroll of every world, then the updates that follow it (Algorithm 2)."""
        act_key, learn_key, key = jax.random.split(state.key, 3)
        actor, windows, episodes = self.act(state.learner.agent, state.actor, act_key, state.iteration)
        ring = replay.insert(state.replay, windows, state.iteration)
        acted_on = acting.seen(windows, self.algorithm.unroll_length)
        if self.redraws:  # compiled only where an encoder measures images
            acted_on = views.with_images(self.environment.env, acted_on)
        is_released = state.iteration >= self.steps_before_release if self.released else True
        informed = learner.observe(state.learner, acted_on, self.frozen, self.released, is_released)
        new_learner, losses, updates = self.learn(informed, ring, learn_key, state.iteration)
        new_state = TrainState(new_learner, actor, ring, key, state.iteration + 1)
        return new_state, {"updates": updates, **episodes, **losses}

    def act(
        self, agent: Agent, actor: Actor, key: PRNGKeyArray, iteration: Int[Array, ""]
    ) -> tuple[Actor, Window, Metrics]:
        """One unroll; see `acting.unroll`."""
        config = self.algorithm
        keeps_noise = config.latents == "stored_noise"
        length, samples = config.unroll_length, config.behaviour_samples
        given = self.worlds(iteration), agent, actor, key, length, keeps_noise
        return acting.unroll(*given, self.exploration, samples, self.forgets, config.acts_in_latents)

    def worlds(self, iteration: Int[Array, ""]) -> Worlds:
        """The environment as it is after so many train steps."""
        curriculum = self.environment.env.curriculum
        if curriculum is None:
            return self.environment
        progress = jnp.minimum(iteration / self.train_steps, 1.0)
        environment: Any = self.environment
        return dataclasses.replace(environment, env=curriculum(progress))

    def learn(
        self, state: Learner, ring: Ring, key: PRNGKeyArray, iteration: Int[Array, ""]
    ) -> tuple[Learner, Metrics, Float[Array, ""]]:
        """Updates on windows from replay; none before `min_replay`. Metrics are sums over updates."""
        config, length, world = self.algorithm, self.updates, self.environment.env
        filled, newest = jnp.minimum(iteration + 1, ring.num_slots), iteration % ring.num_slots

        def update(state: Learner, key: PRNGKeyArray, count: Array) -> tuple[Learner, Metrics]:
            sample_key, loss_key = jax.random.split(key)
            windows = replay.sample(ring, sample_key, self.batch_size, filled, config.recency, newest)
            if config.symmetries:
                symmetry_key, loss_key = jax.random.split(loss_key)
                windows = views.through_symmetries(world, windows, symmetry_key)
            if config.relabelled:
                relabel_key, loss_key = jax.random.split(loss_key)
                windows = views.under_other_instructions(world, windows, relabel_key, config.relabelled)
            if self.redraws:
                windows = windows.replace(observation=views.with_images(world, windows.observation))
            if config.image_shift:
                shift_key, loss_key = jax.random.split(loss_key)
                windows = views.shifted(windows, shift_key, config.image_shift)
            window = time_major(windows)
            given = window, loss_key, count, config, self.total_updates, self.frozen, self.release
            updated, metrics = learner.update(state, *given)
            if self.on_skipped:
                jax.debug.callback(self.on_skipped, metrics["skipped_updates"], count, window, state.agent)
            return updated, metrics

        # One vector of all metrics: a GPU would launch a kernel to write each.
        _, shapes = jax.eval_shape(update, state, key, iteration)
        nothing, by_name = ravel_pytree(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes))

        def step(state: Learner, given: tuple[PRNGKeyArray, Array]) -> tuple[Learner, Array]:
            state, metrics = update(state, *given)
            return state, ravel_pytree(metrics)[0]

        def learn(state: Learner) -> tuple[Learner, Array, Float[Array, ""]]:
            keys = jax.random.split(key, length)
            first = (iteration - self.warmup) * length + 1
            counts = first + jnp.arange(length)
            state, metrics = jax.lax.scan(step, state, (keys, counts))
            return state, metrics.sum(0), jnp.float32(length)

        state, sums, updates = jax.lax.cond(
            iteration >= self.warmup, learn, lambda state: (state, nothing, jnp.float32(0)), state
        )
        return state, by_name(sums), updates

    @property
    def forgets(self) -> tuple[str, ...]:
        """Observation groups that replay does without: a camera's image, its state, or both."""
        if VISION_STATE not in self.environment.env.observation_specs or not self.environment.env.drawing:
            return ()
        if not self.model.takes(VISION):
            return VISION, VISION_STATE
        return (VISION,) if self.draws_images else (VISION_STATE,)

    @property
    def redraws(self) -> bool:
        """Whether images are drawn again."""
        return VISION in self.forgets and self.model.takes(VISION)

    @property
    def images_bytes(self) -> dict[str, int]:
        """What a camera takes of one seed's replay, with `images` "stored" and "drawn"; {} without one."""
        env, config = self.environment, self.algorithm
        if VISION_STATE not in env.env.observation_specs or not self.model.takes(VISION):
            return {}
        slots = replay.num_slots(self.replay_capacity, env.num_envs, config.unroll_length)
        observations = env.num_envs * slots * (config.unroll_length + 2)
        image, state = (env.env.observation_specs[name] for name in (VISION, VISION_STATE))
        return {"stored": observations * image.bytes, "drawn": observations * state.bytes}

    @property
    def exploration(self) -> Exploration:
        """How actions are drawn beyond what the policy says."""
        return Exploration(self.algorithm.exploration_scale, self.algorithm.exploration_correlation)

    @property
    def warmup(self) -> int:
        """Train steps that only collect, so that `min_replay` transitions are there at the first update."""
        return max(0, -(-self.min_replay // self.environment_steps) - 1)

    @property
    def updates(self) -> int:
        """Updates after an unroll of every world: as many as make the algorithm's replay ratio."""
        return round(self.algorithm.replay_ratio * self.environment.num_envs / self.batch_size)

    @property
    def train_steps(self) -> int:
        """Of the whole run."""
        return -(-self.total_env_steps // self.environment_steps)

    @property
    def total_updates(self) -> int:
        """Updates of the whole run."""
        return max(0, self.train_steps - self.warmup) * self.updates

    @property
    def steps_before_release(self) -> int:
        """Train steps before modules are released."""
        return min(-(-self.release_after // self.environment_steps), _MOST)

    @property
    def release(self) -> Release:
        """Modules that are released, and the updates before that."""
        updates = max(0, self.steps_before_release - self.warmup) * self.updates
        return Release(self.released, min(updates, _MOST))

    @property
    def batch_size(self) -> int:
        """Windows of an update."""
        return self.algorithm.batch_size or self.environment.num_envs

    @property
    def environment_steps(self) -> int:
        """Environment steps of one train step."""
        return self.environment.num_envs * self.algorithm.unroll_length

    @property
    def learner_steps(self) -> int:
        """Transitions one train step's updates process, once learning has begun."""
        return self.updates * self.batch_size * self.algorithm.unroll_length

    @property
    def replay_ratio(self) -> float:
        """Transitions learned from for each environment step: the recipe's, but for whole updates."""
        return self.learner_steps / self.environment_steps


def run(train_step: TrainStep, state: TrainState, length: int) -> tuple[TrainState, Metrics]:
    """`length` train steps; metrics are summed over them."""

    def step(state: TrainState, _: None) -> tuple[TrainState, Metrics]:
        return train_step.step(state)

    state, metrics = jax.lax.scan(step, state, None, length=length)
    return state, jax.tree.map(lambda x: x.sum(0), metrics)


def init_seeds(train_step: TrainStep, keys: PRNGKeyArray) -> TrainState:
    """A state of several seeds, one for each key."""
    return jax.vmap(train_step.init, out_axes=SEED_AXES)(keys)


def run_seeds(train_step: TrainStep, state: TrainState, length: int) -> tuple[TrainState, Metrics]:
    """`run` for every seed; metrics have a leading seed axis."""
    return jax.vmap(lambda s: run(train_step, s, length), in_axes=(SEED_AXES,), out_axes=(SEED_AXES, 0))(
        state
    )
