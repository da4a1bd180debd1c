import dataclasses
import tomllib

import pytest

from mjx_hkl import resources
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.build import make_environment, resolve
from mjx_hkl.experiments.recipe import Recipe, load_recipe, recipe_from_table, recipe_to_toml

RECIPES = resources.names("train", ".toml")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_valid_and_survives_being_written(name):
    recipe = resolve(load_recipe(name))
    assert recipe.name == name
    again = recipe_from_table(tomllib.loads(recipe_to_toml(recipe)), "written")
    assert again == recipe


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_fits_its_environment(name):
    environment = make_environment(resolve(load_recipe(name)), 2)
    assert environment.episode_length == 400


def test_defaults_are_appendix_g():
    recipe = Recipe(environment="ant-go-to-target")
    assert recipe.policy.high_level == (200, 10)
    assert recipe.policy.low_level == (200, 100)
    assert recipe.critic.sizes == (400, 300)
    algorithm = recipe.algorithm
    assert (algorithm.policy_learning_rate, algorithm.critic_learning_rate) == (1e-4, 1e-4)
    assert (algorithm.target_update_period, algorithm.batch_size, algorithm.unroll_length) == (100, 512, 10)
    assert (algorithm.entropy_cost, algorithm.kl_cost) == (1e-4, 1e-3)
    assert recipe.default_policy.ar_coefficient == 0.95  # Ant: Go to 1 of 3 Targets


def test_low_levels_see_what_table_1_says():
    for body in ("ball", "ant", "quadruped"):
        assert load_recipe(f"{body}-go-to-target").information.low_level == ("proprioception",)


def test_num_envs_fits_the_device():
    recipe = dataclasses.replace(load_recipe("ball-go-to-target"), num_envs=None)
    assert resolve(recipe).num_envs in (256, 4096)
    assert resolve(dataclasses.replace(recipe, num_envs=7)).num_envs == 7


def test_an_integer_is_a_number_and_a_bool_is_not():
    table = {"environment": "ball-go-to-target"}
    assert recipe_from_table({**table, "algorithm": {"kl_cost": 1}}, "here").algorithm.kl_cost == 1.0
    with pytest.raises(UserError, match="kl_cost"):
        recipe_from_table({**table, "algorithm": {"kl_cost": True}}, "here")
