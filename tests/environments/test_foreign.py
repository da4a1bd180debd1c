"""Environments of Brax and MuJoCo Playground: arguments, whether they tell of success, how they are seen."""

import dataclasses
import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brax.envs.base import State

from mjx_hkl.environments import AdaptedWorld, VectorEnvironment, make_world
from mjx_hkl.environments.tasks.track_velocity import TrackVelocity
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.build import resolve
from mjx_hkl.experiments.recipe import Recipe, change
from mjx_hkl.experiments.world_specs import WorldSpecs
from mjx_hkl.models.encoders import AsItIsFields, MLPEncoderFields, NormalizedFields
from mjx_hkl.training import acting

pytestmark = [
    pytest.mark.filterwarnings("ignore:Brax System"),  # is not maintained
    pytest.mark.filterwarnings("ignore:Accessing .* directly from"),
]
needs_playground = pytest.mark.skipif(
    importlib.util.find_spec("mujoco_playground") is None, reason="Playground is not installed"
)


def theirs(world) -> Any:
    return world._env


def test_arguments_after_the_name_go_to_braxs_class():
    world = make_world("brax:ant backend=spring healthy_z_range=[0.3,2] terminate_when_unhealthy=false")
    assert world.backend == "spring"
    assert theirs(world)._healthy_z_range == [0.3, 2]
    assert theirs(world)._terminate_when_unhealthy is False
    assert make_world("brax:ant").backend == "generalized"


def test_what_a_class_hands_on_is_an_argument_too():
    """`n_frames` is of the class that all of Brax's extend."""
    usual, slower = make_world("brax:reacher"), make_world("brax:reacher n_frames=6")
    assert slower.control_seconds == pytest.approx(3 * usual.control_seconds)


def test_episodes_are_as_long_as_asked_for():
    world = make_world("brax:fast episode_length=3")
    environment = VectorEnvironment(world, 2, world.episode_length)
    state, ends = environment.reset(jax.random.key(0)), []
    for _ in range(6):
        state, timestep = environment.step(state, jnp.zeros((2, world.action_size)), jax.random.key(1))
        ends.append(timestep.is_last[0])
    np.testing.assert_array_equal(ends, [0, 0, 1, 0, 0, 1])
    assert make_world("brax:fast").episode_length == 1000


@pytest.mark.parametrize(
    "name",
    [
        "brax:reacher",
        "brax:ant",  # whose metrics have Python's numbers among them
        "brax:halfcheetah",
        *(
            pytest.param(f"playground:{name}", marks=needs_playground)
            for name in ("CartpoleBalance", "WalkerWalk")
        ),
    ],
)
def test_a_step_gives_what_a_reset_gives(name, tmp_path, monkeypatch):
    """As a scan over steps needs it: the same shapes and types. MuJoCo's warnings of its file go nowhere."""
    monkeypatch.chdir(tmp_path)
    world = make_world(name)
    first = jax.eval_shape(world.reset, jax.random.key(0))
    after = jax.eval_shape(world.step, first, jnp.zeros(world.action_size))
    shapes, types = (
        [[getattr(x, kind) for x in jax.tree.leaves(state)] for state in (first, after)]
        for kind in ("shape", "dtype")
    )
    assert shapes[0] == shapes[1]
    assert types[0] == types[1]
    assert not any(tmp_path.iterdir())


@needs_playground
def test_arguments_after_the_name_change_playgrounds_configuration():
    world = make_world("playground:CartpoleBalance ctrl_dt=0.02 episode_length=250 vision_config.nworld=4")
    assert world.control_seconds == 0.02
    assert world.episode_length == 250
    assert theirs(world).n_substeps == 2
    assert theirs(world)._config.vision_config.nworld == 4
    assert theirs(world)._config.impl == "jax"


def test_an_agent_of_other_arguments_is_of_another_world():
    usual, other = (WorldSpecs.of(make_world(name)) for name in ("brax:fast", "brax:fast n_frames=2"))
    assert usual.environment == {"name": "brax:fast", "episode_length": 1000}  # as agents from before say it
    assert other.environment == {**usual.environment, "arguments": {"n_frames": 2}}
    with pytest.raises(UserError, match=r"is not what the agent was made for: environment.arguments"):
        usual.require_same(other, "brax:fast")
    again = WorldSpecs.of(make_world("brax:fast episode_length=1000  n_frames=2"))
    other.require_same(again, "brax:fast")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("brax:ant bakend=mjx", "unknown argument of brax:ant 'bakend'; did you mean backend?"),
        ("brax:reacher x=1", "known: backend, debug, episode_length, n_frames"),
        ("brax:ant sys=1", "unknown argument of brax:ant 'sys'"),
        ("brax:ant backend = mjx", "brax:ant: 'backend' is no argument; write ARGUMENT=VALUE, without"),
        ("brax:ant backend=mjx backend=spring", "argument backend is there twice"),
        ("brax:reacher backend=bullet", "brax:reacher cannot be made: backend should be in"),
        ("brax:fast episode_length=0", "brax:fast: episode_length must be a whole number above 0, not 0"),
        ("brax:fast episode_length=long", "must be a whole number above 0, not 'long'"),
        ("brax:ant reset_noise_scale=0,1", "brax:ant cannot be made: "),  # its reset cannot use a text
        ("brax:ant healthy_z_range=0.2,1.0", "brax:ant cannot be made: "),  # nor its step
        ("brax:fast asymmetric_obs=true", "brax:fast cannot be made: asymmetric_obs requires dictionary"),
        pytest.param(
            "playground:CartpoleBalance sim_td=1",
            "unknown argument of playground:CartpoleBalance 'sim_td'; did you mean sim_dt?",
            marks=needs_playground,
        ),
        pytest.param("playground:CartpoleBalance impl=warp", "'impl'", marks=needs_playground),
        pytest.param(
            "playground:CartpoleBalance ctrl_dt=soon",
            "playground:CartpoleBalance cannot be made: ",
            marks=needs_playground,
        ),
    ],
)
def test_wrong_arguments_are_one_line(name, expected):
    with pytest.raises(UserError) as found:
        make_world(name)
    assert expected in str(found.value)
    assert "\n" not in str(found.value)


class Button:
    """Of somebody else: it tells of success, and its groups are a vector and a picture."""

    action_size = 1

    def reset(self, rng):
        zero = jnp.zeros(())
        seen: Any = {"place": jnp.zeros(2), "picture": jnp.zeros((4, 4, 3), jnp.uint8)}
        return State(None, seen, zero, zero, {"success": zero})

    def step(self, state, action):
        return state.replace(metrics={"success": (action[0] > 0).astype(jnp.float32)})


def test_success_lasts_until_the_episode_ends():
    """Playground's worlds may go on after one: training, evaluation and viewer all ask at the end."""
    environment = VectorEnvironment(AdaptedWorld(Button(), "button", 3), 1, 3)
    state, told = environment.reset(jax.random.key(0)), []
    for press in (0.0, 1.0, 0.0, 0.0):
        state, timestep = environment.step(state, jnp.full((1, 1), press), jax.random.key(1))
        told.append((float(timestep.success[0]), float(timestep.is_last[0])))
    assert told == [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 0.0)]


def test_worlds_say_whether_they_tell_of_success():
    assert AdaptedWorld(Button(), "button", 10).can_succeed
    assert not make_world("brax:fast").can_succeed
    for name in ("ball-go-to-target", "grid-1-step", "ant-gap"):
        assert make_world(name).can_succeed
    assert not make_world("ant-walk").can_succeed
    assert not TrackVelocity.can_succeed


def test_groups_of_others_are_normalized_where_a_recipe_says_nothing():
    world: Any = AdaptedWorld(Button(), "brax:button", 10)
    recipe = Recipe(environment="brax:button")
    resolved = resolve(recipe, world)
    assert resolved.encoders == {"place": NormalizedFields()}  # pictures need one that a recipe names
    assert resolve(resolved, world) == resolved
    said = change(recipe, encoders={"picture": {"kind": "mlp"}})
    picture = {"picture": MLPEncoderFields()}
    assert resolve(said, world).encoders == {**picture, "place": NormalizedFields()}
    assert resolve(change(said, encoders={"all": "as_it_is"}), world).encoders == {
        **picture,
        "place": AsItIsFields(),
    }
    ours = Recipe(environment="ball-go-to-target")
    assert resolve(ours).encoders == {}


def test_an_old_recipe_that_is_resolved_stays_as_it_was():
    """A run from before keeps learning from what it has seen until now."""
    world: Any = AdaptedWorld(Button(), "brax:button", 10)
    resolved = resolve(Recipe(environment="brax:button"), world)
    old = dataclasses.replace(resolved, encoders={})
    assert resolve(old, world).encoders == {}


def test_what_is_visible_of_a_state():
    world = make_world("brax:reacher")
    visible = world.visible(jax.jit(world.reset)(jax.random.key(0)))
    assert {name: x.shape for name, x in visible.items()} == {"qpos": (4,)}  # two hinges, a target on a plane


class Cracked(Button):
    """One whose reward is a number, and one of its terms is none after a push to the left."""

    def reset(self, rng):
        state = super().reset(rng)
        return state.replace(metrics=state.metrics | {"reward_push": jnp.zeros(())})

    def step(self, state, action):
        pushed = super().step(state, action)
        return pushed.replace(metrics=pushed.metrics | {"reward_push": jnp.log(action[0])})


def test_a_term_that_is_no_number_is_a_fault_and_none_is_told():
    worlds = VectorEnvironment(AdaptedWorld(Cracked(), "cracked", 10), 2, 10)
    state = worlds.reset(jax.random.key(0))
    _, timestep = worlds.step(state, jnp.array([[0.5], [-0.5]]), jax.random.key(1))
    np.testing.assert_array_equal(timestep.valid, [1, 0])
    np.testing.assert_array_equal(timestep.is_last, [0, 1])
    np.testing.assert_allclose(timestep.episode_terms["reward_push"], [np.log(0.5), 0.0])
    assert acting._of_episodes(timestep)["episode_return"].tolist() == [0.0, 0.0]
