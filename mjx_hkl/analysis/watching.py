"""An agent in its world, step by step, with somebody's hands on it: no user interface lives here."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from brax.envs.base import State
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from mjx_hkl.environments.choices import Choice
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.agent_format import KnownAgent
from mjx_hkl.experiments.agents import agent_of_run
from mjx_hkl.experiments.evaluation import Actor
from mjx_hkl.experiments.players import Player
from mjx_hkl.experiments.run_directory import RunDirectory
from mjx_hkl.models.agent import DEFAULT_LOW_LEVEL, Agent
from mjx_hkl.models.config import ModelConfig
from mjx_hkl.models.default_base import Given
from mjx_hkl.models.encoders import encode
from mjx_hkl.models.steps import Carry, Noise, Step
from mjx_hkl.training import checkpoint

_BATCH = (1,)


class Judgement(NamedTuple):
    """What an agent thinks of its step.

    Attributes:
      kl_high: KL(π^H ‖ π0^H) of the latent, or log π^H − log g (eq. 16), nats; 0 where none was drawn.
      kl_low: KL(π^L ‖ π0^L) of the action, or an estimate of a bound on it (eq. 15), nats.
      value: the critic's, of the action, the latent or the state.
    """

    kl_high: Float[Array, "*batch"]
    kl_low: Float[Array, "*batch"]
    value: Float[Array, "*batch"]


class Told(NamedTuple):
    """What is told of a control step, as numbers on the host.

    Attributes:
      action: that was taken, not clipped.
      latent: z, empty of a flat policy; None of a random agent or an ONNX policy.
      judgement: None of those too.
      reward: of the step.
      success: 1 where the task was solved.
      is_last: whether the episode ended, for whatever reason.
    """

    action: np.ndarray
    latent: np.ndarray | None
    judgement: Judgement | None
    reward: float
    success: float
    is_last: bool


def judge(
    agent: Agent,
    model: ModelConfig,
    carry: Carry,
    observation: Mapping[str, Array],
    is_first: Bool[Array, "*batch"],
    noise: Noise,
    step: Step,
    key: PRNGKeyArray,
) -> Judgement:
    """KL and value of a step, by the agent's own default policy and critic.

    Args:
      agent: who took the step.
      model: what it is made of.
      carry: before the step.
      observation: groups by name; so are `is_first` and `noise` those of the step.
      is_first: whether an episode begins.
      noise: that the step was drawn with.
      step: what came out.
      key: of the noise that a bound is estimated with; else not used.
    """
    seen, (latents, prior, distribution, action) = encode(agent.encoders, observation), step
    default, latent = agent.default_policy, latents.latent
    if default.high_level.infers:
        high = -latents.distribution.entropy() - prior.log_prob(latent)
    else:
        high = latents.distribution.kl_divergence(prior)
    high, low = latents.drawn[..., 0] * high, jnp.zeros_like(high)
    if default.low_level.adds_kl:
        memory = agent.restart(carry, is_first, noise.start).memory[DEFAULT_LOW_LEVEL]
        given = Given(action, jax.random.normal(key, noise.default.shape))
        low = default.low_level.cost(memory, agent.policy.low_level, seen, latent, distribution, given).kl
    if model.acts_in_latents:
        return Judgement(high, low, agent.critic(seen, latent[..., :0], latent))
    return Judgement(high, low, agent.critic(seen, latent, *(() if model.state_values else (action,))))


@flax.struct.dataclass
class Moment:
    """All that a control step needs of the one before; leading axes are of one world."""

    state: State
    carry: Any
    is_first: Bool[Array, " 1"]
    key: PRNGKeyArray


class Session:
    """One world, and an agent that acts in it; people may choose, push, and hold its latents.

    What is held or chosen stays so, also in the next episode, until it is let go.

    Attributes:
      agent: who acts; another one of the same shapes may take its place at any time.
      world: where.
      latent_size: numbers of a latent; 0 where there are none to hold.
      value_name: what the critic gives, "Q" or "V"; empty without a critic.
      choices: what its instruction says, by name.
      mean: whether latents and actions are their means; a random agent has none. It can be changed where
        `can_sample`.
      can_sample: whether the agent can do either.
      steps: control steps of this episode.
      episode_return: its return so far.
      episodes: that have ended.
      successes: of these.
      last: the newest step; None at an episode's start.
    """

    def __init__(self, player: Player, seed: int, mean: bool):
        """The player's first world, at a start drawn with `seed`."""
        (environment,) = player.environment.tasks.values()
        self.agent, self.world, self._length = player.agent, environment.env, environment.episode_length
        model = player.known and player.known.recipe.model
        self.latent_size = model.policy.latent_size if model else 0
        self.value_name = "" if model is None else "V" if model.state_values else "Q"
        self.choices: Mapping[str, Choice] = self.world.choices
        self.mean, self.episodes, self.successes = mean and player.has_mean, 0, 0
        self._random = np.random.default_rng(seed)
        # On a device from the start, as a restored agent is: else the second step would be compiled again.
        self._key = jax.device_put(jax.random.key(seed), jax.local_devices()[0])
        self._held = np.full((*_BATCH, self.latent_size), np.nan, np.float32)
        self._asked = dict.fromkeys(self.choices, math.nan)
        self.can_sample = model is not None
        programs = _programs(self.world, self.choices, model, self.mean)
        self._begin, self._advance, self._change, self._push = programs
        self.restart()

    def restart(self) -> None:
        """A new episode, from a fresh random start."""
        self._key, key = jax.random.split(self._key)
        self._moment: Moment = self._begin(self.agent, key, self._asked)
        self.steps, self.episode_return, self.last = 0, 0.0, None

    def step(self) -> Told:
        """One control step; that after an episode's last one is the first of a new episode."""
        if self.last is not None and self.last.is_last:
            self.restart()
        given = self._moment, self._held, self._asked, np.bool_(self.mean)
        self._moment, told = self._advance(self.agent, *given)
        told = Told(*jax.device_get(told))
        self.steps += 1
        self.episode_return += float(told.reward)
        self.last = told = told._replace(
            reward=float(told.reward),
            success=float(told.success),
            is_last=bool(told.is_last) or self.steps >= self._length,
        )
        self.episodes += told.is_last
        self.successes += told.is_last and told.success > 0
        return told

    def hold(self, latent: Float[np.ndarray, " latent"] | None) -> None:
        """The low level gets this z from now on; NaN, or None for all, where the policy shall choose."""
        self._held[0] = np.nan if latent is None else latent

    def choose(self, name: str, value: float | None) -> None:
        """Asks for something from now on: the number of a thing, or a number; None: as the task says."""
        self._asked = {**self._asked, name: math.nan if value is None else float(value)}
        self._moment = self._change(self._moment, self._asked)

    def chosen(self) -> dict[str, float]:
        """What is asked for now, by the names of `choices`."""
        state = self._moment.state
        return {name: float(choice.of(state)) for name, choice in self.choices.items()}

    @property
    def can_push(self) -> bool:
        """Whether there is a body that can be pushed."""
        return self.world.push is not None

    def push(self, speed: float, direction: float | None = None) -> Float[np.ndarray, " 2"]:
        """Changes the body's velocity over the ground, as a kick does.

        Args:
          speed: m/s.
          direction: in the world, radians from its x-axis; None: a random one.

        Returns:
          The change of velocity, m/s.
        """
        angle = self._random.uniform(0.0, 2 * math.pi) if direction is None else direction
        change = speed * np.array([math.cos(angle), math.sin(angle)], np.float32)
        self._moment = self._push(self._moment, change)
        return change

    @property
    def seconds(self) -> float:
        """Simulated, of this episode."""
        return self.steps * self.world.control_seconds

    @property
    def state(self) -> State:
        """The world's, as it is now."""
        return self._moment.state

    @property
    def visible(self) -> Any:
        """What a picture of the world needs now, on the host."""
        return jax.device_get(self.world.visible(self._moment.state))


def _programs(
    world: Any, choices: Mapping[str, Choice], model: ModelConfig | None, only_mean: bool
) -> tuple[Any, ...]:
    """How episodes begin, a step, another instruction, and a push; each compiled once.

    Args:
      world: where.
      choices: of the world.
      model: what the agent is made of; None of a random one and of an ONNX policy.
      only_mean: whether an agent without a `model` takes means.
    """

    def asked_for(state: State, asked: dict[str, Array]) -> State:
        for name, choice in choices.items():
            value = jnp.asarray(asked[name])
            as_is = jnp.isnan(value)
            state = jax.lax.cond(
                as_is, lambda state, _: state, lambda state, x, put=choice.put: put(state, x), state, value
            )
        return state

    def begin(agent: Actor, key: PRNGKeyArray, asked: dict[str, Array]) -> Moment:
        start_key, key = jax.random.split(key)
        state = asked_for(world.reset(start_key), asked)
        return Moment(state, agent.start(_BATCH), jnp.ones(_BATCH, bool), key)

    def advance(
        agent: Actor, now: Moment, held: Array, asked: dict[str, Array], mean: Array
    ) -> tuple[Moment, tuple]:
        noise_key, judge_key, key = jax.random.split(now.key, 3)
        observation = jax.tree.map(lambda x: x[None], cast(dict, now.state.obs))
        latent = judgement = None
        if model is None:
            noise = agent.no_noise(_BATCH) if only_mean else agent.noise(noise_key, _BATCH)
            carry, acted = agent.step(now.carry, observation, now.is_first, noise)
        else:
            agent = cast(Agent, agent)
            both = agent.no_noise(_BATCH), agent.noise(noise_key, _BATCH)
            noise = jax.tree.map(lambda a, b: jnp.where(mean, a, b), *both)
            carry, acted = agent.step(now.carry, observation, now.is_first, noise, held)
            given = now.carry, observation, now.is_first, noise, acted, judge_key
            judgement = jax.tree.map(lambda x: x[0], judge(agent, model, *given))
            latent = acted.latents.latent[0]
        action = acted.action[0]
        state = world.step(now.state, action)
        told = action, latent, judgement, state.reward, state.metrics["success"], state.done
        return Moment(asked_for(state, asked), carry, jnp.zeros(_BATCH, bool), key), told

    def change(now: Moment, asked: dict[str, Array]) -> Moment:
        return now.replace(state=asked_for(now.state, asked))

    def push(now: Moment, by: Array) -> Moment:
        return now.replace(state=world.push(now.state, by))

    return tuple(jax.jit(function) for function in (begin, advance, change, push))


class Follower:
    """The newest agent of a run that may still be training.

    Attributes:
      environment_steps: of the newest agent that was read.
      trouble: why the newest checkpoint could not be read; empty where it could.
    """

    def __init__(self, run: RunDirectory, seed_index: int, environment_steps: int):
        self._run, self._seed_index = run, seed_index
        self.environment_steps, self.trouble = environment_steps, ""

    def newer(self) -> KnownAgent | None:
        """The agent of a checkpoint newer than the last one; None where there is none, or not whole yet."""
        if max(checkpoint.complete(self._run.checkpoints), default=0) <= self.environment_steps:
            return None
        try:
            known = agent_of_run(self._run, self._seed_index)
        except UserError as error:  # it may be gone by now, or be written again
            self.trouble = str(error)
            return None
        self.environment_steps, self.trouble = known.environment_steps or 0, ""
        return known
