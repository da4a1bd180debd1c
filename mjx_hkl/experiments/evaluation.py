"""Evaluation: many first episodes at once, each counted once, under the mean or the stochastic policy."""

import dataclasses
import functools
import math
from collections.abc import Callable
from statistics import fmean
from typing import Any, NamedTuple, Protocol, cast

import flax.struct
import jax
import jax.numpy as jnp
from brax.envs.base import State
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from mjx_hkl.environments import VectorEnvironment, Worlds
from mjx_hkl.environments.world import VISION, VISION_STATE
from mjx_hkl.errors import UserError
from mjx_hkl.training.metrics import term_name


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a policy achieves, with what it was measured by.

    Where the world cannot tell of success, `can_succeed` is false and the success rate is 0. Of several
    environments `tasks` has that of each, by name; the rest is of all episodes, as many of each, but success
    is of those that can succeed.
    """

    episodes: int
    success_rate: float
    episode_return: float
    episode_return_std: float
    episode_length: float
    faults: int
    deterministic: bool
    seed: int
    return_terms: dict[str, float] = dataclasses.field(default_factory=dict)  # what the return is made of
    can_succeed: bool = True
    tasks: dict[str, "Evaluation"] = dataclasses.field(default_factory=dict)

    @property
    def score(self) -> tuple[float, float]:
        """What makes one better than another: success, and among equals the return."""
        return self.success_rate, self.episode_return

    def summary(self, digits: int = 1) -> str:
        """Success and return for people; the return alone where nothing can succeed."""
        success = f"success {self.success_rate:.1%}, " if self.can_succeed else ""
        return f"{success}return {self.episode_return:.{digits}f}"


@flax.struct.dataclass
class _Progress:
    state: State
    carry: Any
    alive: Float[Array, " envs"]
    returns: Float[Array, " envs"]
    terms: dict[str, Float[Array, " envs"]]
    lengths: Float[Array, " envs"]
    success: Float[Array, " envs"]
    faults: Float[Array, " envs"]
    step: Array
    key: PRNGKeyArray


class Actor(Protocol):
    """Who acts: a pytree; `models.agent.Agent` is one, and says what each method does."""

    def start(self, batch: tuple[int, ...]) -> Any:
        """What to carry into the first step of an episode."""
        ...

    def noise(self, key: PRNGKeyArray, batch: tuple[int, ...]) -> Any:
        """Random numbers of one step."""
        ...

    def no_noise(self, batch: tuple[int, ...]) -> Any:
        """Those of the mean action."""
        ...

    def step(self, carry: Any, observation: dict[str, Array], is_first: Array, noise: Any) -> tuple[Any, Any]:
        """One step of a batch of worlds: the carry after it, and what has an `action`."""
        ...


class Acted(NamedTuple):
    """What a random agent does in a step."""

    action: Array


@flax.struct.dataclass
class RandomAgent:
    """Every action uniform, independent of everything: the floor of every claim to have learned.

    Its action has no mean worth taking.
    """

    action_size: int = flax.struct.field(pytree_node=False)
    action_kind: str = flax.struct.field(pytree_node=False)

    def start(self, batch: tuple[int, ...]) -> None:
        """It remembers nothing."""

    def noise(self, key: PRNGKeyArray, batch: tuple[int, ...]) -> Array:
        """The actions."""
        if self.action_kind == "categorical":
            return jax.random.randint(key, batch, 0, self.action_size)
        return jax.random.uniform(key, (*batch, self.action_size), minval=-1.0, maxval=1.0)

    def no_noise(self, batch: tuple[int, ...]) -> Array:
        """Raises UserError: there is no mean action."""
        raise UserError("a random agent has no mean action: evaluate it with sampled actions")

    def step(self, carry: None, observation: dict, is_first: Array, noise: Array) -> tuple[None, Acted]:
        """Takes the actions drawn."""
        return None, Acted(noise)


def evaluate(environment: Worlds, agent: Actor, seed: int = 0, deterministic: bool = True) -> Evaluation:
    """One episode in every world, from starts drawn with `seed`.

    Args:
      environment: as many worlds as episodes.
      agent: to evaluate.
      seed: of the starts, and of the samples of stochastic actions.
      deterministic: latents and actions are their means.
    """
    parts = environment.tasks.items()
    each = {name: _evaluate_one(part, agent, seed, deterministic) for name, part in parts}
    return _together(each) if len(each) > 1 else each[""]


def _evaluate_one(environment: VectorEnvironment, agent: Actor, seed: int, deterministic: bool) -> Evaluation:
    done = jax.device_get(_run(environment, deterministic)(agent, _evaluation_key(seed)))
    return Evaluation(
        episodes=environment.num_envs,
        success_rate=float(done.success.mean()),
        episode_return=float(done.returns.mean()),
        episode_return_std=float(done.returns.std()),
        episode_length=float(done.lengths.mean()),
        faults=int(done.faults.sum()),
        deterministic=deterministic,
        seed=seed,
        return_terms={term_name(name): float(total.mean()) for name, total in done.terms.items()},
        can_succeed=environment.env.can_succeed,
    )


def _together(each: dict[str, Evaluation]) -> Evaluation:
    """Of all episodes of several environments, as many of each."""
    parts = list(each.values())
    told = [part.success_rate for part in parts if part.can_succeed]
    mean = fmean(part.episode_return for part in parts)
    squares = fmean(part.episode_return_std**2 + (part.episode_return - mean) ** 2 for part in parts)
    terms = dict.fromkeys(name for part in parts for name in part.return_terms)
    return dataclasses.replace(
        parts[0],
        episodes=sum(part.episodes for part in parts),
        success_rate=fmean(told) if told else 0.0,
        episode_return=mean,
        episode_return_std=math.sqrt(squares),
        episode_length=fmean(part.episode_length for part in parts),
        faults=sum(part.faults for part in parts),
        return_terms={name: fmean(part.return_terms.get(name, 0.0) for part in parts) for name in terms},
        can_succeed=any(part.can_succeed for part in parts),
        tasks=each,
    )


@flax.struct.dataclass
class Recording:
    """Episodes step by step: leading axes time, then episode; the first entry is the start.

    Attributes:
      visible: what pictures of the worlds need, before anything is reset.
      alive: 1 until the episode has ended, and at its last entry.
      episode_return: so far.
      success: 1 once the task is solved.
      sight: the newest frame of the agent's camera; None in a world without one.
    """

    visible: Any
    alive: Float[Array, "time episodes"]
    episode_return: Float[Array, "time episodes"]
    success: Float[Array, "time episodes"]
    sight: UInt8[Array, "time episodes height width 3"] | None


def record(environment: VectorEnvironment, agent: Actor, seed: int, deterministic: bool) -> Recording:
    """The episodes `evaluate` would count, for a video."""
    return jax.device_get(_recorder(environment, deterministic)(agent, _evaluation_key(seed)))


@functools.lru_cache(maxsize=4)  # compiled once for all videos of a run
def _recorder(environment: VectorEnvironment, deterministic: bool) -> Any:
    begin, step = _episodes(environment, deterministic)

    def entry(now: _Progress, alive: Array) -> Recording:
        seen = cast(dict, now.state.obs)
        sight = seen[VISION][..., -3:] if VISION_STATE in seen else None
        visible = jax.vmap(environment.env.visible)(now.state)
        return Recording(visible, alive, now.returns, now.success, sight)

    @jax.jit
    def run(agent: Actor, key: PRNGKeyArray) -> Recording:
        def advance(now: _Progress, _: None) -> tuple[_Progress, Recording]:
            after = step(agent, now)
            return after, entry(after, now.alive)

        start = begin(agent, key)
        _, rest = jax.lax.scan(advance, start, None, length=environment.episode_length)
        first = entry(start, start.alive)
        return jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), first, rest)

    return run


def _evaluation_key(seed: int) -> PRNGKeyArray:
    return jax.random.fold_in(jax.random.key(seed), 0xE7A1)  # apart from the keys training draws from


@functools.lru_cache(maxsize=64)  # compiled once for the agents of all seeds, for each environment
def _run(environment: VectorEnvironment, deterministic: bool) -> Any:
    begin, step = _episodes(environment, deterministic)

    def unfinished(progress: _Progress) -> Array:
        return (progress.step < environment.episode_length) & (progress.alive.sum() > 0)

    @jax.jit
    def run(agent: Actor, key: PRNGKeyArray) -> _Progress:
        return jax.lax.while_loop(unfinished, functools.partial(step, agent), begin(agent, key))

    return run


def _episodes(environment: VectorEnvironment, deterministic: bool) -> tuple[Callable, Callable]:
    """How episodes begin, and one step of all of them."""
    batch = (environment.num_envs,)

    def begin(agent: Actor, key: PRNGKeyArray) -> _Progress:
        start_key, _, key = jax.random.split(key, 3)  # the starts of evaluations published before
        zero = jnp.zeros(batch)
        start = environment.reset(start_key)
        return _Progress(
            start.env,
            agent.start(batch),
            alive=zero + 1.0,
            returns=zero,
            terms=dict.fromkeys(start.episode_terms, zero),
            lengths=zero,
            success=zero,
            faults=zero,
            step=jnp.zeros((), jnp.int32),
            key=key,
        )

    def step(agent: Actor, now: _Progress) -> _Progress:
        noise_key, key = jax.random.split(now.key)
        noise = agent.no_noise(batch) if deterministic else agent.noise(noise_key, batch)
        is_first = jnp.full(batch, now.step == 0)
        carry, acted = agent.step(now.carry, cast(dict, now.state.obs), is_first, noise)
        state = jax.vmap(environment.env.step)(now.state, acted.action)
        return _Progress(
            state,
            carry,
            alive=now.alive * (1.0 - state.done),
            returns=now.returns + now.alive * state.reward,
            terms={name: x + now.alive * state.metrics[name] for name, x in now.terms.items()},
            lengths=now.lengths + now.alive,
            success=jnp.maximum(now.success, now.alive * state.metrics["success"]),
            faults=now.faults + now.alive * state.metrics["fault"],
            step=now.step + 1,
            key=key,
        )

    return begin, step
