"""`evaluate` makes the published numbers: exactly those of a loop over episodes, on a world made for it."""

import math
import types
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from brax.envs.base import State

from mjx_hkl.environments import VectorEnvironment
from mjx_hkl.experiments.evaluation import Acted, evaluate, record

LIMIT, EPISODES = 6, 64


class Countdown:
    """An episode ends after as many steps as its start says, at most the time limit; even ones are solved.

    Each step is rewarded by its number and the action. After the end the world gives what must not count.
    """

    action_size = 1
    episode_length = LIMIT
    can_succeed = True

    def reset(self, rng):
        length = jax.random.randint(rng, (), 1, 10)
        zero = jnp.zeros(())
        state: Any = {"length": length, "step": jnp.zeros((), jnp.int32)}
        metrics = {"success": zero, "fault": zero}
        return State(state, {"step": zero[None]}, zero, zero, metrics)

    def visible(self, state):
        return state.pipeline_state

    def step(self, state, action):
        length, step = state.pipeline_state["length"], state.pipeline_state["step"] + 1
        over = step > length
        ends = step == length
        return state.replace(
            pipeline_state={"length": length, "step": step},
            obs={"step": step[None].astype(jnp.float32)},
            reward=jnp.where(over, 1e6, step + action[0]),
            done=ends.astype(jnp.float32),  # and no longer afterwards
            metrics={
                "success": (over | (ends & (length % 2 == 0))).astype(jnp.float32),
                "fault": (over | (ends & (length == 3))).astype(jnp.float32),
            },
        )


def countdowns():
    world: Any = Countdown()
    return VectorEnvironment(world, EPISODES, LIMIT)


class Clock(types.SimpleNamespace):
    """Acts by what it carries: a hundredth of the steps so far, and the noise."""

    def start(self, batch):
        return jnp.zeros(batch)

    def no_noise(self, batch):
        return jnp.zeros(batch)

    def noise(self, key, batch):
        return jnp.full(batch, 0.5)

    def step(self, carry, observation, is_first, noise):
        carry = jnp.where(is_first, 0.0, carry) + 1.0
        return carry, Acted((carry / 100 + noise)[:, None])


jax.tree_util.register_pytree_node(Clock, lambda clock: ((), None), lambda _, __: Clock())


def by_hand(lengths, noise):
    """The numbers of an evaluation of episodes that would last so long."""
    returns = [sum(t + t / 100 + noise for t in range(1, min(n, LIMIT) + 1)) for n in lengths]
    mean = math.fsum(returns) / len(returns)
    return {
        "success_rate": sum(n % 2 == 0 and n <= LIMIT for n in lengths) / len(lengths),
        "episode_return": mean,
        "episode_return_std": math.sqrt(math.fsum((x - mean) ** 2 for x in returns) / len(returns)),
        "episode_length": sum(min(n, LIMIT) for n in lengths) / len(lengths),
        "faults": lengths.count(3),
    }


@pytest.mark.parametrize(("deterministic", "noise"), [(True, 0.0), (False, 0.5)])
def test_an_evaluation_is_that_of_a_loop_over_episodes(deterministic, noise):
    environment = countdowns()
    starts = record(environment, Clock(), 5, deterministic).visible["length"][0]
    lengths = [int(n) for n in starts]
    assert {2, 3, 7, 8} <= set(lengths)  # solved, faulty, and both kinds that the time limit cuts
    found = evaluate(environment, Clock(), 5, deterministic)
    assert (found.episodes, found.deterministic, found.seed) == (EPISODES, deterministic, 5)
    for name, expected in by_hand(lengths, noise).items():
        assert getattr(found, name) == pytest.approx(expected, rel=1e-6), name


def test_another_seed_has_other_starts_and_the_same_seed_the_same():
    environment = countdowns()
    first, again, other = (evaluate(environment, Clock(), seed, True) for seed in (5, 5, 6))
    assert first == again
    assert first.episode_return != other.episode_return


def test_a_recording_ends_where_the_episode_does():
    environment = countdowns()
    found = record(environment, Clock(), 5, True)
    lengths = [int(n) for n in found.visible["length"][0]]
    assert found.alive.sum(0).tolist() == [min(n, LIMIT) + 1 for n in lengths]  # and the start
    returns = [sum(t + t / 100 for t in range(1, min(n, LIMIT) + 1)) for n in lengths]
    assert found.episode_return[-1].tolist() == pytest.approx(returns)
