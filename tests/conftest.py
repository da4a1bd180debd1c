"""Shapes in annotations are checked in every test; everything small is built here once."""

import os

os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.expanduser("~/.cache/mjx-hkl/jax"))
# Most of the suite's time is compilation of programs that run once: half of it without LLVM's optimizations.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)

from jaxtyping import install_import_hook

# Pure functions only: a pytree class also holds shapes, axes and such, which its annotations do not say.
CHECKED = (
    "math",
    "models.agent",
    "models.critics",
    "models.default_low_levels",
    "models.encoders",
    "models.high_levels",
    "models.low_levels",
    "models.networks",
    "models.priors",
    "algorithms.svg",
    "algorithms.actor_critic",
    "algorithms.hierarchy",
    "environments.placement",
)
install_import_hook([f"mjx_hkl.{module}" for module in CHECKED], "beartype.beartype")

import dataclasses

import jax
import pytest
import selection
from crashes import pytest_runtest_logreport, pytest_testnodedown  # noqa: F401
from selection import pytest_addoption, pytest_runtest_setup  # noqa: F401

from mjx_hkl.training import devices

devices.use_compilation_cache()


def pytest_collection_modifyitems(config, items):
    selection.pytest_collection_modifyitems(config, items)
    if jax.default_backend() != "cpu":
        return
    skip = pytest.mark.skip(reason="needs an accelerator; this machine has none")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory):
    """Where training notes code that may run: not in the user's own home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="module", autouse=True)
def compiled_programs():
    """Dropped after each file: a process that keeps thousands runs out of memory maps, and dies."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def ball():
    """The Ball's go-to-target environment, unvectorized."""
    from loading import physics_environment

    from mjx_hkl.environments import PhysicsWorld

    return PhysicsWorld(physics_environment("ball-go-to-target"))


@pytest.fixture(scope="session")
def tiny_recipe():
    """A real recipe shrunk until a train step takes milliseconds."""
    from mjx_hkl.experiments.build import resolve
    from mjx_hkl.experiments.recipe import load_recipe
    from mjx_hkl.models.config import PolicyConfig
    from mjx_hkl.models.high_levels import MLPHighLevelFields
    from mjx_hkl.models.low_levels import MLPLowLevelFields

    recipe = resolve(load_recipe("ball-go-to-target-plain"))
    return dataclasses.replace(
        recipe,
        name="tiny",
        num_envs=4,
        total_env_steps=160,
        log_interval=40,
        replay_capacity=200,
        min_replay=80,
        evaluation_episodes=4,
        policy=PolicyConfig(
            MLPHighLevelFields(latent_size=2, sizes=(8,)), MLPLowLevelFields(sizes=(8,)), "gaussian"
        ),
        critic=dataclasses.replace(recipe.critic, sizes=(8, 8)),
        algorithm=dataclasses.replace(
            recipe.algorithm,
            unroll_length=5,
            batch_size=4,
            replay_ratio=2.0,
            target_update_period=3,
            learning_rate_decay=0.0,  # a share of the run: runs of other lengths would be other programs
        ),
    )


@pytest.fixture(scope="session")
def flat_recipe(tiny_recipe):
    """The SVG-0 baseline, as small."""
    from mjx_hkl.models.config import DefaultPolicyConfig
    from mjx_hkl.models.default_low_levels import NoDefault
    from mjx_hkl.models.high_levels import NoHighLevel

    return dataclasses.replace(
        tiny_recipe,
        num_envs=1,
        algorithm=dataclasses.replace(tiny_recipe.algorithm, replay_ratio=8.0),
        min_replay=20,
        information=dataclasses.replace(
            tiny_recipe.information, low_level=("proprioception", "targets", "instruction")
        ),
        policy=dataclasses.replace(tiny_recipe.policy, high_level=NoHighLevel()),
        default_policy=DefaultPolicyConfig(low_level=NoDefault()),
    )
