"""Several environments for one agent, on worlds whose every number is known by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brax.envs.base import State

from mjx_hkl.environments import SeveralWorlds, VectorEnvironment, World, many
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.evaluation import Acted, evaluate
from mjx_hkl.models.agent import Agent
from mjx_hkl.models.config import Information, ModelConfig, PolicyConfig
from mjx_hkl.specs import ArraySpec
from mjx_hkl.training import acting


class Walk:
    """Earns its `pay` and its action in each step, is solved after so many, shows the number of the step."""

    action_kind = "gaussian"
    backend = "none"
    not_shared = ""
    notes = ()
    can_succeed = True
    symmetry = relabelling = drawing = None

    def __init__(self, pay, solved_after, episode_length, groups, seen=(), term="", **changes):
        self.pay, self.solved_after, self.episode_length = pay, solved_after, episode_length
        self.observation_specs = {name: ArraySpec(shape) for name, shape in groups.items()}
        self.low_level_information, self.term, self.action_size = seen, term, 1
        self.description = {"body": "walker", "pay": pay}
        vars(self).update(changes)

    def _observe(self, step):
        return {name: jnp.full(spec.shape, step + 1.0) for name, spec in self.observation_specs.items()}

    def reset(self, rng):
        zero = jnp.zeros(())
        metrics = {"success": zero, "fault": zero, **({self.term: zero} if self.term else {})}
        return State(zero, self._observe(zero), zero, zero, metrics)  # pyright: ignore

    def step(self, state, action):
        assert {k: x.shape for k, x in state.obs.items()} == {
            k: spec.shape for k, spec in self.observation_specs.items()
        }
        step = state.pipeline_state + 1.0
        solved = (step == self.solved_after).astype(jnp.float32)
        reward = self.pay + action[0]
        return state.replace(
            pipeline_state=step,
            obs=self._observe(step),
            reward=reward,
            done=solved,
            metrics=state.metrics | {"success": solved} | ({self.term: reward} if self.term else {}),
        )


def worlds(**given: Any) -> SeveralWorlds:
    return SeveralWorlds(given)


@pytest.fixture(scope="module")
def two():
    """One is solved at its second step and has a group of its own, the other never and ends at its third."""
    short = Walk(1.0, 2, 9, {"body": (2,), "places": (3,), "light": (1,)}, ("body", "light"), "reward_pay")
    long = Walk(10.0, 99, 3, {"body": (2,), "places": (1,)}, ("body", "places"))
    return worlds(short=short, long=long)


def test_groups_are_those_of_all_padded_with_zeros(two):
    state = many(two, 4).reset(jax.random.key(0))
    found = {name: group.tolist() for name, group in state.observation.items()}
    assert found == {
        "body": [[1, 1]] * 4,
        "places": [[1, 1, 1], [1, 0, 0]] * 2,
        "light": [[1], [0]] * 2,
        "task": [[1, 0], [0, 1]] * 2,
    }
    assert {name: spec.shape for name, spec in two.observation_specs.items()} == {
        name: group.shape[1:] for name, group in state.observation.items()
    }


def test_each_world_is_stepped_and_ends_as_its_own(two):
    environment, key = many(two, 4), jax.random.key(0)
    state, action = environment.reset(key), jnp.array([[0.1], [0.2], [0.3], [0.4]])
    steps = []
    for _ in range(3):
        state, timestep = environment.step(state, action, key)
        steps.append(timestep)
    for timestep in steps:
        np.testing.assert_allclose(timestep.reward, [1.1, 10.2, 1.3, 10.4], rtol=1e-6)
    assert [timestep.is_last.tolist() for timestep in steps] == [[0] * 4, [1, 0, 1, 0], [0, 1, 0, 1]]
    assert [timestep.discount.tolist() for timestep in steps] == [[1] * 4, [0, 1, 0, 1], [1] * 4]
    assert steps[1].success.tolist() == [1, 0, 1, 0]
    assert steps[1].next_observation["places"].tolist() == [[3, 3, 3], [3, 0, 0]] * 2  # before any reset
    assert state.observation["places"].tolist() == [[2, 2, 2], [1, 0, 0]] * 2  # after those there were
    np.testing.assert_allclose(steps[2].episode_return, [1.1, 30.6, 1.3, 31.2], rtol=1e-6)
    np.testing.assert_allclose(steps[1].episode_terms["reward_pay"], [2.2, 0, 2.6, 0], rtol=1e-6)
    by_task = environment.by_task(steps[2].episode_return)
    np.testing.assert_allclose(by_task["long"], [30.6, 31.2], rtol=1e-6)
    assert VectorEnvironment(two.tasks["long"], 4, 3).by_task(steps[2].reward) == {}


def test_ages_are_within_each_worlds_own_episodes(two):
    environment = many(two, 200)
    state = environment.with_ages(environment.reset(jax.random.key(0)), jax.random.key(1))
    assert [sorted(set(part.steps.tolist())) for part in state.tasks] == [list(range(9)), list(range(3))]


def test_of_a_number_that_does_not_divide_there_are_no_fewer(two):
    assert many(two, 5).num_envs == 6


def test_low_levels_see_what_is_theirs_in_every_world_and_of_one_size(two):
    assert two.low_level_information == ("body",)
    alike = worlds(
        a=Walk(1.0, 2, 3, {"body": (2,), "places": (3,)}, ("places", "body")),
        b=Walk(1.0, 2, 3, {"body": (2,), "places": (3,)}, ("body", "places")),
    )
    assert alike.low_level_information == ("places", "body")


def test_what_several_worlds_tell_of_themselves(two):
    assert two.description == {
        "environments": {
            "short": {"body": "walker", "pay": 1.0},
            "long": {"body": "walker", "pay": 10.0},
        }
    }
    noted = worlds(a=Walk(1.0, 2, 3, {"body": (2,)}, notes=("no skin", "no sound")), b=two.tasks["long"].env)
    assert noted.notes == ("a: no skin", "a: no sound")
    assert two.episode_length == 3
    assert two.backend == "none"


@pytest.mark.parametrize(
    ("groups", "changes", "expected"),
    [
        ({"body": (2,)}, {"action_size": 3}, r"a takes 1 numbers and b 3 numbers"),
        ({"body": (2,)}, {"action_kind": "categorical"}, r"a takes 1 numbers and b 1 choices"),
        ({"body": (2, 2)}, {}, r"'body' is 2x2 in b and 2 in one before it"),
        ({"task": (2,)}, {}, r"b has an observation group 'task'"),
        ({"body": (2,)}, {"drawing": lambda observation: observation}, r"b has a camera"),
    ],
)
def test_worlds_that_no_agent_can_share(groups, changes, expected):
    first: World = Walk(1.0, 2, 3, {"body": (2,)})  # pyright: ignore
    with pytest.raises(UserError, match=expected):
        worlds(a=first, b=Walk(1.0, 2, 3, groups, **changes))


class Still:
    """Does nothing."""

    def start(self, batch):
        return ()

    def no_noise(self, batch):
        return ()

    noise = None

    def step(self, carry, observation, is_first, noise):
        return (), Acted(jnp.zeros((len(is_first), 1)))


jax.tree_util.register_pytree_node(Still, lambda _: ((), None), lambda *_: Still())


def test_an_evaluation_is_of_all_episodes_and_of_each_environments(two):
    """Five episodes are three of each: they earn 2 in two steps, or 30 in three."""
    still: Any = Still()
    found = evaluate(many(two, 5), still)
    assert (found.episodes, found.success_rate, found.episode_length) == (6, 0.5, 2.5)
    np.testing.assert_allclose([found.episode_return, found.episode_return_std], [16, 14], rtol=1e-6)
    assert found.return_terms == {"episode_return_pay": 1.0}
    each = {name: (x.episodes, x.success_rate, x.episode_return) for name, x in found.tasks.items()}
    assert each == {"short": (3, 1.0, 2.0), "long": (3, 0.0, 30.0)}


def test_success_is_of_those_that_can_succeed():
    able = Walk(1.0, 1, 2, {"body": (2,)})
    unable = Walk(1.0, 99, 2, {"body": (2,)}, can_succeed=False)
    still: Any = Still()
    found = evaluate(many(worlds(able=able, unable=unable), 2), still)
    assert (found.success_rate, found.can_succeed) == (1.0, True)
    assert [x.can_succeed for x in found.tasks.values()] == [True, False]


def test_training_counts_success_where_there_can_be_some():
    able, unable = Walk(1.0, 1, 2, {"body": (2,)}), Walk(1.0, 99, 2, {"body": (2,)}, can_succeed=False)
    environment = many(worlds(able=able, unable=unable), 2)
    information = Information(("task",), ("body",), ("task",), ("body",))
    config = ModelConfig(information, PolicyConfig(actions="gaussian"))
    specs = environment.env.observation_specs

    def sums(key):
        agent = Agent(specs, 1, config, key)
        return acting.unroll(environment, agent, acting.init(environment, agent, key), key, 2)[-1]

    names = jax.eval_shape(sums, jax.random.key(0))
    assert [name for name in names if name.startswith("success")] == ["success", "success/able"]
    assert {"episodes/able", "episodes/unable", "episode_return/unable"} <= set(names)
