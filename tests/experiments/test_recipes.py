import dataclasses
import functools
import importlib.util
import tomllib
from pathlib import Path

import pytest

from mjx_hkl import resources
from mjx_hkl.environments.foreign import is_foreign
from mjx_hkl.errors import UserError
from mjx_hkl.experiments import build, card
from mjx_hkl.experiments.build import environment_name, make_environment, resolve
from mjx_hkl.experiments.recipe import (
    Recipe,
    _variants,
    change,
    load_recipe,
    load_variants,
    recipe_from_table,
    recipe_to_toml,
)
from mjx_hkl.models.encoders import MLPEncoderFields, NormalizedFields
from mjx_hkl.models.priors import AR1

pytestmark = [  # of Brax
    pytest.mark.filterwarnings("ignore:Brax System"),
    pytest.mark.filterwarnings("ignore:Accessing .* directly from"),
]
ALL = {
    f"{name}:{variant}" if variant else name: recipe
    for name in resources.names("train", ".toml")
    for variant, recipe in load_variants(name).items()
}


def can_be_made(environment):
    """Playground need not be installed, and may have to download its robots."""
    if not environment.startswith("playground:"):
        return True
    found = importlib.util.find_spec("mujoco_playground")
    if found is None or found.submodule_search_locations is None:
        return False
    robots = Path(found.submodule_search_locations[0], "external_deps", "mujoco_menagerie")
    return "Joystick" not in environment or robots.is_dir()


RECIPES = [name for name, recipe in ALL.items() if all(map(can_be_made, recipe.environments))]


@pytest.fixture(autouse=True, scope="module")
def worlds_are_built_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "make_world", functools.cache(build.make_world))
        yield


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_valid_and_survives_being_written(name):
    recipe = resolve(load_recipe(name))
    assert recipe.name == name
    again = recipe_from_table(tomllib.loads(recipe_to_toml(recipe)), "written")
    assert again == recipe


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_fits_its_environment(name):
    recipe = resolve(load_recipe(name))
    is_slow = "-near-" in recipe.environment_name or "-coarse-" in recipe.environment_name
    steps = 100 if is_slow else 400  # 10 s of either
    if is_foreign(recipe.environment_name):
        steps = 1000
    assert make_environment(recipe, 2).env.episode_length == steps


def network(recipe):
    """The high level as Appendix G writes it: hidden sizes, then that of the latent."""
    high_level = recipe.policy.high_level
    return (*high_level.sizes, high_level.latent_size)


SAID = (
    "policy_learning_rate",
    "critic_learning_rate",
    "default_policy_learning_rate",
    "learning_rate_decay",
    "target_update_period",
    "target_update_rate",
    "policy_average_updates",
)


@pytest.mark.parametrize(
    "name", [name for name, recipe in ALL.items() if not is_foreign(recipe.environment_name)]
)
def test_recipes_say_what_they_were_tuned_with(name):
    """These defaults are for worlds that nobody has tuned: another default must not change a figure."""
    file, _, variant = name.partition(":")
    table, _ = _variants(file)[variant]
    assert set(SAID) <= table["algorithm"].keys()


def test_defaults_are_appendix_g():
    recipe = Recipe(environment="ant-go-to-target")
    assert network(recipe) == (200, 10)
    assert recipe.policy.low_level.sizes == (200, 100)
    assert recipe.critic.sizes == (400, 300)
    algorithm = recipe.algorithm
    assert (algorithm.batch_size, algorithm.unroll_length) == (512, 10)
    assert (algorithm.entropy_cost, algorithm.kl_cost) == (1e-4, 1e-3)
    paper = load_recipe("figure-8-right:targets_latent_space").algorithm  # says them, for defaults are others
    assert (paper.policy_learning_rate, paper.critic_learning_rate) == (1e-4, 1e-4)
    assert (paper.target_update_period, paper.target_update_rate) == (100, 1.0)
    assert AR1().coefficient == 0.95  # Ant: Go to 1 of 3 Targets


def test_low_levels_see_what_table_1_says():
    for body in ("ball", "ant", "quadruped"):
        recipe = resolve(load_recipe(f"{body}-go-to-target"))
        assert recipe.information.low_level == recipe.information.default == ("proprioception",)
    hard = resolve(load_recipe("figure-3-right:ar1")).information
    assert hard.low_level == ("proprioception", "boxes", "targets")
    flat = resolve(load_recipe("figure-3-right:distral")).information
    assert (flat.default, flat.low_level) == (hard.low_level, hard.high_level)


def test_figures_have_appendix_gs_numbers_for_their_task():
    left, centre, right = (load_variants(f"figure-3-{which}") for which in ("left", "centre", "right"))
    assert left["ar1"].default_policy.high_level == AR1(0.95)
    assert left["distral"].algorithm.entropy_cost == 0
    assert left["distral"].algorithm.distillation_cost == 1.0
    assert centre["ar1"].default_policy.high_level == AR1(0.9)
    assert (centre["ar1"].algorithm.kl_cost, centre["ar1"].algorithm.entropy_cost) == (1e-4, 0)
    assert network(centre["isotropic"]) == (200, 100)
    assert centre["svg0"].algorithm.entropy_cost == 1e-3
    assert right["distral"].algorithm.distillation_cost == 0.1
    assert network(right["ar_learned"]) == (200, 4)
    assert {variant.num_seeds for variants in (left, centre, right) for variant in variants.values()} == {5}


def test_body_transfers_have_appendix_gs_numbers():
    """G.2's last paragraphs: a network for the agent from scratch alone, costs for the transferred alone."""
    figures = {column: load_variants(f"figure-11{column}") for column in "abcd"}
    for column, pretrained, from_scratch in (
        ("a", "ball", (100, 4)),
        ("b", "ball", (100, 4)),
        ("c", "ant", (20,)),
        ("d", "ant", (200, 10)),
    ):
        variants = figures[column]
        assert network(variants["from_scratch"]) == from_scratch
        for name in (pretrained, "with_kl", "without_kl"):
            assert network(variants[name]) == (200, 10)
        assert variants[pretrained].algorithm.entropy_cost == 1e-4
        boxes = {"boxes": MLPEncoderFields(sizes=(50,))}
        assert variants[pretrained].encoders == (boxes if column in "bd" else {})
    assert figures["b"]["with_kl"].algorithm.kl_cost == 1e-5
    transferred = figures["d"]["with_kl"].algorithm
    assert (transferred.kl_cost, transferred.entropy_cost) == (1e-2, 1e-5)


def test_all_is_every_vector_without_an_encoder_of_its_own():
    recipe = change(
        load_recipe("ball-go-to-target"), encoders={"all": "normalized", "targets": {"sizes": [5]}}
    )
    resolved = resolve(recipe)
    normalized = dict.fromkeys(("proprioception", "instruction"), NormalizedFields())
    assert resolved.encoders == {"targets": MLPEncoderFields(sizes=(5,)), **normalized}
    assert resolve(resolved) == resolved
    assert resolve(change(resolved, encoders={"all": "normalized"})).encoders == resolved.encoders


def write(folder, name, text):
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_recipe_extends_another_table_by_table(tmp_path):
    write(tmp_path, "base", 'environment = "ant-gap"\nseed = 3\n[algorithm]\nkl_cost = 0.5\ndiscount = 0.9')
    given = write(tmp_path, "mine", 'extends = "base.toml"\n[algorithm]\nkl_cost = 0.1')
    recipe = load_recipe(given)
    assert (recipe.name, recipe.environment, recipe.seed) == ("mine", "ant-gap", 3)
    assert (recipe.algorithm.kl_cost, recipe.algorithm.discount) == (0.1, 0.9)


def test_variants_change_what_they_name(tmp_path):
    text = 'extends = "ball-go-to-target"\n[variants.a]\n[variants.b]\nseed = 5\nalgorithm = {kl_cost = 0}'
    given = write(tmp_path, "mine", text)
    a, b = load_recipe(f"{given}:a"), load_recipe(f"{given}:b")
    base = load_recipe("ball-go-to-target")
    assert a == dataclasses.replace(base, name="mine:a")
    assert (b.seed, b.algorithm) == (5, dataclasses.replace(base.algorithm, kl_cost=0.0))


@pytest.mark.parametrize(
    ("text", "variant", "expected"),
    [
        ("[variants.a]\nsed = 5", ":a", "variant a: unknown field 'sed'; did you mean seed"),
        ("[variants.a]\n[variants.b]", "", "is several recipes; name one: .*:a or :b"),
        ("[variants.ab]", ":ac", "unknown variant 'ac'; did you mean ab"),
        ("", ":a", "unknown variant 'a'"),
        ("[variants]", "", "variants must be tables"),
        ("variants = 3", "", "variants must be tables"),
        ('extends = "mine.toml"', "", "extends itself"),
        ('extends = "cube"', "", "unknown recipe 'cube'; known: ant-go-to-near-target"),
    ],
)
def test_mistakes_in_variants_are_told(tmp_path, text, variant, expected):
    given = write(tmp_path, "mine", 'environment = "ball-go-to-target"\n' + text)
    with pytest.raises(UserError, match=expected):
        load_recipe(given + variant)


def test_num_envs_fits_the_device():
    recipe = dataclasses.replace(load_recipe("ball-go-to-target"), num_envs=None)
    assert resolve(recipe).num_envs in (256, 4096)
    assert resolve(dataclasses.replace(recipe, num_envs=7)).num_envs == 7


def test_an_integer_is_a_number_and_a_bool_is_not():
    table = {"environment": "ball-go-to-target"}
    assert recipe_from_table({**table, "algorithm": {"kl_cost": 1}}, "here").algorithm.kl_cost == 1.0
    with pytest.raises(UserError, match="kl_cost"):
        recipe_from_table({**table, "algorithm": {"kl_cost": True}}, "here")


@pytest.mark.parametrize(
    "name", ["ball-go-to-target", "figure-3-left:ar1", "ant-to-gap:shared", "grid-1-step"]
)
def test_a_card_gives_the_command_of_an_unchanged_recipe_alone(name):
    recipe = resolve(load_recipe(name))
    assert card.is_as_named(dataclasses.replace(recipe, seed=3, num_devices=2))
    assert card.is_as_named(dataclasses.replace(recipe, evaluation_interval=51_200))  # the agent is the same
    assert not card.is_as_named(dataclasses.replace(recipe, total_env_steps=7))
    algorithm = dataclasses.replace(recipe.algorithm, kl_cost=0.7)
    assert not card.is_as_named(dataclasses.replace(recipe, algorithm=algorithm))


def test_a_variants_world_may_lie_beside_its_recipe(tmp_path):
    (tmp_path / "near.toml").write_text('extends = "ball-go-to-target"')
    (tmp_path / "two.toml").write_text(
        'environment = "ball-go-to-target"\n[variants.near]\nenvironment = "near.toml"\n[variants.far]'
    )
    recipes = load_variants(str(tmp_path / "two.toml"))
    assert recipes["near"].environment == str(tmp_path / "near.toml")
    assert recipes["far"].environment == "ball-go-to-target"


def test_a_variant_loads_though_the_file_of_another_is_gone(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'extends = "grid-1-step"\n[variants.there]\nseed = 3\n'
        '[variants.gone]\ndefault_policy = { high_level = "gone.py:Prior" }\n'
    )
    assert load_recipe(f"{path}:there").seed == 3
    with pytest.raises(UserError, match=rf"{tmp_path}/gone.py does not exist"):
        load_recipe(f"{path}:gone")
    with pytest.raises(UserError, match="is several recipes; name one"):
        load_recipe(str(path))


def test_a_recipes_environment_is_known_by_its_name_its_file_and_its_run(tmp_path):
    recipe = load_recipe("ball-to-ant:ball")
    (tmp_path / "recipe.toml").write_text(recipe_to_toml(recipe))
    (tmp_path / "mine.toml").write_text('extends = "grid-1-step"\nnum_envs = 8')
    (tmp_path / "world.toml").write_text('extends = "ball-go-to-target"\nupright = 0.1')
    known = {
        "ball-to-ant:ball": recipe.environment,
        str(tmp_path): recipe.environment,
        str(tmp_path / "mine.toml"): "grid-1-step",
        str(tmp_path / "world.toml"): str(tmp_path / "world.toml"),
        "ball-go-to-target": "ball-go-to-target",
        "nothing": "nothing",
    }
    assert {given: environment_name(given) for given in known} == known
